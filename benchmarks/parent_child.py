"""The same work in the SDK's plain pattern: users are the parent stream, their lists children of each user."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
from singer_sdk import Stream, Tap
from singer_sdk import typing as th
from typing_extensions import override

from tap_braze_export.schema import user_object

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from singer_sdk.helpers.types import Context, Record

    from tap_braze_export.schema.table import Table

EXPORTED_AT = "2026-11-20T03:00:00.000000Z"


class _Rows(Stream):
    table: ClassVar[Table]

    def __init__(self, tap: Tap) -> None:
        super().__init__(tap, name=self.table.stream, schema=self.table.json_schema)
        self.primary_keys = self.table.keys
        self._names = [column.name for column in self.table.columns]

    def row(self, source: dict[str, Any], **given: str) -> Record:
        """The columns of an object, as they are: nothing is checked, nothing rescued."""
        return {name: source.get(name) for name in self._names} | given | {"exported_at": EXPORTED_AT}


class Users(_Rows):
    """Reads the zip lazily, line by line."""

    table = user_object.USERS

    @override
    def get_records(self, context: Context | None) -> Iterable[Record]:
        with zipfile.ZipFile(self.config["zip"]) as archive:
            for member in archive.infolist():
                with archive.open(member) as lines:
                    for line in lines:
                        self._user = msgspec.json.decode(line)
                        yield self.row(self._user)

    @override
    def get_child_context(self, record: Record, context: Context | None) -> Context:
        return {"braze_id": record["braze_id"], "user": self._user}


class _Children(_Rows):
    parent_stream_type = Users
    state_partitioning_keys: Sequence[str] | None = ()  # else STATE grows by every user

    @override
    def get_records(self, context: Context | None) -> Iterable[Record]:
        user = context["user"] if context else {}
        for item in user.get(self.name) or ():
            yield self.row(item, braze_id=user["braze_id"])


class Devices(_Children):
    """One row per device; its key is the first id that is set."""

    table = user_object.DEVICES

    @override
    def row(self, source: dict[str, Any], **given: str) -> Record:
        key = next((source[name] for name in user_object.DEVICE_IDS if source.get(name)), "")
        return super().row(source, device_key=key, **given)


class Purchases(_Children):
    """One row per product bought."""

    table = user_object.PURCHASES


class CustomEvents(_Children):
    """One row per event name."""

    table = user_object.CUSTOM_EVENTS


class CampaignsReceived(_Children):
    """One row per campaign."""

    table = user_object.CAMPAIGNS_RECEIVED


class TapParentChild(Tap):
    """The five core streams of an export."""

    name = "tap-parent-child"
    config_jsonschema = th.PropertiesList(th.Property("zip", th.StringType, required=True)).to_dict()

    @override
    def discover_streams(self) -> Sequence[Stream]:
        return [kind(self) for kind in (Users, Devices, Purchases, CustomEvents, CampaignsReceived)]


if __name__ == "__main__":
    TapParentChild.cli()
