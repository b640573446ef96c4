"""Nothing that leaves the command holds a secret or personal data, but RECORD messages and batch files do."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import pytest

from tap_braze_export.sandbox import Sandbox
from tests.support.fakes import Server
from tests.support.faults import GOOD_ZIP, Front, Trial, cut, download, first_download, replies, start
from tests.support.night import at_night
from tests.support.runs import COMMAND, SECONDS, environment, selecting, written
from tests.support.workers import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.faults import Exchange

    Spoil = Callable[[Exchange], object]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc, which is Linux's"),
]

KEY, BUCKET_SECRET = "planted-api-key", "planted-bucket-secret"
NAME, DOMAIN, PHONE = "Plantedname", "planted.example.com", "+49151000"
SECRETS = {"the API key": KEY, "a bucket option": BUCKET_SECRET, "a signature": "X-Amz-Signature"}
PERSONAL = {"a name": NAME, "an e-mail": DOMAIN, "a telephone number": PHONE, "a braze_id": "planted-braze-id"}
ALL = {**SECRETS, **PERSONAL}
_PIPE_BYTES = 65536
USERS: list[dict[str, Any]] = [
    {
        "braze_id": f"planted-braze-id-{number}",
        "external_id": f"planted-braze-id-external-{number}",
        "first_name": f"{NAME}{number}",
        "email": f"somebody{number}@{DOMAIN}",
        "phone": f"{PHONE}{number}",
        "custom_attributes": {"nick": f"{NAME}-{number}" * 20},
    }
    for number in range(600)
]
ODD_LINE = json.dumps(
    {"braze_id": "planted-braze-id-odd", f"nobody@{DOMAIN}": NAME, PHONE: 1, USERS[0]["braze_id"]: []}
)
"""A user whose members have personal data for names: it is rescued."""
FILES: list[list[Any]] = [[*USERS[:200], ODD_LINE.encode()], USERS[200:400], USERS[400:]]
BAD_LINE = f'{{"braze_id": "planted-braze-id", "email": "somebody@{DOMAIN}", '.encode()
PAGE = f"<html>Authorization: Bearer {KEY} of somebody1@{DOMAIN} X-Amz-Signature=1</html>".encode()


def _command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def found(content: bytes, markers: dict[str, str]) -> list[str]:
    """The markers that stand in some content."""
    return [kind for kind, marker in markers.items() if marker.encode() in content]


@dataclass
class Leaks:
    """Gathers what stands where it should not."""

    found: list[tuple[str, str]] = field(default_factory=list)

    def look(self, place: str, content: bytes | str, markers: dict[str, str] = ALL) -> None:
        """Look for markers."""
        content = content.encode() if isinstance(content, str) else content
        self.found += [(place, kind) for kind in found(content, markers)]

    def look_at_process(self, pid: int, *, is_worker: bool) -> None:
        """Look at the title, the arguments and, of a worker, the environment of a process."""
        process = Path("/proc") / str(pid)
        kind = "a worker" if is_worker else "the tap"
        for name in ("cmdline", "comm", *(["environ"] if is_worker else [])):
            self.look(f"{name} of {kind}", (process / name).read_bytes())
        for thread in (process / "task").iterdir():
            self.look(f"a thread's name in {kind}", (thread / "comm").read_bytes())

    def look_at_spool(self, spool: Path) -> None:
        """Look at the names of all files, and into all that hold no profiles; nothing is readable to others."""
        for path in [spool, *spool.rglob("*")]:
            relative = path.relative_to(spool).as_posix()
            self.look(f"the name {relative}", relative)
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), relative
            if path.is_dir() or relative.startswith(("exports/", "rejected/", "runs/")):
                continue
            kept = {kind: marker for kind, marker in ALL.items() if kind != "a signature" or "journal/" not in relative}
            self.look(relative, path.read_bytes(), kept)

    def look_at_page(self, page: Path) -> None:
        """Look at the page that a run has written, which others cannot read either."""
        assert stat.S_IMODE(page.stat().st_mode) == 0o600
        self.look("the page", page.read_bytes())

    def look_at_fingerprints(self, folder: Path) -> None:
        """Look at the names and contents of fingerprints, which are ids and hashes."""
        markers = {kind: marker for kind, marker in ALL.items() if kind != "a braze_id"}
        for path in folder.rglob("*"):
            self.look(f"the name {path.name}", path.name, markers)
            if path.is_file():
                self.look(f"fingerprints {path.name}", path.read_bytes(), markers)


class Watched:
    """The command at level DEBUG, with the secrets in its environment; a context manager."""

    def __init__(self, folder: Path, config: dict[str, Any], **variables: str) -> None:
        self.log = folder / "log.txt"
        catalog = written(folder, selecting(["users", "segment_members", "export_files"]), "catalog.json")
        arguments = ["--config", written(folder, config), "--config=ENV", "--catalog", catalog]
        secret = {
            "TAP_BRAZE_EXPORT_API_KEY": KEY,
            "TAP_BRAZE_EXPORT_BUCKET_OPTIONS": json.dumps({"secret": BUCKET_SECRET}),
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [COMMAND, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment(LOGLEVEL="DEBUG", **secret, **variables),
            )
        self.output = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout
        self.process.stdout.close()

    def read_until_rows(self) -> None:
        """Read to the first row, so that the command goes on until the pipe is full, or to the end."""
        assert self.process.stdout
        while b'"type":"RECORD"' not in self.output:
            piece = os.read(self.process.stdout.fileno(), _PIPE_BYTES)
            if not piece:
                return
            self.output += piece

    def read_to_end(self) -> int:
        """Read the rest; returns the exit code."""
        rest, _ = self.process.communicate(timeout=SECONDS)
        self.output += rest
        return self.process.returncode

    @property
    def workers(self) -> list[int]:
        """The processes that it has started, once each runs its program: until then it shows the tap's variables."""
        own = Path(f"/proc/{self.process.pid}")
        children = [int(pid) for path in own.glob("task/*/children") for pid in path.read_text().split()]
        wait_for(lambda: _command_line(self.process.pid) not in map(_command_line, children))
        return children

    def messages(self) -> Iterator[bytes]:
        """All that it wrote but for RECORD messages."""
        return (line for line in self.output.splitlines() if not line.startswith(b'{"type":"RECORD"'))


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        pytest.param(lambda _: None, 0, id="nothing fails"),
        pytest.param(first_download(cut(0.5)), 0, id="download breaks off", marks=pytest.mark.night),
        pytest.param(first_download(replies(503, PAGE)), 0, id="store fails once", marks=pytest.mark.night),
        pytest.param(
            lambda exchange: exchange.headers.update({"no header\r\nX": "x"}),
            0,
            id="line that is no header",
            marks=pytest.mark.night,
        ),
        pytest.param(download(replies(200, PAGE)), 1, id="page in place of the file", marks=pytest.mark.night),
        pytest.param(download(replies(400, PAGE)), 1, id="store refuses"),
        pytest.param(start(replies(400, PAGE)), 1, id="request is refused", marks=pytest.mark.night),
        pytest.param(start(replies(401, PAGE)), 1, id="key is refused", marks=pytest.mark.night),
        pytest.param(start(replies(201, PAGE)), 1, id="answer is no JSON", marks=pytest.mark.night),
        pytest.param(start(replies(302, PAGE, Location=f"http://127.0.0.1:9/?key={KEY}")), 1, id="redirect"),
    ],
)
def test_export_behind_a_url(tmp_path: Path, spoil: Spoil, code: int) -> None:
    """Watched from its start to its end, with workers and fingerprints."""
    watch(tmp_path, spoil, FILES, code)


