#!/bin/bash
# sqlglot 30.22.0 reads a MERGE for BigQuery whose source is called `new`; Google's own parser refuses it, NEW is reserved.
#
# A statement that a transpiler has read, and written again unchanged, looks checked. zetasql 0.1.5 (Google's parser and
# analyzer, compiled to WebAssembly) says "Unexpected keyword NEW". With another name both read it.
#
# Seen with Python 3.11, sqlglot 30.22.0, zetasql 0.1.5:
#   sqlglot: new read, staged read
#   zetasql: new refused, staged read
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check sqlglot==30.22.0 zetasql==0.1.5
"$folder/venv/bin/python" - <<'PYTHON' | tee "$folder/seen"
import sqlglot
from zetasql.api import Parser

MERGE = """merge into shop.users as old using shop.users_staged as {name} on old.id = {name}.id
when matched then update set city = {name}.city when not matched then insert row"""


def says(read, name):
    try:
        read(MERGE.format(name=name))
    except Exception:
        return f"{name} refused"
    return f"{name} read"


for reader, read in (
    ("sqlglot", lambda text: sqlglot.parse_one(text, read="bigquery")),
    ("zetasql", Parser.parse_statement_static),
):
    print(f"{reader}:", ", ".join(says(read, name) for name in ("new", "staged")))
PYTHON
diff "$folder/seen" - <<'SEEN'
sqlglot: new read, staged read
zetasql: new refused, staged read
SEEN
