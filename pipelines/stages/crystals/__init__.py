"""Stages of crystal structure prediction."""
