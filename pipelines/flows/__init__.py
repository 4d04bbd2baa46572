"""Prefect flows: when, where and with which retries the DVC stages run."""
