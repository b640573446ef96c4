"""The tap's HTTP sessions: proxies of the environment, and never a .netrc, on no hop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tap_braze_export.braze.client import Braze
from tap_braze_export.files.download import Download
from tap_braze_export.http.session import Session
from tests.support.braze_calls import ALL, KEY, SUCCESS
from tests.support.fakes import Server, as_json
from tests.support.runs import selecting, sync
from tests.support.tls import set_only

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.fakes import FakeClock


@pytest.fixture
def other() -> Iterator[Server]:
    """Another host, as far as credentials go: another port."""
    with Server() as other:
        other.answers = [(200, {}, b"content")]
        yield other


@pytest.fixture(
    autouse=True, params=["default login somebody password else\n", "machine @ login somebody password else\n"]
)
def netrc(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A .netrc that names credentials for every host, or for this machine."""
    path = tmp_path / "netrc"
    path.write_text(f"{request.param} login somebody password else\n")
    monkeypatch.setenv("NETRC", str(path))


@pytest.mark.parametrize("call", ALL)
def test_calls_carry_the_key_and_nothing_of_a_netrc(
    server: Server, clock: FakeClock, call: Callable[[Braze], object]
) -> None:
    server.answers = [as_json(SUCCESS)]

    call(Braze(server.url, KEY, clock=clock))

    assert server.seen[0].headers["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("hops", [0, 1, 3])
def test_downloads_carry_no_credentials_on_any_hop(
    server: Server, other: Server, clock: FakeClock, tmp_path: Path, *, status: int, hops: int
) -> None:
    """The store would refuse a signed address that comes with others."""
    here = [(status, {"Location": "/again"}, b"")] * max(0, hops - 1)
    away = [(status, {"Location": f"{other.url}/users.zip"}, b"")] if hops else [(200, {}, b"content")]
    server.answers = [*here, *away]
    path = tmp_path / "object"
    with Session() as session:
        download = Download(
            f"{server.url}/a.zip?Signature=x", path=path, session=session, clock=clock, deadline=clock.elapsed + 60
        )
        assert download.attempt()

    assert path.read_bytes() == b"content"
    seen = [*server.seen, *other.seen]
    assert len(seen) == hops + 1
    assert [request.headers["Authorization"] for request in seen] == [None] * len(seen)


def test_a_run_sends_no_credentials_of_a_netrc(server: Server, other: Server, clock: FakeClock, tmp_path: Path) -> None:
    """The session that a run makes for its downloads, redirected to another host."""
    prefix = f"bb8e2a91-c4aa-478b-b3f2-a4ee91731ad1-{int(clock.time)}"
    server.answers = [
        as_json({"object_prefix": prefix, "url": f"{server.url}/users.zip"}),
        (302, {"Location": f"{other.url}/users.zip"}, b""),
        as_json({}, 403),
    ]
    other.answers = [(400, {}, b"")]
    config = {"api_url": server.url, "api_key": KEY, "segment_ids": ["s"], "spool_dir": str(tmp_path / "spool")}

    sync(config, clock=clock, catalog=selecting(["users", "export_files"]), fails=True)

    assert other.seen
    assert [request.headers["Authorization"] for request in other.seen] == [None] * len(other.seen)
    assert server.seen[1].headers["Authorization"] is None


def test_credentials_of_a_request_stay_with_its_host(server: Server, other: Server) -> None:
    server.answers = [(302, {"Location": "/again"}, b""), (302, {"Location": other.url}, b"")]
    with Session() as session:
        session.get(server.url, headers={"Authorization": "Bearer x"}, timeout=9)

    assert [seen.headers["Authorization"] for seen in [*server.seen, *other.seen]] == ["Bearer x", "Bearer x", None]


def test_proxies_of_the_environment_count(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    set_only(monkeypatch)
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "")
    server.answers = [(200, {}, b"by proxy")]
    with Session() as session:
        assert session.get("http://store.example.org/a.zip", timeout=9).content == b"by proxy"

    assert server.seen[0].path == "http://store.example.org/a.zip"
