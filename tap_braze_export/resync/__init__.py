"""Users by identifier, through Braze's ids export.

May import braze, files, rows (decoding only), schema, state, settings, deliveries, report, threads, clock and errors.
"""
