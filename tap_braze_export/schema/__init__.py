"""Braze's user object, and what the catalog selects of it. Imports nothing of the tap."""
