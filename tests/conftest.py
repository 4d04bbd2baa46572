"""Quiet, offline, single-threaded tests; fixtures that several folders share."""

import os
from pathlib import Path

os.environ.update(
    {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_worker_niceness": "0",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
        "RAY_TRAIN_METRICS_ENABLED": "0",
        "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
        "DO_NOT_TRACK": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DVC_NO_ANALYTICS": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": "1",
    }
)

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture
def generator() -> torch.Generator:
    """A fresh seeded generator per test."""
    return torch.Generator().manual_seed(0)


@pytest.fixture
def prepared_crystals(tmp_path: Path) -> Path:
    """Two dozen cubic crystals of three atoms, prepared."""
    pymatgen = pytest.importorskip("pymatgen.core")
    from pipelines.stages.base import LocalExecutor
    from pipelines.stages.crystals.prepare import prepare_own

    cifs = tmp_path / "cifs"
    cifs.mkdir()
    for number in range(24):
        cell = pymatgen.Lattice.cubic(4 + 0.05 * number)
        places = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0]]
        crystal = pymatgen.Structure(cell, ["Ba", "Ti", "O"], places)
        crystal.to(str(cifs / f"crystal-{number}.cif"))
    prepare_own(cifs, tmp_path / "data", executor=LocalExecutor())
    return tmp_path / "data"
