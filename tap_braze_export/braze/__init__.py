"""HTTP to Braze, and what its responses mean; imports nothing of the tap but retry, clock and errors."""
