"""A plain PyTorch loop: three lines replace the noisy target by its mean over rotations."""

import torch
from torch import nn

from orbitdiff.kernels import GaussianKernel, GeometricSigma, Parametrization
from orbitdiff.orbit import PlainTarget, RotationOrbit

kernel = GaussianKernel(GeometricSigma(0.1, 10.0))
clouds = torch.randn(32, 9, 3, generator=torch.Generator().manual_seed(0))
clouds = 1.5 * (clouds - clouds.mean(1, keepdim=True))


def train(estimator, steps=1500):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(28, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, 27)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(1)
    losses = []
    for _ in range(steps):
        x_0 = clouds[torch.randint(32, (64,), generator=generator)]
        t = torch.rand(64, generator=generator)
        x_t = kernel.sample(x_0, t, generator=generator).x_t
        target = estimator(x_t, x_0, t, generator=generator).value  # was: target = x_0
        output = model(torch.cat([x_t.flatten(1) / (1 + 9 * t[:, None]), t[:, None]], 1))
        loss = (output.unflatten(1, (9, 3)) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return sum(losses[-300:]) / 300


plain = train(PlainTarget(kernel, parametrization=Parametrization.DATA))
orbit = train(RotationOrbit(kernel))
print(f"loss of the last 300 steps: plain target {plain:.3f}, orbit target {orbit:.3f}")
