"""Expressions of stream maps: their syntax, names that do not exist, and what they read besides their own row."""

from __future__ import annotations

import ast
import copy
import functools
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from singer_sdk.mapper import CustomStreamMap
from typing_extensions import override

from tap_braze_export.errors import with_nearest
from tap_braze_export.schema.table import EXPORTED_AT
from tap_braze_export.singer.config_values import kinds_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

GIVEN_NAMES = ("_", "record", "config", "__stream_name__", "__original_stream_name__")
"""Names that the SDK gives to every expression; `self` and `fake` depend on the column and on a package."""
_WHOLE_ROW = ("_", "record")
_CONFIG, _SELF, _FAKE = "config", "self", "fake"
_HASHES = ("md5", "sha256")
_CHANCE = {"rand", "randint", _FAKE}
_CLOCK = {"now", "utcnow", "today"}
"""Methods of Python's dates and times that read the clock."""
_CHANGES = frozenset(
    ("append", "extend", "insert", "remove", "pop", "popitem", "clear", "sort", "reverse", "update", "setdefault")
)
"""Methods that change an object: in `config`, which all rows share, they remember other rows."""
_MADE_UP = {"string": "text", "integer": 1, "number": 1.5, "boolean": True}
_COMPREHENSIONS = (ast.ListComp, ast.GeneratorExp, ast.DictComp, ast.SetComp)


@dataclass
class Namespace:
    """The names and the syntax that the SDK offers to expressions.

    Attributes:
        nodes: The kinds of syntax that its evaluator knows.
        functions: The functions by name.
        evaluator: Its evaluator.
        fake: The `fake` of the package faker; None if that is not installed.
    """

    nodes: Collection[type[ast.AST]]
    functions: Mapping[str, Any]
    evaluator: Any
    fake: Any

    @classmethod
    @functools.cache
    def of_sdk(cls) -> Namespace:
        """Ask the SDK's own stream map."""
        empty = CustomStreamMap("", {}, {}, {"properties": {}}, (), {}, None)
        evaluator = empty.expr_evaluator
        return cls({*evaluator.nodes}, evaluator.functions, evaluator, empty.fake)


@dataclass(frozen=True)
class Row:
    """The names that an expression of one column of one stream sees.

    Attributes:
        columns: The JSON schema of each selected column.
        known: All columns that the tap knows, deselected ones included.
        column: The column that the expression makes; empty for a filter.
        made: The columns that the same stream map makes.
        config: The setting `stream_map_config`.
        locale: That of the setting `faker_config`: some of what `fake` makes is of one country.
    """

    columns: Mapping[str, Any]
    known: Collection[str]
    column: str = ""
    made: Collection[str] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    locale: Any = None

    def why_unknown(self, name: str) -> str:
        """Say why a row has no such name."""
        if name in self.known:
            return f"uses {name}, which the catalog deselects"
        if name == _FAKE:
            return "uses fake, which needs the package faker: pip install faker, into the tap's environment"
        if name == _SELF:
            return f"uses self, but a row has no {self.column}"
        if name in self.made:
            return f"uses {name}, which this map makes: an expression sees the row as it was before the map"
        return f"uses a name that does not exist: {with_nearest(name, [*self.columns, *GIVEN_NAMES])}"


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


def unknown_in(tree: ast.expr, row: Row) -> list[str]:
    """List the names in an expression that do not exist, whatever the values of a row are."""
    names = _Names(row)
    with suppress(RecursionError):  # the SDK's evaluator may go deeper than a visitor of Python's
        names.visit(tree)
    found = dict.fromkeys(names.found)
    if not found:
        found |= dict.fromkeys(_unknown_keys(tree, row))
        found |= dict.fromkeys(_unknown_attributes(tree, row))
    return [*found]


