"""Stages of the task backbones."""
