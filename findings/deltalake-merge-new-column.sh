#!/bin/bash
# deltalake 1.6.6: a MERGE whose source has one column more than the table succeeds, and the column is gone without a word.
#
# `when_matched_update_all` and `when_not_matched_insert_all` mean the columns of the table, not of the source. Only
# `merge_schema=True`, given to `merge`, adds the column; the metrics of both calls are the same.
#
# Seen with Python 3.11, deltalake 1.6.6, pyarrow 26.0.1:
#   merge:                    1 updated, 1 inserted, columns id, city
#   merge, merge_schema=True: 1 updated, 1 inserted, columns id, city, country
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check deltalake==1.6.6 pyarrow==26.0.1
cd "$folder"
# The interpreter's end is not looked at: threads of deltalake abort it now and then, after all is done.
venv/bin/python - <<'PYTHON' | tee seen
import os

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

rows = pa.table({"id": [1, 2], "city": ["Ulm", "Bonn"], "country": ["de", "de"]})
for name, options in (("merge:                   ", {}), ("merge, merge_schema=True:", {"merge_schema": True})):
    path = f"table{len(options)}"
    write_deltalake(path, pa.table({"id": [1], "city": ["Ulm"]}))
    merger = DeltaTable(path).merge(rows, "old.id = new.id", source_alias="new", target_alias="old", **options)
    done = merger.when_matched_update_all().when_not_matched_insert_all().execute()
    columns = ", ".join(DeltaTable(path).to_pyarrow_table().column_names)
    print(name, done["num_target_rows_updated"], "updated,", done["num_target_rows_inserted"], "inserted, columns", columns, flush=True)
os._exit(0)
PYTHON
diff seen - <<'SEEN'
merge:                    1 updated, 1 inserted, columns id, city
merge, merge_schema=True: 1 updated, 1 inserted, columns id, city, country
SEEN
