"""Expressions of stream maps: names that do not exist, found without a row, and what is read besides the row."""

from __future__ import annotations

import ast
import copy
import functools
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from singer_sdk.mapper import CustomStreamMap

from tap_braze_export.errors import with_nearest
from tap_braze_export.schema.table import EXPORTED_AT
from tap_braze_export.singer.config_values import kinds_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from singer_sdk.singerlib.catalog import CatalogEntry

    from tap_braze_export.schema.table import Table

GIVEN_NAMES = ("_", "record", "config", "__stream_name__", "__original_stream_name__")
"""Names that the SDK gives to every expression; `self` and `fake` depend on the column and on a package."""
_CONFIG, _SELF, _FAKE = "config", "self", "fake"
_HASHES = {"md5", "sha256"}
_CHANCE = {"rand", "randint", _FAKE}
_CLOCK = {"now", "utcnow", "today"}
"""Methods of Python's dates and times that read the clock."""
_CHANGES = frozenset(
    ("append", "extend", "insert", "remove", "pop", "popitem", "clear", "sort", "reverse", "update", "setdefault")
)
"""Methods that change an object: in `config`, which all rows share, they remember other rows."""
_MADE_UP: Mapping[str, Any] = {
    "string": "text",
    "integer": 1,
    "number": 1.5,
    "boolean": True,
    "array": [],
    "object": {},
}


@functools.cache
def _empty_map() -> CustomStreamMap:
    """A stream map of the SDK, for its evaluator and functions."""
    return CustomStreamMap("", {}, {}, {"properties": {}}, (), {}, None)


def fake_of(locale: Any) -> Any:
    """The `fake` of a locale; None if there is no such locale, or no package faker."""
    try:
        return CustomStreamMap("", {}, {"locale": locale}, {"properties": {}}, (), {}, None).fake
    except Exception:  # noqa: BLE001 - of another package, and with any value of a setting
        return None


def parsed(text: str) -> ast.expr:
    """Parse an expression.

    Raises:
        ValueError: It cannot be read; the error says why.
    """
    try:
        body = ast.parse(text).body
    except SyntaxError as error:
        raise ValueError(error.msg) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise ValueError(type(error).__name__) from None
    if not body:
        raise ValueError("it is empty")
    if len(body) > 1 or not isinstance(body[0], ast.Expr):
        raise ValueError("it is a statement; an expression has a value")
    return body[0].value


@dataclass(frozen=True)
class MappedStream:
    """A stream as stream maps see it.

    Attributes:
        name: Its name.
        columns: The JSON schema of each selected column.
        known: All columns that the tap knows, deselected ones included.
        is_selected: True if it is exported.
    """

    name: str
    columns: Mapping[str, Any]
    known: Collection[str]
    is_selected: bool

    @classmethod
    def of(cls, table: Table, entry: CatalogEntry | None) -> MappedStream:
        """Read what a catalog selects of a stream."""
        names = {column.name for column in table.columns}
        if entry is None:
            return cls(table.stream, {}, names, is_selected=False)
        mask = entry.metadata.resolve_selection()
        properties = entry.schema.to_dict().get("properties", {})
        columns = {name: definition for name, definition in properties.items() if mask["properties", name]}
        return cls(table.stream, columns, names | {*properties}, is_selected=mask[()])


