"""The facts of a run, for the people who watch it. May import export, schema, settings, clock, errors."""
