"""A group of your own: the n turns about the z axis, as for a ring or a slab."""

import torch

from orbitdiff.groups import FiniteGroup, LinearIsometry
from orbitdiff.kernels import GaussianKernel, GeometricSigma, Parametrization
from orbitdiff.orbit import FiniteOrbit


class Turns(FiniteGroup, LinearIsometry):
    element_shape = ()  # an element is the number of a turn

    def __init__(self, order):
        self.order = order

    def elements(self, *, dtype=torch.float64, device="cpu"):
        return torch.arange(self.order, dtype=dtype, device=device)

    def act(self, g, x):
        angle = (2 * torch.pi / self.order * g)[..., None].to(x.dtype)
        cos, sin, (a, b, c) = angle.cos(), angle.sin(), x.unbind(-1)
        return torch.stack([cos * a - sin * b, sin * a + cos * b, c + 0 * sin], -1)

    def compose(self, g, h):
        return (g + h) % self.order

    def inverse(self, g):
        return -g % self.order

    def difference(self, x, y):
        return x - y


if __name__ == "__main__":
    kernel = GaussianKernel(GeometricSigma(0.1, 10.0))  # invariant under linear isometries
    orbit = FiniteOrbit(kernel, Turns(6), parametrization=Parametrization.DATA)
    x_0, t = torch.randn(1, 4, 3), torch.ones(1)
    print("x and y average out:", orbit(kernel.sample(x_0, t).x_t, x_0, t).value)
