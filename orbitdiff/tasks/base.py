"""The tasks by name: the same names in params.yaml, on the command line and in the docs."""

from importlib import import_module

from orbitdiff.errors import BadInput

__all__ = ["config_type", "config_types"]

CONFIGS = {
    "toy": ("orbitdiff.tasks.toy", "ToyConfig"),
    "crystals": ("orbitdiff.tasks.crystals", "CrystalsConfig"),
}


def config_type(name: str) -> type:
    """Return the config dataclass of one preset of a task.

    Parameters
    ----------
    name : str

    Raises
    ------
    BadInput
        Unknown task.
    """
    if name not in CONFIGS:
        raise BadInput(f"expected a task among {sorted(CONFIGS)}, got {name!r}")
    module, attribute = CONFIGS[name]
    found: type = getattr(import_module(module), attribute)
    return found


def config_types() -> dict[str, type]:
    """Return every task's config dataclass."""
    return {name: config_type(name) for name in CONFIGS}
