"""Structure prediction behind one protocol: ESMFold from a local folder, or any program.

No weights are downloaded. Where none are at hand there is no folder to build, and whatever needs
one reports that it was not measured.
"""

import subprocess
import tempfile
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol, final, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from orbitdiff.data.protein_files import SUFFIXES, read_trace
from orbitdiff.errors import BadInput, MissingExtra

__all__ = ["CommandFolder", "EsmFold", "Folder"]

CA = 1
"""Place of CA among the 14 atoms of a predicted residue."""

UNUSED = "esm.contact_head"
"""Part of the language model that folding does not use and that the published weights lack."""


@runtime_checkable
class Folder(Protocol):
    """Predicts structures of sequences."""

    def fold(self, sequences: Sequence[str]) -> list[NDArray[np.float32]]:
        """Return the CA atoms of each sequence, (L, 3) in angstrom, in order."""
        ...


@final
class EsmFold:
    """ESMFold of the transformers library, loaded from a folder.

    Parameters
    ----------
    directory : Path
        Written by `save_pretrained`, or a copy of `facebook/esmfold_v1`: config.json and weights.
    device : str
    batch : int
        Sequences of one length that are folded together.
    chunk : int, optional
        Rows of the pair representation handled at once, to save memory.

    Raises
    ------
    MissingExtra
        transformers is not installed.
    BadInput
        No such folder, another model, or weights that do not fill it.
    """

    def __init__(
        self,
        directory: Path | str,
        *,
        device: str = "cpu",
        batch: int = 4,
        chunk: int | None = None,
    ) -> None:
        try:
            from transformers import AutoConfig, EsmForProteinFolding
        except ImportError as error:
            raise MissingExtra.naming("transformers", "text") from error
        directory = Path(directory)
        if not (directory / "config.json").is_file():
            raise BadInput(
                f"expected a folder with config.json and weights of ESMFold, got {directory}; "
                "copy facebook/esmfold_v1 there"
            )
        try:
            config = AutoConfig.from_pretrained(directory, local_files_only=True)
            if not getattr(config, "is_folding_model", False):
                raise BadInput(f"{directory} holds a {config.model_type} that does not fold")
            loaded: Any = EsmForProteinFolding.from_pretrained(
                directory, config=config, local_files_only=True, output_loading_info=True
            )
        except BadInput:
            raise
        except Exception as error:
            raise BadInput(f"could not load ESMFold from {directory}: {error}") from error
        model, info = loaded
        unset = [*info["missing_keys"], *info["mismatched_keys"]]
        unset = sorted(key for key in map(str, unset) if not key.startswith(UNUSED))
        if unset:
            raise BadInput(
                f"the weights in {directory} leave {len(unset)} tensors of ESMFold unset, such as "
                f"{unset[:3]}: predictions would be random; copy the whole model"
            )
        self.model = model.to(device).eval()
        if torch.device(device).type == "cpu":
            self.model.float()  # half precision is for accelerators
        if chunk is not None:
            self.model.trunk.set_chunk_size(chunk)
        self.batch = batch

    @torch.no_grad()
    def fold(self, sequences: Sequence[str]) -> list[NDArray[np.float32]]:
        """Return the CA atoms of each sequence.

        Parameters
        ----------
        sequences : sequence of str
            One-letter codes, unknown ones X.
        """
        _check_sequences(sequences)
        found: list[NDArray[np.float32]] = []
        for _, group in groupby(sequences, key=len):
            alike = list(group)
            for start in range(0, len(alike), self.batch):
                output: Any = self.model.infer(alike[start : start + self.batch])
                places = output["positions"][-1][:, :, CA].float().cpu().numpy()
                found += list(places)
        return found


@final
class CommandFolder:
    """Any program that turns a FASTA file into one structure file per record.

    Parameters
    ----------
    command : sequence of str
        Program and arguments; `{fasta}` and `{out}` stand for the input file and the folder for
        results. It is run without a shell. Records are named s00000, s00001, ...; the first file
        below `{out}` whose name starts with the record's, in alphabetical order, is read.
    timeout : float
        Seconds for all sequences of one call.

    Raises
    ------
    BadInput
        The command lacks a place for input or output.
    """

    def __init__(self, command: Sequence[str], *, timeout: float = 86400.0) -> None:
        text = " ".join(command)
        if "{fasta}" not in text or "{out}" not in text:
            raise BadInput(f"expected {{fasta}} and {{out}} in the folding command, got {text!r}")
        self.command, self.timeout = list(command), timeout

    def fold(self, sequences: Sequence[str]) -> list[NDArray[np.float32]]:
        """Return the CA atoms of each sequence.

        Parameters
        ----------
        sequences : sequence of str

        Raises
        ------
        BadInput
            The program fails, takes too long, or leaves a sequence without a structure.
        """
        _check_sequences(sequences)
        names = [f"s{index:05d}" for index in range(len(sequences))]
        with tempfile.TemporaryDirectory(prefix="orbitdiff-fold-") as place:
            fasta, out = Path(place) / "sequences.fasta", Path(place) / "out"
            out.mkdir()
            records = zip(names, sequences, strict=True)
            fasta.write_text("".join(f">{name}\n{text}\n" for name, text in records))
            self._run(fasta, out)
            files = sorted(path for path in out.rglob("*") if path.name.lower().endswith(SUFFIXES))
            return [
                _structure(name, text, files) for name, text in zip(names, sequences, strict=True)
            ]

    def _run(self, fasta: Path, out: Path) -> None:
        filled = [
            part.replace("{fasta}", str(fasta)).replace("{out}", str(out)) for part in self.command
        ]
        try:
            done = subprocess.run(
                filled, capture_output=True, text=True, timeout=self.timeout, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BadInput(f"the folding command {self.command[0]!r} did not run: {error}") from (
                error
            )
        if done.returncode != 0:
            raise BadInput(
                f"the folding command {self.command[0]!r} ended with {done.returncode}: "
                f"{done.stderr.strip()[-500:]}"
            )


def _structure(name: str, sequence: str, files: Sequence[Path]) -> NDArray[np.float32]:
    path = next((file for file in files if file.name.startswith(name)), None)
    if path is None:
        raise BadInput(f"the folding command wrote no structure file that starts with {name}")
    ca = read_trace(path)
    if len(ca) != len(sequence):
        raise BadInput(f"expected {len(sequence)} residues in {path.name}, got {len(ca)} CA atoms")
    return ca


def _check_sequences(sequences: Sequence[str]) -> None:
    wrong = [text for text in sequences if not (text.isascii() and text.isalpha())]
    if wrong:
        raise BadInput(f"expected sequences of letters, got {wrong[0]!r}")
