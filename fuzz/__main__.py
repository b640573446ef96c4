"""Runs the fuzzer on each target in a process of its own, or a target on one file: `python -m fuzz lines FILE`."""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
from pathlib import Path

_CORPUS = Path(".cache/fuzz")
_MAX_INPUT_BYTES = 4_096
_SLOWEST_SECONDS = 20
"""An input that takes longer is reported as a hang."""
_MAX_MEMORY_MIB = 1_500


def main() -> None:
    """Fuzz, or repeat an input that was found; exits with 1 if a target failed."""
    options = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    options.add_argument("target", nargs="?", help="one target; all of them by default")
    options.add_argument("file", nargs="?", type=Path, help="run the target on this file only")
    options.add_argument("--seconds", type=int, default=60, help="for each target")
    options.add_argument("--corpus", type=Path, default=_CORPUS, help="keeps the inputs that reach new code")
    options.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.here:
        _fuzz(given.target, given.corpus, given.seconds)
        return
    from fuzz.targets import TARGETS  # noqa: PLC0415 - not where the fuzzer instruments it

    if given.target and given.target not in TARGETS:
        options.error(f"the targets are {', '.join(TARGETS)}")
    if given.file:
        TARGETS[given.target](given.file.read_bytes())
        return
    failed = []
    for target in [given.target] if given.target else TARGETS:
        arguments = ["--here", "--seconds", str(given.seconds), "--corpus", str(given.corpus), target]
        done = subprocess.run([sys.executable, "-m", "fuzz", *arguments], check=False)  # noqa: S603 - this program
        if done.returncode:
            failed.append(target)
    if failed:
        sys.exit(f"Failed: {', '.join(failed)}. To repeat it: python -m fuzz TARGET {given.corpus}/TARGET-crash-…")


def _fuzz(name: str, corpus: Path, seconds: int) -> None:
    """Fuzz a target in this process, which ends with it."""
    import atheris  # noqa: PLC0415 - only the dependency group `fuzz` has it

    with atheris.instrument_imports(include=["tap_braze_export", "zipfile", "gzip", "csv"]):
        from fuzz.seeds import WORDS, seeds  # noqa: PLC0415
        from fuzz.targets import TARGETS  # noqa: PLC0415
        from tap_braze_export.http.certificates import OVER_BOTO, OVER_REQUESTS  # noqa: PLC0415
    logging.disable()
    for variable in {*OVER_REQUESTS, *OVER_BOTO}:
        os.environ.pop(variable, None)  # to read all certificates of this machine takes longer than a target
    folder = corpus / name
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(name)):
        (folder / f"seed-{number}").write_bytes(seed)
    words = corpus / f"{name}.dict"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in WORDS[name]))
    print(f"{name}: {seconds} s", file=sys.stderr)
    atheris.Setup(
        [
            sys.argv[0],
            str(folder),
            f"-dict={words}",
            f"-artifact_prefix={corpus}/{name}-",
            f"-max_total_time={seconds}",
            f"-max_len={max(_MAX_INPUT_BYTES, *map(len, seeds(name)))}",
            f"-timeout={_SLOWEST_SECONDS}",
            f"-rss_limit_mb={_MAX_MEMORY_MIB}",
            "-print_final_stats=1",
            "-verbosity=0",
        ],
        TARGETS[name],
    )
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


if __name__ == "__main__":
    main()
