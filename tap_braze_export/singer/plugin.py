"""The SDK's tap as this one uses it: command line, configuration, mapper. Settings and streams are in `tap.py`.

This module overrides every private hook of the SDK's tap; `tests/singer/test_sdk.py` fails when one changes.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import logging
import os
from contextlib import suppress
from functools import cached_property
from typing import IO, TYPE_CHECKING, Any, ClassVar, Self

from singer_sdk import Tap
from singer_sdk.cli import plugin_cli
from singer_sdk.configuration._dict_config import parse_environment_config
from singer_sdk.exceptions import ConfigValidationError, SingerSDKError
from singer_sdk.helpers._classproperty import classproperty
from singer_sdk.helpers._flattening import get_flattening_options
from singer_sdk.mapper import PluginMapper
from singer_sdk.plugin_base import PluginBase
from singer_sdk.singerlib import Catalog, Schema
from singer_sdk.singerlib.catalog import CatalogEntry, MetadataMapping
from singer_sdk.tap_base import CliTestOptionValue
from typing_extensions import override

from tap_braze_export.clock import Clock, Signals
from tap_braze_export.errors import ConfigError, refuse, warn_of
from tap_braze_export.schema.user_object import TABLES
from tap_braze_export.settings import Settings, without_unset
from tap_braze_export.singer import meltano_test
from tap_braze_export.singer.catalogs import declared_streams
from tap_braze_export.singer.command import Command
from tap_braze_export.singer.config_errors import config_errors, read_environment, unknown_settings
from tap_braze_export.singer.config_values import converted_config, odd_values
from tap_braze_export.singer.expressions import MappedStream
from tap_braze_export.singer.flattening import Flattening
from tap_braze_export.singer.given_files import read_catalog, read_config, read_state
from tap_braze_export.singer.map_rules import MapRules
from tap_braze_export.singer.messages import MessageWriter
from tap_braze_export.singer.selection_rules import Known, catalog_rules, meltano_rules
from tap_braze_export.state import none_or_one

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import click

    from tap_braze_export.errors import Problem
    from tap_braze_export.schema.declared import Declaration


def _selected(entry: CatalogEntry) -> CatalogEntry:
    """The same entry with its stream selected."""
    metadata = MetadataMapping(entry.metadata)
    metadata[()] = dataclasses.replace(entry.metadata.root, selected=True)
    return dataclasses.replace(entry, metadata=metadata)


class Plugin(Tap):
    """A tap whose failures end in one line.

    Attributes:
        signals: The signals that the run receives.
        clock: Time and waiting; tests replace it.
        declarations: The streams as the catalog declares them, by name; empty without a catalog.
        flattenings: The flattened form of each stream that stream maps give, by name; empty without flattening.
        unknown_settings: The names among the given settings that the tap does not know, with the nearest known ones.
        writes_schemas_at_once: True for `--test=schema`; in a run SCHEMA messages wait for the first file.
    """

    signals: ClassVar[Signals] = Signals()
    clock: ClassVar[Clock] = Clock(signals)

    def rules(self) -> list[str]:
        """List the errors of settings that are valid one by one and do not go together."""
        return []

    @cached_property
    def settings(self) -> Settings:
        """The configuration, typed."""
        return Settings.of(self.config)

    def check(self) -> None:
        """Run the checks of `--test`, which start no export; a TapError names those that fail."""

    @classmethod
    def help_to_configure(cls, config: Mapping[str, Any], errors: list[str]) -> None:
        """Log what helps to mend the errors for which `--test` refuses a configuration."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("message_writer", MessageWriter(self.signals))
        given = options.get("catalog")
        self._given_catalog = {} if given is None or isinstance(given, Catalog) else given
        self.declarations: dict[str, Declaration] = {}
        self.flattenings: dict[str, Flattening] = {}
        self.unknown_settings: list[str] = []
        self.writes_schemas_at_once = False
        self._reads_environment = bool(options.get("parse_env_config"))
        super().__init__(**options)

    @override
    def setup_mapper(self) -> None:
        """Make SCHEMA of what the catalog declares, with the columns that are in every row: keys and exported_at."""
        self.declarations = declared_streams(self.input_catalog, self._given_catalog)
        refuse(self.unmatched_names(), self.logger)
        # The mapper removes __else__ from the settings it gets, so it gets a copy. It drops the columns of deselected
        # streams, which a dry run syncs, too, so it gets a catalog that selects every stream.
        config: Any = copy.deepcopy(dict(self.config))
        options = get_flattening_options(config)
        config.pop("flattening_enabled", None)  # the SDK's own flattening is replaced, see flattening.py
        self.mapper = PluginMapper(plugin_config=config, logger=self.logger)
        catalog = Catalog({name: _selected(entry) for name, entry in self.catalog.items()})
        for name, declaration in self.declarations.items():
            catalog[name].schema = Schema.from_dict(declaration.json_schema)
        try:
            self.mapper.register_raw_streams_from_catalog(catalog)
        except Exception as error:
            if isinstance(error, SingerSDKError) or not self.config.get("stream_maps"):
                raise
            raise ConfigError(
                f"stream_maps cannot be read ({type(error).__name__}): each stream needs an object of column names and"
                " expressions, or null"
            ) from None
        if options.enabled and options.max_level > 0:
            for stream_map in itertools.chain.from_iterable(self.mapper.stream_maps.values()):
                keys = stream_map.transformed_key_properties or ()
                flattening = Flattening.of(stream_map.transformed_schema, options, keys)
                self.flattenings[stream_map.stream_alias] = flattening
                stream_map.transformed_schema = flattening.schema

    def unmatched_names(self) -> Iterator[Problem]:
        """List the names in settings and rules that match nothing."""
        catalog, attributes_are_known = self.catalog, True
        if self.input_catalog is not None and not self.input_catalog:
            # A check that is given no catalog has an empty one, so that it does not ask Braze for custom attributes.
            selected = (table.stream for table in TABLES if table.selected_by_default)
            catalog = Catalog({name: _selected(catalog[name]) for name in selected})
            attributes_are_known = not self.config.get("discover_custom_attributes")
        streams = [MappedStream.of(table, catalog.get_stream(table.stream)) for table in TABLES]
        yield from MapRules(self.config, streams).problems()
        known = Known(catalog, attributes_are_known=attributes_are_known)
        yield from known.problems([*catalog_rules(catalog)])
        yield from known.problems([*meltano_rules(os.environ)])
        yield from known.extra_field_problems(self.config.get("extra_export_fields") or ())

    @classproperty
    @override
    def _env_var_config(cls) -> dict[str, Any]:  # noqa: N805 - a class property, in the SDK's way
        """The settings in the environment and in a .env file, without blank ones."""
        parse_environment_config({}, cls._env_var_prefix)  # reads .env into the environment
        settings, errors = read_environment(cls._definitions(), cls._env_var_prefix)
        if errors:
            raise ConfigValidationError("environment", errors=errors)
        return settings

    @classmethod
    def _definitions(cls) -> dict[str, Any]:
        """The JSON schemas of all settings, the SDK's own among them."""
        cls.append_builtin_config(cls.config_jsonschema)
        definitions: dict[str, Any] = cls.config_jsonschema["properties"]
        return definitions

    @override
    def _validate_config(self, *, raise_errors: bool = True) -> list[str]:
        """Drop unset settings, convert the others, name unknown ones, then list all errors.

        A tap made without validation refuses only wrong values.
        """
        definitions, prefix = self._definitions(), self._env_var_prefix
        self._config = converted_config(without_unset(self._config), definitions)
        if odd := odd_values(self._config, definitions):
            raise ConfigValidationError("settings", errors=odd)
        self.unknown_settings = unknown_settings(self._config, definitions, prefix if self._reads_environment else "")
        if self.unknown_settings:
            self.logger.warning("Unknown settings are ignored: %s", ", ".join(self.unknown_settings))
        missing, wrong = config_errors(self._config, self.config_jsonschema, prefix)
        errors = [*missing, *wrong, *(self.rules() if raise_errors else ())]
        if wrong or (errors and raise_errors):
            raise ConfigValidationError("settings", errors=errors if raise_errors else wrong)
        return errors

    @override
    def load_state(self, state: dict[str, Any]) -> None:
        """Load the bookmark of export_files only, without Singer's partitions; orchestrators merge foreign ones in.

        The SDK writes it again at once, so its members are made lists here.
        """
        found = state.get("bookmarks", {}).get("export_files", {})
        own = {name: found[name] for name in found if name != "partitions"}
        if own:
            own |= {name: none_or_one(own.get(name)) for name in ("resync", "fingerprints")}
        super().load_state({"bookmarks": {"export_files": own}} if own else {})

    # The command line

    @plugin_cli
    def cli(cls) -> click.Command:  # noqa: N805 - a class method, in the SDK's way
        """The command, made without unknown log levels, with which the SDK could not even log an error."""
        known, variables = logging.getLevelNamesMapping() | {"": 0}, (f"{cls._env_var_prefix}LOGLEVEL", "LOGLEVEL")
        unknown = [variable for variable in variables if os.environ.get(variable, "").upper() not in known]
        for variable in unknown:
            del os.environ[variable]
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
    def invoke(cls, *, about: bool = False, about_format: str | None = None, **given: Any) -> None:
        """Sync, unless `meltano config test` calls: it gets the checks of `--test`, which start no export."""
        if about:
            cls.print_about(about_format)
        elif given["config"] and meltano_test.is_caller():
            cls.logger.info(
                "`meltano config test` calls: this checks what --test checks, and starts no export;"
                " the one record that Meltano waits for is made up"
            )
            cls._made_for_checks(**given).check()
            meltano_test.answer()
        else:
            if meltano_test.is_one_pipe():
                cls.logger.info(
                    "Messages and log leave through one pipe, as in a test of the settings: this is no test, it starts"
                    " a real export, and the next run continues it; --test checks the settings and starts none"
                )
            cls.print_version(print_fn=cls.logger.info)
            cls._made(**given).sync_all()

    @classmethod
    @override
    def cb_config(cls, ctx: click.Context, param: click.Option, value: tuple[str, ...]) -> Any:
        given = super().cb_config(ctx, param, tuple(path for path in value if path == "ENV"))
        for path in value:
            if path != "ENV":
                given.config.update(read_config(path))
        return given

    @classmethod
    @override
    def cb_discover(cls, ctx: click.Context, param: click.Option, value: bool) -> None:
        if value:
            given = ctx.params["config"]
            tap = cls(config=given.config, parse_env_config=given.parse_env, validate_config=False, setup_mapper=False)
            tap.run_discovery()
            warn_of(tap.unmatched_names(), tap.logger)
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
        given = {name: ctx.params.get(name) for name in ("config", "catalog", "state")}
        if value == CliTestOptionValue.All.value:
            cls._made_for_checks(**given).check()
        else:
            tap = cls._made(given["config"], None, None)
            tap.writes_schemas_at_once = True
            tap.write_schemas()
        ctx.exit()

    @classmethod
    def _made(
        cls, config: Any, catalog: IO[str] | None, state: IO[str] | None, *, without_catalog: Catalog | None = None
    ) -> Self:
        """Make the tap of what the command line gives."""
        return cls(
            config=config.config,
            parse_env_config=config.parse_env,
            catalog=read_catalog(catalog) if catalog else without_catalog,
            state=read_state(state) if state else None,
        )

    @classmethod
    def _made_for_checks(cls, config: Any, **files: Any) -> Self:
        """Make the tap with a catalog, an empty one if need be, so that no discovery asks Braze for custom attributes.

        What may help to mend wrong settings is logged.
        """
        try:
            return cls._made(config, **files, without_catalog=Catalog())
        except ConfigValidationError as error:
            with suppress(ConfigValidationError):
                environment = cls._env_var_config if config.parse_env else {}
                settings = without_unset({**config.config, **environment})
                cls.help_to_configure(converted_config(settings, cls._definitions()), error.errors)
            raise
