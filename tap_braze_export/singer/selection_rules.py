"""Rules of catalogs, of Meltano's `select` and of the settings that select or deselect what does not exist.

Meltano applies its rules to the catalog before it calls the tap; one that matches nothing leaves no trace there. But
Meltano also hands them to the tap in its environment, as JSON (seen with 4.4.1).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from fnmatch import filter as filter_names
from fnmatch import fnmatch
from itertools import chain
from typing import TYPE_CHECKING, Any

from tap_braze_export.errors import Problem, nearest, with_nearest
from tap_braze_export.schema.table import RESCUED
from tap_braze_export.schema.user_object import TABLES, USERS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from singer_sdk.singerlib import Catalog

    from tap_braze_export.schema.table import Table

_TABLES = {table.stream: table for table in TABLES}
_ATTRIBUTES = "custom_attributes"
_MELTANO = "MELTANO_EXTRACT__"
_DOT = re.compile(r"(?<!\\)\.")
_KNOW_ATTRIBUTES = (
    "it would be exported; set discover_custom_attributes, or name the attribute in the setting custom_attributes, and"
    " discover again; or deselect users.custom_attributes as a whole"
)


@dataclass(frozen=True)
class Rule:
    """A rule that selects or deselects.

    Attributes:
        text: Where it stands, and what it names.
        stream: The pattern of streams.
        crumb: The breadcrumb, or its pattern, of a column or of what is inside it; empty for a whole stream.
        selects: False if it deselects.
    """

    text: str
    stream: str
    crumb: tuple[str, ...]
    selects: bool

    @property
    def names(self) -> tuple[str, ...]:
        """The column, and what is inside it; of a breadcrumb that leads to neither, all its words."""
        names = self.crumb[1::2]
        return names if _crumb(*names) == self.crumb else self.crumb

    @property
    def selects_attributes(self) -> bool:
        """True if it selects all custom attributes."""
        names_all = not self.crumb or fnmatch(f"properties.{_ATTRIBUTES}", ".".join(self.crumb))
        return self.selects and fnmatch(USERS.stream, self.stream) and names_all


def catalog_rules(catalog: Catalog) -> Iterator[Rule]:
    """Read the metadata of a catalog."""
    for entry in catalog.streams:
        stream = entry.tap_stream_id
        chosen = {
            crumb: data.selected_by_default if data.selected is None else data.selected
            for crumb, data in entry.metadata.items()
        }
        if stream not in _TABLES:
            yield Rule(f"catalog: {stream}", stream, (), selects=False not in chosen.values())
            continue
        for crumb, selects in chosen.items():
            if selects is not None:
                rule = Rule("", stream, crumb, selects)
                text = f"catalog: {'selected' if selects else 'deselected'} {'.'.join((stream, *rule.names))}"
                yield replace(rule, text=text)


def meltano_rules(environment: Mapping[str, str]) -> Iterator[Rule]:
    """Read the rules that Meltano hands over; none where it does not, or does not apply them to a given catalog."""
    extras = ["select_filter"] if environment.get(f"{_MELTANO}CATALOG") else ["select_filter", "select", "metadata"]
    for extra in extras:
        try:
            value = json.loads(environment.get(_MELTANO + extra.upper(), ""))
        except (ValueError, RecursionError):
            continue
        if isinstance(value, list):
            yield from (_pattern(text, extra) for text in value if isinstance(text, str))
        elif isinstance(value, dict):
            for stream, inner in value.items():
                yield from _metadata_rules(stream, (), inner)


def _pattern(text: str, extra: str) -> Rule:
    stream, *rest = _DOT.split(text.removeprefix("!"), maxsplit=1)
    names = rest[0].split(".") if rest and extra == "select" else ()
    return Rule(f"{extra}: {text}", stream.replace("\\.", "."), _crumb(*names), selects=not text.startswith("!"))


def _metadata_rules(stream: str, names: tuple[str, ...], inner: Any) -> Iterator[Rule]:
    """Yield the rules of the extra `metadata` that select or deselect; its objects are nested as the names are."""
    for name, value in inner.items() if isinstance(inner, dict) else ():
        if isinstance(value, dict):
            yield from _metadata_rules(stream, (*names, name), value)
        elif name == "selected" and isinstance(value, bool):
            yield Rule(f"metadata: {'.'.join((stream, *names))}", stream, _crumb(*names), selects=value)


def _crumb(*names: str) -> tuple[str, ...]:
    return tuple(chain.from_iterable(("properties", name) for name in names))


def _matches(pattern: str, names: Collection[str]) -> bool:
    return pattern in names or bool(filter_names(names, pattern))


class Known:
    """Streams, columns and members that exist.

    Attributes:
        catalog: The catalog of the run.
        attributes_are_known: False where Braze has not been asked for the custom attributes that a run will know.
    """

    def __init__(self, catalog: Catalog, *, attributes_are_known: bool = True) -> None:
        self.catalog = catalog
        self.attributes_are_known = attributes_are_known
        self._masks = {entry.tap_stream_id: entry.metadata.resolve_selection() for entry in catalog.streams}
        self._crumbs = {table.stream: {*self._breadcrumbs(table)} for table in TABLES}

    def problems(self, rules: Collection[Rule]) -> Iterator[Problem]:
        """List the rules that match nothing."""
        attributes_are_selected = any(rule.selects_attributes for rule in rules)
        for rule in rules:
            streams = [name for name in _TABLES if fnmatch(name, rule.stream)]
            if not streams:
                told = with_nearest(rule.stream, _TABLES)
                yield Problem(f"{rule.text} names no stream: {told}", is_refused=not rule.selects)
            elif rule.crumb and not any(_matches(".".join(rule.crumb), self._crumbs[stream]) for stream in streams):
                yield from self._unmatched(rule, streams, attributes_are_selected=attributes_are_selected)

    def _unmatched(self, rule: Rule, streams: list[str], *, attributes_are_selected: bool) -> Iterator[Problem]:
        """A rule that names a column or member which does not exist; refused where what is meant would be exported."""
        stream = next((each for each in streams if self.is_selected(each)), "")
        leaves, stream = bool(stream), stream or streams[0]
        column, *inner = rule.names
        if not inner or not any(fnmatch(name, column) for name in self._columns(stream)):
            told = with_nearest(column, self._columns(stream))
            text = f"{rule.text} names no column of {stream}: {told}"
            yield Problem(text, is_refused=leaves and not rule.selects)
            return
        leaves = leaves and (self.is_selected(stream, column) or "*" in column)
        member, members = ".".join(inner), self.members(stream, column)
        if (stream, column) != (USERS.stream, _ATTRIBUTES):
            text = f"{rule.text} names no member of {column}: {with_nearest(member, members)}"
            yield Problem(text, is_refused=leaves and not rule.selects)
        elif self.attributes_are_known:
            told = f"{with_nearest(member, members)}, which the catalog does not know"
            if member in members and "." in member:
                told = f"{member}: Meltano takes a dot for a member inside; write ? for it"
            text = f"{rule.text} names the custom attribute {told}"
            if leaves and self._would_leave(member) and not (rule.selects and attributes_are_selected):
                effect = "all the others would be exported, too; " if rule.selects else ""
                yield Problem(text, effect + _KNOW_ATTRIBUTES)
            else:
                yield Problem(text, is_refused=False)

    def _would_leave(self, attribute: str) -> bool:
        """True if a custom attribute that the catalog does not know may be exported.

        It may not once a member is deselected, since the selected ones alone are requested then; unless its name is
        a misspelt one.
        """
        members = self.members(USERS.stream, _ATTRIBUTES)
        are_all = all(self.is_selected(USERS.stream, _ATTRIBUTES, member) for member in members)
        return are_all or bool(nearest(attribute, members))

    def is_selected(self, stream: str, *names: str) -> bool:
        """True if a stream, column or member leaves the tap."""
        entry = self.catalog.get_stream(stream)
        if entry is None or not self._masks[stream][_crumb(*names)]:
            return False
        return not names or (entry.schema.properties or {}).get(names[0]) is not None

    def members(self, stream: str, column: str) -> list[str]:
        """The members of a column that can be deselected alone."""
        if (stream, column) == (USERS.stream, _ATTRIBUTES):
            entry = self.catalog.get_stream(stream)
            schema = entry and (entry.schema.properties or {}).get(column)
            return [*((schema and schema.properties) or {})]
        return [member.name for each in _TABLES[stream].columns if each.name == column for member in each.members]

    def _columns(self, stream: str) -> list[str]:
        return [column.name for column in _TABLES[stream].columns]

    def _breadcrumbs(self, table: Table) -> Iterator[str]:
        """Yield the breadcrumbs of a stream, as Meltano compares them with its rules."""
        for column in table.columns:
            yield f"properties.{column.name}"
            yield from (
                f"properties.{column.name}.properties.{each}" for each in self.members(table.stream, column.name)
            )

    def extra_field_problems(self, extra: Collection[str]) -> Iterator[Problem]:
        """List the names in `extra_export_fields` whose values would be asked of Braze and dropped."""
        columns = {column.name for column in USERS.fields}
        for name in extra:
            lists = [table.stream for table in TABLES if table.path and table.path[0] == name]
            if name in columns:
                members = self.members(USERS.stream, name) if name == _ATTRIBUTES else ()
                paths = [(name,), *((name, member) for member in members)]
                is_dropped = not all(self.is_selected(USERS.stream, *path) for path in paths)
            else:
                is_dropped = bool(lists) and not any(map(self.is_selected, lists))
            if is_dropped:
                text = f"extra_export_fields asks Braze for {name}, which the catalog deselects"
                yield Problem(text, "it would be dropped: select it, or take it out")
            elif not (lists or name in columns or self.is_selected(USERS.stream, RESCUED)):
                text = f"extra_export_fields asks Braze for {name}, whose values are dropped: select {RESCUED} of users"
                yield Problem(text, is_refused=False)
