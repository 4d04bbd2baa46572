"""The code of docs/extending.md, run as it stands there."""

import re
from pathlib import Path

import torch

from orbitdiff.kernels import GaussianKernel, Parametrization
from orbitdiff.testing import EstimatorContract, KernelContract

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
NAMES: dict = {"__name__": "extending"}
for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
    exec(compile(block, PAGE.name, "exec"), NAMES)

Mirror = NAMES["Mirror"]
TestMirror = NAMES["TestMirror"]


class TestScheduleOfThePage(KernelContract):
    conversions = (Parametrization.SCORE, Parametrization.DATA, Parametrization.NOISE)
    times = (0.05, 0.4, 0.8)

    def kernel(self):
        return GaussianKernel(NAMES["TrigonometricVP"]())

    def groups(self):
        return [Mirror()]

    def points(self, generator):
        return torch.randn(6, 4, 3, generator=generator, dtype=torch.float64)

    def support(self, t):
        alpha, sigma = self.kernel().schedule(torch.tensor(t, dtype=torch.float64))
        centre = 0.3 * float(alpha)
        return centre - 7 * float(sigma), centre + 7 * float(sigma)


class TestEstimatorOfThePage(EstimatorContract):
    times = (0.3, 0.6, 0.9)

    def kernel(self):
        return NAMES["kernel"]

    def group(self):
        return Mirror()

    def estimator(self):
        return NAMES["orbit"]

    def exact(self):
        return NAMES["orbit"]

    def points(self, num, generator):
        return torch.randn(num, 4, 3, generator=generator, dtype=torch.float64)

    def act_on_target(self, g, value):
        return Mirror().act(g, value)


def test_the_page_has_code():
    assert {"Mirror", "TestMirror", "TrigonometricVP", "kernel", "orbit"} <= set(NAMES)


def test_the_mirror_mean_by_hand():
    """Two images, weights by their distances."""
    kernel, orbit = NAMES["kernel"], NAMES["orbit"]
    x_0 = torch.randn(3, 5, 3, dtype=torch.float64)
    t = torch.full((3,), 0.7, dtype=torch.float64)
    x_t = kernel.sample(x_0, t, generator=torch.Generator().manual_seed(0)).x_t
    images = torch.stack([x_0, x_0 * torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)])
    log_p = torch.stack([kernel.log_prob(x_t, image, t) for image in images])
    mean = (torch.softmax(log_p, 0)[..., None, None] * images).sum(0)
    torch.testing.assert_close(orbit(x_t, x_0, t).value, mean)
    assert float((mean - x_0).abs().max()) > 1e-6
