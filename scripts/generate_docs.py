"""Rewrites what follows from the tap and its tests: settings, streams, capabilities and the fault matrix.

Without an argument it writes; with `--check` it only says which files are out of date, and exits 1.
"""  # noqa: INP001

from __future__ import annotations

import copy
import difflib
import json
import re
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from dbt_sources import dbt_sources
from fault_matrix import fault_matrix

from tap_braze_export.exports.phases import STEPS, Phase, Step
from tap_braze_export.schema.table import RESCUED
from tap_braze_export.schema.user_object import CANVAS_STEPS_RECEIVED, CANVASES_RECEIVED, TABLES, USERS
from tap_braze_export.tap import TapBrazeExport

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

ROOT = Path(__file__).parents[1]
BEGIN, END = "begin generated", "end generated"
FEW_COLUMNS = 10
"""The diagram shows only the keys of streams that have more."""
ENV_HEADER = """\
# Copy to .env. Meltano reads it, and so does `tap-braze-export --config=ENV`.
# Arrays and objects are JSON. Written by `make generate`.
"""
LOADER_HEADER = """\
# A loader for other Meltano projects, as meltano.yml has it and the tests run it. Written by `make generate`.
# `meltano add target-duckdb --from-ref tap-braze-export/deploy/target-duckdb.yaml` needs no Meltano Hub, and pins what
# loses no rows: see docs/loaders.md.
"""
DBT_HEADER = "# Written by `make generate` from the tap's streams.\n"

# Any one of these makes a run meaningful; Meltano asks for api_url, api_key and one of them.
SELECTORS = (
    "segment_ids",
    "global_control_group",
    "external_ids",
    "braze_ids",
    "emails",
    "phones",
    "device_ids",
    "user_aliases",
    "identifiers_url",
)


class _Dumper(yaml.SafeDumper):
    """Writes as people do: lists of names on a line, other lists indented below their key, no anchors."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002
        super().increase_indent(flow, indentless=False)

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _represent_list(dumper: yaml.SafeDumper, items: list[Any]) -> yaml.SequenceNode:
    flat = all(isinstance(item, str) for item in items)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=flat)


_Dumper.add_representer(list, _represent_list)


def _yaml(value: object) -> str:
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def config_schema() -> dict[str, Any]:
    """The settings as `--about` shows them: the tap's own, then the SDK's."""
    schema: dict[str, Any] = copy.deepcopy(TapBrazeExport.config_jsonschema)
    TapBrazeExport.append_builtin_config(schema)
    return schema


def _kind(spec: dict[str, Any]) -> str:
    types = spec.get("type", "string")
    (kind,) = [types] if isinstance(types, str) else [name for name in types if name != "null"]
    return "options" if "enum" in spec else {"number": "decimal"}.get(kind, kind)


def _text(spec: dict[str, Any]) -> str:
    return " ".join(spec.get("description", "").split())


def _label(name: str, spec: dict[str, Any]) -> str:
    return str(spec.get("title") or name.replace("_", " ").capitalize())


def setting(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    """One setting as Meltano describes it."""
    made: dict[str, Any] = {"name": name, "label": _label(name, spec), "kind": _kind(spec)}
    made["description"] = _text(spec)
    if "enum" in spec:
        choices = [choice for choice in spec["enum"] if choice is not None]
        made["options"] = [{"label": choice.capitalize(), "value": choice} for choice in choices]
    if spec.get("default") is not None:
        made["value"] = spec["default"]
    if spec.get("secret"):
        made["sensitive"] = True
    return made


def plugin_facts(schema: dict[str, Any]) -> dict[str, Any]:
    """The tap's part of meltano.yml and plugin.yaml."""
    required = schema.get("required", ["api_url", "api_key"])
    return {
        "capabilities": sorted(capability.value for capability in TapBrazeExport.capabilities),
        "select": ["*.*", *(f"!{entry['tap_stream_id']}.*" for entry in streams() if _left_out(entry))],
        "settings_group_validation": [[*required, name] for name in SELECTORS],
        "settings": [setting(name, spec) for name, spec in schema["properties"].items()],
    }


def loader_definition(name: str) -> str:
    """A loader of meltano.yml for other projects; the values that it has there are defaults."""
    project = yaml.safe_load((ROOT / "meltano.yml").read_text(encoding="utf-8"))
    (plugin,) = [each for each in project["plugins"]["loaders"] if each["name"] == name]
    values = plugin.pop("config")
    for each in plugin["settings"]:
        if each["name"] in values:
            each["value"] = values[each["name"]]
    own = {"name": name, "namespace": plugin.pop("namespace"), "variant": "tap-braze-export", "plugin_type": "loaders"}
    return LOADER_HEADER + _yaml(own | plugin)


