"""Prints rows per table and the answers, with the DuckDB of the loader that wrote the file."""  # noqa: INP001

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any


def _print(title: str, columns: list[str], rows: list[tuple[Any, ...]]) -> None:
    cells = [columns, *([str(value) for value in row] for row in rows)]
    widths = [max(len(row[index]) for row in cells) for index in range(len(columns))]
    right = [bool(rows) and not isinstance(rows[0][index], str) for index in range(len(columns))]
    lines = [title, ""]
    for row in cells:
        aligned = (
            text.rjust(width) if flush else text.ljust(width)
            for text, width, flush in zip(row, widths, right, strict=True)
        )
        lines.append("  " + "  ".join(aligned).rstrip())
    sys.stdout.write("\n".join(lines) + "\n\n")


def _answer(connection: Any, answers: str) -> None:
    tables = connection.execute(
        "select table_name from information_schema.tables where table_schema = 'braze' order by 1"
    ).fetchall()
    counts = [
        (table, connection.execute(f'select count(*) from braze."{table}"').fetchall()[0][0])  # noqa: S608
        for (table,) in tables
    ]
    _print("Rows per table", ["table", "rows"], counts)
    for statement in Path(answers).read_text(encoding="utf-8").split(";"):
        if statement.strip():
            title = statement.strip().splitlines()[0].removeprefix("--").strip()
            result = connection.execute(statement)
            _print(title, [column[0] for column in result.description], result.fetchall())


def main(database: str, answers: str) -> None:
    """Ask the database; one title, the comment's first line, stands before each statement."""
    duckdb = importlib.import_module("duckdb")  # only the loader's environment has it
    try:
        _answer(duckdb.connect(database, read_only=True), answers)
    except duckdb.Error as error:
        raise SystemExit(f"demo: {error}") from None


if __name__ == "__main__":
    main(*sys.argv[1:])
