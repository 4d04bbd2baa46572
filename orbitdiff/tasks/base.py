"""The tasks by name: the same names in params.yaml, on the command line and in the docs."""

from importlib import import_module
from pathlib import Path
from typing import Any

from orbitdiff.errors import BadInput

__all__ = ["build_task", "config_type", "config_types"]

CONFIGS = {
    "toy": ("orbitdiff.tasks.toy", "ToyConfig"),
    "crystals": ("orbitdiff.tasks.crystals", "CrystalsConfig"),
    "conformers": ("orbitdiff.tasks.conformers", "ConformersConfig"),
    "text_crystals": ("orbitdiff.tasks.text_crystals", "TextCrystalsConfig"),
    "backbones": ("orbitdiff.tasks.backbones", "BackbonesConfig"),
}
BUNDLES = {
    "crystals": ("orbitdiff.tasks.crystals", "Crystals"),
    "conformers": ("orbitdiff.tasks.conformers", "Conformers"),
    "text_crystals": ("orbitdiff.tasks.text_crystals", "TextCrystals"),
    "backbones": ("orbitdiff.tasks.backbones", "Backbones"),
}
"""What the training loop trains, built as `Task(settings, arm, data)`."""


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


STREAMED = ("backbones", "crystals")
"""Tasks that ask nothing of their training set but batches, so that it may be streamed."""


def build_task(name: str, settings: Any, arm: Any, data: Path, *, streamed: bool = False) -> Any:
    """Build the bundle that trains one run of a task.

    Parameters
    ----------
    name : str
    settings : dataclass
        A preset of the task.
    arm : dataclass
        An entry of its `estimators`.
    data : Path
        Folder written by `prepare`.
    streamed : bool
        Leave the training set on the disk.

    Raises
    ------
    BadInput
        The task has no training of this kind.
    """
    if name not in BUNDLES:
        raise BadInput(f"expected a task among {sorted(BUNDLES)} to train, got {name!r}")
    if streamed and name not in STREAMED:
        raise BadInput(
            f"expected train.window = 0 for {name}: only {' and '.join(STREAMED)} train on data "
            "that are not in memory"
        )
    module, attribute = BUNDLES[name]
    bundle = getattr(import_module(module), attribute)
    return bundle(settings, arm, data, **({"streamed": True} if streamed else {}))
