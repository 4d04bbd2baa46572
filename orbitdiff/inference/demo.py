"""The small models that the package ships, labelled demo in their config."""

from importlib.resources import files
from pathlib import Path

__all__ = ["demo_checkpoint"]


def demo_checkpoint(task: str = "crystals") -> Path:
    """Folder of a task's demo model.

    Parameters
    ----------
    task : str
    """
    return Path(str(files("orbitdiff") / "resources" / f"{task}_demo"))
