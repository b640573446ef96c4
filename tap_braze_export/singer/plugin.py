"""The SDK's tap as this one uses it: command line, configuration, mapper. Settings and streams are in `tap.py`.

This module overrides every private hook of the SDK's tap; `tests/singer/test_sdk.py` fails when one changes.
"""

from __future__ import annotations

import copy
from contextlib import suppress
from functools import cached_property
from typing import IO, TYPE_CHECKING, Any, ClassVar, Self

from singer_sdk import Tap
from singer_sdk.cli import plugin_cli
from singer_sdk.configuration._dict_config import parse_environment_config
from singer_sdk.exceptions import ConfigValidationError
from singer_sdk.helpers._classproperty import classproperty
from singer_sdk.mapper import PluginMapper
from singer_sdk.plugin_base import PluginBase
from singer_sdk.singerlib import Catalog, Schema
from singer_sdk.singerlib.catalog import Metadata
from singer_sdk.tap_base import CliTestOptionValue
from typing_extensions import override

from tap_braze_export.clock import Clock, Signals
from tap_braze_export.errors import ConfigError
from tap_braze_export.schema.table import EXPORTED_AT
from tap_braze_export.schema.user_object import TABLES
from tap_braze_export.settings import Settings, without_unset
from tap_braze_export.singer import meltano_test
from tap_braze_export.singer.command import Command
from tap_braze_export.singer.config_errors import (
    check_config_file,
    checked_catalog,
    checked_state,
    describe_errors,
    environment_errors,
    forget_unknown_log_levels,
    variables,
)
from tap_braze_export.singer.file_stream import FileStream
from tap_braze_export.singer.messages import MessageWriter

if TYPE_CHECKING:
    import click

    from tap_braze_export.schema.table import Field

_TABLES = {table.stream: table for table in TABLES}


