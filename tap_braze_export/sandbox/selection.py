"""The fields and custom attributes that an export requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# Braze sends these with their parent; a request cannot name them.
COMPANIONS = {
    "push_subscribe": frozenset({"push_opted_in_at", "push_unsubscribed_at"}),
    "email_subscribe": frozenset({"email_opted_in_at", "email_unsubscribed_at"}),
}
ALL_COMPANIONS = frozenset().union(*COMPANIONS.values())

# The other two exports have fewer fields than the segment export.
NOT_IN_IDS_EXPORT = frozenset({"created_from"})
NOT_IN_CONTROL_GROUP = frozenset(
    {
        "campaigns_received",
        "canvases_received",
        "cards_clicked",
        "created_from",
        "email_subscribe",
        "push_subscribe",
        "push_tokens",
    },
)


@dataclass(frozen=True)
class Selection:
    """The members that an exported user may have; `attributes` None means every custom attribute."""

    names: frozenset[str]
    attributes: frozenset[str] | None = None

    @classmethod
    def of(
        cls,
        fields: list[str],
        attributes: list[str] | None = None,
        *,
        unavailable: frozenset[str] = frozenset(),
    ) -> Selection:
        """Interpret `fields_to_export` and `custom_attributes_to_export` of a request as Braze does."""
        names = set(fields) - ALL_COMPANIONS - unavailable
        for parent, companions in COMPANIONS.items():
            if parent in names:
                names |= companions
        if "custom_attributes" in names or not attributes:
            return cls(frozenset(names))
        return cls(frozenset(names | {"custom_attributes"}), frozenset(attributes))

    def of_object(self, user: dict[str, Any]) -> dict[str, Any]:
        """The requested part of one user object."""
        kept = {name: value for name, value in user.items() if name in self.names}
        given = kept.get("custom_attributes")
        if self.attributes is not None and isinstance(given, dict):
            kept["custom_attributes"] = {key: value for key, value in given.items() if key in self.attributes}
            if not kept["custom_attributes"]:
                del kept["custom_attributes"]
        return kept
