#!/bin/bash
# singer-sdk 0.54.9: a child stream writes its SCHEMA message anew for each parent record: 1,000 parents, 1,001 messages.
#
# A parent with one child, 1,000 parent records and two child records each: 3,000 records, and more than a third as many
# SCHEMA messages beside them, though no schema changes. A loader that opens a table on SCHEMA does so each time.
#
# Seen with Python 3.11, singer-sdk 0.54.9:
#   RECORD 3000, SCHEMA 1001 (all alike: True)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check singer-sdk==0.54.9
cat > "$folder/shops.py" <<'PYTHON'
from singer_sdk import Stream, Tap

SCHEMA = {"type": "object", "properties": {"id": {"type": "integer"}}}


class Shops(Stream):
    name, schema, primary_keys, replication_key = "shops", SCHEMA, ("id",), None

    def get_records(self, context):
        yield from ({"id": number} for number in range(1000))

    def get_child_context(self, record, context):
        return {"shop": record["id"]}


class Orders(Stream):
    name, schema, primary_keys, replication_key = "orders", SCHEMA, ("id",), None
    parent_stream_type, state_partitioning_keys = Shops, ()

    def get_records(self, context):
        yield from ({"id": 2 * context["shop"] + number} for number in (0, 1))


class Tapped(Tap):
    name, config_jsonschema = "tap-shops", {"type": "object", "properties": {}}

    def discover_streams(self):
        return [Shops(self), Orders(self)]


Tapped.cli()
PYTHON
"$folder/venv/bin/python" "$folder/shops.py" 2>/dev/null > "$folder/messages"
"$folder/venv/bin/python" - "$folder/messages" <<'PYTHON' | tee "$folder/seen"
import json
import sys
from collections import Counter

messages = [json.loads(line) for line in open(sys.argv[1])]
kinds = Counter(message["type"] for message in messages)
schemas = {json.dumps(message) for message in messages if message["type"] == "SCHEMA"}
print(f"RECORD {kinds['RECORD']}, SCHEMA {kinds['SCHEMA']} (all alike: {len(schemas) == 2})")
PYTHON
diff "$folder/seen" - <<'SEEN'
RECORD 3000, SCHEMA 1001 (all alike: True)
SEEN
