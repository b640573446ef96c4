"""Reports of a run to the people who watch it. May import state, schema, settings, clock, errors."""
