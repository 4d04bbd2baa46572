"""The DVC stages that a preset's report needs, in order."""

from pipelines.build import stage_name
from pipelines.params import Params

__all__ = ["STAGES", "stages_of"]

STAGES = (
    "fetch",
    "prepare",
    "train",
    "sample",
    "evaluate",
    "steps",
    "calls",
    "whole",
    "baseline",
    "report",
    "toy",
)


def stages_of(params: Params, task: str, preset: str) -> list[tuple[str, list[str]]]:
    """Return (name, names of the stages it needs) of each DVC stage of a preset, in order.

    Parameters
    ----------
    params : Params
    task : str
    preset : str
        A key of `reports.TASK` in params.yaml.
    """
    report = params.report(task, preset)
    dataset = report["dataset"]
    prepared = f"prepare@{dataset}"
    stages: dict[str, list[str]] = {f"fetch@{dataset}": [], prepared: [f"fetch@{dataset}"]}
    shown = []
    for run in report["runs"]:
        train = _training(params, run, prepared, stages)
        sample, evaluate = (stage_name(stage, params, run) for stage in ("sample", "evaluate"))
        stages[sample] = [prepared, train]
        stages[evaluate] = [prepared, sample, train]
        curves = [
            f"{curve}@{run}" for curve in ("steps", "calls", "whole") if run in params.curves(curve)
        ]
        stages.update((curve, [prepared, train]) for curve in curves)
        shown += [evaluate, *curves]
    for name, about in (params.raw.get("baselines") or {}).items():
        if (about["task"], about["preset"]) == (task, preset):
            stages[f"baseline@{name}"] = [prepared]
            shown.append(f"baseline@{name}")
    stages[f"report_{task}@{preset}"] = [prepared, *shown]
    return list(stages.items())


def _training(params: Params, run: str, prepared: str, stages: dict[str, list[str]]) -> str:
    """Name of the stage that trains a run; added to `stages` with the run that it starts from."""
    start = params.builds[run].get("start")
    needs = [prepared] if start is None else [prepared, _training(params, start, prepared, stages)]
    name = stage_name("train", params, run)
    stages[name] = needs
    return name
