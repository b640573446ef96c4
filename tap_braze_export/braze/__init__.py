"""HTTP to Braze, and what its responses mean; imports nothing of the parts of the tap, but schema (storable text)."""
