"""Bytes and seconds as people read them."""

from __future__ import annotations


def megabytes(size: float) -> str:
    """Format bytes for people, in millions: `0.3`, `15`, `1,204`."""
    millions = size / 1e6
    return f"{millions:,.0f}" if round(millions) >= 10 else f"{millions:.1f}"  # noqa: PLR2004


def duration(seconds: float) -> str:
    """Format a duration for people: `0.4 s`, `75 s`, `12 min`, `3 h 5 min`."""
    if seconds < 10:  # noqa: PLR2004
        return f"{seconds:.1f} s"
    if seconds < 120:  # noqa: PLR2004
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"  # noqa: PLR2004
