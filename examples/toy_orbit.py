"""One point, the group {+1, -1}: the orbit target has no noise, the plain target is all noise."""

import torch

from orbitdiff.groups import Sign
from orbitdiff.kernels import GaussianKernel, LinearSigma, Parametrization
from orbitdiff.orbit.finite import FiniteOrbit
from orbitdiff.orbit.plain import PlainTarget
from orbitdiff.tasks.toy import ToyConfig
from orbitdiff.tasks.toy_training import train_toy

kernel = GaussianKernel(LinearSigma(0.01, 0.999))
plain = PlainTarget(kernel, parametrization=Parametrization.DATA)
orbit = FiniteOrbit(kernel, Sign(), parametrization=Parametrization.DATA)

x_0 = torch.ones(5, 1, 1)
t = torch.linspace(0.2, 1.0, 5)
x_t = kernel.sample(x_0, t, generator=torch.Generator().manual_seed(0)).x_t
alpha, sigma = kernel.schedule(t)
print("   t     x_t   plain   orbit   tanh(alpha x_t / sigma^2)")
for row in zip(
    t,
    x_t.flatten(),
    plain(x_t, x_0, t).value.flatten(),
    orbit(x_t, x_0, t).value.flatten(),
    torch.tanh(alpha * x_t.flatten() / sigma**2),
    strict=True,
):
    print("  ".join(f"{float(value):6.3f}" for value in row))

result = train_toy(ToyConfig(seeds=(0,), steps=600, num_samples=2000))
for member in result.members:
    print(f"{member['arm']:>12}: mean |x - sign(x)| = {member['error']:.2e} after 600 steps")
