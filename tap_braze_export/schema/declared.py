"""The columns of a stream as a catalog declares them: SCHEMA and rows follow each edit of a type, or it is refused.

An edit is followed if every value that the column holds without it has a form that the edit allows. What such a value
becomes is `Field.loaded`; a column that may hold more types than before keeps its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from jsonschema import Draft4Validator, Draft7Validator, Draft201909Validator, Draft202012Validator

from tap_braze_export.errors import unknown_names
from tap_braze_export.schema.custom_attributes import ATTRIBUTE_TYPES
from tap_braze_export.schema.table import EXPORTED_AT, RESCUED, Field, Type, own_format, own_kinds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tap_braze_export.schema.table import Table

JSON_TYPES = ("string", "integer", "number", "boolean", "array", "object")
"""The types that JSON schema knows, but null."""
_READ = {"type", "format", "properties", "items", "additionalProperties", "anyOf", "oneOf", "description"}
_ANNOUNCED = ("title", "deprecated", "x-sql-datatype", "x-sql-datatype-properties", "contentMediaType")
"""Words that say nothing about the values, and that SCHEMA repeats."""
_SILENT = {"$comment", "$id", "$schema", "examples", "readOnly", "writeOnly"}
"""Words that say nothing about the values, and that SCHEMA leaves out."""
_LIMITS = {"default", "contentEncoding", "definitions", "$defs"}.union(
    *(draft.VALIDATORS for draft in (Draft4Validator, Draft7Validator, Draft201909Validator, Draft202012Validator))
)
"""Words that limit values, or promise something of them."""
_ROOT_WORDS = {"type", "required", "additionalProperties", "description", *_ANNOUNCED}
_DATES = {"date-time": Type.DATE_TIME, "date": Type.DATE}


class _RefusedError(ValueError):
    """An edit that rows cannot follow: why, and what is possible."""


@dataclass(frozen=True)
class Declaration:
    """A stream as a catalog declares it.

    Attributes:
        table: Its columns, those that the catalog edits in their new form.
        json_schema: The JSON schema that it announces, before its selection.
        errors: The edits that cannot be followed, one sentence each.
    """

    table: Table
    json_schema: dict[str, Any]
    errors: tuple[str, ...]

    @classmethod
    def of(cls, table: Table, schema: Mapping[str, Any]) -> Declaration:
        """Read what a catalog's JSON schema says of a stream."""
        given = schema.get("properties") or {}
        own = {column.name: column for column in table.columns}
        edited: dict[str, Field] = {}
        announced: dict[str, Any] = {}
        errors = [*_root_errors(table, schema, given)]
        for name, definition in given.items():
            if name in own:
                try:
                    edited[name] = _column(own[name], _Declared.of(definition), table)
                except _RefusedError as error:
                    errors.append(f"{table.stream}.{name}{error}")
                    continue
                announced[name] = edited[name].json_schema
        if unknown := unknown_names(set(given) - set(own), own):
            errors.append(f"{table.stream} has no column {', '.join(unknown)}")
        root = {word: value for word, value in schema.items() if word != "properties" and word in _ROOT_WORDS}
        return cls(replace(table, edited=edited), {"type": "object", **root, "properties": announced}, tuple(errors))


