"""What is installed, found and configured, and the command that cures what is missing."""

import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

__all__ = ["report"]

PACKAGES = {
    "torch": "data",
    "pymatgen": "crystal",
    "smact": "crystal",
    "plotly": "viz",
    "ray": "pipeline",
    "prefect": "pipeline",
    "mlflow": "pipeline",
    "dvc": "pipeline",
    "rdkit": "mol",
    "biotite": "protein",
}
SERVERS = {
    "RAY_ADDRESS": "a local Ray",
    "MLFLOW_TRACKING_URI": "sqlite in this folder",
    "PREFECT_API_URL": "a temporary server",
    "ORBITDIFF_TRACKER": "records wait while MLflow is away",
    "ORBITDIFF_STORAGE": "running checkpoints in .runs/",
}


def report() -> Iterator[str]:
    """Yield the lines of `orbitdiff doctor`."""
    import torch

    from orbitdiff import __version__
    from orbitdiff.data.sources import SOURCES, data_root

    yield f"orbitdiff {__version__}, Python {platform.python_version()}, {os.cpu_count()} CPUs"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    yield f"device: {device}"
    for package, extra in PACKAGES.items():
        try:
            yield f"{package} {version(package)}"
        except PackageNotFoundError:
            yield f"{package} missing: pip install -c constraints.txt -e '.[{extra}]'"
    yield "data set prototypes: built in"
    root = data_root()
    for name, sources in SOURCES.items():
        if root is not None and all((root / source.path).is_file() for source in sources):
            yield f"data set {name}: found in {root}"
        elif all(source.url for source in sources):
            yield f"data set {name}: not here; `dvc repro fetch@{name}` downloads it"
        else:
            yield f"data set {name} missing: export ORBITDIFF_DATA=FOLDER (it holds crystals/)"
    for variable, default in SERVERS.items():
        yield f"{variable}: {os.environ.get(variable) or f'not set, {default}'}"
