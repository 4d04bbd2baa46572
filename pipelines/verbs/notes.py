"""Warnings of the library as notes of a command."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import typer

__all__ = ["noting"]


@contextmanager
def noting(*categories: type[Warning]) -> Iterator[None]:
    """Write each warning of these categories as one line on standard error, when all is done.

    Parameters
    ----------
    categories : types of warnings
        Others are left out.
    """
    with warnings.catch_warnings(record=True) as caught:
        for category in categories:
            warnings.simplefilter("always", category)
        yield
    for warning in caught:
        if issubclass(warning.category, categories):
            typer.echo(f"note: {warning.message}", err=True)
