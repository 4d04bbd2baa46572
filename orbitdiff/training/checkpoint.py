"""Checkpoints: safetensors weights, config.json, trainer state loaded with `weights_only`.

A model folder holds `model.safetensors` (EMA weights) and `config.json`; a training checkpoint
adds `trainer.pt` (raw weights, optimiser, counters). Each file is written under another name,
synchronised and renamed; `checksums.json` comes last, so a folder without it is not whole.
"""

import hashlib
import io
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes

from orbitdiff.errors import CheckpointError
from orbitdiff.typing import Tensor

__all__ = [
    "checkpoints",
    "file_sha256",
    "is_complete",
    "load_model",
    "load_task_model",
    "load_trainer",
    "promote",
    "save",
]

FORMAT_VERSION = 1


def save(
    folder: Path,
    weights: Mapping[str, Tensor],
    config: Mapping[str, Any],
    *,
    trainer: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint folder; it counts only once its checksums are there.

    Parameters
    ----------
    folder : Path
        Created if needed.
    weights : mapping of name to tensor
        Weights used for inference (EMA).
    config : mapping
        Everything needed to build the network again; JSON.
    trainer : mapping, optional
        Optimiser state and counters, of tensors and plain types only.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "checksums.json").unlink(missing_ok=True)
    tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    write_bytes(folder / "model.safetensors", to_bytes(tensors))
    text = json.dumps({"format_version": FORMAT_VERSION, **config}, indent=2, sort_keys=True)
    (folder / "config.json").write_text(text + "\n")
    if trainer is not None:
        buffer = io.BytesIO()
        torch.save(dict(trainer), buffer)
        write_bytes(folder / "trainer.pt", buffer.getvalue())
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    sums = {name: file_sha256(folder / name) for name in names}
    partial = folder / ".checksums.json"
    with partial.open("w") as file:
        json.dump(sums, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, folder / "checksums.json")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file to the disk itself; a full disk is an OSError that names the file."""
    with path.open("wb") as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error


def is_complete(folder: Path) -> bool:
    """True where every file named in the checksums is there, byte for byte."""
    try:
        sums = json.loads((folder / "checksums.json").read_text())
        return all(file_sha256(folder / name) == value for name, value in sums.items())
    except (OSError, ValueError):
        return False


def load_model(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read weights and config of a checkpoint or model folder.

    Raises
    ------
    CheckpointError
        Missing, truncated or changed files, or a newer format.
    """
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"expected a model folder with config.json and model.safetensors, got {folder}; "
            "train one, or pass --checkpoint PATH"
        )
    if not is_complete(folder):
        raise CheckpointError(
            f"{folder} is truncated or was changed (checksums differ); take an older checkpoint"
        )
    config = json.loads((folder / "config.json").read_text())
    found = config.pop("format_version")
    if found > FORMAT_VERSION:
        raise CheckpointError(
            f"{folder} has format {found}, this version reads up to {FORMAT_VERSION}: "
            "install a newer orbitdiff"
        )
    return load_file(folder / "model.safetensors"), config


def load_task_model(folder: Path, task: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a model of one task; its weights come as float32, whatever they are stored in.

    Parameters
    ----------
    folder : Path
        Holds model.safetensors, config.json and checksums.json.
    task : str

    Raises
    ------
    CheckpointError
        As `load_model`, and for the model of another task.
    """
    weights, config = load_model(folder)
    if config.get("task") != task:
        raise CheckpointError(
            f"expected a {task} model in {folder}, got task {config.get('task')!r}"
        )
    return {name: value.float() for name, value in weights.items()}, config


def load_trainer(folder: Path) -> dict[str, Any]:
    """Read the trainer state without executing anything from the file."""
    try:
        file = folder / "trainer.pt"
        state: dict[str, Any] = torch.load(file, weights_only=True, map_location="cpu")
    except Exception as error:
        raise CheckpointError(f"cannot read {folder / 'trainer.pt'}: {error}") from error
    return state


def checkpoints(storage: Path) -> list[Path]:
    """Training checkpoints of a run, oldest first."""
    return sorted(storage.glob("step-*")) if storage.is_dir() else []


def promote(source: Path, target: Path) -> None:
    """Copy a folder beside its target and rename it, so that no half copy has the final name."""
    partial = target.parent / f".{target.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, partial)
    shutil.rmtree(target, ignore_errors=True)
    os.replace(partial, target)


def file_sha256(path: Path) -> str:
    """Hash of a file, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
