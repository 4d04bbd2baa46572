"""Flat batches as in torch-geometric, pos (M, 3) and batch (M,): `to_dense` and back."""

import torch

from orbitdiff.batch import to_dense
from orbitdiff.kernels import GaussianKernel, GeometricSigma
from orbitdiff.orbit import RotationOrbit

generator = torch.Generator().manual_seed(0)
sizes = torch.tensor([5, 9, 3])
batch = torch.repeat_interleave(torch.arange(3), sizes)  # data.batch of torch-geometric
pos = torch.randn(len(batch), 3, generator=generator)  # data.pos
pos = pos - (torch.zeros(3, 3).index_add(0, batch, pos) / sizes[:, None])[batch]

kernel = GaussianKernel(GeometricSigma(0.1, 10.0))
orbit = RotationOrbit(kernel)
t = torch.tensor([0.2, 0.5, 0.9])

x_0, mask = to_dense(pos, batch)  # (3, 9, 3) and (3, 9)
x_t = kernel.sample(x_0, t, mask=mask, generator=generator).x_t
target = orbit(x_t, x_0, t, mask=mask).value[mask]  # flat again, rows as in pos

for graph, size in enumerate(sizes.tolist()):
    shrink = target[batch == graph].norm() / pos[batch == graph].norm()
    print(
        f"graph {graph}: {size} points, t = {float(t[graph]):.1f}, |target| / |x_0| = {shrink:.2f}"
    )
