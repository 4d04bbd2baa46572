"""The MLflow model of a trained network, as code: nothing is unpickled when it is loaded.

`mlflow.pyfunc.load_model("models:/orbitdiff-crystals@newest").predict(table)` with a table of
columns formula, n and seed returns one CIF text per structure.
"""

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel

from pipelines.tracking.generators.requests import as_refusals, read_requests


class CrystalGenerator(PythonModel):
    """Structures of a composition from the model folder among the artifacts."""

    def load_context(self, context: Any) -> None:
        """Keep where the model folder stands."""
        self.folder = Path(context.artifacts["model"])

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return columns formula and cif, `n` rows per row of the table."""
        from orbitdiff.inference import generate_crystals

        rows = []
        with as_refusals():
            for asked in read_requests(model_input, "formula"):
                for structure in generate_crystals(
                    asked.described, asked.n, checkpoint=self.folder, seed=asked.seed
                ):
                    rows.append({"formula": asked.described, "cif": structure.to(fmt="cif")})
        return pd.DataFrame(rows, columns=["formula", "cif"])


mlflow.models.set_model(CrystalGenerator())
