"""Where every stage of a run reads and writes, the same for DVC, the command line and tests."""

from pathlib import Path

__all__ = ["stage_paths"]


def stage_paths(
    stage: str, task: str, *, dataset: str, preset: str, run: str, root: Path = Path()
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Return inputs and outputs of a stage, relative to `root`.

    Parameters
    ----------
    stage : str
        A name of `pipelines.dag.STAGES`.
    task, dataset, preset, run : str
    root : Path
        The repository, or `runs/NAME` for runs outside DVC.
    """
    raw = Path("data/raw") / dataset
    data = Path("data/prepared") / task / dataset
    model, samples = root / "models" / run, root / "samples" / run
    results = root / "results" / task / preset
    match stage:
        case "fetch":
            return {}, {"raw": raw}
        case "prepare":
            return {"raw": raw}, {"data": data}
        case "texts":
            crystals = Path("data/prepared/crystals") / dataset
            return {"raw": raw, "crystals": crystals}, {"data": data}
        case "train":
            return {"data": data}, {"model": model, "running": root / ".runs" / run}
        case "sample":
            return {"data": data, "model": model}, {"samples": samples}
        case "evaluate":
            inputs = {"data": data, "samples": samples, "model": model}
            return inputs, {"results": results / run}
        case "steps" | "calls" | "guidance":
            curve = results / "curves" / f"{run}-{stage}.json"
            return {"data": data, "model": model}, {"curve": curve}
        case "whole":
            found = {
                "results": results / "whole" / run,
                "samples": root / "samples" / f"whole-{run}",
            }
            return {"data": data, "model": model}, found
        case "baseline":
            name = "etkdg" if task == "conformers" else "controls"
            made = root / "samples" / f"{preset}-{dataset}-{name}"
            return {"data": data}, {"results": results / "baseline", "samples": made}
        case "report":
            inputs = {"results": results, "data": data, "samples": root / "samples"}
            outputs = {"report": root / "reports" / task / preset}
            if task != "crystals":
                outputs["pages"] = root / "pages" / task / preset
            return inputs, outputs
        case "toy":
            return {}, {"results": results}
    raise ValueError(f"unknown stage {stage!r}")