class _Names(ast.NodeVisitor):
    """Finds names, functions and kinds of syntax that expressions do not have; comprehensions have own names."""

    def __init__(self, row: Row) -> None:
        self.found: list[str] = []
        self._row = row
        self._sdk = Namespace.of_sdk()
        self._names = {*row.columns, *GIVEN_NAMES, *self._sdk.functions}
        self._names |= {_FAKE} if self._sdk.fake else set()
        self._names |= {_SELF} if row.column in row.columns else set()

    @override
    def visit(self, node: ast.AST) -> None:
        if isinstance(node, (ast.expr, ast.stmt)) and type(node) not in self._sdk.nodes:
            if not isinstance(node, ast.Starred):
                self.found.append(f"uses {type(node).__name__}, which expressions do not have")
                return
        elif isinstance(node, _COMPREHENSIONS):
            targets = {
                name.id for each in node.generators for name in ast.walk(each.target) if isinstance(name, ast.Name)
            }
            before, self._names = self._names, self._names | targets
            self.generic_visit(node)
            self._names = before
            return
        super().visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if node.id not in self._names:
            self.found.append(self._row.why_unknown(node.id))

    def visit_Call(self, node: ast.Call) -> None:
        if not isinstance(node.func, ast.Name):
            self.visit(node.func)
        elif node.func.id not in self._sdk.functions:
            known = sorted(self._sdk.functions)
            self.found.append(
                f"calls a function that does not exist: {with_nearest(node.func.id, known)}; there are"
                f" {', '.join(known)}"
            )
        for argument in (*node.args, *node.keywords):
            self.visit(argument)


@dataclass
class KeysRead:
    """The members of an object that an expression names.

    Attributes:
        required: Those without which it fails.
        optional: Those that it gets if they are there.
        reads_any: True if it may read members that it does not name.
    """

    required: set[str] = field(default_factory=set)
    optional: set[str] = field(default_factory=set)
    reads_any: bool = False

    @classmethod
    def of(cls, tree: ast.expr, *roots: str) -> KeysRead:
        """Find the members of the objects with these names."""
        keys, named = cls(), set[ast.AST]()
        for node in ast.walk(tree):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name(id=root) as base, attr="get"), args=[first, *_]) if (
                    root in roots and isinstance(first, ast.Constant)
                ):
                    keys.optional.add(str(first.value))
                    named |= {base, node.func}
                case ast.Subscript(value=ast.Name(id=root) as base, slice=ast.Constant(value=str(key))) if (
                    root in roots
                ):
                    keys.required.add(key)
                    named.add(base)
                case ast.Attribute(value=ast.Name(id=root) as base, attr=attribute) if (
                    root in roots and node not in named and not hasattr(dict, attribute)
                ):
                    keys.required.add(attribute)
                    named.add(base)
        keys.reads_any = any(
            isinstance(node, ast.Name) and node.id in roots and node not in named for node in ast.walk(tree)
        )
        return keys


def _unknown_keys(tree: ast.expr, row: Row) -> Iterator[str]:
    """List the literal members of the row and of `config` that do not exist."""
    for key in sorted(KeysRead.of(tree, *_WHOLE_ROW).required - {*row.columns}):
        yield row.why_unknown(key)
    for key in sorted(KeysRead.of(tree, _CONFIG).required - {*row.config}):
        yield f"uses a member that stream_map_config does not have: {with_nearest(key, row.config)}"


