"""Data: sources with checksums, split rules, parsing, parquet shards, data sets in memory."""
