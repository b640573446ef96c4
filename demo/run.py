"""The demo: a sandbox Braze, one `meltano run` into DuckDB, and three answers in SQL."""  # noqa: INP001

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "output" / "demo"
DATABASE = FOLDER / "demo.duckdb"
MELTANO = ROOT / ".cache" / "meltano" / "bin" / "meltano"
LOADER_PYTHON = ROOT / ".meltano" / "loaders" / "target-duckdb" / "venv" / "bin" / "python"
USERS = 20_000
START_SECONDS = 60
STOP_SECONDS = 10


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _fail(text: str) -> NoReturn:
    raise SystemExit(f"demo: {text}")


def _stop(process: subprocess.Popen[str]) -> None:
    """Wait for a process that is ending; make it end if it does not."""
    for end in (process.terminate, process.kill):
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            end()
    process.wait()


@contextmanager
def _sandbox() -> Iterator[dict[str, str]]:
    """Start the sandbox, yield the environment that points the tap at it, and stop it by its pid."""
    ready, log = FOLDER / "sandbox.json", FOLDER / "sandbox.log"
    ready.unlink(missing_ok=True)
    # Without delay: an export is ready when it is written, so the demo waits for nothing but work.
    command = ["--users", str(USERS), "--seed", "1", "--delay", "0", "--ready-file", str(ready)]
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(  # noqa: S603
            [str(Path(sys.executable).with_name("braze-sandbox")), *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is for us: we stop the sandbox when the pipeline has ended.
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                _fail(f"the sandbox did not start; its last words are in {log}")
            threading.Event().wait(0.05)
        facts = json.loads(ready.read_text(encoding="utf-8"))
        yield {
            "TAP_BRAZE_EXPORT_API_URL": facts["api_url"],
            "TAP_BRAZE_EXPORT_API_KEY": facts["api_key"],
            "TAP_BRAZE_EXPORT_SEGMENT_IDS": json.dumps(facts["segment_ids"][:1]),
        }
    finally:
        process.terminate()
        _stop(process)


def _meltano(environment: dict[str, str]) -> str:
    """Run the pipeline, its log on the terminal as it comes, and return that log."""
    ours = {
        "TAP_BRAZE_EXPORT_SPOOL_DIR": str(FOLDER / "spool"),
        "TAP_BRAZE_EXPORT_POLL_INTERVAL_SECONDS": "1",
        "TARGET_DUCKDB_FILEPATH": str(DATABASE),
        # With each load, however small, DuckDB works out the CSV file's dialect anew: every table is loaded once. A
        # second thread of DuckDB would only compete with the tap and Meltano.
        "TARGET_DUCKDB_BATCH_SIZE_ROWS": "150000",
        "TARGET_DUCKDB_SETTINGS": json.dumps({"threads": 1}),
        # Bookmarks of the demo stay with the demo's files.
        "MELTANO_DATABASE_URI": f"sqlite:///{FOLDER / 'meltano.db'}",
    }
    process = subprocess.Popen(  # noqa: S603
        [str(MELTANO), "run", "demo"],
        cwd=ROOT,
        env={**os.environ, **ours, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    lines = []
    try:
        for line in process.stdout or ():
            lines.append(line)
            _say("  " + line.rstrip())
    except BaseException:
        process.terminate()
        raise
    finally:
        _stop(process)
    if process.returncode != 0:
        _fail("the pipeline failed; the lines above say why")
    return "".join(lines)


def main() -> None:
    """Run the demo; what it starts ends with it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if FOLDER.exists():
            shutil.rmtree(FOLDER)  # Whatever became of an earlier demo, this one starts afresh.
        FOLDER.mkdir(parents=True)
    except OSError as error:
        _fail(f"{FOLDER.relative_to(ROOT)} cannot be emptied: {error}")
    _say(f"A sandbox Braze with {USERS:,} users -> tap-braze-export -> {DATABASE.relative_to(ROOT)}")
    with _sandbox() as environment:
        began = time.monotonic()
        log = _meltano(environment)
        seconds = time.monotonic() - began
    _say("")
    show = [
        str(LOADER_PYTHON),
        str(ROOT / "demo" / "show.py"),
        str(DATABASE),
        str(ROOT / "demo" / "answers.sql"),
    ]
    if subprocess.run(show, check=False).returncode != 0:  # noqa: S603
        _fail("the answers could not be read")
    speeds = re.findall(r"([\d,]+) users a second", log)
    read = f"; the tap alone read {speeds[-1]} users a second" if speeds else ""
    _say(f"The pipeline took {seconds:.1f} seconds{read}.")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
