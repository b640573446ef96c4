"""Whatever a store answers: the download is complete, tried again, or given up with one line; memory stays small."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tap_braze_export.errors import ExportError
from tap_braze_export.files.download import Download
from tap_braze_export.http.session import Session
from tests.support.fakes import Answer, FakeClock, Server, endless
from tests.support.memory import less_memory_than
from tests.support.night import at_night

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

CONTENT = b"0123456789"
MIB = 2**20


def attempts(server: Server, session: Session, folder: Path, url: str = "", *, free: int = 2**40) -> str:
    """How a download of at most thirty attempts ends: as complete, still tried again, or with a line."""
    try:
        download = Download(
            url or f"{server.url}/users.zip?sig=topsecret",
            path=folder / "object",
            session=session,
            clock=FakeClock(),
            deadline=2e9,
            free=lambda _: free,
        )
        for _ in range(30):
            if download.attempt():
                return "complete"
    except ExportError as error:
        assert "\n" not in str(error)  # noqa: PT017 - any end is one of three
        assert "topsecret" not in str(error)  # noqa: PT017
        return str(error)
    return "tried again"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 400, 401, 403, 404, 410, 429, 500, 503])
def test_endless_body_of_no_file_costs_no_memory(server: Server, session: Session, tmp_path: Path, status: int) -> None:
    """The body of a redirect and of an error; the file that a redirect leads to is read."""
    server.answers = [endless(status, Location="/there"), (200, {}, CONTENT)]

    with less_memory_than(16 * MIB):
        attempts(server, session, tmp_path)


def test_compressed_error_is_read_up_to_its_limit(server: Server, session: Session, tmp_path: Path) -> None:
    bomb = gzip.compress(b"Request has expired" + bytes(50 * MIB))
    server.answers = [(403, {"Content-Encoding": "gzip"}, bomb)]

    with less_memory_than(16 * MIB):
        said = attempts(server, session, tmp_path)
    assert said.startswith("the link to users.zip has expired")


@pytest.mark.parametrize(
    "address",
    at_night(
        [
            "http://[::1",
            "http://.bad..host./",
            "http://\xff\xfe/",
            "/\xff",
            "http://a:b/",
            "file:///etc/passwd",
            "//",
            "/",
        ],
        but=["http://[::1", "file:///etc/passwd"],
    ),
)
def test_redirect_to_no_address_is_tried_again_then_given_up(
    server: Server, session: Session, tmp_path: Path, address: str
) -> None:
    server.answers = [(302, {"Location": address}, b"")]

    assert attempts(server, session, tmp_path).startswith("users.zip could not be fetched 20 times in a row")


@pytest.mark.parametrize(
    "length", ["9" * 5_000, "9" * 19, "-1", "1e3", "\xb2", "10, 10", "", " 10", "0x10", "10", "9" * 18]
)
def test_any_announced_length(server: Server, session: Session, tmp_path: Path, length: str) -> None:
    """One that is no number says nothing; one that is more than the disk has is told."""
    server.answers = [(200, {"Content-Length": length, "Connection": "close"}, CONTENT)]

    said = attempts(server, session, tmp_path)

    assert said == "complete" or said.startswith(("the disk of ", "users.zip could not be fetched 20 times"))


@pytest.mark.parametrize("value", ["bytes 4-9/" + "9" * 5_000, "bytes " + "9" * 5_000 + "-9/10", "bytes */10", "\xff"])
def test_any_content_range(server: Server, session: Session, tmp_path: Path, value: str) -> None:
    broken: Answer = (200, {"ETag": '"v"', "Content-Length": "10", "Connection": "close"}, CONTENT[:4])
    server.answers = [broken, (206, {"ETag": '"v"', "Content-Range": value}, CONTENT[4:]), (200, {}, CONTENT)]

    assert attempts(server, session, tmp_path) == "complete"
    assert (tmp_path / "object").read_bytes() == CONTENT


@pytest.mark.parametrize("etag", ["\xa0x", "\xff", "a\x01b", "\t"])
def test_etag_that_cannot_be_sent_back_starts_over(server: Server, session: Session, tmp_path: Path, etag: str) -> None:
    broken: Answer = (200, {"ETag": etag, "Content-Length": "10", "Connection": "close"}, CONTENT[:4])
    server.answers = [broken, (200, {}, CONTENT)]

    assert attempts(server, session, tmp_path) == "complete"
    assert server.seen[1].headers["Range"] is None


def test_deep_sidecar_starts_over(server: Server, session: Session, tmp_path: Path) -> None:
    (tmp_path / "object.part").write_bytes(b"0123")
    (tmp_path / "object.part.json").write_bytes(b"[" * 100_000)
    server.answers = [(200, {}, CONTENT)]

    assert attempts(server, session, tmp_path) == "complete"


HEADERS = st.dictionaries(
    st.sampled_from(
        ["Content-Length", "Content-Range", "ETag", "Location", "Transfer-Encoding", "Content-Encoding", "Set-Cookie"]
    ),
    st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=12)
    | st.sampled_from(["10", "chunked", "gzip", "http://[", "/x", '"v"', "bytes 0-9/10", "a=b; expires=Thu"]),
)
ANSWERS = st.tuples(st.sampled_from([200, 206, 302, 403, 416, 500]), HEADERS, st.binary(max_size=20))


@given(st.lists(ANSWERS, min_size=1, max_size=4))
@settings(max_examples=60, deadline=None, suppress_health_check=[*HealthCheck])
def test_any_answers(
    tmp_path_factory: pytest.TempPathFactory, answers: list[tuple[int, dict[str, str], bytes]]
) -> None:
    """Connections are closed after each, lest a wrong length makes the next one wait."""
    with Server() as server, Session() as session:
        server.answers = [(status, {**headers, "Connection": "close"}, body) for status, headers, body in answers]
        attempts(server, session, tmp_path_factory.mktemp("download"))


@given(st.text(max_size=20) | st.text(max_size=20).map(lambda text: f"http://127.0.0.1:9/{text}"))
@settings(max_examples=80, deadline=None, suppress_health_check=[*HealthCheck])
def test_any_address(tmp_path_factory: pytest.TempPathFactory, url: str) -> None:
    with Session() as session:
        try:
            name = Download(
                url, path=tmp_path_factory.getbasetemp(), session=session, clock=FakeClock(), deadline=0
            ).name
        except ExportError as error:
            assert str(error) == "Braze's download url is no http address: run again for a new export"  # noqa: PT017
        else:
            assert name.isprintable()
