"""How fast the tap is, beside what else turns the same files into tables."""
