"""Stages of text-guided crystals."""
