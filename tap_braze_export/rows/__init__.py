"""A line → rows of every stream. Imports `schema`, and of `files` only the type of a block of lines."""
