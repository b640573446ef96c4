#!/bin/bash
# singer-sdk 0.54.9: the JSON schema that every tap and target announces for the setting `stream_maps` is none.
#
# Among the choices of `__else__` (for streams, and for the columns of a stream) stands the text "null" where a schema must
# stand, beside the schema for null. Programs that read a plugin's settings schema and validate with it cannot.
#
# Seen with Python 3.11, singer-sdk 0.54.9, jsonschema 4.26.0:
#   [{'const': '__NULL__'}, {'type': 'null'}, 'null']
#   'null' is not of type 'object', 'boolean'
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check singer-sdk==0.54.9 jsonschema==4.26.0
"$folder/venv/bin/python" - <<'PYTHON' | tee "$folder/seen"
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from singer_sdk.helpers.capabilities import STREAM_MAPS_CONFIG

schema = STREAM_MAPS_CONFIG["properties"]["stream_maps"]
print(schema["properties"]["__else__"]["anyOf"])
try:
    Draft202012Validator.check_schema(schema)
except SchemaError as error:
    print(error.message)
PYTHON
diff "$folder/seen" - <<'SEEN'
[{'const': '__NULL__'}, {'type': 'null'}, 'null']
'null' is not of type 'object', 'boolean'
SEEN
