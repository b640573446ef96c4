"""Braze's REST endpoints: the permission, the time and the space that each one needs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Endpoint:
    """One endpoint of Braze.

    Attributes:
        method: GET or POST.
        path: Its path below `api_url`.
        permission: The API key's permission that it needs.
        is_personal: True if calls are about single people, so that responses may name them.
        starts_export: True if a call must not be repeated while it may have started an export.
        waits_for_rate_limit: False if the caller slows down by itself, on a RateLimitError, or does without.
        max_tries: Tries that may fail.
        read_seconds: Time that Braze has for each part of its response, and for the body as a whole.
        max_bytes: Longest body that is read.
        advice: The settings to check if Braze finds fault with a call.
    """

    method: str
    path: str
    permission: str
    is_personal: bool = False
    starts_export: bool = False
    waits_for_rate_limit: bool = True
    max_tries: int = 8
    read_seconds: int = 60
    max_bytes: int = 16 * 2**20
    advice: str = ""

    def __str__(self) -> str:
        """Method and path."""
        return f"{self.method} {self.path}"


_SEGMENT_IDS = "check segment_ids: --test without them lists the segments of the workspace"

SEGMENT = Endpoint("POST", "/users/export/segment", "users.export.segment", starts_export=True, advice=_SEGMENT_IDS)
CONTROL_GROUP = Endpoint(
    "POST", "/users/export/global_control_group", "users.export.global_control_group", starts_export=True
)
IDS = Endpoint(
    "POST",
    "/users/export/ids",
    "users.export.ids",
    is_personal=True,
    waits_for_rate_limit=False,
    read_seconds=300,
    max_bytes=64 * 2**20,  # 50 users of 1.3 MB
)
# Braze's page and its OpenAPI file disagree about the permission.
CANCEL = Endpoint("POST", "/export/segment/cancel", "segments.list (or users.export.segment)")
DETAILS = Endpoint("GET", "/segments/details", "segments.details", advice=_SEGMENT_IDS)
SEGMENTS = Endpoint("GET", "/segments/list", "segments.list")
SIZES = Endpoint(  # a run that has everything else does not wait for it
    "GET", "/segments/data_series", "segments.data_series", waits_for_rate_limit=False, max_tries=1, read_seconds=10
)
ATTRIBUTES = Endpoint("GET", "/custom_attributes", "custom_attributes.get")
