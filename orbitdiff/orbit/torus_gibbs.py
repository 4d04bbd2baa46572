"""Unbiased means over translations x permutations of like atoms, by a chain from the true element.

The element that made x_t is an exact draw from the posterior, so a Markov chain that starts there
and leaves the posterior invariant is stationary from its first step: the mean of anything over its
states is unbiased, however few they are. The shift is integrated out of what is averaged.
"""

import torch

from orbitdiff.errors import BadInput
from orbitdiff.groups.torus import wrap
from orbitdiff.kernels.wrapped_normal import images_needed, wrapped_normal
from orbitdiff.orbit.assignment import like_atoms, move_assignment
from orbitdiff.orbit.torus import torus_posterior
from orbitdiff.typing import Bool, Float, Int, Tensor

__all__ = ["gibbs_score", "permutation_chain"]

CHUNK = 2**20
"""Pairs of atoms, over all crystals and chains, that are moved together."""


@torch.no_grad()
def gibbs_score(
    f_t: Float[Tensor, "B N D"],
    f_0: Float[Tensor, "B N D"],
    sigma: Float[Tensor, " B"],
    atom_types: Int[Tensor, "B N"],
    *,
    mask: Bool[Tensor, "B N"] | None = None,
    sweeps: int,
    chains: int = 1,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "B N D"]:
    """Mean over the states pi_0 .. pi_S of E[score | f_t, pi_s], the shift integrated exactly.

    Its expectation given f_t is E[d log WN / d f_t | f_t] over shifts and permutations of like
    atoms, for every S and every number of chains.

    Parameters
    ----------
    f_t, f_0 : (B, N, D)
        Fractional coordinates; f_t was drawn around f_0 itself.
    sigma : (B,)
        Standard deviation, fractional.
    atom_types : (B, N) int64
    mask : (B, N) bool, optional
        Real atoms.
    sweeps : int
        S; 0 is the exact mean over translations alone.
    chains : int
        Independent chains per crystal, all from the true element.
    generator : torch.Generator, optional

    Returns
    -------
    (B, N, D) float64
        Zero in padding.

    Raises
    ------
    BadInput
        Negative sweeps, no chain, or coordinates that `torus_posterior` refuses.

    References
    ----------
    docs/estimators.md, section on chains from the true element.
    """
    if sweeps < 0 or chains < 1:
        raise BadInput(f"expected sweeps >= 0 and chains >= 1, got {sweeps} and {chains}")
    real = torch.ones_like(f_t[..., 0], dtype=torch.bool) if mask is None else mask
    f_t, f_0, sigma = f_t.double(), f_0.double(), sigma.double()
    batch, width, dim = f_t.shape
    total = torch.zeros_like(f_t)
    rows = torch.arange(batch, device=f_t.device).repeat(chains if sweeps else 1)
    for part in rows.split(max(1, CHUNK // max(1, width * width))):
        x_t, x_0, level, there = f_t[part], f_0[part], sigma[part], real[part]
        states = permutation_chain(
            x_t, x_0, level, atom_types[part], there, sweeps=sweeps, generator=generator
        )
        fresh = torch.ones_like(states[..., 0], dtype=torch.bool)
        fresh[:, 1:] = (states[:, 1:] != states[:, :-1]).any(-1)
        row, step = fresh.nonzero(as_tuple=True)
        images = x_0[row].gather(1, states[row, step][..., None].expand(-1, -1, dim))
        found = torus_posterior(x_t[row], images, level[row], mask=there[row]).mean_score
        kept = found[fresh.flatten().cumsum(0) - 1].reshape(*states.shape, dim)
        total.index_add_(0, part, kept.mean(1))
    return total / (len(rows) / max(batch, 1))


def permutation_chain(
    f_t: Float[Tensor, "B N D"],
    f_0: Float[Tensor, "B N D"],
    sigma: Float[Tensor, " B"],
    atom_types: Int[Tensor, "B N"],
    mask: Bool[Tensor, "B N"],
    *,
    sweeps: int,
    generator: torch.Generator | None,
) -> Int[Tensor, "B S_1 N"]:
    """Permutations pi_0 = identity, pi_1 .. pi_S of a Gibbs chain over (image, shift, pi).

    A sweep draws the periodic image k_i of each atom given shift and pi, the shift given k and pi
    (a Gaussian of variance sigma^2 / n), and pi given the shift.

    Parameters
    ----------
    f_t, f_0, sigma, atom_types, mask
        As for `gibbs_score`, coordinates in float64.
    sweeps : int
        S.
    generator : torch.Generator or None

    Returns
    -------
    (B, S + 1, N) int64
        Index lists: f_0[pi] is the image of f_0.
    """
    batch, width, dim = f_t.shape
    groups = like_atoms(atom_types, mask)
    assigned = [torch.arange(atoms.shape[1]).expand_as(atoms).to(atoms) for _, atoms in groups]
    pi = torch.arange(width, device=f_t.device).repeat(batch, 1)
    shift = f_t.new_zeros(batch, dim)
    states = [pi.clone()]
    for _ in range(sweeps):
        image = f_0.gather(1, pi[..., None].expand(-1, -1, dim))
        shift = _move_shift(f_t - image, shift, sigma, mask, generator)
        for index, (row, atoms) in enumerate(groups):
            ends, starts = f_t[row[:, None], atoms], f_0[row[:, None], atoms]
            gaps = ends[:, :, None] - starts[:, None] - shift[row, None, None]
            log_a = wrapped_normal(gaps, sigma[row, None, None, None])[0].sum(-1)
            assigned[index] = move_assignment(log_a, assigned[index], generator=generator)
            pi[row[:, None], atoms] = atoms.gather(1, assigned[index])
        states.append(pi.clone())
    return torch.stack(states, 1)


def _move_shift(
    z: Tensor, shift: Tensor, sigma: Tensor, mask: Tensor, generator: torch.Generator | None
) -> Tensor:
    """Draw k_i given the shift, then the shift given k; real atoms alone use random numbers."""
    if not len(z):
        return shift
    sample, place = mask.nonzero(as_tuple=True)
    where = generator.device if generator is not None else z.device
    near = wrap(z[sample, place] - shift[sample])
    reach = images_needed(float(sigma.amax()))
    images = torch.arange(-reach, reach + 1, device=z.device, dtype=z.dtype)
    lifted = near[..., None] + images
    running = torch.softmax(-0.5 * (lifted / sigma[sample, None, None]) ** 2, -1).cumsum(-1)
    uniform = torch.rand(near.shape, generator=generator, dtype=z.dtype, device=where)
    # shrunk by 1e-12, so that rounding cannot put the threshold at the total
    threshold = uniform.to(z.device)[..., None] * running[..., -1:] * (1 - 1e-12)
    choice = (running > threshold).to(torch.uint8).argmax(-1, keepdim=True)
    residual = lifted.gather(-1, choice)[..., 0]
    count = mask.sum(1).clamp(min=1).to(z.dtype)[:, None]
    mean = torch.zeros_like(shift).index_add_(0, sample, residual) / count
    normal = torch.randn(shift.shape, generator=generator, dtype=z.dtype, device=where)
    width = sigma[:, None] / torch.sqrt(count)
    return torch.remainder(shift + mean + width * normal.to(z.device), 1.0)