class Plugin(Tap):
    """A tap whose failures end in one line.

    Attributes:
        signals: The signals that the run receives.
        clock: Time and waiting; tests replace it.
    """

    signals: ClassVar[Signals] = Signals()
    clock: ClassVar[Clock] = Clock(signals)

    def rules(self) -> list[str]:
        """List the errors of settings that are valid one by one and do not go together."""
        return []

    def custom_attributes(self) -> list[Field]:
        """List the typed members of the column custom_attributes."""
        return []

    @cached_property
    def settings(self) -> Settings:
        """The configuration, typed."""
        return Settings.of(self.config)

    def check(self) -> None:
        """Run the checks of `--test`, which start no export.

        Raises:
            TapError: If a check fails.
        """

    def help_to_configure(self, errors: list[str]) -> None:
        """Log what helps to mend the errors for which `--test` refuses the settings."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("message_writer", MessageWriter(self.signals))
        super().__init__(**options)

    @override
    def setup_mapper(self) -> None:
        """Add the columns that are in every row, keys and exported_at, to a catalog made by hand that lacks them."""
        for entry in self.input_catalog.streams if self.input_catalog else ():
            if table := _TABLES.get(entry.tap_stream_id):
                entry.key_properties = entry.key_properties or table.keys
                entry.schema.properties = entry.schema.properties or {}
                for name in (*table.keys, EXPORTED_AT):
                    definition = Schema.from_dict(table.json_schema["properties"][name])
                    entry.schema.properties.setdefault(name, definition)
                    entry.metadata["properties", name].inclusion = Metadata.InclusionType.AUTOMATIC
        # The mapper removes __else__ from the settings it gets, so it gets a copy. It drops the columns of deselected
        # streams, which a dry run syncs, too, so it gets a catalog that selects every stream.
        self.mapper = PluginMapper(plugin_config=copy.deepcopy(dict(self.config)), logger=self.logger)
        catalog = copy.deepcopy(self.catalog)
        for entry in catalog.streams:
            entry.metadata.root.selected = True
        self.mapper.register_raw_streams_from_catalog(catalog)

    @classproperty
    @override
    def _env_var_config(cls) -> dict[str, Any]:  # noqa: N805 - a class property, in the SDK's way
        """The settings in the environment and in a .env file, without blank ones, which the SDK would convert.

        Raises:
            ConfigValidationError: If a variable holds text that the SDK cannot convert, or would read as false.
        """
        parse_environment_config({}, cls._env_var_prefix)  # reads .env into the environment
        if errors := environment_errors(cls):
            raise ConfigValidationError("environment", errors=errors)
        properties = {setting: definition for setting, definition, *_ in variables(cls)}
        return parse_environment_config({"properties": properties}, cls._env_var_prefix)

    @override
    def _validate_config(self, *, raise_errors: bool = True) -> list[str]:
        """Drop unset settings, then list all errors; a tap made without validation refuses only wrong values."""
        self._config = without_unset(self._config)
        missing, wrong = describe_errors(self)
        errors = [*missing, *wrong, *(self.rules() if raise_errors else ())]
        if wrong or (errors and raise_errors):
            raise ConfigValidationError("settings", errors=errors if raise_errors else wrong)
        return errors

    @override
    def load_state(self, state: dict[str, Any]) -> None:
        """Load the bookmark of export_files only; orchestrators may merge foreign ones into STATE."""
        bookmarks = state.get("bookmarks", {})
        super().load_state({"bookmarks": {name: bookmarks[name] for name in bookmarks if name == "export_files"}})

    # The command line

    @plugin_cli
    def cli(cls) -> click.Command:  # noqa: N805 - a class method, in the SDK's way
        """The command, made without unknown log levels, with which the SDK could not even log an error."""
        unknown = forget_unknown_log_levels(cls.name)
        command: click.Command = vars(PluginBase)["cli"].method(cls)
        for variable in unknown:
            cls.logger.warning("%s names no log level: INFO is used", variable)
        return command

    @classmethod
    @override
    def get_singer_command(cls) -> click.Command:
        return Command.of(super().get_singer_command(), cls)

    @override
    def _setup_signal_handlers(self) -> None:
        """Do nothing: the command installs handlers that end the output at a line."""

    @classmethod
    @override
    def invoke(cls, *, catalog: IO[str] | None = None, state: IO[str] | None = None, **options: Any) -> None:
        """Sync, unless `meltano config test` calls: it gets the checks of `--test`, which start no export."""
        given = options.get("config")
        if given and meltano_test.is_caller():
            cls.logger.info(
                "`meltano config test` calls: this checks what --test checks, and starts no export;"
                " the one record that Meltano waits for is made up"
            )
            cls._made_for_checks(given).check()
            meltano_test.answer()
            return
        if meltano_test.is_one_pipe() and not options.get("about"):
            cls.logger.info(
                "Messages and log leave through one pipe, as in a test of the settings: this is no test, it starts a"
                " real export, and the next run continues it; --test checks the settings and starts none"
            )
        super().invoke(catalog=checked_catalog(catalog), state=checked_state(state), **options)

    @classmethod
    @override
    def cb_config(cls, ctx: click.Context, param: click.Option, value: tuple[str, ...]) -> Any:
        for path in value:
            if path != "ENV":
                check_config_file(path)
        return super().cb_config(ctx, param, value)

    @classmethod
    @override
    def cb_discover(cls, ctx: click.Context, param: click.Option, value: bool) -> None:
        if value:
            given = ctx.params["config"]
            tap = cls(config=given.config, parse_env_config=given.parse_env, validate_config=False, setup_mapper=False)
            tap.run_discovery()
            ctx.exit()

    @classmethod
    @override
    def cb_test(cls, ctx: click.Context, param: click.Option, value: str) -> None:
        """Run the checks of `--test`, or write the SCHEMA messages of `--test=schema`."""
        known = [choice.value for choice in CliTestOptionValue]
        if value not in known:
            raise ConfigError(f"--test takes no value but {', '.join(known)}")
        if value == CliTestOptionValue.Disabled.value:
            return
        given = ctx.params["config"]
        if value == CliTestOptionValue.All.value:
            cls._made_for_checks(given).check()
        else:
            tap = cls(config=given.config, parse_env_config=given.parse_env)
            for stream in tap.streams.values():
                stream.selected = True
                if isinstance(stream, FileStream):
                    stream.write_schema()
        ctx.exit()

    @classmethod
    def _made_for_checks(cls, given: Any) -> Self:
        """Make the tap with a catalog, so that no discovery asks Braze for custom attributes.

        Raises:
            ConfigValidationError: If the settings are wrong; what may help to mend them is logged.
        """
        options = {"config": given.config, "parse_env_config": given.parse_env, "catalog": Catalog()}
        try:
            return cls(**options)
        except ConfigValidationError as error:
            with suppress(ConfigValidationError):
                cls(**options, validate_config=False, setup_mapper=False).help_to_configure(error.errors)
            raise
