import itertools

import pytest
import torch

from orbitdiff.errors import BadInput, IncompatibleKernel
from orbitdiff.groups.kabsch import kabsch
from orbitdiff.groups.rotation import SO3
from orbitdiff.kernels import Parametrization
from orbitdiff.kernels.aligned import AlignedCoupling
from orbitdiff.kernels.harmonic import HarmonicKernel
from orbitdiff.kernels.harmonic_prior import HarmonicPrior
from orbitdiff.orbit import OrbitContext, aligned
from orbitdiff.orbit.aligned import AlignedPermutationOrbit, aligned_permutation_weights
from orbitdiff.testing import EstimatorContract

DATA, VELOCITY = Parametrization.DATA, Parametrization.VELOCITY
F64 = torch.float64
STAR = torch.zeros(4, 4, dtype=torch.bool)
STAR[0, 1:] = STAR[1:, 0] = True
LEAVES = torch.tensor([[0, *p] for p in itertools.permutations((1, 2, 3))])


def star(**more):
    return HarmonicPrior.from_bonds(STAR, spring=0.8, **more)


def molecule(seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(4, 3, generator=generator, dtype=F64)
    return x - x.mean(0)


def simulate(t, draws, seed=0):
    """x_t, the turned and permuted data that made it, the index of the permutation, t."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.randint(len(LEAVES), (draws,), generator=generator)
    data = SO3().act(SO3().sample(draws, generator=generator), molecule()[LEAVES[index]])
    times = torch.full((draws,), t, dtype=F64)
    x_t = AlignedCoupling(star()).sample(data, times, generator=generator).x_t
    return x_t, data, index, times


class TestAlignedPermutationOrbit(EstimatorContract):
    """Without permutations: the points of x_0 superposed on x_t."""

    def kernel(self):
        return AlignedCoupling(star())

    def group(self):
        return SO3()

    def estimator(self):
        return AlignedPermutationOrbit(self.kernel())

    def exact(self):
        return self.estimator()

    def points(self, num, generator):
        x = torch.randn(num, 4, 3, generator=generator, dtype=F64)
        return x - x.mean(1, keepdim=True)

    def act_on_target(self, g, value):
        return SO3().act(g, value)

    def test_padding_is_zero_and_changes_nothing(self):
        """The padding of the kernel is that of its prior."""
        bonds, mask = torch.zeros(5, 5, dtype=torch.bool), torch.arange(5) < 4
        bonds[:4, :4] = STAR
        padded = AlignedPermutationOrbit(AlignedCoupling(star_of(bonds, mask)))
        x_t, x_0, t = self.problem(0.6)
        lists = LEAVES.expand(len(t), -1, -1)
        alone = self.estimator()(x_t, x_0, t, context=OrbitContext(lists)).value
        tail = torch.full((len(t), len(LEAVES), 1), 4)
        context = OrbitContext(torch.cat([lists, tail], 2))
        wide = [torch.nn.functional.pad(part, (0, 0, 0, 1)) for part in (x_t, x_0)]
        found = padded(*wide, t, context=context, mask=mask.expand(len(t), -1)).value
        assert self.close(found[:, :-1], alone)
        assert bool((found[:, -1] == 0).all())


def star_of(bonds, mask):
    return HarmonicPrior.from_bonds(bonds, spring=0.8, mask=mask)


@pytest.mark.parametrize("t", [0.05, 0.4, 0.8, 0.98])
def test_superposing_finds_the_rotation_surely(t):
    """At sigma = 0 the data superposed on x_t are the data that made it."""
    x_t, data, index, times = simulate(t, 500)
    images = molecule()[LEAVES[index]]
    found = SO3().act(kabsch(images, x_t), images)
    assert torch.allclose(found, data, atol=1e-8)
    value = AlignedPermutationOrbit(AlignedCoupling(star()))(x_t, images, times).value
    assert torch.allclose(value, data, atol=1e-8)


def test_prior_sample_is_superposed_on_the_data():
    """s_0^T x_0 is symmetric with positive sums of pairs of eigenvalues."""
    _, data, _, _ = simulate(0.5, 200)
    times = torch.ones(200, dtype=F64)
    drawn = AlignedCoupling(star()).sample(data, times, generator=torch.manual_seed(0))
    assert torch.equal(drawn.x_t, drawn.noise)
    product = drawn.noise.mT @ data
    assert torch.allclose(product, product.mT, atol=1e-10)
    values = torch.linalg.eigvalsh(product)
    assert bool((values[:, 0] + values[:, 1] > 0).all())


def miscalibration(weights, index):
    """Largest |z| of the share of true entries among those of about equal weight."""
    surprise = torch.nn.functional.one_hot(index, len(LEAVES)) - weights
    bins = (10 * weights).long().clamp(max=9)
    scores = [0.0]
    for each in range(10):
        inside = bins == each
        spread = float((weights * (1 - weights))[inside].sum().sqrt())
        if spread > 1:
            scores.append(abs(float(surprise[inside].sum())) / spread)
    return max(scores)


@pytest.mark.parametrize("t", [0.9, 0.7, 0.4])
def test_weights_are_calibrated(t):
    """Of entries with weight about w, a share of about w is the true one."""
    x_t, data, index, times = simulate(t, 20_000, seed=1)
    lists = LEAVES.expand(len(times), -1, -1)
    x_0 = molecule().expand(len(times), -1, -1)
    weights, images = aligned_permutation_weights(AlignedCoupling(star()), x_t, x_0, times, lists)
    assert torch.allclose(weights.sum(1), torch.ones_like(times))
    assert miscalibration(weights, index) < 4
    mean = (weights[..., None, None] * images).sum(1)
    error = data - mean
    along = (torch.tanh(mean) * error).mean((1, 2))
    assert abs(float(along.mean() / along.std())) * len(times) ** 0.5 < 4
    one = images[:, 0]
    assert error.square().mean() < 0.8 * (data - one).square().mean()


@pytest.mark.parametrize("t", [0.9, 0.4])
def test_without_the_volumes_the_weights_are_off(t):
    """The test above can fail: the law of the prior alone is not calibrated."""
    x_t, _, index, times = simulate(t, 20_000, seed=1)
    images = molecule()[LEAVES].expand(len(times), -1, -1, -1)
    framed = x_t[:, None] @ kabsch(images, x_t[:, None])
    prior = star().log_prob((framed - (1 - t) * images) / t)
    weights = torch.softmax(prior, 1)
    assert miscalibration(weights, index) > 8


def test_target_is_the_weighted_mean_and_reports_it():
    x_t, data, _, t = simulate(0.8, 50, seed=2)
    context = OrbitContext(LEAVES.expand(50, -1, -1))
    kernel = AlignedCoupling(star())
    found = AlignedPermutationOrbit(kernel)(x_t, data, t, context=context)
    weights, images = aligned_permutation_weights(kernel, x_t, data, t, context.permutations)
    assert torch.allclose(found.value, torch.einsum("bp,bpni->bni", weights, images))
    assert torch.allclose(found.info.ess, 1 / weights.square().sum(1))
    assert torch.allclose(found.info.max_weight, weights.amax(1))
    moving = AlignedPermutationOrbit(kernel, parametrization=VELOCITY)
    velocity = moving(x_t, data, t, context=context).value
    assert torch.allclose(velocity, (x_t - found.value) / t[:, None, None])
    plain = kernel.target(x_t, data, t, VELOCITY)
    noise = (x_t - (1 - t)[:, None, None] * data) / t[:, None, None]
    assert torch.allclose(plain, kernel.target(x_t, data, t, VELOCITY, noise=noise))
    assert torch.allclose(kernel.convert(plain, VELOCITY, DATA, x_t, t), data)


def test_permutations_go_through_in_passes_with_the_same_result(monkeypatch):
    x_t, data, _, t = simulate(0.8, 20, seed=4)
    context = OrbitContext(LEAVES.expand(20, -1, -1), torch.arange(6).expand(20, -1) < 5)
    estimator = AlignedPermutationOrbit(AlignedCoupling(star()))
    expected = estimator(x_t, data, t, context=context)
    monkeypatch.setattr(aligned, "AT_ONCE", {False: 4 * data.numel(), True: 0})
    found = estimator(x_t, data, t, context=context)
    torch.testing.assert_close(found.value, expected.value)
    torch.testing.assert_close(found.info, expected.info)


def test_masked_permutations_do_not_count():
    x_t, data, _, t = simulate(0.8, 20, seed=3)
    known = torch.arange(6).expand(20, -1) < 2
    kernel = AlignedCoupling(star())
    lists = LEAVES.expand(20, -1, -1)
    some = aligned_permutation_weights(kernel, x_t, data, t, lists, permutation_mask=known)[0]
    two = aligned_permutation_weights(kernel, x_t, data, t, lists[:, :2])[0]
    assert torch.allclose(some[:, :2], two)
    assert bool((some[:, 2:] == 0).all())


def test_points_on_a_line_and_impossible_points_get_the_plain_target():
    line = molecule() * torch.tensor([1.0, 0.0, 0.0], dtype=F64)
    line = SO3().act(SO3().sample(3, generator=torch.manual_seed(0)), line)
    t = torch.full((3,), 0.7, dtype=F64)
    kernel = AlignedCoupling(star())
    x_t = kernel.sample(line, t, generator=torch.manual_seed(1)).x_t
    estimator = AlignedPermutationOrbit(kernel)
    context = OrbitContext(LEAVES.expand(3, -1, -1))
    found = estimator(x_t, line, t, context=context)
    assert torch.equal(found.value, line)
    assert torch.equal(found.info.ess, torch.ones_like(t))
    data = molecule().expand(3, -1, -1)
    early = torch.full((3,), 0.01, dtype=F64)
    mirrored = estimator(0.2 * data, data, early, context=context)
    assert torch.equal(mirrored.value, data)


def test_other_kernels_and_uses_are_refused():
    bridged = AlignedCoupling(star(), sigma=0.1)
    for kernel in (HarmonicKernel(star()), bridged):
        with pytest.raises(IncompatibleKernel, match="sigma = 0"):
            AlignedPermutationOrbit(kernel)
    with pytest.raises(BadInput, match="DATA or VELOCITY"):
        AlignedPermutationOrbit(AlignedCoupling(star()), parametrization=Parametrization.SCORE)
    x, t = torch.ones(1, 4, 3), torch.full((1,), 0.5)
    with pytest.raises(IncompatibleKernel, match="no density"):
        bridged.log_prob(x, x, t)
    with pytest.raises(BadInput, match="bridge"):
        bridged.target(x, x, t, VELOCITY)
    with pytest.raises(BadInput, match="converts data and velocity"):
        bridged.target(x, x, t, Parametrization.SCORE)
    assert torch.equal(bridged.target(x, x, t, VELOCITY, noise=2 * x), x)
    assert bridged.prior((2, 4, 3)).shape == (2, 4, 3)
