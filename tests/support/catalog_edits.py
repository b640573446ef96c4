"""Edits that a person can make to a catalog, drawn by Hypothesis: most are plausible, some are not."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Mapping

_TYPES = ("string", "integer", "number", "boolean", "array", "object")
_FORMATS = ("date-time", "date", "time", "uuid", "email", "singer.decimal", "", None)
_LIMITS: Mapping[str, Any] = {
    "enum": ["gold", None],
    "const": "gold",
    "maxLength": 3,
    "minLength": 1,
    "pattern": "^a",
    "minimum": 0,
    "exclusiveMaximum": 9,
    "multipleOf": 2,
    "default": "none",
    "not": {"type": "null"},
    "allOf": [{"type": "string"}],
    "if": {"type": "string"},
    "$ref": "#/definitions/name",
    "minItems": 1,
    "uniqueItems": True,
    "required": ["plan"],
    "patternProperties": {"^a": {"type": "string"}},
    "propertyNames": {"maxLength": 3},
    "contentEncoding": "base64",
    "nullable": False,
    "selected": False,
    "fromat": "date",
}
_NOTES: Mapping[str, Any] = {
    "description": "as we call it",
    "title": "A title",
    "deprecated": True,
    "x-sql-datatype": "varchar(40)",
    "x-note": 1,
    "$comment": "note",
    "contentMediaType": "application/json",
    "examples": ["a"],
}
_OPEN: tuple[Any, ...] = (True, {}, False, {"type": ["string", "null"]})
_COLUMNS = {
    "users": (
        *("braze_id", "external_id", "created_at", "random_bucket", "dob", "last_coordinates", "total_revenue"),
        *("uninstalled_at", "custom_attributes", "custom_attributes", "exported_at", "_rescued_data"),
    ),
    "apps": ("name", "version", "sessions", "first_used", "_rescued_data"),
    "campaigns_received": ("api_campaign_id", "engaged", "engaged", "converted", "multiple_converted"),
    "devices": ("device_key", "ad_tracking_enabled", "model"),
    "export_files": ("file", "bytes", "read_at", "segment_id"),
    "segment_members": ("is_member", "braze_id"),
}
_MEMBERS = {
    "custom_attributes": ("plan", "score", "joined", "tags", "address", "new"),
    "engaged": ("opened_email", "clicked_email", "new"),
    "multiple_converted": ("label",),
    "_rescued_data": ("new",),
}
_OF_STREAMS: Mapping[str, tuple[Any, ...]] = {
    "key_properties": (["braze_id", "exported_at"], ["external_id"], [], None, ["braze_id", "braze_id"]),
    "replication_method": ("FULL_TABLE", "INCREMENTAL", "LOG_BASED", None),
    "replication_key": ("exported_at", None),
    "stream": ("people", None),
    "stream_alias": ("people",),
    "table_name": ("people",),
    "is_view": (True, False),
    "row_count": (7,),
}
_OF_METADATA: Mapping[str, tuple[Any, ...]] = {
    "selected-by-default": (True, False),
    "inclusion": ("available", "automatic", "unsupported", "sometimes"),
    "selected": (True, False),
    "replication-method": ("FULL_TABLE", "INCREMENTAL"),
    "forced-replication-method": ("INCREMENTAL",),
    "replication-key": ("exported_at",),
    "table-key-properties": (["external_id"], ["braze_id"]),
    "view-key-properties": (["external_id"],),
    "is-view": (True,),
}
_OF_SCHEMAS: Mapping[str, tuple[Any, ...]] = {
    "additionalProperties": _OPEN,
    "required": ([], ["braze_id"], ["none"]),
    "type": ("object", ["object", "null"], "array", "text"),
    "anyOf": ([{"required": ["email"]}],),
    "title": ("A title",),
}


class EditedCatalog:
    """A catalog and the edits that made it, which alone are shown."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content
        self.edits: list[tuple[Any, ...]] = []

    @override
    def __repr__(self) -> str:
        return f"EditedCatalog({self.edits})"


@st.composite
def plausible_definitions(draw: st.DrawFn, own: Any = None) -> Any:
    """Draw the JSON schema of a column or a member that can be followed, as far as types go."""
    definition: dict[str, Any] = copy.deepcopy(own) if isinstance(own, dict) else {}
    named = definition.get("type") or ["null"]
    kinds = {named} if isinstance(named, str) else {*named}
    if not own:
        kinds |= {draw(st.sampled_from(_TYPES))}
    change = draw(st.integers(0, 9))
    if change <= 4:
        kinds = {"string", *(kinds & {"null"})}
        definition.pop("format", None)
    elif change == 5:
        kinds = {"number", *(kinds & {"null"})} if "integer" in kinds else kinds
    elif change == 6:
        kinds |= {*draw(st.lists(st.sampled_from(_TYPES), max_size=2))}
    elif change == 7:
        definition.pop("format", None)
    elif change == 8 and "array" in kinds and not own:
        definition["items"] = draw(plausible_definitions())
    if change == 9:
        definition.pop("type", None)
        text_format = {"format": definition.pop("format")} if "format" in definition else {}
        return {draw(st.sampled_from(["anyOf", "oneOf"])): [{"type": kind, **text_format} for kind in sorted(kinds)]}
    definition["type"] = draw(st.permutations(sorted(kinds)))
    return definition


