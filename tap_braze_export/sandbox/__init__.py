"""A local Braze over real HTTP, for tests, demos and pipelines without production data; imports nothing of the tap."""

from __future__ import annotations

from tap_braze_export.sandbox.braze import Sandbox
from tap_braze_export.sandbox.workspace import Call

__all__ = ["Call", "Sandbox"]
