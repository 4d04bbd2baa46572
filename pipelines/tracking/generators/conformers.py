"""The MLflow model of a conformer network.

`mlflow.pyfunc.load_model("models:/orbitdiff-conformers@newest").predict(table)` with a table of
columns smiles, n and seed returns one SDF record per conformer.
"""

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel

from pipelines.tracking.generators.requests import as_refusals, read_requests


class ConformerGenerator(PythonModel):
    """Conformers of a molecule from the model folder among the artifacts."""

    def load_context(self, context: Any) -> None:
        """Keep where the model folder stands."""
        self.folder = Path(context.artifacts["model"])

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return columns smiles and sdf, `n` rows per row of the table."""
        from rdkit import Chem

        from orbitdiff.inference.conformers import generate_conformers

        rows = []
        with as_refusals():
            for asked in read_requests(model_input, "smiles"):
                (molecule,) = generate_conformers(
                    asked.described, asked.n, checkpoint=self.folder, seed=asked.seed
                )
                for conformer in molecule.GetConformers():
                    block = Chem.MolToMolBlock(molecule, confId=conformer.GetId())
                    rows.append({"smiles": asked.described, "sdf": f"{block}$$$$\n"})
        return pd.DataFrame(rows, columns=["smiles", "sdf"])


mlflow.models.set_model(ConformerGenerator())
