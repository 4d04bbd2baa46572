"""The DVC stages that a preset's report needs, in order."""

from pipelines.params import Params

__all__ = ["STAGES", "stages_of"]

STAGES = ("fetch", "prepare", "train", "sample", "evaluate", "steps", "calls", "report", "toy")


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
    shown = []
    for run in report["runs"]:
        prepared = f"prepare@{dataset}"
        stages.append((f"train@{run}", [prepared]))
        stages.append((f"sample@{run}", [prepared, f"train@{run}"]))
        stages.append((f"evaluate@{run}", [prepared, f"sample@{run}", f"train@{run}"]))
        curves = ["steps", "calls"] if run in params.raw.get("calls", {}) else ["steps"]
        stages += [(f"{curve}@{run}", [prepared, f"train@{run}"]) for curve in curves]
        shown += [f"{name}@{run}" for name in ("evaluate", *curves)]
    stages.append((f"report@{preset}", [prepared, *shown]))
    return stages