def _unknown_attributes(tree: ast.expr, row: Row) -> Iterator[str]:
    """List the attributes that the values of a made-up row do not have; whatever else fails says nothing."""
    sdk = Namespace.of_sdk()
    made_up = {name: _made_up(definition) for name, definition in row.columns.items()}
    sdk.evaluator.names = {
        **made_up,
        **dict.fromkeys(GIVEN_NAMES, "text"),
        **dict.fromkeys(_WHOLE_ROW, made_up),
        _CONFIG: copy.deepcopy(dict(row.config)),
        _SELF: made_up.get(row.column),
        _FAKE: fake_of(row.locale) if uses_fake(tree) else None,
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or (_names(node.value, _FAKE) and not isinstance(node.value, ast.Name)):
            continue  # a call of fake would take from its random numbers
        if _is_barred(node.attr, sdk.evaluator):
            yield f"uses .{node.attr}, which expressions do not have"
            continue
        try:
            value = sdk.evaluator.eval("", previously_parsed=ast.Expr(node.value))
        except Exception:  # noqa: BLE001, S112 - a made-up value may break a right expression in any way
            continue
        if value is not None and not isinstance(value, dict) and not hasattr(value, node.attr):
            known = [name for name in dir(getattr(value, "_module", value)) if not name.startswith("_")]
            yield f"uses an attribute that does not exist: {with_nearest(node.attr, known)}"


def fake_of(locale: Any) -> Any:
    """The `fake` of a locale; None if there is no such locale, or no package faker."""
    try:
        return CustomStreamMap("", {}, {"locale": locale}, {"properties": {}}, (), {}, None).fake
    except Exception:  # noqa: BLE001 - of another package, and with any value of a setting
        return None


def _is_barred(attribute: str, evaluator: Any) -> bool:
    """True if the evaluator gives access to such an attribute of no value."""
    try:
        evaluator.eval("", previously_parsed=ast.Expr(ast.Attribute(ast.Constant(None), attribute)))
    except Exception as error:  # noqa: BLE001 - the evaluator's errors have no common kind
        return type(error).__name__ == "FeatureNotAvailable"
    return False


def _made_up(definition: Any) -> Any:
    """A value of a JSON schema's type; None where it allows several."""
    kinds = kinds_of(definition)
    if len(kinds) != 1:
        return None
    (kind,) = kinds
    if kind == "string" and (form := definition.get("format")):
        return "2026-01-02" if form == "date" else "2026-01-02T03:04:05.000Z"
    return {**_MADE_UP, "array": [], "object": {}}.get(kind)


def reads_besides_its_row(tree: ast.expr, columns: Collection[str], *, is_filter: bool) -> str:
    """Say what an expression reads besides its row, so that it may differ tomorrow for the same row; empty if nothing.

    A time that a row carries does not change, but a filter that compares it with `exported_at` does.
    """
    own = {*columns, *_WHOLE_ROW, _SELF}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in _CHANCE:
            return f"chance ({node.id})"
        if is_filter and isinstance(node, ast.Name) and node.id == EXPORTED_AT:
            return f"the clock ({EXPORTED_AT})"
        if isinstance(node, ast.Attribute) and _root(node) not in own:
            if node.attr in _CLOCK and _root(node) != _CONFIG:
                return f"the clock ({ast.unparse(node)})"
            if node.attr in _CHANGES and _names(tree, _CONFIG):
                return f"other rows ({ast.unparse(node)})"
    if is_filter and EXPORTED_AT in KeysRead.of(tree, *_WHOLE_ROW).required | KeysRead.of(tree, *_WHOLE_ROW).optional:
        return f"the clock ({EXPORTED_AT})"
    return ""


def takes_away(tree: ast.expr) -> bool:
    """True if an expression is there to hide a value: a hash, something made up, or a constant."""
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return disguises(tree) or names <= {_CONFIG, *Namespace.of_sdk().functions}


def disguises(tree: ast.expr) -> bool:
    """True if an expression hashes, or makes something up."""
    return any(_names(tree, name) for name in (*_HASHES, _FAKE))


def is_copy_of(tree: ast.expr, column: str) -> bool:
    """True if an expression is a column as it is."""
    return isinstance(tree, ast.Name) and tree.id == column


def uses_fake(tree: ast.expr) -> bool:
    """True if an expression uses `fake`."""
    return _names(tree, _FAKE)


def config_read(tree: ast.expr) -> KeysRead:
    """The members of `stream_map_config` that an expression reads."""
    return KeysRead.of(tree, _CONFIG)


def _names(tree: ast.AST, name: str) -> bool:
    return any(isinstance(node, ast.Name) and node.id == name for node in ast.walk(tree))


def _root(node: ast.AST) -> str:
    """The name with which a chain of attributes, items and calls begins; empty if it begins with none."""
    while not isinstance(node, ast.Name):
        if isinstance(node, (ast.Attribute, ast.Subscript)):
            node = node.value
        elif isinstance(node, ast.Call):
            node = node.func
        else:
            return ""
    return node.id