@st.composite
def definitions(draw: st.DrawFn, own: Any = None, *, depth: int = 2) -> Any:
    """Draw the JSON schema of a column or a member: an edited one, or a new one."""
    definition: dict[str, Any] = copy.deepcopy(own) if own and draw(st.booleans()) else {}
    if depth and draw(st.integers(0, 7)) == 0:
        word = draw(st.sampled_from(["anyOf", "oneOf"]))
        branches = st.lists(definitions(own, depth=depth - 1), min_size=1, max_size=3)
        return {word: [*draw(branches), *draw(st.sampled_from([[], [{"type": "null"}]]))]}
    if draw(st.integers(0, 9)):
        kinds = draw(st.lists(st.sampled_from(_TYPES), max_size=3, unique=True))
        kinds += ["null"] if draw(st.integers(0, 5)) else []
        listed: Any = kinds[0] if len(kinds) == 1 else kinds
        definition["type"] = draw(st.sampled_from([listed, listed, listed, "text", None]))
    if draw(st.integers(0, 4)) == 0:
        definition["format"] = draw(st.sampled_from(_FORMATS))
    if draw(st.integers(0, 7)) == 0:
        definition |= draw(st.sampled_from([{word: value} for word, value in _LIMITS.items()]))
    if draw(st.integers(0, 3)) == 0:
        definition |= draw(st.sampled_from([{word: value} for word, value in _NOTES.items()]))
    if draw(st.integers(0, 5)) == 0:
        definition["additionalProperties"] = draw(st.sampled_from(_OPEN))
    if depth and draw(st.integers(0, 4)) == 0:
        definition["items"] = draw(definitions(depth=depth - 1))
    if depth and draw(st.integers(0, 9)) == 0:
        definition["properties"] = {"city": draw(definitions(depth=depth - 1))}
    return definition


@st.composite
def edited_catalogs(draw: st.DrawFn, catalog: dict[str, Any]) -> EditedCatalog:
    """Draw edits of a catalog: one to three."""
    edited = EditedCatalog(copy.deepcopy(catalog))
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        stream = draw(st.sampled_from([*_COLUMNS]))
        (entry,) = [each for each in edited.content["streams"] if each["tap_stream_id"] == stream]
        kind = draw(st.integers(0, 24))
        if kind == 0:
            edit = _draw_word(draw, entry, _OF_STREAMS)
        elif kind == 1:
            whole = [item["metadata"] for item in entry["metadata"] if len(item["breadcrumb"]) < 4]
            edit = _draw_word(draw, draw(st.sampled_from(whole[-9:])), _OF_METADATA)
        elif kind == 2:
            edit = _draw_word(draw, entry["schema"], _OF_SCHEMAS)
        else:
            column = draw(st.sampled_from(_COLUMNS[stream]))
            _edit_column(draw, entry["schema"]["properties"], column, kind)
            edit = column, entry["schema"]["properties"].get(column)
        edited.edits.append((stream, *edit))
    return edited


def _draw_word(draw: st.DrawFn, entry: dict[str, Any], words: Mapping[str, tuple[Any, ...]]) -> tuple[str, Any]:
    word = draw(st.sampled_from([*words]))
    entry[word] = draw(st.sampled_from(words[word]))
    return word, entry[word]


def _edit_column(draw: st.DrawFn, properties: dict[str, Any], column: str, kind: int) -> None:
    own, drawn = properties.get(column), definitions if kind < 9 else plausible_definitions
    if kind == 3:
        properties.pop(column, None)
    elif kind == 4:
        properties[draw(st.sampled_from(["loyalty", "emial", "Email", "apps"]))] = draw(definitions())
    elif column in _MEMBERS and isinstance(own, dict) and kind % 2:
        members = own.setdefault("properties", {})
        if isinstance(members, dict):
            name = draw(st.sampled_from(_MEMBERS[column]))
            if name in members and draw(st.integers(0, 5)) == 0:
                del members[name]
            else:
                members[name] = draw(drawn(members.get(name)))
    else:
        properties[column] = draw(drawn(own))
