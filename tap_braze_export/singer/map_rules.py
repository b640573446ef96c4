"""Stream maps: streams, columns, operators and expressions that match nothing, and rules that another map replaces."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any

from singer_sdk.mapper import (
    MAPPER_ALIAS_OPTION,
    MAPPER_ELSE_OPTION,
    MAPPER_FILTER_OPTION,
    MAPPER_KEY_PROPERTIES_OPTION,
    MAPPER_SOURCE_OPTION,
    NULL_STRING,
)

from tap_braze_export.errors import Problem, nearest, with_nearest
from tap_braze_export.schema.user_object import EXPORT_FILES, INVALID_USER_IDS
from tap_braze_export.singer.expressions import (
    MappedStream,
    Row,
    fake_of,
    names_in,
    parsed,
    reads_besides_its_row,
    takes_away,
)

if TYPE_CHECKING:
    import ast
    from collections.abc import Collection, Iterator, Mapping

_OPERATORS = (
    *(MAPPER_FILTER_OPTION, MAPPER_KEY_PROPERTIES_OPTION, MAPPER_ELSE_OPTION),
    *(MAPPER_SOURCE_OPTION, MAPPER_ALIAS_OPTION),
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
        self.source: str = rules.get(MAPPER_SOURCE_OPTION) or key
        self.is_primary = MAPPER_SOURCE_OPTION not in rules
        expressions = {name: rule for name, rule in rules.items() if _is_column(name) or name == MAPPER_FILTER_OPTION}
        self.texts = {name: rule for name, rule in expressions.items() if not _is_removal(rule)}
        self.trees: dict[str, ast.expr] = {}
        self.unreadable: dict[str, str] = {}
        for name, text in self.texts.items():
            try:
                self.trees[name] = parsed(text)
            except ValueError as error:
                self.unreadable[name] = str(error)

    def taken_away(self) -> list[str]:
        """The columns and operators that take something away."""
        return [
            name
            for name, rule in (self.rules or {}).items()
            if name == MAPPER_ELSE_OPTION
            or (name == MAPPER_FILTER_OPTION and rule is not None)
            or (_is_column(name) and (_is_removal(rule) or (name in self.trees and takes_away(self.trees[name]))))
        ]

    def changes(self, stream: MappedStream) -> bool:
        return self.is_primary and fnmatch(stream.name, self.source)


class MapRules:
    """The settings `stream_maps`, `stream_map_config` and `faker_config`.

    Args:
        config: All settings.
        streams: The streams.
    """

    def __init__(self, config: Mapping[str, Any], streams: Collection[MappedStream]) -> None:
        self._config, self._streams = config, streams
        self._names = [stream.name for stream in streams]
        self._given: Mapping[str, Any] = config.get("stream_maps") or {}
        self._values: Mapping[str, Any] = config.get("stream_map_config") or {}
        self._faker: Mapping[str, Any] = config.get("faker_config") or {}
        self._maps = [_Map(key, rules) for key, rules in self._given.items() if _is_column(key)]
        self._fake = (fake_of(self._faker.get("locale")) or fake_of(None)) if self._maps else None

    def problems(self) -> Iterator[Problem]:
        """List what matches nothing."""
        for key in self._given:
            if not _is_column(key) and key != MAPPER_ELSE_OPTION:
                yield Problem(f"stream_maps: {with_nearest(key, [MAPPER_ELSE_OPTION])} is no stream and no operator")
        for each in self._maps:
            streams = [stream for stream in self._streams if fnmatch(stream.name, each.source)]
            if not streams:
                yield self._unknown_stream(each)
            elif each.rules is not None:
                yield from self._of_columns(each, each.rules, {name for stream in streams for name in stream.known})
        for stream in self._streams:
            *replaced, used = [each for each in self._maps if each.changes(stream)] or [_Map(stream.name, {})]
            for each in replaced:
                yield from _left(each, used, stream)
            others = [each for each in self._maps if not each.is_primary and fnmatch(stream.name, each.source)]
            for each in (used, *others) if stream.is_selected else ():
                yield from self._of_expressions(each, stream)
        yield from self._unused()

    def _unknown_stream(self, given: _Map) -> Problem:
        columns = {name for stream in self._streams for name in stream.known}
        text = f"stream_maps: there is no stream {with_nearest(given.source, self._names)}"
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
        columns = {*known, *filter(_is_column, rules)}
        for name in rules.get(MAPPER_KEY_PROPERTIES_OPTION) or ():
            if name not in columns:
                told = with_nearest(name, columns)
                yield Problem(f"stream_maps: {MAPPER_KEY_PROPERTIES_OPTION} of {given.key} names no column: {told}")
        for name, reason in given.unreadable.items():
            yield Problem(f"stream_maps: the expression of {name} for {given.key} cannot be read ({reason})")

    def _unknown_column(
        self, given: _Map, rules: Mapping[str, Any], name: str, known: Collection[str]
    ) -> Iterator[Problem]:
        """A removal that hits nothing, or a new column whose name looks like a misspelt one."""
        separators = {"__", ".", self._config.get("flattening_separator") or "__"}
        whole = next((column for column in known if name.startswith(tuple(column + each for each in separators))), "")
        keeps_rest = MAPPER_ELSE_OPTION not in rules
        remedy = f"maps see {whole} as one object: deselect its member, or write an expression for {whole}"
        if _is_removal(rules[name]):
            text = f"stream_maps: {given.key} has no column {with_nearest(name, known)} to remove"
            yield Problem(text, remedy if whole else "", is_refused=keeps_rest)
        elif name in given.trees and keeps_rest:
            near = whole or nearest(name, known, cutoff=_NEAR)
            if near and near not in rules and rules[name].strip() != near:
                text = f"{given.key} has no column {name} (did you mean {near}?), so that {near} leaves as it is"
                other = "if a new column is meant, give it a name that looks less like another"
                is_refused = takes_away(given.trees[name])
                yield Problem(f"stream_maps: {text}", remedy if whole else other, is_refused=is_refused)

    def _of_expressions(self, given: _Map, stream: MappedStream) -> Iterator[Problem]:
        """Find expressions that no row can satisfy, or whose result may change while a user does not."""
        made = [*filter(_is_column, given.rules or ())]
        for column, tree in given.trees.items():
            is_filter = column == MAPPER_FILTER_OPTION
            row = Row(stream, "" if is_filter else column, made, self._values, self._fake)
            where = f"stream_maps: the expression of {column} for {stream.name if given.is_primary else given.key}"
            yield from (Problem(f"{where} {reason}") for reason in dict.fromkeys(row.faults(tree)))
            outside = reads_besides_its_row(tree, stream.columns, is_filter=is_filter)
            if outside and self._config.get("fingerprints_url") and stream.name not in _ALWAYS_EMITTED:
                yield Problem(f"{where} looks at {outside}", _CLOCK_AND_FINGERPRINTS)

    def _unused(self) -> Iterator[Problem]:
        """List the members of stream_map_config and faker_config that no expression uses."""
        texts = "\n".join(text for each in self._maps for text in each.texts.values())
        words = {*re.findall(r"\w+", texts)}
        may_read_any = re.search(r"\bconfig\b(?![.\[])", texts)
        for name in self._values:
            if name not in words and not may_read_any:
                yield Problem(f"stream_map_config: no expression uses {with_nearest(name, words)}", is_refused=False)
        if self._faker and not any("fake" in names_in(tree) for each in self._maps for tree in each.trees.values()):
            yield Problem("faker_config: no expression uses fake", is_refused=False)
        if self._fake and not fake_of(self._faker.get("locale")):
            yield Problem("faker_config: there is no such locale")
        for name in self._faker:
            if name not in _FAKER_MEMBERS:
                told = with_nearest(name, _FAKER_MEMBERS)
                yield Problem(f"faker_config: there is no member {told}", is_refused=False)


def _left(given: _Map, used: _Map, stream: MappedStream) -> Iterator[Problem]:
    """Of maps that match one stream the SDK uses the last only; another may take away what that one leaves."""
    if used.rules is None or not stream.is_selected:
        return
    handled = {*used.rules, *(stream.known if MAPPER_ELSE_OPTION in used.rules else ())}
    taken = [name for name in given.taken_away() if name in stream.known or not _is_column(name)]
    if given.rules is None and given.key == stream.name:
        taken = [f"{stream.name}: null"]
    if left := [name for name in taken if name not in handled]:
        yield Problem(
            f"stream_maps: of {given.key} and {used.key}, which both match {stream.name}, only the last one,"
            f" {used.key}, is used: repeat {', '.join(left)} there"
        )


def _is_column(name: str) -> bool:
    return not name.startswith("__")


def _is_removal(rule: object) -> bool:
    return rule is None or rule == NULL_STRING
