"""The table, the chart and the machine that they were made on."""

from __future__ import annotations

import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from benchmarks import cases, nights
from benchmarks.export import path_of, updated_path
from benchmarks.measure import Result, middle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Results = Mapping[str, list[Result]]

DOCS = Path(__file__).parents[1] / "docs"
_BARS = (
    (cases.TAP_NAME, "#1f6feb"),
    (cases.ALL_STREAMS, "#1f6feb"),
    (cases.PLAIN, "#8b949e"),
    (cases.DUCKDB, "#8b949e"),
    (cases.FLOOR, "#8b949e"),
)


def write(results: Results, *, to_files: bool) -> None:
    """Print the table; write it with the chart."""
    text = "\n".join([*_table(results), "", *_targets(results), "", *_machine()])
    sys.stdout.write(text + "\n")
    if to_files:
        DOCS.mkdir(exist_ok=True)
        (DOCS / "benchmark.svg").write_text(_chart(results), "utf-8")
        (DOCS / "benchmark.md").write_text(f"{_HEAD}\n{text}\n", "utf-8")


_HEAD = """# Benchmark

![Users a second](benchmark.svg)

Made by `make bench`, all in one run. Exports are zips of the sandbox's users with every field, 4.6 KB a user, 5,000
users in a file; output goes to `/dev/null`. Each command runs whole; what it takes without a user, measured beside each
run, is taken off the rates. CPU rates are users a second of CPU time (of all threads and processes): on a busy machine
they are the ones to compare, and the targets are ratios of them, where nothing else is said. Medians of five rounds in
which all rows take turns; loaders three, sizes one. Peak memory is that of the largest process.

With fingerprints, the rows are those of a night after a first one, which is not measured. Nights into target-duckdb and
versions of made-up ids are measured once. A version is built by writing the parts of a night on which every twentieth
user has changed and, over the version of the night before, the next one; it is used by finding the users of every file.
"""
_FASTER_LOAD, _FEWER_BYTES, _VERSION_SECONDS, _VERSION_MIB = 10, 15, 300, 400
_SLOWER_PIPELINE, _PEAK_MIB, _PEAK_GROWTH = 1.15, 250, 0.1


