"""Pictures: static PNG and standalone HTML."""
