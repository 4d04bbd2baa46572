"""MLflow models of trained networks, as code: what each task's takes and gives."""

from dataclasses import dataclass
from pathlib import Path
from typing import final

__all__ = ["GENERATORS", "Generator"]

HERE = Path(__file__).parent


@final
@dataclass(frozen=True)
class Generator:
    """A pyfunc model: columns of its input (a sample's description, n, seed) and of its output.

    Parameters
    ----------
    code : Path
        Module that `mlflow.pyfunc` runs; nothing is unpickled.
    described_by : str
        Required column, text.
    gives : str
        Column of the native text, one row per sample.
    extra : str
        Extra of the package that the model needs.
    """

    code: Path
    described_by: str
    gives: str
    extra: str


GENERATORS = {
    "crystals": Generator(HERE / "crystals.py", "formula", "cif", "crystal"),
    "conformers": Generator(HERE / "conformers.py", "smiles", "sdf", "mol"),
    "text_crystals": Generator(HERE / "text_crystals.py", "prompt", "cif", "text"),
    "backbones": Generator(HERE / "backbones.py", "lengths", "pdb", "protein"),
}
