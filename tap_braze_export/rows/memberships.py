"""The rows of `segment_members`, which come from an export as a whole, not from its lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tap_braze_export.rows.conform import as_loaded
from tap_braze_export.rows.exact_json import ENCODER
from tap_braze_export.rows.rendered import Rows
from tap_braze_export.schema.table import EXPORTED_AT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tap_braze_export.schema.selection import Selection


def membership_rows(
    selection: Selection, braze_ids: Iterable[str], *, segment_id: str, is_member: bool, exported_at: str
) -> Rows:
    """Render the rows of users that are, or are no longer, members of a segment."""
    row = {"segment_id": segment_id, "braze_id": "", "is_member": is_member, EXPORTED_AT: exported_at}
    columns = as_loaded(selection.columns, row)
    rows = [columns | {"braze_id": braze_id} for braze_id in braze_ids]
    return Rows((ENCODER.encode_lines(rows),), len(rows))
