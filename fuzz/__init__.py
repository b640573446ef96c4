"""Fuzzing: a target per door through which foreign bytes come in; `make fuzz`, and a small budget in the tests."""
