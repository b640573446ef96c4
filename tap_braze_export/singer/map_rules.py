"""Stream maps: streams, columns, operators and expressions that match nothing, and rules that another map replaces."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import cached_property
from typing import TYPE_CHECKING, Any

from singer_sdk.mapper import (
    MAPPER_ALIAS_OPTION,
    MAPPER_ELSE_OPTION,
    MAPPER_FILTER_OPTION,
    MAPPER_KEY_PROPERTIES_OPTION,
    MAPPER_SOURCE_OPTION,
    NULL_STRING,
)

from tap_braze_export.errors import nearest, with_nearest
from tap_braze_export.schema.user_object import EXPORT_FILES, INVALID_USER_IDS
from tap_braze_export.singer.expressions import Row, fake_of, names_in, parsed, reads_besides_its_row, takes_away
from tap_braze_export.singer.problem import Problem

if TYPE_CHECKING:
    import ast
    from collections.abc import Collection, Iterator, Mapping

    from singer_sdk.singerlib.catalog import CatalogEntry

    from tap_braze_export.schema.table import Table

_OPERATORS = (
    MAPPER_FILTER_OPTION,
    MAPPER_KEY_PROPERTIES_OPTION,
    MAPPER_ELSE_OPTION,
    MAPPER_SOURCE_OPTION,
    MAPPER_ALIAS_OPTION,
)
_ALWAYS_EMITTED = {EXPORT_FILES.stream, INVALID_USER_IDS.stream}
"""Streams of which fingerprints skip no row."""
_NEAR = 0.8
"""Similarity from which on a new column is taken for a misspelt one; `email_hash` and `email` have 0.67."""
_CLOCK_AND_FINGERPRINTS = (
    "with fingerprints_url a user is skipped that did not change, although such a result does: take it out, or unset"
    " fingerprints_url"
)
_FAKER_MEMBERS = ("seed", "locale")
"""All that the SDK reads of faker_config."""


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
        names = [column.name for column in table.columns]
        if entry is None:
            return cls(table.stream, {}, names, is_selected=False)
        mask = entry.metadata.resolve_selection()
        properties = entry.schema.to_dict().get("properties", {})
        columns = {name: definition for name, definition in properties.items() if mask["properties", name]}
        return cls(table.stream, columns, {*names, *properties}, is_selected=mask[()])


class _Map:
    """A member of `stream_maps`.

    Attributes:
        key: Its name.
        rules: What it says of columns, and its operators; None if it removes streams.
        source: The stream, or the pattern of streams, that it reads.
        is_primary: True if it changes its stream, False if it makes another one of it.
        texts: Its expressions, by column or operator.
        trees: Those that can be read.
        unreadable: Why others cannot.
    """

    def __init__(self, key: str, definition: Any) -> None:
        self.key = key
        self.rules: Mapping[str, Any] | None = definition if isinstance(definition, dict) else None
        rules = self.rules or {}
        self.source = rules.get(MAPPER_SOURCE_OPTION, key)
        self.is_primary = MAPPER_SOURCE_OPTION not in rules
        self.trees: dict[str, ast.expr] = {}
        self.unreadable: dict[str, str] = {}
        self.texts = {
            name: rule
            for name, rule in rules.items()
            if isinstance(rule, str) and rule != NULL_STRING and (_is_column(name) or name == MAPPER_FILTER_OPTION)
        }
        for name, text in self.texts.items():
            try:
                self.trees[name] = parsed(text)
            except ValueError as error:
                self.unreadable[name] = str(error)

    def matches(self, stream: MappedStream) -> bool:
        return isinstance(self.source, str) and fnmatch(stream.name, self.source)

    def taken_away(self) -> list[str]:
        """The columns and operators that take something away."""
        return [
            name
            for name, rule in (self.rules or {}).items()
            if name == MAPPER_ELSE_OPTION
            or (name == MAPPER_FILTER_OPTION and rule is not None)
            or (_is_column(name) and (_is_removal(rule) or (name in self.trees and takes_away(self.trees[name]))))
        ]


@dataclass
class MapRules:
    """The rules of the setting `stream_maps`.

    Attributes:
        maps: The setting.
        streams: The streams by name.
        config: The setting `stream_map_config`.
        faker: The setting `faker_config`.
        separator: The text between the names of a flattened column.
        has_fingerprints: True if users that did not change are skipped.
    """

    maps: Mapping[str, Any]
    streams: Mapping[str, MappedStream]
    config: Mapping[str, Any] = field(default_factory=dict)
    faker: Mapping[str, Any] = field(default_factory=dict)
    separator: str = "__"
    has_fingerprints: bool = False

    def problems(self) -> Iterator[Problem]:
        """List what matches nothing."""
        maps = [_Map(key, definition) for key, definition in self.maps.items() if not key.startswith("__")]
        for key in self.maps:
            if key.startswith("__") and key != MAPPER_ELSE_OPTION:
                yield Problem(f"stream_maps: {with_nearest(key, [MAPPER_ELSE_OPTION])} is no stream and no operator")
        for stream in self.streams.values():
            matching = [each for each in maps if each.is_primary and each.matches(stream)]
            for each in matching[:-1]:
                yield from _left(each, matching[-1], stream)
        for each in maps:
            streams = [stream for stream in self.streams.values() if each.matches(stream)]
            if not streams and isinstance(each.source, str):
                yield self._unknown_stream(each)
            elif each.rules is not None:
                yield from self._of_columns(each, each.rules, {name for stream in streams for name in stream.known})
                later = maps[maps.index(each) + 1 :] if each.is_primary else []
                for stream in streams:
                    if stream.is_selected and not any(other.is_primary and other.matches(stream) for other in later):
                        yield from self._of_expressions(each, stream)
        yield from self._unused(maps)

    def _unknown_stream(self, given: _Map) -> Problem:
        columns = {name for stream in self.streams.values() for name in stream.known}
        text = f"stream_maps: there is no stream {with_nearest(given.source, self.streams)}"
        if given.rules is None or given.taken_away() or not columns.isdisjoint(given.rules):
            return Problem(text, "what its rules take away would be exported")
        return Problem(f"{text}, so its rules are not used", is_refused=False)

    def _of_columns(self, given: _Map, rules: Mapping[str, Any], known: Collection[str]) -> Iterator[Problem]:
        for name in rules:
            if name == MAPPER_ALIAS_OPTION and not given.is_primary:
                yield Problem(f"stream_maps: {given.key} has {MAPPER_SOURCE_OPTION}, so {name} would be a column")
            elif not _is_column(name) and name not in _OPERATORS:
                yield Problem(f"stream_maps: {with_nearest(name, _OPERATORS)} of {given.key} is no operator")
            elif _is_column(name) and name not in known:
                yield from self._unknown_column(given, rules, name, known)
        keys = rules.get(MAPPER_KEY_PROPERTIES_OPTION)
        columns = {*known, *filter(_is_column, rules)}
        for name in keys if isinstance(keys, list) else ():
            if isinstance(name, str) and name not in columns:
                told = with_nearest(name, columns)
                yield Problem(f"stream_maps: {MAPPER_KEY_PROPERTIES_OPTION} of {given.key} names no column: {told}")
        for name, reason in given.unreadable.items():
            yield Problem(f"stream_maps: the expression of {name} for {given.key} cannot be read ({reason})")

    def _unknown_column(
        self, given: _Map, rules: Mapping[str, Any], name: str, known: Collection[str]
    ) -> Iterator[Problem]:
        """A removal that hits nothing, or a new column whose name looks like a misspelt one."""
        separators = {"__", ".", self.separator}
        whole = next((column for column in known for each in separators if each and name.startswith(column + each)), "")
        keeps_rest = MAPPER_ELSE_OPTION not in rules
        remedy = f"maps see {whole} as one object: deselect its member, or write an expression for {whole}"
        if _is_removal(rules[name]):
            text = f"stream_maps: {given.key} has no column {with_nearest(name, known)} to remove"
            yield Problem(text, remedy if whole else "", is_refused=keeps_rest)
        elif name in given.trees and keeps_rest:
            near = whole or nearest(name, known, cutoff=_NEAR)
            if near and near not in rules and rules[name].strip() != near:
                yield Problem(
                    f"stream_maps: {given.key} has no column {name} (did you mean {near}?), so that {near} leaves as it"
                    " is",
                    remedy if whole else "if a new column is meant, give it a name that looks less like another",
                    is_refused=takes_away(given.trees[name]),
                )

    def _of_expressions(self, given: _Map, stream: MappedStream) -> Iterator[Problem]:
        """Find expressions that no row can satisfy, or whose result may change while a user does not."""
        made = [*filter(_is_column, given.rules or ())]
        for column, tree in given.trees.items():
            is_filter = column == MAPPER_FILTER_OPTION
            row = Row(stream.columns, stream.known, "" if is_filter else column, made, self.config, self._fake)
            where = f"stream_maps: the expression of {column} for {stream.name if given.is_primary else given.key}"
            yield from (Problem(f"{where} {reason}") for reason in dict.fromkeys(row.faults(tree)))
            outside = reads_besides_its_row(tree, stream.columns, is_filter=is_filter)
            if outside and self.has_fingerprints and stream.name not in _ALWAYS_EMITTED:
                yield Problem(f"{where} looks at {outside}", _CLOCK_AND_FINGERPRINTS)

    @cached_property
    def _fake(self) -> Any:
        return fake_of(self.faker.get("locale")) or fake_of(None)

    def _unused(self, maps: Collection[_Map]) -> Iterator[Problem]:
        """List the members of stream_map_config and faker_config that no expression uses."""
        texts = "\n".join(text for each in maps for text in each.texts.values())
        words = {*re.findall(r"\w+", texts)}
        may_read_any = re.search(r"\bconfig\b(?![.\[])", texts)
        for name in self.config:
            if name not in words and not may_read_any:
                yield Problem(f"stream_map_config: no expression uses {with_nearest(name, words)}", is_refused=False)
        if self.faker and not any("fake" in names_in(tree) for each in maps for tree in each.trees.values()):
            yield Problem("faker_config: no expression uses fake", is_refused=False)
        if self._fake and not fake_of(self.faker.get("locale")):
            yield Problem("faker_config: there is no such locale")
        for name in self.faker:
            if name not in _FAKER_MEMBERS:
                told = with_nearest(name, _FAKER_MEMBERS)
                yield Problem(f"faker_config: there is no member {told}", is_refused=False)


def _left(given: _Map, used: _Map, stream: MappedStream) -> Iterator[Problem]:
    """Of maps that match one stream the SDK uses the last only; another may take away what that one leaves."""
    if used.rules is None or not stream.is_selected:
        return
    if given.rules is None:
        left = [f"{stream.name}: null"] if given.key == stream.name else []
    else:
        handled = {*used.rules, *(stream.known if MAPPER_ELSE_OPTION in used.rules else ())}
        taken = (name for name in given.taken_away() if name in stream.known or not _is_column(name))
        left = [name for name in taken if name not in handled]
    if left:
        yield Problem(
            f"stream_maps: of {given.key} and {used.key}, which both match {stream.name}, only the last one,"
            f" {used.key}, is used: repeat {', '.join(left)} there"
        )


def _is_column(name: str) -> bool:
    return not name.startswith("__")


def _is_removal(rule: object) -> bool:
    return rule is None or rule == NULL_STRING
