"""Contract tests that an extender inherits."""
