#!/bin/bash
# singer-sdk 0.54.9: of several stream maps that match one stream, only the last is applied, without a word.
#
# `{"users": {"email": null}, "u*": {"country": "country"}}` looks like two rules for `users`. The second replaces the
# first, so the column that was to be removed is in every record. A catch-all such as "*" behind rules for single streams
# does the same to all of them.
#
# Seen with Python 3.11, singer-sdk 0.54.9:
#   alone: {'id': 1, 'country': 'de'}
#   both:  {'id': 1, 'email': 'a@example.org', 'country': 'de'}
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check singer-sdk==0.54.9
"$folder/venv/bin/python" - <<'PYTHON' | tee "$folder/seen"
import logging

from singer_sdk.mapper import PluginMapper

schema = {"type": "object", "properties": {name: {"type": "string"} for name in ("id", "email", "country")}}
row = {"id": 1, "email": "a@example.org", "country": "de"}
remove = {"users": {"email": None}}
for name, maps in (("alone:", remove), ("both: ", {**remove, "u*": {"country": "country"}})):
    mapper = PluginMapper({"stream_maps": maps}, logging.getLogger())
    mapper.register_raw_stream_schema("users", schema, ["id"])
    (stream_map,) = mapper.stream_maps["users"]
    print(name, stream_map.transform(dict(row)))
PYTHON
diff "$folder/seen" - <<'SEEN'
alone: {'id': 1, 'country': 'de'}
both:  {'id': 1, 'email': 'a@example.org', 'country': 'de'}
SEEN
