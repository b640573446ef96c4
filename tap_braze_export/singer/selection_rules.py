"""Rules of catalogs, of Meltano's `select` and of the settings that select or deselect what does not exist.

Meltano applies its rules to the catalog before it calls the tap; one that matches nothing leaves no trace there. But
Meltano also hands them to the tap in its environment, as JSON (seen with 4.4.1).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import filter as filter_names
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any

from tap_braze_export.errors import with_nearest
from tap_braze_export.schema.table import RESCUED
from tap_braze_export.schema.user_object import TABLES, USERS
from tap_braze_export.singer.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from singer_sdk.singerlib import Catalog
    from singer_sdk.singerlib.catalog import CatalogEntry, Metadata

    Crumb = tuple[str, ...]

_TABLES = {table.stream: table for table in TABLES}
_ATTRIBUTES = "custom_attributes"
_ATTRIBUTES_CRUMB = ("properties", _ATTRIBUTES)
_COLUMN, _MEMBER = 2, 4
"""Lengths of a breadcrumb."""
_MELTANO = "MELTANO_EXTRACT__"
_WOULD_LEAVE = "what is meant would be exported: name a column, or deselect the whole column that holds it"
_WILDCARDS = frozenset("*?[")
_DOT = re.compile(r"(?<!\\)\.")
_NEAR = 0.8
_KNOW_ATTRIBUTES = (
    "it would be exported; set discover_custom_attributes, or name the attribute in the setting custom_attributes, and"
    " discover again; or deselect users.custom_attributes as a whole"
)


class Known:
    """Streams, columns and members that exist.

    Attributes:
        catalog: The catalog of the run.
        attributes_are_known: False where Braze has not been asked for the custom attributes that a run will know.
    """

    def __init__(self, catalog: Catalog, *, attributes_are_known: bool = True) -> None:
        self.catalog = catalog
        self.attributes_are_known = attributes_are_known
        self._crumbs: dict[str, set[str]] = {}
        self._masks = {entry.tap_stream_id: entry.metadata.resolve_selection() for entry in catalog.streams}

    def entry(self, stream: str) -> CatalogEntry | None:
        """The entry of a stream in the catalog."""
        return self.catalog.get_stream(stream)

    def is_selected(self, stream: str, crumb: Crumb = ()) -> bool:
        """True if a stream, column or member leaves the tap."""
        entry = self.entry(stream)
        if entry is None or not self._masks[entry.tap_stream_id][crumb]:
            return False
        return not crumb or (entry.schema.properties or {}).get(crumb[1]) is not None

    def columns(self, stream: str) -> list[str]:
        """The columns of a stream."""
        return [column.name for column in _TABLES[stream].columns] if stream in _TABLES else []

    def members(self, stream: str, column: str) -> list[str]:
        """The members of a column that can be deselected alone."""
        if (stream, column) == (USERS.stream, _ATTRIBUTES):
            entry = self.entry(stream)
            schema = entry and (entry.schema.properties or {}).get(column)
            return [*((schema and schema.properties) or {})]
        columns = _TABLES[stream].columns if stream in _TABLES else ()
        return [member.name for each in columns if each.name == column for member in each.members]

    def would_leave(self, attribute: str) -> bool:
        """True if a custom attribute that the catalog does not know may be exported.

        It may not once a member is deselected, since the selected ones alone are requested then; unless its name is
        a misspelt one.
        """
        members = self.members(USERS.stream, _ATTRIBUTES)
        crumbs = ((*_ATTRIBUTES_CRUMB, "properties", member) for member in members)
        return "did you mean" in with_nearest(attribute, members) or all(
            self.is_selected(USERS.stream, crumb) for crumb in crumbs
        )

    def matches(self, stream: str, pattern: str) -> bool:
        """True if a pattern of Meltano matches a breadcrumb of a stream."""
        if stream not in self._crumbs:
            self._crumbs[stream] = {*self._breadcrumbs(stream)}
        return pattern in self._crumbs[stream] or (
            not _WILDCARDS.isdisjoint(pattern) and bool(filter_names(self._crumbs[stream], pattern))
        )

    def _breadcrumbs(self, stream: str) -> Iterator[str]:
        """Yield the breadcrumbs of a stream, as Meltano compares them with its rules."""
        entry = self.entry(stream)
        yield from (".".join(crumb) for crumb in entry.metadata if crumb) if entry else ()
        for column in self.columns(stream):
            yield f"properties.{column}"
            yield from (f"properties.{column}.properties.{member}" for member in self.members(stream, column))


def catalog_problems(known: Known) -> Iterator[Problem]:
    """List the metadata of the catalog that names what does not exist."""
    for entry in known.catalog.streams:
        stream = entry.tap_stream_id
        rules = [(crumb, chosen) for crumb, data in entry.metadata.items() if (chosen := _choice(data)) is not None]
        if stream not in _TABLES:
            deselects = not all(chosen for _, chosen in rules)
            yield Problem(f"catalog: there is no stream {with_nearest(stream, _TABLES)}", is_refused=deselects)
            continue
        for crumb, chosen in rules:
            if crumb and (reason := _unknown(known, stream, crumb)):
                holder = crumb[:-2]
                leaves = known.is_selected(stream) and known.is_selected(stream, holder)
                if holder == _ATTRIBUTES_CRUMB:
                    leaves &= known.would_leave(crumb[-1])
                yield Problem(
                    f"catalog: {stream} {'selects' if chosen else 'deselects'} {reason}",
                    "" if chosen or not leaves else _KNOW_ATTRIBUTES if holder == _ATTRIBUTES_CRUMB else _WOULD_LEAVE,
                    is_refused=leaves and not chosen,
                )


def _choice(data: Metadata) -> bool | None:
    """Say if metadata selects or deselects; None if it does neither."""
    return data.selected if data.selected is not None else data.selected_by_default


def _unknown(known: Known, stream: str, crumb: Crumb) -> str:
    """Say why a breadcrumb names nothing that can be chosen alone; empty if it does."""
    names = crumb[1::2]
    if {*crumb[::2]} != {"properties"} or len(crumb) % 2 or len(crumb) > _MEMBER:
        return f"{'.'.join(names)}, which cannot be chosen alone"
    if names[0] not in known.columns(stream):
        return f"{with_nearest(names[0], known.columns(stream))}, which is no column"
    members = known.members(stream, names[0])
    if len(crumb) == _COLUMN or names[1] in members:
        return ""
    if crumb[:2] == _ATTRIBUTES_CRUMB:
        told = f"the custom attribute {with_nearest(names[1], members)}, which the catalog does not know"
        return told if known.attributes_are_known else ""
    return f"{names[0]}.{with_nearest(names[1], members)}, which cannot be chosen alone"


@dataclass(frozen=True)
class Rule:
    """A rule of Meltano.

    Attributes:
        text: As the user wrote it.
        stream: The pattern of streams.
        names: The patterns of a column and of what is inside it; empty for a whole stream.
        selects: False if it deselects.
    """

    text: str
    stream: str
    names: tuple[str, ...]
    selects: bool

    @property
    def crumb(self) -> str:
        """The pattern with which Meltano compares breadcrumbs."""
        return ".".join(f"properties.{name}" for name in self.names)


def meltano_rules(environment: Mapping[str, str]) -> list[Rule]:
    """Read the rules that Meltano hands over; none where it does not, or does not apply them to a given catalog."""
    extras = ["select_filter"] if environment.get(f"{_MELTANO}CATALOG") else ["select_filter", "select", "metadata"]
    rules: list[Rule] = []
    for extra in extras:
        try:
            value = json.loads(environment.get(_MELTANO + extra.upper(), ""))
        except (ValueError, RecursionError):
            continue
        if isinstance(value, list):
            rules += [_pattern(text, extra) for text in value if isinstance(text, str)]
        elif isinstance(value, dict):
            rules += [rule for stream, inner in value.items() for rule in _metadata_rules(stream, (), inner)]
    return rules


def _pattern(text: str, extra: str) -> Rule:
    stream, *rest = _DOT.split(text.removeprefix("!"), maxsplit=1)
    names = tuple(rest[0].split(".")) if rest and extra == "select" else ()
    return Rule(f"{extra}: {text}", stream.replace("\\.", "."), names, selects=not text.startswith("!"))


def _metadata_rules(stream: str, names: Crumb, inner: Any) -> Iterator[Rule]:
    """Yield the rules of the extra `metadata` that select or deselect; its objects are nested as the names are."""
    for name, value in inner.items() if isinstance(inner, dict) else ():
        if isinstance(value, dict):
            yield from _metadata_rules(stream, (*names, name), value)
        elif name == "selected" and isinstance(value, bool):
            yield Rule(f"metadata: {'.'.join((stream, *names))}", stream, names, selects=value)


def meltano_problems(known: Known, rules: Collection[Rule]) -> Iterator[Problem]:
    """List the rules of Meltano that match nothing in the catalog."""
    for rule in rules:
        streams = [name for name in _TABLES if fnmatch(name, rule.stream)]
        if not streams:
            yield Problem(
                f"{rule.text} names no stream: {with_nearest(rule.stream, _TABLES)}", is_refused=not rule.selects
            )
        elif rule.names and not any(known.matches(each, rule.crumb) for each in streams):
            exported = [each for each in streams if known.is_selected(each)]
            if problem := _unmatched(known, rule, exported or streams, is_exported=bool(exported)):
                is_alone = rule.selects and not any(_selects_attributes(other) for other in rules)
                yield problem if is_alone else problem._replace(is_refused=problem.is_refused and not rule.selects)


def _selects_attributes(rule: Rule) -> bool:
    """True if a rule selects all custom attributes."""
    is_users = fnmatch(USERS.stream, rule.stream)
    return rule.selects and is_users and (not rule.names or fnmatch(".".join(_ATTRIBUTES_CRUMB), rule.crumb))


def _unmatched(known: Known, rule: Rule, streams: list[str], *, is_exported: bool) -> Problem | None:
    """A rule that names a column or member which does not exist."""
    stream, column = streams[0], rule.names[0]
    holder = ("properties", column)
    if len(rule.names) == 1 or not any(fnmatch(name, column) for name in known.columns(stream)):
        told = with_nearest(column, known.columns(stream))
        return Problem(f"{rule.text} names no column of {stream}: {told}", is_refused=is_exported and not rule.selects)
    is_refused = is_exported and (known.is_selected(stream, holder) or "*" in column)
    member = ".".join(rule.names[1:])
    if holder != _ATTRIBUTES_CRUMB:
        told = with_nearest(member, known.members(stream, column))
        return Problem(f"{rule.text} names no member of {column}: {told}", is_refused=is_refused and not rule.selects)
    if not known.attributes_are_known:
        return None
    members = known.members(stream, column)
    if member in members and "." in member:
        told = f"{member}: Meltano takes a dot for a member inside; write ? for it"
    else:
        told = f"{with_nearest(member, members)}, which the catalog does not know"
    text = f"{rule.text} names the custom attribute {told}"
    if not (is_refused and known.would_leave(member)):
        return Problem(text, is_refused=False)
    effect = "all the others would be exported, too; " if rule.selects else ""
    return Problem(text, effect + _KNOW_ATTRIBUTES)


def extra_field_problems(known: Known, extra: Collection[str]) -> Iterator[Problem]:
    """List the names in `extra_export_fields` whose values would be asked of Braze and dropped."""
    columns = {column.name: column for column in USERS.fields}
    paths = {table.path[0]: table for table in TABLES if table.path}
    has_rescued = known.is_selected(USERS.stream, ("properties", RESCUED))
    for name in extra:
        streams = [table.stream for table in TABLES if table.path and table.path[0] == name]
        is_dropped = bool(streams) and not any(known.is_selected(stream) for stream in streams)
        if name in columns:
            is_dropped = not known.is_selected(USERS.stream, ("properties", name))
            members = known.members(USERS.stream, name) if name == _ATTRIBUTES else ()
            is_dropped |= not all(
                known.is_selected(USERS.stream, (*_ATTRIBUTES_CRUMB, "properties", each)) for each in members
            )
        if is_dropped:
            yield Problem(
                f"extra_export_fields asks Braze for {name}, which the catalog deselects",
                "it would be dropped: select it, or take it out",
            )
        elif name in columns or name in paths:
            continue
        elif not has_rescued:
            yield Problem(
                f"extra_export_fields asks Braze for {name}, whose values are dropped: select {RESCUED} of users",
                is_refused=False,
            )
        elif get_close_matches(name, [*columns, *paths], n=1, cutoff=_NEAR):
            told = with_nearest(name, [*columns, *paths])
            yield Problem(f"extra_export_fields names a field that the tap does not know: {told}", is_refused=False)
