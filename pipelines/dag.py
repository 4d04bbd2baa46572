"""The DVC stages that a preset's report needs, in order."""

from pipelines.params import Params

__all__ = ["STAGES", "prepared_stage", "stage_name", "stages_of", "text_datasets"]

STAGES = (
    "fetch",
    "prepare",
    "texts",
    "train",
    "sample",
    "evaluate",
    "steps",
    "calls",
    "guidance",
    "whole",
    "baseline",
    "report",
    "toy",
    "sweep",
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
    stages: dict[str, list[str]] = {}
    shown_data = _preparing(params, task, report["dataset"], stages)
    shown = []
    for run in report["runs"]:
        prepared = _preparing(params, task, params.builds[run]["dataset"], stages)
        train = _training(params, run, prepared, stages)
        sample, evaluate = (stage_name(stage, params, run) for stage in ("sample", "evaluate"))
        stages[sample] = [prepared, train]
        stages[evaluate] = [prepared, sample, train]
        curves = [
            f"{curve}@{run}"
            for curve in ("steps", "calls", "guidance", "whole")
            if run in params.curves(curve)
        ]
        stages.update((curve, [prepared, train]) for curve in curves)
        shown += [evaluate, *curves]
    for name, about in (params.raw.get("baselines") or {}).items():
        if (about["task"], about["preset"]) == (task, preset):
            stages[f"baseline@{name}"] = [shown_data]
            shown.append(f"baseline@{name}")
    stages[f"report_{task}@{preset}"] = [shown_data, *shown]
    return list(stages.items())


def stage_name(stage: str, params: Params, run: str) -> str:
    """Name of a run's DVC stage; runs that start from another one have stages of their own."""
    if "start" in params.builds[run]:
        stage = "finetune" if stage == "train" else f"{stage}_finetuned"
    return f"{stage}@{run}"


def prepared_stage(params: Params, task: str, dataset: str) -> str:
    """Name of the stage that writes what a task trains on."""
    return f"{'texts' if dataset in text_datasets(params, task) else 'prepare'}@{dataset}"


def text_datasets(params: Params, task: str) -> list[str]:
    """Data sets that a task reads with prompts: prepared by another task, texts added."""
    named = (params.raw.get("texts") or {}).items()
    return [name for name, about in named if about["task"] == task]


def _preparing(params: Params, task: str, dataset: str, stages: dict[str, list[str]]) -> str:
    """Add the stages that prepare a data set, and return the last one."""
    fetch, prepare = f"fetch@{dataset}", f"prepare@{dataset}"
    stages.setdefault(fetch, [])
    stages.setdefault(prepare, [fetch])
    last = prepared_stage(params, task, dataset)
    stages.setdefault(last, [fetch, prepare])
    return last


def _training(params: Params, run: str, prepared: str, stages: dict[str, list[str]]) -> str:
    """Name of the stage that trains a run; added to `stages` with the run that it starts from."""
    start = params.builds[run].get("start")
    needs = [prepared] if start is None else [prepared, _training(params, start, prepared, stages)]
    name = stage_name("train", params, run)
    stages[name] = needs
    return name
