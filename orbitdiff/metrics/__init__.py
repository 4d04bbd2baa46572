"""Metrics: per-sample values first, aggregation second."""