@dataclass(frozen=True)
class Row:
    """The names that an expression of one column of one stream sees.

    Attributes:
        stream: The stream.
        column: The column that the expression makes; empty for a filter.
        made: The columns that the same stream map makes.
        config: The setting `stream_map_config`.
        fake: The `fake` of the package faker, if that is installed.
    """

    stream: MappedStream
    column: str = ""
    made: Collection[str] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    fake: Any = None

    def faults(self, tree: ast.expr) -> Iterator[str]:
        """Name what no row has, whatever its values are."""
        sdk = _empty_map().expr_evaluator
        names = {*self.stream.columns, *GIVEN_NAMES, *sdk.functions, *self._own_names()}
        names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        called = {node.func for node in ast.walk(tree) if isinstance(node, ast.Call)}
        for node in ast.walk(tree):
            match node:
                case ast.Call(func=ast.Name(id=name)) if name not in sdk.functions:
                    known = sorted(sdk.functions)
                    told = f"{with_nearest(name, known)}; there are {', '.join(known)}"
                    yield f"calls a function that does not exist: {told}"
                case ast.Name(id=name) if name not in names and node not in called:
                    yield self._why_unknown(name)
                case (
                    ast.Subscript(value=ast.Name(id=holder), slice=ast.Constant(value=str(key)))
                    | ast.Attribute(value=ast.Name(id=holder), attr=key)
                ) if holder in GIVEN_NAMES and not (isinstance(node, ast.Attribute) and hasattr(dict, key)):
                    if holder == _CONFIG and key not in self.config:
                        told = with_nearest(key, self.config)
                        yield f"uses a member that stream_map_config does not have: {told}"
                    elif holder != _CONFIG and key not in self.stream.columns:
                        yield self._why_unknown(key)
                case ast.Attribute():
                    yield from self._unknown_attribute(node)
                case ast.expr() if type(node) not in sdk.nodes and not isinstance(node, ast.Starred):
                    yield f"uses {type(node).__name__}, which expressions do not have"

    def _own_names(self) -> dict[str, Any]:
        own = {_SELF: _made_up(self.stream.columns[self.column])} if self.column in self.stream.columns else {}
        return own | ({_FAKE: self.fake} if self.fake else {})

    def _why_unknown(self, name: str) -> str:
        if name in self.stream.known:
            return f"uses {name}, which the catalog deselects"
        if name == _FAKE:
            return "uses fake, which needs the package faker: pip install faker, into the tap's environment"
        if name == _SELF:
            return f"uses self, but a row has no {self.column}"
        if name in self.made:
            return f"uses {name}, which this map makes: an expression sees the row as it was before the map"
        return f"uses a name that does not exist: {with_nearest(name, [*self.stream.columns, *GIVEN_NAMES])}"

    def _unknown_attribute(self, node: ast.Attribute) -> Iterator[str]:
        """Try an attribute on a made-up row; whatever else fails there says nothing."""
        try:
            self._value(ast.Attribute(ast.Constant(None), node.attr))
        except Exception as error:  # noqa: BLE001 - the evaluator's errors have no common kind
            if type(error).__name__ == "FeatureNotAvailable":
                yield f"uses .{node.attr}, which expressions do not have"
                return
        try:
            value = self._value(node.value)
        except Exception:  # noqa: BLE001 - a made-up value may break a right expression in any way
            return
        if value is not None and not isinstance(value, dict) and not hasattr(value, node.attr):
            known = [name for name in dir(getattr(value, "_module", value)) if not name.startswith("_")]
            yield f"uses an attribute that does not exist: {with_nearest(node.attr, known)}"

    def _value(self, node: ast.expr) -> Any:
        """Evaluate an expression on a made-up row."""
        sdk = _empty_map().expr_evaluator
        made_up = {name: _made_up(definition) for name, definition in self.stream.columns.items()}
        given = dict.fromkeys(GIVEN_NAMES, "text") | {"_": made_up, "record": made_up}
        sdk.names = {**made_up, **given, _CONFIG: copy.deepcopy(dict(self.config)), **self._own_names()}
        return sdk.eval("", previously_parsed=ast.Expr(node))


def _made_up(definition: Any) -> Any:
    """A value of a JSON schema's type; None where it allows several."""
    kinds = kinds_of(definition)
    if len(kinds) != 1:
        return None
    if text_format := definition.get("format"):
        return "2026-01-02" if text_format == "date" else "2026-01-02T03:04:05.000Z"
    return {**_MADE_UP, "array": [], "object": {}}.get(*kinds)


def reads_besides_its_row(tree: ast.expr, columns: Collection[str], *, is_filter: bool) -> str:
    """Say what an expression reads besides its row, so that it may differ tomorrow for the same row; empty if nothing.

    A time that a row carries does not change, but a filter that compares it with `exported_at` does.
    """
    own = {*columns, "_", "record", _SELF}
    names = names_in(tree)
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) if name in _CHANCE:
                return f"chance ({name})"
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.Constant(value=name) if (
                is_filter and name == EXPORTED_AT
            ):
                return f"the clock ({EXPORTED_AT})"
            case ast.Attribute(attr=name) if (root := re.split(r"\W", text := ast.unparse(node))[0]) not in own:
                if name in _CLOCK and root != _CONFIG:
                    return f"the clock ({text})"
                if name in _CHANGES and _CONFIG in names:
                    return f"other rows ({text})"
    return ""


def takes_away(tree: ast.expr) -> bool:
    """True if an expression is there to hide a value: a hash, something made up, or a constant."""
    names = names_in(tree)
    return not names.isdisjoint({*_HASHES, _FAKE}) or names <= {_CONFIG, *_empty_map().expr_evaluator.functions}


def names_in(tree: ast.expr) -> set[str]:
    """The names that an expression uses."""
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
