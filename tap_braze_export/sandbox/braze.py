"""The sandbox: a workspace and its two servers, one for REST and one for downloads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from tap_braze_export.sandbox.bucket import Bucket
from tap_braze_export.sandbox.downloads import download_app
from tap_braze_export.sandbox.listening import Listener
from tap_braze_export.sandbox.rest import rest_app
from tap_braze_export.sandbox.segments import Segment
from tap_braze_export.sandbox.selection import Selection
from tap_braze_export.sandbox.workspace import Call, Options, Workspace

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    GivenUsers = Iterable[dict[str, Any] | bytes]


class Sandbox:
    """A local Braze over real HTTP, until the end of the `with` block.

    `options` are those of `workspace.Options`. Without `delay`, `empty_polls` or `hold` an export is ready before
    its POST gets the response. With `empty_polls=N` the first N downloads find nothing, with `delay` it takes
    seconds, with `hold` it waits for `finish_exports()`.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        download_port: int = 0,
        bucket_url: str | None = None,
        bucket_options: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        """Listen on these ports, 0 for any free one, and deliver to a bucket if one is given."""
        bucket = Bucket(bucket_url, bucket_options) if bucket_url else None
        self.workspace = Workspace(Options(bucket=bucket, **options))
        self._listeners: list[Listener] = []
        try:
            for app, app_port in ((download_app(self.workspace), download_port), (rest_app(self.workspace), port)):
                self._listeners.append(Listener(app, app_port, self.workspace.clock))
        except BaseException:
            self.close()
            raise
        self.workspace.download_url, self.api_url = (listener.url for listener in self._listeners)

    def __enter__(self) -> Self:
        """Return the sandbox, which has listened since it was made."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop both servers."""
        self.close()

    def close(self) -> None:
        """Stop both servers and remove all files."""
        for listener in self._listeners:
            listener.close()
        self.workspace.close()

    @property
    def api_key(self) -> str:
        """The first of the keys that the sandbox accepts."""
        return next(iter(self.workspace.options.api_keys))

    @property
    def config(self) -> dict[str, Any]:
        """Settings with which a tap exports every user."""
        return {"api_url": self.api_url, "api_key": self.api_key, "segment_ids": ["all-users"]}

    @property
    def calls(self) -> list[Call]:
        """Every request so far to either server, and every callback."""
        return self.workspace.calls

    @property
    def violations(self) -> int:
        """The number of ids requests above the rate limit."""
        return self.workspace.violations

    def add_segment(
        self,
        segment_id: str,
        users: GivenUsers = (),
        *,
        files: Iterable[GivenUsers] | None = None,
        name: str | None = None,
        updated_at: Mapping[str, float] | None = None,
    ) -> None:
        """Add or replace a segment: users as objects or raw lines, or their split into files.

        `updated_at` has the times at which users were last updated, in epoch seconds by braze_id. Of the others those
        that are the same as when they were last given, to any segment, keep their time; the rest is updated now.
        """
        given = list(users)
        if given and files is not None:
            raise ValueError("give users or files, not both")
        split = self.workspace.given_updates.dated([given] if files is None else files, updated_at or {})
        population = self.workspace.population
        self.workspace.segments[segment_id] = Segment(
            segment_id,
            name or segment_id,
            population,
            split[0] if files is None else [],
            files=None if files is None else split,
        )

    def lines(self, segment_id: str, fields: Iterable[str]) -> Iterator[bytes]:
        """Yield the lines that an export of a segment would have."""
        workspace = self.workspace
        selection, size = Selection.of(list(fields)), workspace.options.users_per_file
        for part in workspace.segments[segment_id].parts(selection, size):
            yield from part

    def set_faults(self, *names: str) -> None:
        """Switch exactly these faults on; without a name, all off."""
        self.workspace.faults.set(names)

    def finish_exports(self) -> None:
        """Complete every running export now, callbacks included."""
        self.workspace.finish_exports()

    def deliver_next_file(self) -> str | None:
        """Let the next file appear in the bucket; return its path, None if no file is left."""
        return self.workspace.deliver_next_file()
