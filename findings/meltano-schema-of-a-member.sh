#!/bin/bash
# Meltano 4.4.1: the extra `schema` for a member of an object replaces the schema of the whole column.
#
# `select` and `metadata` take `users.custom_attributes.plan` for the member `plan` of the column `custom_attributes`. The
# extra `schema` takes the same name apart, but makes `plan` a keyword of the column's schema: its type and its
# description are gone, and the catalog that the tap receives has no member `plan`.
#
# Seen with Python 3.11, Meltano 4.4.1 (the schema of the column in the catalog):
#   {"plan": {"type": ["string", "null"]}}
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check meltano==4.4.1
cat > "$folder/tap.sh" <<'TAP'
#!/bin/sh
echo '{"streams": [{"tap_stream_id": "users", "key_properties": [], "metadata": [{"breadcrumb": [], "metadata": {}}],
  "schema": {"type": "object", "properties": {"custom_attributes": {"type": ["object", "null"]}}}}]}'
TAP
chmod +x "$folder/tap.sh"
cat > "$folder/meltano.yml" <<'PROJECT'
send_anonymous_usage_stats: false
project_id: finding
plugins:
  extractors:
  - name: tap-example
    namespace: tap_example
    executable: ./tap.sh
    capabilities: [catalog, discover]
    schema:
      users:
        custom_attributes.plan: {type: [string, "null"]}
PROJECT
cd "$folder"
HOME="$folder" "$folder/venv/bin/meltano" invoke --dump=catalog tap-example 2>"$folder/log" |
  "$folder/venv/bin/python" -c '
import json, sys
(users,) = json.load(sys.stdin)["streams"]
print(json.dumps(users["schema"]["properties"]["custom_attributes"]))' | tee "$folder/seen"
diff "$folder/seen" - <<'SEEN'
{"plan": {"type": ["string", "null"]}}
SEEN
