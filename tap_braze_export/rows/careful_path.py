"""The careful path: a decoded user → its rows, each value conformed to its column or rescued."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from typing import TYPE_CHECKING, Any

from tap_braze_export.rows.conform import UNFIT, conformer, to_string
from tap_braze_export.rows.exact_json import json_text
from tap_braze_export.schema.selection import selected_inside
from tap_braze_export.schema.table import EXPORTED_AT, RESCUED
from tap_braze_export.schema.user_object import BY_PATH, DEVICE_IDS, USER_ALIASES, paths_inside

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tap_braze_export.schema.selection import Selection

    RowsByKey = dict[tuple[Any, ...], dict[str, Any]]

ANONYMOUS_PREFIX = "anonymous-"
"""Prefix of keys made from a hash, for devices without an id."""


class ObjectCollector:
    """Collects the rows of objects at one path of the user object, and those of the lists inside them.

    Args:
        path: The members that lead to the objects; () is the user itself.
        by_path: The selected streams of the user object.
    """

    def __init__(self, path: tuple[str, ...], by_path: Mapping[tuple[str, ...], Selection]) -> None:
        table = BY_PATH[path]
        selection = by_path.get(path)
        own = [column for column in table.fields if column.name not in table.given]
        self._path = path
        self._stream = table.stream if selection else None
        self._keys = table.keys
        self._given = table.given
        self._known = {column.name for column in own} | paths_inside(path).keys()
        lists = selected_inside(path, by_path)
        self._lists = {name: ObjectCollector(inner, by_path) for name, inner in lists.items()}
        columns = selection.columns if selection else [column for column in own if column.name in table.keys]
        self._blank: dict[str, Any] = {column.name: None for column in columns}
        self._conform = {column.name: conformer(column, selection) for column in columns if column.name in self._known}

    def collect(
        self,
        source: dict[str, Any],
        given: dict[str, Any],
        rows_by_stream: dict[str, RowsByKey],
        rescued: dict[str, Any],
    ) -> None:
        """Add the rows of one object; of two rows with the same key the later one wins.

        Args:
            source: The object as decoded.
            given: The columns that it does not hold itself: ids of its owner, `exported_at`.
            rows_by_stream: Receives the rows, by stream and key.
            rescued: Receives what fits nowhere.
        """
        row = self._blank.copy()
        for name, value in source.items():
            conform = self._conform.get(name)
            if conform is not None:
                row[name] = None if value is None else conform(value, rescued)
            elif name not in self._known:
                rescued[name] = value
        row |= given
        rows = rows_by_stream.setdefault(self._stream, {}) if self._stream else {}
        for name in self._keys:
            if row.get(name) is None:
                row[name] = _device_key(row, source, rows) if name == "device_key" else ""
        for name, objects in self._lists.items():
            value = source.get(name)
            if value is not None and (unfit := objects.collect_list(value, row, rows_by_stream)):
                rescued[name] = unfit
        if self._stream:
            if rescued and RESCUED in row:
                row[RESCUED] = rescued
            rows[tuple([row[name] for name in self._keys])] = row

    def collect_list(self, value: Any, owner: dict[str, Any], rows_by_stream: dict[str, RowsByKey]) -> Any:
        """Add the rows of a list of objects.

        Returns:
            What the owner has to rescue: a value that is no list; the items that are no objects and, where this stream
            is not selected, what its own rows would have rescued.
        """
        if isinstance(value, dict) and self._path == USER_ALIASES.path:
            value = [value]  # Braze's table of fields calls it an object, its examples show a list
        if not isinstance(value, list):
            return value
        given = {column: owner[column] for column in (*self._given, EXPORTED_AT) if column in owner}
        unfit: list[Any] = []
        for item in value:
            if isinstance(item, dict):
                rescued: dict[str, Any] = {}
                self.collect(item, given, rows_by_stream, rescued)
                if rescued and not self._stream:
                    unfit.append(rescued)
            elif item is not None:
                unfit.append(item)
        return unfit


def _device_key(row: dict[str, Any], device: dict[str, Any], rows: RowsByKey) -> str:
    """Return a key by id, else by content; with an ordinal where two devices of one user are alike."""
    ids = ((name, to_string(device.get(name))) for name in DEVICE_IDS)
    if key := key_by_id((None if text is UNFIT else text, name in row) for name, text in ids):
        return key
    key = key_by_content(device)

    def numbered(ordinal: int) -> str:
        return key if ordinal == 1 else f"{key}-{ordinal}"

    # The ordinals of one key have no gap, so that the first free one is found by bisection in a list of a million.
    ordinals = range(1, len(rows) + 1)
    return numbered(1 + bisect_left(ordinals, 1, key=lambda ordinal: (row["braze_id"], numbered(ordinal)) not in rows))


def key_by_id(ids: Iterable[tuple[str | None, bool]]) -> str:
    """Return a device's first id that is set, hashed if its column is deselected; "" if none is set.

    Args:
        ids: The ids in their order of preference, each with True if its column is selected.
    """
    for value, selected in ids:
        if value:
            return value if selected else _digest(value, 16)
    return ""


def key_by_content(device: dict[str, Any]) -> str:
    """Return `anonymous-` and a short hash of all members but null and empty ones: the same in every run."""
    content = {name: value for name, value in device.items() if value is not None and value != ""}
    return f"{ANONYMOUS_PREFIX}{_digest(json_text(content), 8)}"


def _digest(text: str, size: int) -> str:
    return hashlib.blake2b(text.encode(), digest_size=size).hexdigest()
