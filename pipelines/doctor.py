"""What is installed, found and configured, and the command that cures what is missing."""

import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

__all__ = ["report"]

PACKAGES = {
    "torch": "",
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
}


def report() -> Iterator[str]:
    """Yield the lines of `orbitdiff doctor`."""
    import torch

    from orbitdiff import __version__
    from orbitdiff.data.sources import data_root

    yield f"orbitdiff {__version__}, Python {platform.python_version()}, {os.cpu_count()} CPUs"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    yield f"device: {device}"
    for package, extra in PACKAGES.items():
        try:
            yield f"{package} {version(package)}"
        except PackageNotFoundError:
            yield f"{package} missing: pip install -c constraints.txt 'orbitdiff[{extra}]'"
    root = data_root()
    if root is None:
        yield "data sets: built-in prototypes only; for Perov-5 and MP-20 set ORBITDIFF_DATA"
    else:
        yield f"data sets: {root}"
    for variable, default in SERVERS.items():
        yield f"{variable}: {os.environ.get(variable) or f'not set, {default}'}"
