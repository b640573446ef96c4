#!/bin/bash
# polars 2.1.0, chdb 4.4.0 and duckdb 2.0.0 read one JSON text differently, and polars differs from itself.
#
# * A member that stands twice: `json_path_match` of polars takes the last, `json_decode` of the same library the first,
#   as duckdb and chdb do.
# * A number beyond a double, 1e400: chdb and polars then find no other member of that object either, and say 0 and null
#   for each; duckdb finds them all.
# * 25 digits: `json_path_match` rounds, `json_decode` as an integer says null, duckdb keeps them, chdb makes them text.
#
# Seen with Python 3.11, polars 2.1.0, chdb 4.4.0 (chdb-core 26.9.0), duckdb 2.0.0:
#   twice:  polars path 2, polars decode 1, duckdb 1, chdb 1
#   beside: polars path None, duckdb 7, chdb 0
#   digits: polars path 1.2345678901234568e+24, polars decode None, duckdb 1234567890123456789012345, chdb "1234567890123456789012345"
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check polars==2.1.0 chdb==4.4.0 chdb-core==26.9.0 duckdb==2.0.0
cd "$folder"
venv/bin/python - <<'PYTHON' | tee seen
import chdb
import duckdb
import polars as pl


def path(text, member):
    return pl.Series([text]).str.json_path_match(f"$.{member}")[0]


def decoded(text, member):
    return pl.Series([text]).str.json_decode(pl.Struct({member: pl.Int64}))[0][member]


def in_duckdb(text, member):
    return duckdb.execute("select ?::JSON ->> ?", [text, member]).fetchone()[0]


def in_chdb(text, member):
    return str(chdb.query(f"select JSONExtractRaw('{text}', '{member}')", "TSV")).strip()


twice, beside, digits = '{"a": 1, "a": 2}', '{"b": 7, "a": 1e400}', '{"a": 1234567890123456789012345}'
number = str(chdb.query(f"select JSONExtractInt('{beside}', 'b')", "TSV")).strip()
print(f"twice:  polars path {path(twice, 'a')}, polars decode {decoded(twice, 'a')}, duckdb {in_duckdb(twice, 'a')}, chdb {in_chdb(twice, 'a')}")
print(f"beside: polars path {path(beside, 'b')}, duckdb {in_duckdb(beside, 'b')}, chdb {number}")
print(
    f"digits: polars path {path(digits, 'a')}, polars decode {decoded(digits, 'a')}, duckdb {in_duckdb(digits, 'a')},"
    f" chdb {in_chdb(digits, 'a')}"
)
PYTHON
diff seen - <<'SEEN'
twice:  polars path 2, polars decode 1, duckdb 1, chdb 1
beside: polars path None, duckdb 7, chdb 0
digits: polars path 1.2345678901234568e+24, polars decode None, duckdb 1234567890123456789012345, chdb "1234567890123456789012345"
SEEN
