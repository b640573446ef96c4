"""`python -m tap_braze_export.sandbox` is `braze-sandbox`."""

from __future__ import annotations

from tap_braze_export.sandbox.cli import main

main(prog_name="braze-sandbox")
