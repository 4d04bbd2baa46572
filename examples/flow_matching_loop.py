"""A loop of `flow_matching`, whose time runs from noise (0) to data (1): ours is 1 - t."""

import torch
from flow_matching.path import CondOTProbPath
from torch import nn

from orbitdiff.kernels import HarmonicKernel, Parametrization
from orbitdiff.kernels.harmonic_prior import HarmonicPrior
from orbitdiff.orbit import RotationOrbit

clouds = torch.randn(32, 9, 3, generator=torch.Generator().manual_seed(0))
clouds = clouds - clouds.mean(1, keepdim=True)
path = CondOTProbPath()
kernel = HarmonicKernel(HarmonicPrior.isotropic(torch.ones(9, dtype=torch.bool)))
orbit = RotationOrbit(kernel, parametrization=Parametrization.VELOCITY)


def train(averaged, steps=1500):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(28, 128), nn.SiLU(), nn.Linear(128, 27))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(steps):
        x_1, x_0 = clouds[torch.randint(32, (64,))], torch.randn(64, 9, 3)
        x_0, t = x_0 - x_0.mean(1, keepdim=True), 0.02 + 0.96 * torch.rand(64)
        sample = path.sample(x_0=x_0, x_1=x_1, t=t)
        velocity = sample.dx_t
        if averaged:  # the change: their x_1 is our x_0, time and velocity are reversed
            velocity = -orbit(sample.x_t, x_1, 1 - t).value
        output = model(torch.cat([sample.x_t.flatten(1), t[:, None]], 1))
        loss = (output.unflatten(1, (9, 3)) - velocity).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return sum(losses[-300:]) / 300


print(f"loss of the last 300 steps: plain {train(False):.3f}, orbit {train(True):.3f}")
