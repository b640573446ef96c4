"""The SDK's standard tests, against a sandbox."""

from __future__ import annotations

import atexit
import tempfile

import pytest
from singer_sdk.testing import SuiteConfig, get_tap_test_class

from tap_braze_export.sandbox import Sandbox
from tap_braze_export.tap import TapBrazeExport

pytestmark = pytest.mark.filterwarnings("ignore:No records were available to test")  # apps rescue nothing here

# The SDK makes the tap, and asks it for its streams, when this module is imported.
_SANDBOX = Sandbox(users=60)
_SPOOL = tempfile.TemporaryDirectory()
atexit.register(_SPOOL.cleanup)
atexit.register(_SANDBOX.close)

TestTapBrazeExport = get_tap_test_class(
    TapBrazeExport,
    config={**_SANDBOX.config, "spool_dir": _SPOOL.name},
    parse_env_config=False,
    suite_config=SuiteConfig(max_records_limit=60, ignore_no_records_for_streams=["invalid_user_ids"]),
)


def test_making_the_tap_asks_nothing() -> None:
    """Making the tap, its streams and its catalog sends no request and opens no file."""
    before = len(_SANDBOX.calls)
    tap = TapBrazeExport(config={**_SANDBOX.config, "spool_dir": "/nowhere/at/all"})
    assert len(tap.catalog_dict["streams"]) == 14
    assert len(_SANDBOX.calls) == before
