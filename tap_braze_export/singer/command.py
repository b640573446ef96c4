"""The command `tap-braze-export`: a failure ends in one ERROR line and an exit code."""

from __future__ import annotations

import platform
import signal
import sys
from typing import TYPE_CHECKING, Any

import click
from singer_sdk.about import MarkdownFormatter
from singer_sdk.exceptions import ConfigValidationError, MapExpressionError, SingerSDKError, StreamMapConfigError
from typing_extensions import override

from tap_braze_export.clock import Interruption
from tap_braze_export.errors import TapError, one_line, unforeseen
from tap_braze_export.singer import logs, standard_output

if TYPE_CHECKING:
    import logging
    from collections.abc import Sequence

    from singer_sdk import Tap
    from singer_sdk.about import AboutInfo

    from tap_braze_export.clock import Signals

_SUMMARY = """Write the users of Braze's segments to standard output, as Singer messages.

The log goes to standard error.

\b
First runs:
  tap-braze-export --config config.json --test            check everything, export nothing
  tap-braze-export --config config.json --discover        list the streams
  tap-braze-export --config config.json | target-jsonl    export, and load
"""
_HELP = {
    "version": "Print the version and end.",
    "about": "Print name, version, capabilities and all settings, and end. Needs no configuration.",
    "about_format": "Format of --about; without it, markdown below versions and system.",
    "config": (
        "JSON file with the settings, or ENV for the variables TAP_BRAZE_EXPORT_<SETTING>. May be given more than once;"
        " a later file wins."
    ),
    "discover": "Write the catalog of all streams and end.",
    "test": (
        "Check what can be checked without an export: connection, key, permissions, segments, bucket, spool directory."
        " Prints a checklist on standard error, starts no export and costs nothing; the exit code is 0, or 1 if a check"
        " fails. Without segment_ids it lists the segments of the workspace. --test=schema writes the SCHEMA message of"
        " each stream instead."
    ),
    "catalog": "Singer catalog: which streams and columns to export.",
    "state": "Singer STATE of an earlier run, which this one continues.",
}
"""Help of the SDK's options, in the words of this tap."""
_NEEDED_BY_CHECKS = ("catalog", "state")
"""Options that --test reads, wherever they stand on the command line."""
_METAVARS = {"test": "[=schema]", "config": "FILENAME"}
"""Values of options as --help shows them, where the SDK shows any text."""


class VersionsAndMarkdown(MarkdownFormatter, format_name="text"):
    """--about without a format: versions and system, as a bug report needs them, then each setting in a few words."""

    @override
    def format_about(self, about_info: AboutInfo) -> str:
        versions = f"{about_info.name} {about_info.version}, Meltano SDK {about_info.sdk_version}"
        system = f"Python {platform.python_version()} on {platform.platform()}"
        return f"{versions}\n{system}\n\n{super().format_about(about_info)}"


class Command(click.Command):
    """The SDK's command with this tap's exit codes: 0, 1 for an error, 143 for SIGTERM, 130 for SIGINT."""

    signals: Signals
    logger: logging.Logger

    @classmethod
    def of(cls, command: click.Command, tap: type[Tap]) -> Command:
        """Make this command from the SDK's command of a tap."""
        made = cls(
            name=command.name,
            callback=command.callback,
            params=command.params,
            help=_SUMMARY,
            context_settings=command.context_settings,
        )
        for option in made.params:
            if option.name in _HELP and isinstance(option, click.Option):
                option.help = _HELP[option.name]
                option.metavar = _METAVARS.get(option.name, option.metavar)
                option.is_eager |= option.name in _NEEDED_BY_CHECKS
        made.signals = tap.signals  # type: ignore[attr-defined]
        made.logger = tap.logger
        return made

    @override
    def main(self, args: Sequence[str] | None = None, *_: Any, **__: Any) -> Any:
        """Run the command and exit the process with the code that says how it ended."""
        standard_output.install()
        logs.set_up(self.logger)
        self.signals.install()
        try:
            code = self._exit_code(sys.argv[1:] if args is None else args)
            sys.stdout.flush()
        except Interruption:
            code = 128 + self.signals.received
            self.signals.finish()
            standard_output.end()
            name = signal.Signals(self.signals.received).name
            self.logger.info("Ended by %s; the next run continues from the last STATE", name)
        except BrokenPipeError:
            code = 1
            self.logger.info("Ended: nobody reads the output any more")
            standard_output.discard()
        except Exception as error:  # noqa: BLE001 - nothing above would report it
            code = 1
            problem = standard_output.end()
            self.logger.error("%s", describe(problem or error))  # noqa: TRY400 - a traceback may hold personal data
        self.signals.disarm()
        sys.exit(code)

    def _exit_code(self, args: Sequence[str]) -> int:
        """Parse the arguments and run, as click does, which would also end the process for a broken pipe by itself."""
        try:
            with self.context_class(self, info_name=self.name, **self.context_settings) as context:
                self.parse_args(context, [*args])
                self.invoke(context)
        except click.exceptions.Exit as ended:
            return ended.exit_code
        return 0


def describe(error: Exception) -> str:
    """Describe a failure in one line; an unexpected error by its place only, as its text may hold personal data."""
    if isinstance(error, ConfigValidationError):
        text = f"Configuration: {'; '.join(error.errors)}"
    elif isinstance(error, (MapExpressionError, StreamMapConfigError)):
        text = f"stream_maps: {str(error).removesuffix('.')}"
    elif isinstance(error, (TapError, SingerSDKError, NotImplementedError)):
        text = str(error)
    elif isinstance(error, click.ClickException):
        text = error.format_message()
    elif isinstance(error, OSError) and error.strerror:
        what = error.filename or "a file of this run, or its disk,"
        text = f"{what} cannot be used ({error.strerror}): look after the disk or mount that holds it, and run again"
    else:
        text = unforeseen(error)
    return one_line(text)
