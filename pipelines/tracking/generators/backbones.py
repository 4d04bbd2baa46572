"""The MLflow model of a backbone network.

`mlflow.pyfunc.load_model("models:/orbitdiff-backbones@newest").predict(table)` with a table of
columns length, n and seed returns one PDB text per chain.
"""

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel


class BackboneGenerator(PythonModel):
    """Chains of a length from the model folder among the artifacts."""

    def load_context(self, context: Any) -> None:
        """Keep where the model folder stands."""
        self.folder = Path(context.artifacts["model"])

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return columns length and pdb, `n` rows per row of the table."""
        from orbitdiff.data.protein_files import pdb_text
        from orbitdiff.inference.backbones import GLYCINE, draw_backbones

        rows = []
        for row in model_input.to_dict("records"):
            number, seed = int(row.get("n", 1)), int(row.get("seed", 0))
            length = int(row["length"])
            for ca in draw_backbones([length], number, checkpoint=self.folder, seed=seed):
                rows.append({"length": row["length"], "pdb": pdb_text(ca, GLYCINE * length)})
        return pd.DataFrame(rows, columns=["length", "pdb"])


mlflow.models.set_model(BackboneGenerator())
