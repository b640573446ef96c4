"""A segment export's life: request, resume, poll, finish.

May import braze, files, schema, state, deliveries and report.
"""
