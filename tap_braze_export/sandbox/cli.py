"""The command `braze-sandbox`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tap_braze_export.sandbox.braze import Sandbox
from tap_braze_export.sandbox.faults import FAULTS
from tap_braze_export.sandbox.workspace import PERMISSIONS

if TYPE_CHECKING:
    from collections.abc import Iterator


def _list_faults(context: click.Context, _: click.Parameter, wanted: bool) -> None:  # noqa: FBT001 - click's way
    if wanted:
        width = max(map(len, FAULTS))
        for name, meaning in FAULTS.items():
            click.echo(f"{name:{width}}  {meaning}")
        context.exit()


def _json_object(_: click.Context, __: click.Parameter, text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise click.BadParameter("must be a JSON object")
    return value


def _write_ready(path: Path, sandbox: Sandbox) -> None:
    """Write the file in one step, so that nobody reads half of it."""
    ready = {**sandbox.config, "segment_ids": list(sandbox.workspace.segments), "pid": os.getpid()}
    draft = path.with_name(f"{path.name}.draft")
    draft.write_text(json.dumps(ready), "utf-8")
    draft.replace(path)


def _greeting(sandbox: Sandbox, bucket_url: str | None) -> str:
    config = sandbox.config | ({"bucket_url": bucket_url} if bucket_url else {})
    sizes = ", ".join(f"{segment.id} ({len(segment):,})" for segment in sandbox.workspace.segments.values())
    return (
        f"Braze sandbox listens on {sandbox.api_url}; segments and their sizes: {sizes}.\n"
        "Point the tap at it with this config.json:\n\n"
        f"{json.dumps(config, indent=2)}\n\n"
        "  tap-braze-export --config config.json\n\n"
        "Stop it with Ctrl+C."
    )


@click.command()
@click.option("--users", default=1000, show_default=True, type=click.IntRange(0), help="Users of segment all-users.")
@click.option("--seed", default=1, show_default=True, help="Seed of the made-up users.")
@click.option(
    "--changed",
    default=0.0,
    metavar="PERCENT",
    type=click.FloatRange(0, 100),
    help="Share of the made-up users that differ from those of the same seed without this option, as if a day had "
    "passed; a few of them leave or join segment vip-users. With a larger share the same ones differ, and more.",
)
@click.option(
    "--filter-misses",
    default=0.0,
    metavar="PERCENT",
    type=click.FloatRange(0, 100),
    help="Share of all users whom user_last_updated_at never finds, whenever they change; always the same ones.",
)
@click.option("--port", default=0, show_default=True, help="Port of the REST server; 0 is any free one.")
@click.option("--download-port", default=0, show_default=True, help="Port of the downloads; 0 is any free one.")
@click.option(
    "--delay",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0),
    help="Seconds until an export, or a late file, is there.",
)
@click.option("--bucket-url", help="Deliver here instead: a folder, s3://bucket/prefix or other fsspec URL.")
@click.option("--bucket-options", callback=_json_object, help="fsspec options for the bucket, as JSON.")
@click.option(
    "--api-key", "api_keys", multiple=True, default=["sandbox-key"], show_default=True, help="API key to accept."
)
@click.option("--deny", multiple=True, type=click.Choice(PERMISSIONS), help="Permission that the keys lack.")
@click.option("--ids-limit", default=250, show_default=True, type=click.IntRange(1), help="Ids requests a minute.")
@click.option(
    "--ids-latency",
    default=0.0,
    show_default=True,
    type=click.FloatRange(0),
    help="Seconds that each ids request takes.",
)
@click.option(
    "--fault", "faults", multiple=True, type=click.Choice(tuple(FAULTS)), metavar="NAME", help="Fault to switch on."
)
@click.option("--list-faults", is_flag=True, is_eager=True, expose_value=False, callback=_list_faults,
              help="List every fault with what it does.")  # fmt: skip
@click.option("--ready-file", "--state-file", type=click.Path(dir_okay=False, path_type=Path),
              help="Write address, key, segments and process id here once it listens.")  # fmt: skip
def main(*, bucket_url: str | None, ready_file: Path | None, **options: Any) -> None:
    """Run a local Braze with made-up users."""
    try:
        sandbox = Sandbox(bucket_url=bucket_url, log=partial(click.echo, err=True), **options)
    except OSError as error:
        raise click.ClickException(f"cannot listen: {error.strerror}") from error
    except (ImportError, ValueError) as error:
        raise click.ClickException(f"cannot use the bucket: {error}") from error
    with _signals() as signals, sandbox:
        if ready_file:
            _write_ready(ready_file, sandbox)
        click.echo(_greeting(sandbox, bucket_url), err=True)
        signals.recv(1)


@contextlib.contextmanager
def _signals() -> Iterator[socket.socket]:
    """Have SIGTERM and SIGINT send a byte to a socket.

    An Event will not do: the handler would set it on the thread that waits for it, which can hold its lock already.
    """
    ours, theirs = socket.socketpair()
    theirs.settimeout(0)
    with ours, theirs, contextlib.ExitStack() as stack:
        for number in (signal.SIGTERM, signal.SIGINT):
            stack.callback(signal.signal, number, signal.signal(number, lambda *_: None))
        stack.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(theirs.fileno()))
        yield ours