def _root_errors(table: Table, schema: Mapping[str, Any], given: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the JSON schema of a stream as a whole."""
    known = _ROOT_WORDS | _SILENT | {"properties"}
    if words := sorted(word for word, value in schema.items() if value is not None and word not in known):
        yield f"{table.stream} cannot follow {', '.join(words)} beside its properties"
    kinds = schema.get("type") or "object"
    if kinds != "object" and not (isinstance(kinds, list) and "object" in kinds):
        yield f"{table.stream} must have the type object"
    required = schema.get("required") or []
    if not isinstance(required, list) or not {*map(str, required)} <= given.keys():
        yield f"{table.stream} requires columns that it does not list among its properties"


@dataclass(frozen=True)
class _Declared:
    """A definition of a catalog, with its anyOf and oneOf taken together.

    Attributes:
        kinds: The JSON types that it allows, but null; empty if it names none.
        nullable: True if it allows null, or names no type.
        format: The format of its texts.
        of_nested: Its words about lists and objects.
        words: All of them.
    """

    kinds: tuple[str, ...]
    nullable: bool
    format: str | None
    of_nested: Mapping[str, Any]
    words: Mapping[str, Any]

    @classmethod
    def of(cls, definition: Any) -> _Declared:
        """Read the definition of a column, a member or an item."""
        declared = cls.read(definition)
        if not declared.kinds and {"type", "anyOf", "oneOf"} & declared.words.keys():
            raise _RefusedError(" allows no value but null: deselect it instead")
        return declared

    @classmethod
    def read(cls, definition: Any) -> _Declared:
        """Read a definition, or a branch of one."""
        if not isinstance(definition, dict):
            raise _RefusedError(" must have an object as its schema")
        words = {word: value for word, value in definition.items() if value is not None}
        _check_words(words)
        nested = {word: words[word] for word in ("items", "properties", "additionalProperties") if word in words}
        branches = [(word, words[word]) for word in ("anyOf", "oneOf") if word in words]
        if branches:
            return _merged(branches, words)
        kinds = _kinds(words["type"]) if "type" in words else []
        text_format = words.get("format") or None
        nullable = "null" in kinds or not kinds
        return cls(tuple(kind for kind in kinds if kind != "null"), nullable, text_format, nested, words)


def _merged(branches: list[tuple[str, Any]], words: Mapping[str, Any]) -> _Declared:
    """Take the branches of anyOf or oneOf together."""
    (word, given), *others = branches
    if others or {"type", "format", "items", "properties"} & words.keys() or not isinstance(given, list) or not given:
        raise _RefusedError(f" has {word} beside other words about its type: write one list of types")
    parts = [_Declared.read(branch) for branch in given]
    kinds = [kind for part in parts for kind in (part.kinds if "type" in part.words else JSON_TYPES)]
    if word == "oneOf" and (len({*kinds}) < len(kinds) or {"integer", "number"} <= {*kinds}):
        raise _RefusedError(" has oneOf with branches that allow the same values: write one list of types")
    if word == "oneOf" and sum(part.nullable for part in parts) > 1:
        raise _RefusedError(" has oneOf with several branches that allow null: write one list of types")
    formats = {part.format for part in parts if "string" in part.kinds}
    nested = [part.of_nested for part in parts if part.of_nested]
    if len(nested) > 1:
        raise _RefusedError(f" has {word} with several kinds of lists or objects: write one list of types")
    return _Declared(
        tuple(dict.fromkeys(kinds)),
        any(part.nullable for part in parts),
        formats.pop() if len(formats) == 1 else None,  # of several, or of some texts only, none holds for all
        nested[0] if nested else {},
        words,
    )


def _check_words(words: Mapping[str, Any]) -> None:
    if words.get("selected") is False:
        raise _RefusedError(" has selected in its schema, which selects nothing: write it into the metadata")
    for word in sorted(words):
        if word in _READ or word in _ANNOUNCED or word in _SILENT:
            continue
        if word in _LIMITS:
            raise _RefusedError(f" cannot promise {word}, since Braze promises nothing of its values: leave it out")
        if not word.startswith("x-"):
            known = unknown_names([word], [*_READ, *_ANNOUNCED])
            raise _RefusedError(f" has a word in its schema that says nothing: {', '.join(known)}")
    for word in ("description", "format", "title", "contentMediaType"):
        if not isinstance(words.get(word, ""), str):
            raise _RefusedError(f" must have a text as {word}")


def _kinds(given: Any) -> list[str]:
    """List the JSON types that `type` names, null among them."""
    listed = [given] if isinstance(given, str) else given
    if not isinstance(listed, list) or not listed or not all(kind in (*JSON_TYPES, "null") for kind in listed):
        raise _RefusedError(f" has the type {str(given)[:40]}: there are {', '.join(JSON_TYPES)} and null")
    return [*dict.fromkeys(listed)]


def _column(own: Field, declared: _Declared, table: Table) -> Field:
    """Return a column as it is declared."""
    is_given = own.name in (*table.keys, EXPORTED_AT)
    if not declared.nullable and not is_given:
        raise _RefusedError(f" must allow null, which rows hold where Braze sends nothing: {_possible(own)}")
    edited = _edited(own, declared)
    if own.type is Type.OBJECT:
        edited = replace(edited, members=tuple(_members(own, declared)))
    nullable = declared.nullable if declared.kinds else own.nullable
    return replace(edited, nullable=nullable, **_texts(declared))


def _edited(own: Field, declared: _Declared) -> Field:
    """Return a column, or a member that the tap knows, with the type that is declared."""
    kinds, wanted = {*own_kinds(own.type)}, {*declared.kinds}
    loaded: Type | None = None
    if not wanted:
        wanted = kinds
    if "array" in wanted & kinds and (items := declared.of_nested.get("items")):
        found = _Declared.of(items)
        if found.kinds and "number" not in found.kinds:
            raise _RefusedError(f".items cannot be {_named(found)}: {_possible(own)}")
    if "object" in wanted:
        _check_open(declared)
    if own.type is Type.INTEGER and "number" in wanted:
        loaded = None if "integer" in wanted else Type.NUMBER
    elif not kinds <= wanted:
        if "string" not in wanted:
            raise _RefusedError(f" cannot be {_named(declared)} without loss: {_possible(own)}")
        loaded = Type.STRING
    is_text = "string" in wanted
    text_format = own_format(own.type) if not declared.kinds and declared.format is None else declared.format
    if is_text and loaded is None and text_format is None and own_format(own.type):
        loaded = Type.STRING
    if is_text and text_format is not None and (loaded or text_format != own_format(own.type)):
        raise _RefusedError(f" cannot promise the format {text_format}: {_possible(own)}")
    natural = {*own_kinds(loaded or own.type)}
    return replace(own, loaded=loaded, kinds=() if wanted == natural else tuple(declared.kinds))


def _members(own: Field, declared: _Declared) -> Iterator[Field]:
    """Yield the members of an open object that the catalog lists, those among them that the tap does not know."""
    given = declared.of_nested.get("properties")
    if given is None:
        yield from own.members
        return
    if not isinstance(given, dict):
        raise _RefusedError(" must have an object as properties")
    if own.name == RESCUED and given:
        raise _RefusedError(" cannot have typed members, as any value can be rescued: leave properties out")
    known = {member.name: member for member in own.members}
    for name, definition in given.items():
        try:
            found = _Declared.of(definition)
            if not found.nullable:
                raise _RefusedError(" must allow null, which rows hold where a value does not fit")  # noqa: TRY301
            member = _edited(known[name], found) if name in known else _member(name, found)
        except _RefusedError as error:
            raise _RefusedError(f".{name}{error}") from None
        yield replace(member, **_texts(found))


def _member(name: str, declared: _Declared) -> Field:
    """Return a member of an open object, or an item of a list, whose type the catalog alone decides."""
    kinds = {*declared.kinds} or {*JSON_TYPES}
    nested = declared.of_nested
    if "object" in kinds:
        _check_open(declared)
        if nested.get("properties"):
            raise _RefusedError(" cannot have typed members of its own: leave its properties out")
    if "array" in kinds and nested.get("items") and kinds != {"array"}:
        raise _RefusedError(" cannot have typed items beside values that are no list: leave items out")
    if "string" in kinds and declared.format and (kinds != {"string"} or declared.format not in _DATES):
        raise _RefusedError(f" cannot promise the format {declared.format}: possible are date-time and date")
    items = _item(nested["items"]) if kinds == {"array"} and nested.get("items") else None
    simple = kinds - ({"integer"} if "number" in kinds else set())
    if len(simple) > 1:
        return Field(name, Type.ANY, "", kinds=() if kinds == {*JSON_TYPES} else declared.kinds)
    (kind,) = simple
    own = _DATES[declared.format] if kind == "string" and declared.format else ATTRIBUTE_TYPES[kind]
    return Field(name, own, "", kinds=declared.kinds if kinds != simple else (), items=items)


def _item(definition: Any) -> Field | None:
    found = _Declared.of(definition)
    item = _member("items", found)
    if "array" in found.kinds and item.items:
        raise _RefusedError(".items cannot have typed items of their own: leave them out")
    return replace(item, nullable=found.nullable) if found.kinds else None


def _check_open(declared: _Declared) -> None:
    if declared.of_nested.get("additionalProperties", True) not in (True, {}):
        raise _RefusedError(" cannot limit additionalProperties: Braze adds members; leave it true")


def _texts(declared: _Declared) -> dict[str, Any]:
    """The members of `Field` that come from words that say nothing about values."""
    return {
        "description": declared.words.get("description", ""),
        "annotations": {word: declared.words[word] for word in _ANNOUNCED if word in declared.words},
    }


def _named(declared: _Declared) -> str:
    return " or ".join(declared.kinds)


def _possible(own: Field) -> str:
    """Say which types a column can have."""
    if text_format := own_format(own.type):
        return f"it can be string, with the format {text_format} or without a format, beside null"
    options = [*own_kinds(own.type), *(["number"] if own.type is Type.INTEGER else [])]
    options += [] if "string" in options else ["string"]
    return f"it can be {' or '.join(options)}, beside null"