def env_example(schema: dict[str, Any]) -> str:
    """Every setting as an environment variable, for Meltano's .env and for `--config=ENV`."""
    parts = [ENV_HEADER]
    for name, spec in schema["properties"].items():
        text = _text(spec) or _label(name, spec)
        comment = textwrap.fill(text, 100, initial_indent="# ", subsequent_indent="# ", break_long_words=False)
        default = spec.get("default")
        value = "" if default is None else default if isinstance(default, str) else json.dumps(default)
        off = "" if name in schema.get("required", ()) else "# "
        parts.append(f"{comment}\n{off}TAP_BRAZE_EXPORT_{name.upper()}={value}\n")
    return "\n".join(parts)


def settings_table(schema: dict[str, Any]) -> str:
    """The settings as a table."""
    lines = ["| setting | type | default | meaning |", "|---|---|---|---|"]
    for name, spec in schema["properties"].items():
        kind = " or ".join(f"`{choice}`" for choice in spec.get("enum", ()) if choice is not None) or _kind(spec)
        notes = [kind, *(["required"] if name in schema.get("required", ()) else [])]
        notes += ["secret"] if spec.get("secret") else []
        default = "" if spec.get("default") is None else f"`{json.dumps(spec['default']).strip(chr(34))}`"
        text = _text(spec).replace("|", "\\|")
        lines.append(f"| `{name}` | {', '.join(notes)} | {default} | {text} |")
    return "\n".join(lines) + "\n"


def entity_diagram() -> str:
    """The streams with their keys and types, and the columns by which they belong together."""
    lines = ["```mermaid", "erDiagram"]
    for table in TABLES:
        lines.append(f"    {table.stream} {{")
        lines += [
            f"        {column.type.name.lower()} {column.name}{' PK' if column.name in table.keys else ''}"
            for column in table.columns
            if column.name in table.keys or (column.name != RESCUED and len(table.columns) <= FEW_COLUMNS)
        ]
        lines.append("    }")
    for table in TABLES:
        steps = table is CANVAS_STEPS_RECEIVED
        owner = CANVASES_RECEIVED if steps else USERS
        if table is not USERS and set(owner.keys) <= set(table.keys):
            lines.append(f'    {owner.stream} ||--o{{ {table.stream} : "{", ".join(owner.keys)}"')
    return "\n".join([*lines, "```"]) + "\n"


def column_tables() -> str:
    """Every column of every stream; keys in bold."""
    lines = []
    for table in TABLES:
        lines += ["", f"## {table.stream}", "", f"{table.description}.", "", "| column | type | is |", "|---|---|---|"]
        for column in table.columns:
            name = f"**`{column.name}`**" if column.name in table.keys else f"`{column.name}`"
            kind = column.type.name.lower().replace("_", " ")
            lines.append(f"| {name} | {kind} | {column.description.replace('|', chr(92) + '|')} |")
    return "\n".join([*lines, ""])


def tap() -> TapBrazeExport:
    """The tap as discovery makes it, which needs no configuration."""
    return TapBrazeExport(config={}, parse_env_config=False, validate_config=False, setup_mapper=False)


def streams() -> list[dict[str, Any]]:
    """The catalog's entries."""
    return list(tap().catalog_dict["streams"])


def without_personal_data(catalog: str) -> str:
    """The catalog with everything deselected that identifies a person."""
    made = json.loads(catalog)
    tables = {table.stream: table for table in TABLES}
    for entry in made["streams"]:
        table = tables[entry["tap_stream_id"]]
        personal = {("properties", column.name) for column in table.columns if column.personal}
        for item in entry["metadata"]:
            crumb = tuple(item["breadcrumb"])
            if crumb[:2] in personal or (not crumb and table.personal):
                item["metadata"]["selected"] = False
    return json.dumps(made, indent=2) + "\n"


def selecting(catalog: str, wanted: Mapping[str, Collection[str] | None]) -> str:
    """The catalog with these streams only, and of each these columns besides the automatic ones; None for all."""
    made = json.loads(catalog)
    for entry in made["streams"]:
        stream = entry["tap_stream_id"]
        columns = wanted.get(stream)
        for item in entry["metadata"]:
            crumb = item["breadcrumb"]
            if not crumb:
                item["metadata"]["selected"] = stream in wanted
            elif columns is not None and crumb[1] not in columns and item["metadata"]["inclusion"] != "automatic":
                item["metadata"]["selected"] = False
    return json.dumps(made, indent=2) + "\n"


ENGAGEMENT: Mapping[str, Collection[str] | None] = {
    "users": ("created_at", "country", "language", "time_zone", "push_subscribe", "email_subscribe", "total_revenue"),
    "purchases": None,
    "custom_events": None,
    "campaigns_received": None,
    "canvases_received": None,
    "canvas_steps_received": None,
    "cards_clicked": None,
    "apps": None,
    "export_files": None,
}
"""Streams and columns that say what users do."""
IDENTITY: Mapping[str, Collection[str] | None] = {
    "users": ("external_id", "email", "phone", "first_name", "last_name", "created_at", "random_bucket"),
    "user_aliases": None,
    "devices": ("device_id", "idfv", "idfa", "google_ad_id", "roku_ad_id", "windows_ad_id"),
    "export_files": None,
}
"""Streams and columns that say who users are in other systems."""


