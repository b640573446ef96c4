"""The functions of zlib from isal, at least twice as fast, or from Python where isal has no wheel."""

from __future__ import annotations

try:
    from isal import isal_zlib as fast_zlib
except ImportError:
    import zlib as fast_zlib  # type: ignore[no-redef]

__all__ = ["fast_zlib"]