def _table(results: Results) -> list[str]:
    lines = [
        "| | users | seconds | users/s | records/s | CPU s | users/s of CPU | CPU us/user | peak MiB |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, found in results.items():
        cpu, clock = middle(found, lambda r: r.cpu_a_user), middle(found, lambda r: r.a_user)
        lines.append(
            f"| {name} | {found[0].users:,} | {middle(found, lambda r: r.seconds):.2f} | {1e6 / clock:,.0f} "
            f"| {_records(found[0], clock)} "
            f"| {middle(found, lambda r: r.cpu_seconds):.2f} | {1e6 / cpu:,.0f} | {cpu:.1f} "
            f"| {middle(found, lambda r: r.peak_mib):.0f} |"
        )
    return lines


def _records(result: Result, clock: float) -> str:
    """Records a second, where the command counts them."""
    return f"{result.records / result.users / clock * 1e6:,.0f}" if result.records else "-"


def _ratio(results: Results, name: str, other: str, of: Callable[[Result], float]) -> float:
    """How many times as fast as another, the median of pairs."""
    return median(of(b) / of(a) for a, b in zip(results[name], results[other], strict=True))


def _targets(results: Results) -> list[str]:
    def cpu(result: Result) -> float:
        return result.cpu_a_user

    def clock(result: Result) -> float:
        return result.a_user

    wanted = [
        ("one worker, times the SDK's pattern", cases.TAP_NAME, cases.PLAIN, cpu, 25.0),
        ("one worker, times DuckDB on one thread", cases.TAP_NAME, cases.DUCKDB, cpu, 0.8),
        ("one worker, of the floor", cases.TAP_NAME, cases.FLOOR, cpu, 0.5),
        ("all streams, of the five streams", cases.ALL_STREAMS, cases.TAP_NAME, cpu, 0.65),
        ("two workers, times one, on the clock", cases.TWO_WORKERS, cases.TAP_NAME, clock, 1.5),
        ("BATCH JSONL, of RECORD", cases.BATCH, cases.TAP_NAME, cpu, 0.8),
        ("stream maps, times the SDK's pattern with them", cases.MAPPED, cases.PLAIN_MAPPED, cpu, 1.0),
        ("fingerprints: unchanged users, times changed ones", nights.UNCHANGED, nights.ALL_CHANGED, cpu, 3.0),
        ("incremental: 5 % changed, times all users, on the clock", nights.UPDATED, nights.WITHOUT, clock, 10.0),
    ]
    lines = ["| target | wanted | found | |", "|---|--:|--:|---|"]
    for text, name, other, of, least in wanted:
        found = _ratio(results, name, other, of)
        lines.append(f"| {text} | ≥ {least:g} | {found:.2f} | {_verdict(reached=found >= least)} |")
    if cases.PIPELINE in results:
        found = _ratio(results, cases.LOADER, cases.PIPELINE, clock)
        verdict = _verdict(reached=found <= _SLOWER_PIPELINE)
        lines.append(f"| `meltano run`, times the loader's own time, on the clock | ≤ 1.15 | {found:.2f} | {verdict} |")
    found = _ratio(results, nights.ALL_CHANGED, nights.WITHOUT, cpu)
    lines.append(f"| fingerprints: all users changed, of the rate without fingerprints | - | {found:.2f} | |")
    if nights.SMALL_LOAD in results:
        found = _ratio(results, nights.SMALL_LOAD, nights.FULL_LOAD, lambda result: result.seconds)
        verdict = _verdict(reached=found >= _FASTER_LOAD)
        text = "5 % changed into DuckDB, times all users, start to end on the clock"
        lines.append(f"| fingerprints: {text} | ≥ {_FASTER_LOAD:g} | {found:.1f} | {verdict} |")
        for kind, name, least in (
            ("incremental", nights.UPDATED_LOAD, _FASTER_LOAD),
            ("incremental, with fingerprints", nights.SMALLEST_LOAD, 2 * _FASTER_LOAD),
        ):
            found = _ratio(results, name, nights.FULL_LOAD, lambda result: result.seconds)
            lines.append(f"| {kind}: {text} | ≥ {least:g} | {found:.1f} | {_verdict(reached=found >= least)} |")
        users = results[nights.FULL_LOAD][0].users
        found = path_of(users, 5).stat().st_size / updated_path(users, 5).stat().st_size
        text = "incremental: bytes downloaded with 5 % changed, of all users' times fewer"
        lines.append(f"| {text} | ≥ {_FEWER_BYTES:g} | {found:.1f} | {_verdict(reached=found >= _FEWER_BYTES)} |")
    lines += _version_targets(results)
    sizes = [found for name, (found, *_) in results.items() if name.endswith(" users")]
    peaks = [found.peak_mib for found in sizes[-2:]]
    lines.append(f"| peak memory, MiB | ≤ 250 | {max(peaks):.0f} | {_verdict(reached=max(peaks) <= _PEAK_MIB)} |")
    grown = peaks[1] / peaks[0]
    text = f"peak memory, {sizes[-1].users:,} users to {sizes[-2].users:,}"
    lines.append(f"| {text} | 1 ± 0.1 | {grown:.2f} | {_verdict(reached=abs(grown - 1) <= _PEAK_GROWTH)} |")
    return lines


def _version_targets(results: Results) -> Iterator[str]:
    for name, (found, *_) in results.items():
        if name.startswith(nights.VERSION):
            text = f"fingerprints: {name}"
            reached = found.seconds <= _VERSION_SECONDS
            yield f"| {text}, seconds | ≤ {_VERSION_SECONDS} | {found.seconds:.0f} | {_verdict(reached=reached)} |"
            reached = found.peak_mib <= _VERSION_MIB
            yield f"| {text}, MiB | ≤ {_VERSION_MIB} | {found.peak_mib:.0f} | {_verdict(reached=reached)} |"


def _verdict(*, reached: bool) -> str:
    return "reached" if reached else "**missed**"


def _machine() -> list[str]:
    model = (
        next(
            (
                line.split(":")[1].strip()
                for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines()
                if line.startswith("model name")
            ),
            platform.processor(),
        )
        if Path("/proc/cpuinfo").exists()
        else platform.processor()
    )
    packages = ", ".join(f"{name} {version(name)}" for name in ("msgspec", "singer-sdk", "isal", "duckdb"))
    load = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    return [
        (
            f"{datetime.now(UTC):%Y-%m-%d}: {model}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, "
            f"Python {platform.python_version()}, {packages}. Load at the end: {load}."
        )
    ]


def _chart(results: Results) -> str:
    """Users a second of CPU time as bars."""
    rates = {name: 1e6 / middle(results[name], lambda r: r.cpu_a_user) for name, _ in _BARS}
    width, left, step = 760, 270, 36
    scale = (width - left - 80) / max(rates.values())
    height = step * len(_BARS) + 50
    box = f'viewBox="0 0 {width} {height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box} font-family="sans-serif" font-size="14">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        '<text x="12" y="24" font-weight="bold">Users a second of CPU time (4.6 KB each)</text>',
    ]
    for index, (name, colour) in enumerate(_BARS):
        top, length = 40 + index * step, max(rates[name] * scale, 1)
        parts += [
            f'<text x="{left - 10}" y="{top + 18}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{left}" y="{top}" width="{length:.1f}" height="24" fill="{colour}"/>',
            f'<text x="{left + length + 6:.1f}" y="{top + 18}">{rates[name]:,.0f}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])
