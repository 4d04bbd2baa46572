import pytest
import torch

from orbitdiff.errors import BadInput, IncompatibleKernel
from orbitdiff.groups import LabelledGraph, graph_automorphisms
from orbitdiff.groups.rotation import SO3
from orbitdiff.kernels import AlignedCoupling, HarmonicKernel, Parametrization
from orbitdiff.kernels.harmonic_prior import HarmonicPrior
from orbitdiff.kernels.interpolant import Interpolant
from orbitdiff.orbit import AutomorphismOrbit, KeptPriorOrbit, OrbitContext
from orbitdiff.testing import EstimatorContract

VELOCITY = Parametrization.VELOCITY
STAR = torch.tensor([[0, 1, 1, 1], [1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]]) > 0
GROUP = graph_automorphisms(
    LabelledGraph((0, 1, 1, 1), ((0, 1, 1), (0, 2, 1), (0, 3, 1))),
)


def kernel_of(bridge=0.0):
    return HarmonicKernel(HarmonicPrior.from_bonds(STAR), sigma=bridge)


def cloud(num, generator):
    x_0 = 1.2 * torch.randn(num, 4, 3, generator=generator, dtype=torch.float64)
    return x_0 - x_0.mean(1, keepdim=True)


class TestContract(EstimatorContract):
    draws = 4000

    def kernel(self):
        return kernel_of()

    def group(self):
        return SO3()

    def estimator(self):
        return KeptPriorOrbit(self.kernel())

    def exact(self):
        return AutomorphismOrbit(self.kernel(), parametrization=VELOCITY)

    def points(self, num, generator):
        return cloud(num, generator)

    def act_on_target(self, g, value):
        return SO3().act(g, value)

    def context(self, x_0):
        lists = GROUP.elements().expand(len(x_0), -1, -1)
        return OrbitContext(permutations=lists, automorphisms=(GROUP,) * len(x_0))

    def test_padding_is_zero_and_changes_nothing(self):
        """The padding of this kernel is that of its prior."""
        x_t, x_0, t = self.problem(0.6)
        alone = self.run(self.estimator(), x_t, x_0, t).value
        bonds, mask = torch.zeros(5, 5, dtype=torch.bool), torch.arange(5) < 4
        bonds[:4, :4] = STAR
        padded = KeptPriorOrbit(HarmonicKernel(HarmonicPrior.from_bonds(bonds, mask=mask)))
        wide = [torch.nn.functional.pad(part, (0, 0, 0, 1)) for part in (x_t, x_0)]
        around = OrbitContext(automorphisms=(GROUP,) * len(t))
        found = padded(*wide, t, mask=mask.expand(len(t), -1), context=around).value
        assert self.close(found[:, :-1], alone)
        assert bool((found[:, -1] == 0).all())


@pytest.mark.parametrize("bridge", [0.0, 0.3])
def test_the_form_holds_the_drawn_velocity(bridge):
    generator = torch.Generator().manual_seed(0)
    x_0, prior, eps = torch.randn(3, 4, 5, 3, generator=generator, dtype=torch.float64)
    t = torch.tensor([0.1, 0.4, 0.5, 0.9], dtype=torch.float64)
    path = Interpolant(bridge)
    x_t, noise = path.mix(x_0, prior, eps, t)
    torch.testing.assert_close(path.velocity_with(x_0, x_t, prior, t), noise - x_0)


@pytest.mark.parametrize("time", [0.2, 0.7, 0.9])
@pytest.mark.parametrize("given", [False, True])
def test_half_of_the_error_of_the_drawn_velocity_stays(time, given):
    """Whatever the image that made x_t: -g x_0 / t in the drawn velocity, half of it here."""
    kernel = kernel_of()
    generator = torch.Generator().manual_seed(1)
    x_0 = cloud(20, generator)
    t = torch.full((20,), time, dtype=torch.float64)
    x_t, noise = kernel.sample(x_0, t, generator=generator)
    around = OrbitContext(automorphisms=(GROUP,) * 20)
    exact = AutomorphismOrbit(kernel, parametrization=VELOCITY)(x_t, x_0, t, context=around)
    kept = KeptPriorOrbit(kernel)(x_t, x_0, t, noise=noise if given else None, context=around)
    drawn = noise - x_0
    torch.testing.assert_close(kept.value, 0.5 * (drawn + exact.value))
    assert float((drawn - exact.value).abs().max()) > 0.01
    torch.testing.assert_close(kept.info.ess, exact.info.ess)


def test_refusals():
    with pytest.raises(BadInput, match="VELOCITY"):
        KeptPriorOrbit(kernel_of(), parametrization=Parametrization.DATA)
    with pytest.raises(IncompatibleKernel):
        KeptPriorOrbit(AlignedCoupling(HarmonicPrior.from_bonds(STAR)))
