"""Tests of `tap_braze_export/fingerprints`."""
