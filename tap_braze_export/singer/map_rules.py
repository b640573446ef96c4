"""Stream maps: streams, columns, operators and expressions that match nothing, and rules that another map replaces."""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
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

from tap_braze_export.errors import with_nearest
from tap_braze_export.schema.user_object import EXPORT_FILES, INVALID_USER_IDS
from tap_braze_export.singer import expressions
from tap_braze_export.singer.expressions import Row
from tap_braze_export.singer.problem import Problem

if TYPE_CHECKING:
    import ast
    from collections.abc import Collection, Iterator, Mapping, Sequence

_SETTING = "stream_maps"
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


@dataclass
class MapRules:
    """The rules of the setting `stream_maps`.

    Attributes:
        maps: The setting.
        streams: The streams by name.
        config: The setting `stream_map_config`.
        separators: The texts that stand between the names of a flattened column.
        locale: That of the setting `faker_config`.
        has_fingerprints: True if users that did not change are skipped.
    """

    maps: Mapping[str, Any]
    streams: Mapping[str, MappedStream]
    config: Mapping[str, Any] = field(default_factory=dict)
    separators: Sequence[str] = ("__", ".")
    locale: Any = None
    has_fingerprints: bool = False

    def problems(self) -> Iterator[Problem]:
        """List what matches nothing."""
        for key in self.maps:
            if key.startswith("__"):
                if key != MAPPER_ELSE_OPTION:
                    yield Problem(f"{_SETTING}: {with_nearest(key, [MAPPER_ELSE_OPTION])} is no stream and no operator")
            elif streams := self._matching(key):
                yield from self._problems_of(key, streams)
            elif isinstance(self._source(key), str):
                yield self._unknown_stream(key)
        for stream in self.streams.values():
            yield from self._replaced(stream)

    def trees(self) -> Iterator[ast.expr]:
        """Yield every expression that can be read."""
        for key in self.maps:
            yield from (tree for _, tree in self._expressions(key))

    # Streams

    def _source(self, key: str) -> Any:
        """The stream, or the pattern of streams, that a map reads."""
        definition = self.maps[key]
        return definition.get(MAPPER_SOURCE_OPTION, key) if isinstance(definition, dict) else key

    def _is_primary(self, key: str) -> bool:
        """True if a map changes its stream, False if it makes another one of it."""
        definition = self.maps[key]
        return not isinstance(definition, dict) or MAPPER_SOURCE_OPTION not in definition

    def _matching(self, key: str) -> list[MappedStream]:
        source = self._source(key)
        return [each for each in self.streams.values() if isinstance(source, str) and fnmatch(each.name, source)]

    def _primary(self, stream: MappedStream) -> list[str]:
        """The maps that change a stream; the SDK uses the last one only."""
        maps = (key for key in self.maps if not key.startswith("__") and self._is_primary(key))
        return [key for key in maps if fnmatch(stream.name, key)]

    def _unknown_stream(self, key: str) -> Problem:
        name = with_nearest(self._source(key), self.streams)
        definition = self.maps[key]
        if not isinstance(definition, dict) or self._takes_away(key, self._nearest_columns(key)):
            return Problem(f"{_SETTING}: there is no stream {name}", "what its rules take away would be exported")
        return Problem(f"{_SETTING}: there is no stream {name}, so its rules are not used", is_refused=False)

    def _nearest_columns(self, key: str) -> Collection[str]:
        """The columns of the stream that is meant, or of all."""
        told = with_nearest(self._source(key), self.streams)
        near = [stream for stream in self.streams.values() if f"mean {stream.name}?" in told]
        return {name for stream in near or self.streams.values() for name in stream.known}

    def _takes_away(self, key: str, columns: Collection[str]) -> list[str]:
        """The columns and operators of a map that take something away: all that it says on columns that exist."""
        definition = self.maps[key]
        hidden = {column for column, tree in self._expressions(key) if expressions.disguises(tree)}
        return [
            name
            for name, rule in definition.items()
            if (name == MAPPER_FILTER_OPTION and rule is not None)
            or name == MAPPER_ELSE_OPTION
            or (_is_column(name) and (_is_removal(rule) or name in hidden or name in columns))
        ]

    def _replaced(self, stream: MappedStream) -> Iterator[Problem]:
        """Of maps that match one stream the SDK uses the last only; the others may take away what that one leaves."""
        matching = self._primary(stream)
        for key in matching[:-1]:
            last = matching[-1]
            kept = self._left_by(last, key, stream)
            if kept and stream.is_selected:
                yield Problem(
                    f"{_SETTING}: of {key} and {last}, which both match {stream.name}, only the last one, {last}, is"
                    f" used: repeat {', '.join(kept)} there"
                )

    def _left_by(self, last: str, earlier: str, stream: MappedStream) -> list[str]:
        """Names that an earlier map takes away and the last one does not."""
        definition, replaced = self.maps[last], self.maps[earlier]
        if _is_removal(definition):
            return []
        if _is_removal(replaced):
            return [f"{stream.name}: null"] if earlier == stream.name else []
        if not isinstance(replaced, dict) or not isinstance(definition, dict):
            return []
        known = {*definition} | ({*stream.known} if MAPPER_ELSE_OPTION in definition else set())
        hidden = {column for column, tree in self._expressions(earlier) if expressions.takes_away(tree)}
        return [
            name
            for name, rule in replaced.items()
            if name not in known
            and (
                (name in stream.known and (_is_removal(rule) or name in hidden))
                or (name == MAPPER_FILTER_OPTION and rule is not None)
                or name == MAPPER_ELSE_OPTION
            )
        ]

    # Columns

    def _problems_of(self, key: str, streams: list[MappedStream]) -> Iterator[Problem]:
        definition = self.maps[key]
        if not isinstance(definition, dict):
            return
        known = {name for stream in streams for name in stream.known}
        if {MAPPER_SOURCE_OPTION, MAPPER_ALIAS_OPTION} <= {*definition}:
            yield Problem(f"{_SETTING}: {key} has {MAPPER_SOURCE_OPTION}, so {MAPPER_ALIAS_OPTION} would be a column")
        for name in definition:
            if name in _OPERATORS:
                continue
            if name.startswith("__"):
                yield Problem(f"{_SETTING}: {with_nearest(name, _OPERATORS)} of {key} is no operator")
            elif name not in known and (problem := self._unknown_column(key, name, known)):
                yield problem
        yield from self._unknown_keys(key, known)
        yield from self._unreadable(key)
        for stream in streams:
            if stream.is_selected and self._is_used(key, stream):
                yield from self._failing(key, stream)

    def _unknown_column(self, key: str, name: str, known: Collection[str]) -> Problem | None:
        """A removal that hits nothing, or a new column whose name looks like a misspelt one."""
        rule = self.maps[key][name]
        whole = next((each for each in known for s in self.separators if s and name.startswith(each + s)), "")
        remedy = f"maps see {whole} as one object: deselect its member, or write an expression for {whole}"
        if _is_removal(rule):
            text = f"{_SETTING}: {key} has no column {with_nearest(name, known)} to remove"
            return Problem(text, remedy if whole else "", is_refused=MAPPER_ELSE_OPTION not in self.maps[key])
        tree = next((tree for column, tree in self._expressions(key) if column == name), None)
        if tree is None:
            return None
        near = whole or _nearest(name, known)
        definition = self.maps[key]
        if not near or near in definition or MAPPER_ELSE_OPTION in definition or expressions.is_copy_of(tree, near):
            return None
        return Problem(
            f"{_SETTING}: {key} has no column {name} (did you mean {near}?), so that {near} leaves as it is",
            remedy if whole else "if a new column is meant, give it a name that looks less like another",
            is_refused=expressions.takes_away(tree),
        )

    def _unknown_keys(self, key: str, known: Collection[str]) -> Iterator[Problem]:
        definition = self.maps[key]
        keys = definition.get(MAPPER_KEY_PROPERTIES_OPTION)
        columns = {*known, *filter(_is_column, definition)}
        for name in keys if isinstance(keys, list) else ():
            if isinstance(name, str) and name not in columns:
                yield Problem(
                    f"{_SETTING}: {MAPPER_KEY_PROPERTIES_OPTION} of {key} names no column:"
                    f" {with_nearest(name, columns)}"
                )

    # Expressions

    def _texts(self, key: str) -> Iterator[tuple[str, str]]:
        """Yield the expressions of a map with their columns."""
        definition = self.maps[key]
        for column, rule in definition.items() if isinstance(definition, dict) else ():
            if isinstance(rule, str) and rule != NULL_STRING and (_is_column(column) or column == MAPPER_FILTER_OPTION):
                yield column, rule

    def _expressions(self, key: str) -> Iterator[tuple[str, ast.expr]]:
        """Yield the expressions of a map that can be read."""
        for column, text in self._texts(key):
            try:
                yield column, expressions.parsed(text)
            except ValueError:
                continue

    def _unreadable(self, key: str) -> Iterator[Problem]:
        for column, text in self._texts(key):
            try:
                expressions.parsed(text)
            except ValueError as error:
                yield Problem(f"{_SETTING}: the expression of {column} for {key} cannot be read ({error})")

    def _is_used(self, key: str, stream: MappedStream) -> bool:
        """True if no later map of the same stream replaces this one."""
        return not self._is_primary(key) or key == self._primary(stream)[-1]

    def _failing(self, key: str, stream: MappedStream) -> Iterator[Problem]:
        """Find expressions that no row can satisfy, or whose result may change while a user does not."""
        name = stream.name if self._is_primary(key) else key
        made = [column for column in self.maps[key] if _is_column(column)]
        for column, tree in self._expressions(key):
            own = "" if column == MAPPER_FILTER_OPTION else column
            row = Row(stream.columns, stream.known, own, made, self.config, self.locale)
            where = f"{_SETTING}: the expression of {column} for {name}"
            for reason in expressions.unknown_in(tree, row):
                yield Problem(f"{where} {reason}")
            if not self.has_fingerprints or stream.name in _ALWAYS_EMITTED:
                continue
            if outside := expressions.reads_besides_its_row(tree, stream.columns, is_filter=not own):
                yield Problem(
                    f"{where} looks at {outside}",
                    "with fingerprints_url a user is skipped that did not change, although such a result does:"
                    " take it out, or unset fingerprints_url",
                )


def _is_column(name: str) -> bool:
    return not name.startswith("__")


def _is_removal(rule: object) -> bool:
    return rule is None or rule == NULL_STRING


def _nearest(name: str, known: Collection[str]) -> str:
    """The known name of which another one may be a misspelling; empty if none is that near."""
    return next(iter(get_close_matches(name.lower(), known, n=1, cutoff=_NEAR)), "")
