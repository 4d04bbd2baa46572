"""Pipelines around the library."""
