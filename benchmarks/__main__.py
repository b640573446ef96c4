"""`make bench`: one run, one table, one chart."""

from __future__ import annotations

import argparse
import subprocess
import sys

from benchmarks.cases import cases, loader_cases, sizes
from benchmarks.export import MOST_FOR_OTHERS, path_of
from benchmarks.measure import Result, measure
from benchmarks.report import write


def _main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer users, once each: for development, writes nothing")
    quick = parser.parse_args().quick
    users, times = (20_000, 1) if quick else (MOST_FOR_OTHERS, 5)
    growth = (5_000, 20_000) if quick else (20_000, 50_000, 500_000)
    for size in {0, 5_000, users, 20_000, *growth}:
        if not path_of(size).exists():
            subprocess.run([sys.executable, "-m", "benchmarks.export", str(size)], check=True)
    results: dict[str, list[Result]] = {}
    # Interleaved: what else the machine does falls on all alike.
    for _ in range(times):
        for case in cases(users):
            results.setdefault(case.name, []).append(measure(case))
    for case in sizes(growth):
        results[case.name] = [measure(case)]
    for _ in range(1 if quick else 3):
        for case in loader_cases(5_000 if quick else 20_000):
            results.setdefault(case.name, []).append(measure(case))
    write(results, to_files=not quick)


if __name__ == "__main__":
    _main()
