"""Users by identifier, through Braze's ids export.

May import braze, files, rows (decoding only), schema, state, export, deliveries, report, http, settings, clock, errors.
"""
