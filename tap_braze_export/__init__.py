"""A Singer tap for Braze user exports."""

from __future__ import annotations