def _left_out(entry: dict[str, Any]) -> bool:
    """True if a stream is deselected by default; Meltano selects everything that it is not told to leave out."""
    (own,) = [item["metadata"] for item in entry["metadata"] if not item["breadcrumb"]]
    return own.get("selected", own.get("selected-by-default")) is False


def _replace(path: Path, made: str, *, indent: int = 0) -> str:
    """The file with what stands between its two marker lines replaced; without the second, all after the first."""
    pattern = re.compile(rf"(^[^\n]*{BEGIN}[^\n]*\n).*?(^[^\n]*{END}|\Z)", re.DOTALL | re.MULTILINE)
    text = path.read_text(encoding="utf-8")
    block = textwrap.indent(made, " " * indent)
    return pattern.sub(lambda match: match[1] + block + match[2], text, count=1)


def phase_tables() -> str:
    """The phases of an export, and the steps between them; steps that differ only in where they begin share a row."""
    lines = ["", "| phase | an export in it |", "|---|---|"]
    lines += [f"| {_phase(phase)} | {phase.value} |" for phase in Phase]
    lines += ["", "| from | to | when | the journal's record | the next STATE |", "|---|---|---|---|---|"]
    rows: dict[Step, list[str]] = {}
    for step in STEPS:
        rows.setdefault(step._replace(before=Phase.PLANNED), []).append(_phase(step.before))
    for step, before in rows.items():
        lines.append(
            f"| {', '.join(before)} | {_phase(step.after)} | {step.cause} | {step.record.value} | {step.state} |"
        )
    return "\n".join([*lines, "", ""])


def _phase(phase: Phase) -> str:
    return f"*{phase.name.lower().replace('_', ' ')}*"


def generated() -> dict[Path, str]:
    """Each generated file and what belongs in it."""
    schema = config_schema()
    facts = plugin_facts(schema)
    # `meltano add --from-ref` drops a definition's select; the README says how to set it.
    definition = {name: fact for name, fact in facts.items() if name != "select"}
    made = {
        ROOT / "meltano.yml": _replace(ROOT / "meltano.yml", _yaml(facts), indent=6),
        ROOT / "plugin.yaml": _replace(ROOT / "plugin.yaml", _yaml(definition)),
        ROOT / "deploy" / "target-duckdb.yaml": loader_definition("target-duckdb"),
        ROOT / "dbt" / "models" / "sources.yml": DBT_HEADER + _yaml(dbt_sources()),
        ROOT / "docs" / "settings.md": _replace(ROOT / "docs" / "settings.md", settings_table(schema)),
        ROOT / "docs" / "rows.md": _replace(ROOT / "docs" / "rows.md", entity_diagram()),
        ROOT / "docs" / "columns.md": _replace(ROOT / "docs" / "columns.md", column_tables()),
        ROOT / "docs" / "state.md": _replace(ROOT / "docs" / "state.md", phase_tables()),
        ROOT / "docs" / "reliability.md": _replace(ROOT / "docs" / "reliability.md", fault_matrix(ROOT)),
        ROOT / ".env.example": env_example(schema),
    }
    catalog = tap().catalog_json_text + "\n"
    everything = dict.fromkeys(entry["tap_stream_id"] for entry in streams())
    catalogs = {
        "catalog": catalog,
        "everything": selecting(catalog, everything),
        "no-personal-data": without_personal_data(catalog),
        "engagement": selecting(catalog, ENGAGEMENT),
        "identity": selecting(catalog, IDENTITY),
    }
    made |= {ROOT / "catalog" / f"{name}.json": text for name, text in catalogs.items()}
    return made


def main() -> int:
    """Write, or with --check compare."""
    check = "--check" in sys.argv[1:]
    made = generated()
    strangers = [path for path in (ROOT / "catalog").glob("*.json") if path not in made]
    outdated = False
    for path, text in made.items():
        found = path.read_text(encoding="utf-8") if path.exists() else ""
        if found == text:
            continue
        outdated = True
        if check:
            name = str(path.relative_to(ROOT))
            diff = difflib.unified_diff(found.splitlines(), text.splitlines(), name, "make generate", lineterm="", n=1)
            sys.stderr.write("\n".join(diff) + "\n")
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
            sys.stdout.write(f"wrote {path.relative_to(ROOT)}\n")
    for path in strangers:
        outdated = True
        if check:
            sys.stderr.write(f"{path.relative_to(ROOT)}: nothing generates this file\n")
        else:
            path.unlink()
    return int(check and outdated)


if __name__ == "__main__":
    sys.exit(main())
