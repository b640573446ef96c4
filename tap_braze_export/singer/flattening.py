"""Flattening that loses nothing: members that a schema does not know stay together in one column of JSON text.

The SDK's own flattening makes a column of each member that a row happens to have, and loaders drop those that SCHEMA
lacks. Here the schema alone decides. A name of a column is the SDK's, unless a loader could not keep it.
"""

from __future__ import annotations

import copy
import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from singer_sdk.helpers._flattening import flatten_key

from tap_braze_export.rows.exact_json import ENCODER
from tap_braze_export.singer.config_values import kinds_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from singer_sdk.helpers._flattening import FlatteningOptions

_PLAIN_KINDS = {"string", "integer", "number", "boolean"}
_DIGITS = 6
"""Of a hash at the end of a name; more only if another column has that name."""
_JSON_TEXT = {"type": ["string", "null"]}


@dataclass
class _Node:
    """A property of the schema.

    Attributes:
        column: The name of its column; of an object, the name of the column for the members that the schema lacks.
        definition: The JSON schema of the column.
        is_plain: True if values go into the column as they are, False if as JSON text.
        is_open: True if its values may be texts and something else, so that a text is written as JSON, too.
        members: The members of an object that get columns of their own; None for all other properties.
    """

    column: str
    definition: dict[str, Any]
    is_plain: bool = True
    is_open: bool = False
    members: dict[str, _Node] | None = None

    def columns(self) -> Iterator[str]:
        """Yield the columns of this property and its members."""
        yield self.column
        for member in (self.members or {}).values():
            yield from member.columns()


@dataclass
class Flattening:
    """The flattened form of one stream, and the JSON schema of its rows."""

    schema: dict[str, Any]
    _properties: dict[str, _Node] = field(default_factory=dict)

    @classmethod
    def of(cls, schema: Mapping[str, Any], options: FlatteningOptions, keys: Collection[str]) -> Flattening:
        """Flatten the JSON schema of rows; keys keep their names, since SCHEMA has them."""
        tree = _Tree(options, keys)
        properties = tree.properties(schema, (), 0)
        tree.make_names_unique()
        flat: dict[str, Any] = copy.deepcopy(dict(schema))
        flat["properties"] = {node.column: node.definition for node in tree.nodes}
        renamed = {name: node.column for name, node in properties.items()}
        if "required" in flat:
            flat["required"] = [renamed.get(name, name) for name in flat["required"]]
        return cls(flat, properties)

    def flatten(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Flatten a row: a null object is null in all its columns."""
        flat: dict[str, Any] = {}
        for name, value in row.items():
            node = self._properties.get(name)
            if node is not None:
                _flatten(node, value, flat)
        return flat


class _Tree:
    """The properties of a schema, and the names of their columns."""

    def __init__(self, options: FlatteningOptions, keys: Collection[str]) -> None:
        self._options = options
        self._keys = keys
        self._paths: list[tuple[str, ...]] = []
        self.nodes: list[_Node] = []

    def properties(self, schema: Mapping[str, Any], parents: tuple[str, ...], level: int) -> dict[str, _Node]:
        """The properties of an object, by name, and theirs."""
        members = schema.get("properties") or {}
        return {name: self._node(definition, (*parents, name), level) for name, definition in members.items()}

    def _node(self, definition: Mapping[str, Any], path: tuple[str, ...], level: int) -> _Node:
        node = _Node(self._name(path), _JSON_TEXT, is_plain=False)
        self._paths.append(path)
        self.nodes.append(node)
        kinds = _kinds(definition)
        if "object" in kinds and "properties" in definition and level < self._options.max_level:
            node.members = self.properties(definition, path, level + 1)
        elif kinds and kinds <= _PLAIN_KINDS:
            node.definition, node.is_plain = copy.deepcopy(dict(definition)), True
        elif "null" not in definition.get("type", "null"):
            node.definition = {"type": "string"}
        node.is_open = not node.is_plain and (not kinds or "string" in kinds)
        return node

    def _name(self, path: tuple[str, ...]) -> str:
        if self._is_key(path):
            return path[0]
        options = self._options
        name = flatten_key(path[-1], [*path[:-1]], options.separator, max_key_length=options.max_key_length)
        return name.replace('"', "_")  # loaders do not escape it in SQL

    def make_names_unique(self) -> None:
        """Add a hash of its path to each name that is still too long or that several columns would have.

        Many databases ignore case, and count the bytes of a name.
        """
        counts = Counter(node.column.lower() for node in self.nodes)
        taken = {*counts}
        for path, node in zip(self._paths, self.nodes, strict=True):
            is_long = len(node.column.encode("utf-8", "replace")) >= self._options.max_key_length
            if (is_long or counts[node.column.lower()] > 1) and not self._is_key(path):
                node.column = next(name for name in self._hashed(node.column, path) if name.lower() not in taken)
                taken.add(node.column.lower())

    def _hashed(self, column: str, path: tuple[str, ...]) -> Iterator[str]:
        """Yield the column's name with a hash of its path, each longer than the one before."""
        digest = hashlib.blake2b("\0".join(path).encode("utf-8", "replace")).hexdigest()
        for length in range(_DIGITS, len(digest) + 1):
            kept = column.encode("utf-8", "replace")[: max(1, self._options.max_key_length - length - 2)]
            yield f"{kept.decode(errors='ignore')}_{digest[:length]}"

    def _is_key(self, path: tuple[str, ...]) -> bool:
        return len(path) == 1 and path[0] in self._keys


def _flatten(node: _Node, value: Any, flat: dict[str, Any]) -> None:
    """Put a value into the columns of its property."""
    if node.members is None:
        flat[node.column] = _fitted(node, value)
        return
    flat.update(dict.fromkeys(node.columns()))
    if not isinstance(value, dict):
        flat[node.column] = _fitted(node, value)
        return
    rest = {}
    for name, inner in value.items():
        member = node.members.get(name)
        if member is None:
            rest[name] = inner
        else:
            _flatten(member, inner, flat)
    if rest or not value:
        flat[node.column] = _json_text(rest)


def _fitted(node: _Node, value: Any) -> Any:
    """Convert a value to what its column holds; a text where JSON was expected comes from an expression and stays."""
    is_nested = isinstance(value, (dict, list, tuple))
    if value is None or (node.is_plain and not is_nested) or (isinstance(value, str) and not node.is_open):
        return value
    return _json_text(value)


def _kinds(definition: Mapping[str, Any]) -> set[str]:
    """The types that a JSON schema allows, but null."""
    branches = [branch for word in ("anyOf", "oneOf") for branch in definition.get(word, ())]
    return kinds_of(definition).union(*map(kinds_of, branches)) - {"null"}


def _json_text(value: Any) -> str:
    """JSON text with every digit and member of a value."""
    return ENCODER.encode(value).decode()
