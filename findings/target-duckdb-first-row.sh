#!/bin/bash
# target-duckdb 0.8.0 with duckdb 1.1.3 or later: a load of text loses its first row, without a word and with exit code 0.
#
# The loader writes a CSV file without a header and has DuckDB guess. Since 1.1 the guess takes a first row of text for
# the header where all columns are text. With duckdb 1.0.0, which the loader's own metadata allows as well, none is lost.
#
# Seen with Python 3.11, target-duckdb 0.8.0:
#   duckdb 1.0.0: 2 rows sent, 2 rows loaded
#   duckdb 1.5.4: 2 rows sent, 1 rows loaded
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat > messages <<'MESSAGES'
{"type": "SCHEMA", "stream": "cities", "schema": {"type": "object", "properties": {"id": {"type": "string"}, "name": {"type": "string"}}}, "key_properties": ["id"]}
{"type": "RECORD", "stream": "cities", "record": {"id": "a", "name": "Ulm"}}
{"type": "RECORD", "stream": "cities", "record": {"id": "b", "name": "Bonn"}}
MESSAGES
for version in 1.0.0 1.5.4; do
  file="w${version//./}.duckdb" # the loader takes what stands before the last dot for the name of the database
  python3 -m venv "venv-$version"
  "venv-$version/bin/pip" install --quiet --disable-pip-version-check target-duckdb==0.8.0 "duckdb==$version"
  echo "{\"filepath\": \"$file\", \"default_target_schema\": \"shop\"}" > config.json
  "venv-$version/bin/target-duckdb" --config config.json < messages > /dev/null 2> "log-$version"
  "venv-$version/bin/python" -c "
import duckdb
(count,) = duckdb.connect('$file').execute('select count(*) from shop.cities').fetchone()
print('duckdb $version: 2 rows sent,', count, 'rows loaded')"
done | tee seen
diff seen - <<'SEEN'
duckdb 1.0.0: 2 rows sent, 2 rows loaded
duckdb 1.5.4: 2 rows sent, 1 rows loaded
SEEN
