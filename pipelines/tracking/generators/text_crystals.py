"""The MLflow model of a text-guided network, as code: nothing is unpickled when it is loaded.

`mlflow.pyfunc.load_model("models:/orbitdiff-text_crystals@newest").predict(table)` with a table of
columns prompt, n and seed returns one CIF text per structure. A model that does not draw elements
takes the formula that the prompt states.
"""

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel

from pipelines.tracking.generators.requests import as_refusals, read_requests


class TextCrystalGenerator(PythonModel):
    """Structures that a text describes from the model folder among the artifacts."""

    def load_context(self, context: Any) -> None:
        """Keep where the model folder stands."""
        self.folder = Path(context.artifacts["model"])

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return columns prompt and cif, `n` rows per row of the table."""
        from orbitdiff.inference.text_crystals import generate_text_crystals

        rows = []
        with as_refusals():
            for asked in read_requests(model_input, "prompt"):
                for structure in generate_text_crystals(
                    asked.described, asked.n, checkpoint=self.folder, seed=asked.seed
                ):
                    rows.append({"prompt": asked.described, "cif": structure.to(fmt="cif")})
        return pd.DataFrame(rows, columns=["prompt", "cif"])


mlflow.models.set_model(TextCrystalGenerator())
