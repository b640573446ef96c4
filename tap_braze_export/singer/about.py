"""`--about` as text: versions and system, as a bug report needs them, then each setting in a few words."""

from __future__ import annotations

import platform
import textwrap
from typing import TYPE_CHECKING, Any

from singer_sdk.about import AboutFormatter
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Iterator

    from singer_sdk.about import AboutInfo

_LINE_WIDTH = 80
_INDENT = "    "


class TextAbout(AboutFormatter, format_name="text"):
    """Replaces the SDK's text, which lists types and variables but says nothing of what a setting does."""

    @override
    def format_about(self, about_info: AboutInfo) -> str:
        versions = f"{about_info.name} {about_info.version}, Meltano SDK {about_info.sdk_version}"
        system = f"Python {platform.python_version()} on {platform.platform()}"
        paragraphs = [
            versions,
            system,
            about_info.description or "",
            f"Capabilities: {', '.join(map(str, about_info.capabilities))}",
            "",
            f"Settings of the file of --config, or as variables {about_info.env_var_prefix}<SETTING>:",
        ]
        lines = [line for paragraph in paragraphs for line in textwrap.wrap(paragraph, _LINE_WIDTH) or [""]]
        required = about_info.settings.get("required", ())
        for name, definition in about_info.settings["properties"].items():
            lines += ["", f"{name} ({', '.join(_traits(definition, is_required=name in required))})"]
            text = " ".join(definition.get("description", "").split())
            lines += textwrap.wrap(text, _LINE_WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT)
        return "\n".join(lines)


def _traits(definition: dict[str, Any], *, is_required: bool) -> Iterator[str]:
    types = definition.get("type", ())
    yield " or ".join(kind for kind in ([types] if isinstance(types, str) else types) if kind != "null") or "any value"
    if is_required:
        yield "required"
    if definition.get("secret"):
        yield "secret"
    if (default := definition.get("default")) is not None:
        yield f"default {str(default).lower() if isinstance(default, bool) else default}"
