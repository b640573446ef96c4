"""Fingerprints of users: which of them changed since they were last emitted. May import `files` and what is below."""
