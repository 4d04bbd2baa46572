"""Verbs of the command line that work on a user's own input."""
