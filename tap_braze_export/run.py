"""What a run is made of, put together from settings and selection when it starts."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import msgspec

from tap_braze_export.client import Braze
from tap_braze_export.exports import Exports
from tap_braze_export.fanout import Reader
from tap_braze_export.identifiers import IDENTIFIER_SETTINGS
from tap_braze_export.lanes import Threads
from tap_braze_export.memory import keep_freed_memory
from tap_braze_export.progress import Progress
from tap_braze_export.resync import IDS, Resync
from tap_braze_export.schema import GLOBAL_CONTROL_GROUP, SEGMENT_MEMBERS
from tap_braze_export.selection import RequestedFields
from tap_braze_export.spool import Spool
from tap_braze_export.start import SEGMENT, Source

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Mapping

    from tap_braze_export.clock import Clock
    from tap_braze_export.files import Deliveries, Delivery
    from tap_braze_export.selection import Selection

_SHAPING_SETTINGS = (
    "stream_maps",
    "stream_map_config",
    "faker_config",
    "flattening_enabled",
    "flattening_max_depth",
    "flattening_max_key_length",
    "flattening_separator",
)


class Run:
    """The parts of one run: segment exports, or a resync where an identifier is given.

    Args:
        config: The tap's settings.
        selections: What the catalog selects, by stream.
        clock: Time and waiting.
        logger: Takes the progress.
        state: The value of `bookmarks.export_files` that the run was given.
        remember: Writes STATE.

    Raises:
        TapError: If a part cannot work, such as a spool directory that cannot be written.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        selections: Mapping[str, Selection],
        *,
        clock: Clock,
        logger: logging.Logger,
        state: Mapping[str, Any],
        remember: Callable[[], None],
    ) -> None:
        keep_freed_memory()
        self.is_resync = any(config.get(setting) for setting in IDENTIFIER_SETTINGS)
        self.spool = Spool(config.get("spool_dir"), clock=clock)
        self.spool.open()
        self.progress = Progress(clock, logger)
        self._config = config
        self._selections = selections
        self._logger = logger
        self._readers: dict[tuple[str, str, str], Reader] = {}
        fields = RequestedFields.of(selections.values(), config.get("extra_export_fields", ()))
        client = Braze(config["api_url"], config["api_key"], clock=clock)
        self.deliveries: Deliveries
        if self.is_resync:
            if config.get("segment_ids") or config.get("global_control_group"):
                logger.info("Identifiers are given, so this run is a resync: no segment is exported")
            self.deliveries = Resync(
                fields,
                client=client,
                clock=clock,
                lanes=Threads(),
                spool=self.spool,
                config=config,
                state=state,
                shape=self._shape(fields),
            )
        else:
            self.deliveries = Exports(
                self._sources(fields),
                client=client,
                clock=clock,
                spool=self.spool,
                progress=self.progress,
                config=config,
                state=state,
                shape=self._shape(fields),
                remember=remember,
            )

    def reader(self, delivery: Delivery) -> Reader:
        """Reads a delivery into the selected streams; of the control group only its members are known."""
        key = (delivery.exported_at, delivery.source, delivery.segment_id)
        if key not in self._readers:
            self._readers = {key: self._new_reader(delivery)}  # one that has learned what its export holds
        return self._readers[key]

    def _new_reader(self, delivery: Delivery) -> Reader:
        control_group = delivery.source == GLOBAL_CONTROL_GROUP
        wanted = {
            name: selection
            for name, selection in self._selections.items()
            if name == SEGMENT_MEMBERS.stream or not control_group
        }
        segment_id = GLOBAL_CONTROL_GROUP if control_group else delivery.segment_id
        # The fast path changes the order of users, which a resync promises; Braze's limit is slower than either path.
        strict = delivery.source != IDS
        return Reader(wanted, exported_at=delivery.exported_at, segment_id=segment_id, strict=strict)

    def _sources(self, fields: RequestedFields) -> list[Source]:
        segment_ids = dict.fromkeys(self._config.get("segment_ids", ()))
        sources = [Source(SEGMENT, segment_id, fields) for segment_id in segment_ids]
        if self._config.get("global_control_group"):
            if SEGMENT_MEMBERS.stream in self._selections:
                sources.append(Source(GLOBAL_CONTROL_GROUP, "", RequestedFields.of(())))
            else:
                self._logger.info("The Global Control Group is not exported: segment_members is not selected")
        return sources

    def _shape(self, fields: RequestedFields) -> str:
        """A hash that is equal only if an export gives the same rows."""
        columns = {
            name: {
                column.name: [column.type.name, {member.name: member.type.name for member in column.members}]
                for column in selection.columns
            }
            for name, selection in self._selections.items()
        }
        dropped = {
            name: {column: sorted(members) for column, members in selection.dropped.items()}
            for name, selection in self._selections.items()
        }
        settings = {name: self._config.get(name) for name in _SHAPING_SETTINGS}
        content = msgspec.json.encode([fields.asked_for, columns, dropped, settings], order="sorted")
        return hashlib.blake2b(content, digest_size=16).hexdigest()
