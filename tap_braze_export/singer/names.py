"""Names in settings and rules that match nothing: the one check that a run, --test and --discover share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from tap_braze_export.errors import ConfigError, one_line, with_nearest
from tap_braze_export.schema.user_object import TABLES
from tap_braze_export.singer import expressions
from tap_braze_export.singer.map_rules import MappedStream, MapRules
from tap_braze_export.singer.problem import Problem, in_words
from tap_braze_export.singer.selection_rules import (
    Known,
    catalog_problems,
    extra_field_problems,
    meltano_problems,
    meltano_rules,
)

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterable, Iterator, Mapping

    from singer_sdk.singerlib import Catalog

_FAKER_MEMBERS = ("seed", "locale")
"""All that the SDK reads of faker_config."""


def problems(config: Mapping[str, Any], known: Known) -> Iterator[Problem]:
    """List the names that match nothing.

    Args:
        config: The settings.
        known: What exists.
    """
    rules = MapRules(
        _object(config, "stream_maps"),
        {stream.name: stream for stream in _mapped_streams(known.catalog)},
        config=_object(config, "stream_map_config"),
        separators=tuple({"__", ".", str(config.get("flattening_separator") or "__")}),
        locale=_object(config, "faker_config").get("locale"),
        has_fingerprints=bool(config.get("fingerprints_url")),
    )
    yield from rules.problems()
    yield from _unused(config, rules)
    yield from catalog_problems(known)
    yield from meltano_problems(known, meltano_rules(os.environ))
    yield from extra_field_problems(known, config.get("extra_export_fields") or ())


def warn(found: Iterable[Problem], logger: logging.Logger) -> None:
    """Log problems, none of which ends anything."""
    for problem in dict.fromkeys(found):
        logger.warning("%s", one_line("; ".join(in_words([problem]))))


def refuse(found: Iterable[Problem], logger: logging.Logger) -> None:
    """Log what does no harm.

    Raises:
        ConfigError: Something does; the message names all of it.
    """
    listed = [*found]
    warn((problem for problem in listed if not problem.is_refused), logger)
    if refused := in_words(problem for problem in listed if problem.is_refused):
        raise ConfigError("; ".join(refused))


def _object(config: Mapping[str, Any], setting: str) -> Mapping[str, Any]:
    value = config.get(setting)
    return value if isinstance(value, dict) else {}


def _mapped_streams(catalog: Catalog) -> Iterator[MappedStream]:
    for table in TABLES:
        names = [column.name for column in table.columns]
        entry = catalog.get_stream(table.stream)
        if entry is None:
            yield MappedStream(table.stream, {}, names, is_selected=False)
            continue
        mask = entry.metadata.resolve_selection()
        properties = entry.schema.to_dict().get("properties", {})
        is_selected = mask[()]
        columns = {name: definition for name, definition in properties.items() if mask["properties", name]}
        yield MappedStream(table.stream, columns, {*names, *properties}, is_selected=is_selected)


def _unused(config: Mapping[str, Any], rules: MapRules) -> Iterator[Problem]:
    """List the members of stream_map_config and faker_config that no expression uses."""
    trees = [*rules.trees()]
    read = [expressions.config_read(tree) for tree in trees]
    names = {name for each in read for name in each.required | each.optional}
    for name in () if any(each.reads_any for each in read) else rules.config:
        if name not in names:
            yield Problem(f"stream_map_config: no expression uses {with_nearest(name, names)}", is_refused=False)
    for name in sorted({name for each in read for name in each.optional} - {*rules.config}):
        told = with_nearest(name, rules.config)
        yield Problem(f"stream_maps: stream_map_config has no {told}, which an expression gets", is_refused=False)
    faker = _object(config, "faker_config")
    if faker and not any(expressions.uses_fake(tree) for tree in trees):
        yield Problem("faker_config: no expression uses fake", is_refused=False)
    if expressions.Namespace.of_sdk().fake and not expressions.fake_of(faker.get("locale")):
        yield Problem("faker_config: there is no such locale")
    for name in faker:
        if name not in _FAKER_MEMBERS:
            told = with_nearest(name, _FAKER_MEMBERS)
            yield Problem(f"faker_config: there is no member {told}", is_refused=False)
