"""`make bench`: one run, one table, one chart."""

from __future__ import annotations

import argparse
import subprocess
import sys
from itertools import chain

from benchmarks.cases import cases, loader_cases, sizes
from benchmarks.export import MOST_FOR_OTHERS, path_of
from benchmarks.measure import Result, measure
from benchmarks.nights import exports, load_cases, night_cases, version_cases
from benchmarks.report import write


def _main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer users, once each: for development, writes nothing")
    quick = parser.parse_args().quick
    users, times = (20_000, 1) if quick else (MOST_FOR_OTHERS, 5)
    growth = (5_000, 20_000) if quick else (20_000, 50_000, 500_000)
    ids, loaded = (200_000, 5_000) if quick else (20_000_000, MOST_FOR_OTHERS)
    for size, changed in {(0, 0), (5_000, 0), (20_000, 0), *((size, 0) for size in growth), *exports(users, loaded)}:
        if not path_of(size, changed).exists():
            subprocess.run([sys.executable, "-m", "benchmarks.export", str(size), str(changed)], check=True)
    results: dict[str, list[Result]] = {}
    # Interleaved: what else the machine does falls on all alike.
    for _ in range(times):
        for case in chain(cases(users), night_cases(users)):
            results.setdefault(case.name, []).append(measure(case))
    for case in chain(sizes(growth), load_cases(loaded), version_cases(ids)):
        results[case.name] = [measure(case)]
    for _ in range(1 if quick else 3):
        for case in loader_cases(5_000 if quick else 20_000):
            results.setdefault(case.name, []).append(measure(case))
    write(results, to_files=not quick)


if __name__ == "__main__":
    _main()
