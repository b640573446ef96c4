#!/bin/bash
# fakesnow 0.12.1: COPY INTO with a list of FILES works from a stage with an address, not from one that PUT has filled.
#
# `put file://… @inside` answers UPLOADED, and `copy into t from @inside files = (…)` then fails with 001011, "invalid URL
# prefix", and the folder on this machine that fakesnow itself has chosen. The same statement works for a stage that
# `create stage outside url = 'file://…'` has made. Snowflake documents both.
#
# Seen with Python 3.11, fakesnow 0.12.1, snowflake-connector-python 4.8.1:
#   put: UPLOADED
#   inside: 1011 invalid URL prefix
#   outside: 2 rows
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check fakesnow==0.12.1 snowflake-connector-python==4.8.1 duckdb==2.0.1
cd "$folder"
venv/bin/python -W ignore - <<'PYTHON' 2>/dev/null | tee seen
from pathlib import Path

import duckdb
import fakesnow
import snowflake.connector

Path("files").mkdir()
duckdb.sql("copy (select 1 as id union all select 2) to 'files/rows.parquet' (format parquet)")
with fakesnow.patch():
    cursor = snowflake.connector.connect(database="db", schema="shop").cursor()
    cursor.execute("create table t (id int)")
    cursor.execute("create stage inside")
    cursor.execute(f"create stage outside url = 'file://{Path('files').resolve()}/'")
    put = cursor.execute(f"put 'file://{Path('files/rows.parquet').resolve()}' @inside auto_compress = false")
    print("put:", put.fetchall()[0][6])
    for stage in ("inside", "outside"):
        try:
            cursor.execute(
                f"copy into t from @{stage} files = ('rows.parquet') file_format = (type = parquet)"
                " match_by_column_name = case_insensitive"
            )
            print(f"{stage}:", cursor.execute("select count(*) from t").fetchall()[0][0], "rows")
        except snowflake.connector.errors.ProgrammingError as error:
            print(f"{stage}:", error.errno, "invalid URL prefix" if "invalid URL prefix" in str(error) else error)
PYTHON
diff seen - <<'SEEN'
put: UPLOADED
inside: 1011 invalid URL prefix
outside: 2 rows
SEEN
