"""The DVC stages that a preset's report needs, in order."""

from pipelines.params import Params

__all__ = ["STAGES", "stages_of"]

STAGES = ("fetch", "prepare", "train", "sample", "evaluate", "report", "toy")


def stages_of(params: Params, preset: str) -> list[tuple[str, list[str]]]:
    """Return (name, names of the stages it needs) of each DVC stage of a preset, in order.

    Parameters
    ----------
    params : Params
    preset : str
        A key of `reports` in params.yaml.
    """
    from orbitdiff.errors import BadInput

    reports = params.raw["reports"]
    if preset not in reports:
        raise BadInput(f"expected a preset among {sorted(reports)}, got {preset!r}")
    report = reports[preset]
    dataset = report["dataset"]
    stages: list[tuple[str, list[str]]] = [
        (f"fetch@{dataset}", []),
        (f"prepare@{dataset}", [f"fetch@{dataset}"]),
    ]
    for run in report["runs"]:
        prepared = f"prepare@{dataset}"
        stages.append((f"train@{run}", [prepared]))
        stages.append((f"sample@{run}", [prepared, f"train@{run}"]))
        stages.append((f"evaluate@{run}", [prepared, f"sample@{run}", f"train@{run}"]))
    stages.append((f"report@{preset}", [prepared, *(f"evaluate@{run}" for run in report["runs"])]))
    return stages