@pytest.mark.parametrize(
    "lines", [[BAD_LINE, b"\xff" + BAD_LINE], pytest.param([b"[" * 5000, BAD_LINE], marks=pytest.mark.night)]
)
def test_lines_that_are_kept(tmp_path: Path, lines: list[bytes]) -> None:
    """They stand in the file of rejected lines, which is private, and nowhere else."""
    watch(tmp_path, lambda _: None, [[*FILES[0], *lines], *FILES[1:]], 1)
    (kept,) = (tmp_path / "spool" / "rejected").iterdir()
    assert DOMAIN.encode() in kept.read_bytes()


def test_export_in_a_bucket(tmp_path: Path) -> None:
    (tmp_path / "bucket").mkdir()
    watch(tmp_path, lambda _: None, FILES, 0, bucket=tmp_path / "bucket", settle_minutes=0)


def test_resync(tmp_path: Path) -> None:
    """Of people whose identifiers are secrets, too."""
    emails = [user["email"] for user in USERS[:300]]
    watch(tmp_path, lambda _: None, FILES, 0, emails=[*emails, f"nobody@{DOMAIN}"], external_ids=[NAME])


def watch(folder: Path, spoil: Spoil, files: list[Any], code: int, *, bucket: Path | None = None, **more: Any) -> None:
    """Run the command and look at all that leaves it, while its output waits for a reader and at its end."""
    leaks = Leaks()
    with (
        Sandbox(users=0, api_keys=[KEY], bucket_url=str(bucket) if bucket else None, ids_limit=60_000) as sandbox,
        Front(spoil) as rest,
        Front(spoil) as store,
    ):
        sandbox.add_segment("segment", files=files)
        rest.target, store.target = sandbox.api_url, sandbox.workspace.download_url
        sandbox.workspace.download_url = store.url
        config = {
            "api_url": rest.url,
            "segment_ids": ["segment"],
            "spool_dir": str(folder / "spool"),
            "fingerprints_url": str(folder / "fingerprints"),
            "report_path": str(folder / "page.html"),
            "workers": 2,
            "poll_interval_seconds": 1,
            **({"bucket_url": str(bucket)} if bucket else {}),
            **more,
        }
        with Watched(folder, config) as tap:
            tap.read_until_rows()
            if b"RECORD" in tap.output:
                workers = tap.workers
                assert workers or "emails" in more or bucket  # in a bucket the next file may not have come yet
                leaks.look_at_process(tap.process.pid, is_worker=False)
                for worker in workers:
                    leaks.look_at_process(worker, is_worker=True)
                leaks.look_at_spool(folder / "spool")
            assert tap.read_to_end() == code, tap.log.read_text()
        hosts = {urlsplit(server.url).netloc: server.seen for server in (rest, store)}
    leaks.look("the log", tap.log.read_bytes())
    for message in tap.messages():
        leaks.look("a message that is no RECORD", message)
    leaks.look_at_spool(folder / "spool")
    leaks.look_at_fingerprints(folder / "fingerprints")
    leaks.look_at_page(folder / "page.html")
    assert not leaks.found
    assert "DEBUG" in tap.log.read_text()
    assert "Traceback" not in tap.log.read_text()
    assert all(KEY in seen.headers["Authorization"] for seen in hosts[urlsplit(rest.url).netloc])
    assert not [seen for seen in hosts[urlsplit(store.url).netloc] if "Authorization" in seen.headers]


@pytest.mark.parametrize("status", at_night([301, 302, 303, 307, 308], but=[302, 307]))
def test_the_key_goes_to_api_url_only(tmp_path: Path, status: int) -> None:
    """Neither a redirect of Braze nor one of the store takes it, or anything else, to another host."""
    with Server() as other:
        other.answers = [(200, {}, GOOD_ZIP)]
        away = replies(status, Location=f"{other.url}/elsewhere.zip")
        with Trial(tmp_path / "start", start(away)) as trial:
            trial.fails(str(status))
            assert not other.seen
        with Trial(tmp_path / "download", download(away)) as trial:
            trial.delivers()
            keys = [seen.headers["Authorization"] for seen in trial.requests if ".zip" not in seen.path]
            sent = [seen.headers for seen in trial.requests if ".zip" in seen.path]
    assert {*keys} == {"Bearer sandbox-key"}
    assert other.seen
    for headers in (*sent, *(seen.headers for seen in other.seen)):
        assert not {"authorization", "cookie", "proxy-authorization"} & {name.lower() for name in headers}
