"""Delivered files and deliveries without an export."""

from __future__ import annotations

import gzip
import json
import logging
from typing import TYPE_CHECKING, Any

from tap_braze_export.deliveries import Delivery
from tap_braze_export.export import Export
from tap_braze_export.exports.shared import Shared
from tap_braze_export.files.archive import Block, Member
from tap_braze_export.files.objects import BucketObject, DeliveredFile, LocalObject
from tap_braze_export.report.facts import RunFacts
from tap_braze_export.report.progress import Progress
from tests.support.rows import EXPORT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from tap_braze_export.braze.client import Braze
    from tap_braze_export.clock import Clock
    from tap_braze_export.errors import ExportError
    from tap_braze_export.files.spool import Spool
    from tap_braze_export.settings import Settings


def shared(settings: Settings, spool: Spool, *, client: Braze, clock: Clock, **more: Any) -> Shared:
    """The exports of a run without STATE share this."""
    progress = Progress(RunFacts(clock), clock, logging.getLogger("progress"))
    given: dict[str, Any] = {"rows_signature": "rows", "files_ahead": 0, "write_state": lambda *, must: None}  # noqa: ARG005
    return Shared(client=client, clock=clock, spool=spool, progress=progress, settings=settings, **{**given, **more})


def lines(ids: Iterable[str], text: str = "") -> list[bytes]:
    """A user a line, with a custom attribute that makes it longer."""
    return [json.dumps({"braze_id": braze_id, "custom_attributes": {"text": text}}).encode() for braze_id in ids]


def gzip_file(folder: Path, name: str, *ids: str, text: str = "") -> DeliveredFile:
    """A gzip file on the local disk with these users."""
    path = folder / f"copy-of-{name}"
    path.write_bytes(gzip.compress(b"\n".join(lines(ids, text)), 1))
    return DeliveredFile(LocalObject(name, path), Member(name, path.stat().st_size), EXPORT)


def bucket_file(name: str) -> DeliveredFile:
    """A file that stayed in a bucket; nobody can read it."""
    return DeliveredFile(BucketObject(name, f"/nowhere/{name}", 1, "1"), Member(name, 1), EXPORT)


class FakeDelivery(Delivery):
    """A delivery that notes what the run did with it.

    Args:
        file: Its file; none for an ids export.
        users: The users of each block; without them those of the file, on the local disk.

    Attributes:
        error: Is raised where a block should come.
        reads: How often it was read in this process.
    """

    def __init__(self, file: DeliveredFile | None, users: Sequence[Sequence[str]] = ()) -> None:
        export = file.export if file else Export("ids", "", "ids-1", EXPORT.requested_at)
        super().__init__(export, file.name if file else "1", 1, self._blocks, _not_called, _not_called, file)
        self.error: ExportError | None = None
        self.reads = 0
        self.users = users

    def _blocks(self) -> Iterator[Block]:
        self.reads += 1
        if self.error:
            raise self.error
        if self.users or not self.file:
            yield from (Block(1, lines(ids)) for ids in self.users)
        else:
            yield from self.file.blocks()


def _not_called(*_: object) -> None:
    raise NotImplementedError
