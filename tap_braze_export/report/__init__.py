"""Reports of a run to the people who watch it. May import schema, settings, clock and errors."""
