"""Stages of the conformers."""
