"""The MLflow model of a backbone network.

`mlflow.pyfunc.load_model("models:/orbitdiff-backbones@newest").predict(table)` with a table of
columns lengths (such as "80" or "60,80"), n and seed returns one PDB text per chain.
"""

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel

from pipelines.tracking.generators.requests import as_refusals, read_requests


def count(described: str) -> int:
    """Number of lengths of a row."""
    from orbitdiff.inference.backbones import parse_lengths

    return len(parse_lengths(described))


class BackboneGenerator(PythonModel):
    """Chains of the asked lengths from the model folder among the artifacts."""

    def load_context(self, context: Any) -> None:
        """Keep where the model folder stands."""
        self.folder = Path(context.artifacts["model"])

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return columns lengths and pdb, `n` rows per length of each row of the table."""
        from orbitdiff.data.protein_files import pdb_text
        from orbitdiff.inference.backbones import GLYCINE, draw_backbones, parse_lengths

        rows = []
        with as_refusals():
            for asked in read_requests(model_input, "lengths", things=count):
                lengths = parse_lengths(asked.described)
                for ca in draw_backbones(lengths, asked.n, checkpoint=self.folder, seed=asked.seed):
                    text = pdb_text(ca, GLYCINE * len(ca))
                    rows.append({"lengths": asked.described, "pdb": text})
        return pd.DataFrame(rows, columns=["lengths", "pdb"])


mlflow.models.set_model(BackboneGenerator())
