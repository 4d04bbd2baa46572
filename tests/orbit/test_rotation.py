import inspect
import itertools
import math

import pytest
import torch

from orbitdiff.errors import BadInput
from orbitdiff.groups.rotation import O3, SO3
from orbitdiff.kernels import Parametrization
from orbitdiff.orbit import matrix_fisher, rotation, rotation_pruning
from orbitdiff.orbit.matrix_fisher import orthogonal_moments
from orbitdiff.orbit.rotation import rotation_posterior
from orbitdiff.orbit.rotation_pruning import mixture_moments

DATA, SCORE = Parametrization.DATA, Parametrization.SCORE
VELOCITY, NOISE = Parametrization.VELOCITY, Parametrization.NOISE
CHAIN = torch.diag_embed(torch.ones(4), 1) + torch.diag_embed(torch.ones(4), -1) > 0


def draw(batch, count, sigma, seed=0):
    """x_t of rotated x_0, and x_0, centred."""
    generator = torch.Generator().manual_seed(seed)
    x_0 = 1.5 * torch.randn(batch, count, 3, generator=generator, dtype=torch.float64)
    x_0 = x_0 - x_0.mean(1, keepdim=True)
    noise = torch.randn(batch, count, 3, generator=generator, dtype=torch.float64)
    g = SO3().sample(batch, generator=generator)
    return SO3().act(g, x_0) + sigma * noise, x_0


def random_precision(batch, count, seed=0):
    """Sigma^+ with zero row sums, its eigenvalues over two decades."""
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(batch, count, count, generator=generator, dtype=torch.float64)
    centre = torch.eye(count, dtype=torch.float64) - 1 / count
    return centre @ (root @ root.mT + 0.1 * torch.eye(count)) @ centre


def settings(name, x_0):
    """Keyword arguments, and data, of each kind of posterior."""
    batch, count = x_0.shape[:2]
    cyclic = torch.stack([torch.arange(count).roll(k) for k in range(count)])
    lists = cyclic.expand(batch, -1, -1)
    conformers = torch.stack([x_0, x_0.flip(1), x_0**3 / 4], 1)
    prior = torch.tensor([[0.2, 0.5, 0.3]], dtype=torch.float64).log().expand(batch, -1)
    precision = random_precision(batch, count)
    return {
        "plain": (x_0, {"sigma": 0.8}),
        "reflections": (x_0, {"sigma": 1.5, "reflections": True}),
        "permutations": (x_0, {"sigma": 1.0, "permutations": lists}),
        "conformers": (conformers, {"sigma": 1.2, "log_prior": prior}),
        "precision": (x_0, {"precision": precision}),
        "everything": (
            conformers,
            {
                "precision": 0.3 * precision,
                "permutations": lists,
                "log_prior": prior,
                "reflections": True,
            },
        ),
    }[name]


KINDS = ("plain", "reflections", "permutations", "conformers", "precision", "everything")


@pytest.mark.parametrize("kind", KINDS)
def test_score_is_the_gradient_of_the_log_evidence(kind):
    x_t, x_0 = draw(2, 5, 0.8)
    data, more = settings(kind, x_0)
    mean = rotation_posterior(x_t, data, 0.7, **more).mean_x0
    if "sigma" in more:
        score = (0.7 * mean - x_t) / more["sigma"] ** 2
    else:
        score = more["precision"] @ (0.7 * mean - x_t)
    step = 1e-5
    for atom, axis in itertools.product(range(5), range(3)):
        shift = torch.zeros_like(x_t)
        shift[:, atom, axis] = step
        up = rotation_posterior(x_t + shift, data, 0.7, **more).log_evidence
        down = rotation_posterior(x_t - shift, data, 0.7, **more).log_evidence
        slope = (up - down) / (2 * step)
        assert torch.allclose(slope, score[:, atom, axis], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_mean_turns_with_x_t_and_not_with_x_0(kind):
    x_t, x_0 = draw(4, 5, 0.8)
    data, more = settings(kind, x_0)
    group = O3() if more.get("reflections") else SO3()
    h, k = (group.sample(4, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    turned = data @ (k if data.ndim == 3 else k[:, None]).mT
    found = rotation_posterior(x_t, data, 0.7, **more)
    moved = rotation_posterior(group.act(h, x_t), turned, 0.7, **more)
    assert torch.allclose(moved.mean_x0, group.act(h, found.mean_x0), atol=1e-9)
    assert torch.allclose(moved.log_evidence, found.log_evidence, atol=1e-8)
    assert torch.allclose(moved.weights, found.weights, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(kind):
    """Whatever stands in padding, and whatever the other sample's size."""
    x_t, x_0 = draw(2, 7, 0.8)
    mask = torch.arange(7) < torch.tensor([[5], [7]])
    data, more = settings(kind, x_0[:, :5])
    wide, _ = settings(kind, x_0)
    wide = wide.clone()
    wide[0, ..., :5, :] = data[0]
    wide[0, ..., 5:, :] = 7.0
    padded = dict(more)
    if "precision" in more:
        padded["precision"] = random_precision(2, 7, 3)
        padded["precision"][0, :5, :5] = more["precision"][0]
    if "permutations" in more:
        tail = torch.tensor([5, 6]).expand(2, 5, -1)
        padded["permutations"] = torch.cat([more["permutations"], tail], 2)
    x_t[0, 5:] = -3.0
    alone = rotation_posterior(x_t[:1, :5], data[:1], 0.7, **first(more))
    both = rotation_posterior(x_t, wide, 0.7, mask=mask, **padded)
    assert torch.allclose(both.mean_x0[0, :5], alone.mean_x0[0], atol=1e-10)
    assert bool((both.mean_x0[0, 5:] == 0).all())
    assert torch.allclose(both.log_evidence[0], alone.log_evidence[0])
    assert torch.allclose(both.weights[0], alone.weights[0], atol=1e-10)


def first(more):
    return {key: part[:1] if isinstance(part, torch.Tensor) else part for key, part in more.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_empty_batch(kind, dtype):
    x_t, x_0 = draw(2, 5, 0.8)
    data, more = settings(kind, x_0)
    more = {key: part[:0] if isinstance(part, torch.Tensor) else part for key, part in more.items()}
    found = rotation_posterior(x_t[:0].to(dtype), data[:0].to(dtype), 1.0, **more)
    assert found.mean_x0.shape == (0, 5, 3)
    assert found.mean_x0.dtype == dtype
    assert found.log_evidence.shape == (0,)
    assert found.weights.shape[0] == 0


def test_float32_points_give_float32_results():
    x_t, x_0 = draw(3, 5, 0.8)
    exact = rotation_posterior(x_t, x_0, 1.0, 0.8)
    found = rotation_posterior(x_t.float(), x_0.float(), 1.0, torch.tensor(0.8))
    assert {part.dtype for part in found} == {torch.float32}
    assert torch.allclose(found.mean_x0.double(), exact.mean_x0, atol=2e-6)


def test_mixture_of_single_posteriors():
    """Weights are the evidences of the components; masked permutations count for nothing."""
    x_t, x_0 = draw(2, 4, 1.0)
    data = torch.stack([x_0, x_0.flip(1) * torch.tensor([1.0, 0.5, 2.0])], 1)
    precision = random_precision(2, 4)
    lists = torch.tensor([[0, 1, 2, 3], [1, 0, 2, 3], [0, 1, 3, 2]]).expand(2, -1, -1)
    known = torch.tensor([[True, True, False], [True, True, True]])
    prior = torch.tensor([[0.3, 0.7], [0.9, 0.1]], dtype=torch.float64)
    found = rotation_posterior(
        x_t,
        data,
        0.9,
        precision=precision,
        log_prior=prior.log() + 5,
        permutations=lists,
        permutation_mask=known,
    )
    assert found.mean_rotation is None
    logs, means = torch.empty(2, 2, 3, dtype=torch.float64), {}
    for c, p in itertools.product(range(2), range(3)):
        one = rotation_posterior(x_t, data[:, c, lists[0, p]], 0.9, precision=precision)
        logs[:, c, p] = one.log_evidence + prior[:, c].log()
        means[c, p] = one.mean_x0
        turned = data[:, c, lists[0, p]] @ one.mean_rotation.mT
        assert torch.allclose(one.mean_x0, turned)
    logs = logs.masked_fill(~known[:, None], -math.inf)
    weights = torch.softmax(logs.flatten(1), 1).unflatten(1, (2, 3))
    assert torch.allclose(found.weights, weights, atol=1e-12)
    mean = sum(weights[:, c, p, None, None] * means[c, p] for c, p in means)
    assert torch.allclose(found.mean_x0, mean, atol=1e-12)
    evidence = torch.logsumexp(logs.flatten(1), 1) - torch.log(known.sum(1).double())
    assert torch.allclose(found.log_evidence, evidence)


def test_precision_of_isotropic_noise_is_sigma():
    """On centred points; the evidences differ by the density of the mean."""
    x_t, x_0 = draw(3, 5, 0.8)
    x_t = x_t - x_t.mean(1, keepdim=True)
    centre = torch.eye(5, dtype=torch.float64) - 1 / 5
    precision = (centre / 0.8**2).expand(3, -1, -1)
    full = rotation_posterior(x_t, x_0, 0.7, 0.8)
    found = rotation_posterior(x_t + 3.0, x_0, 0.7, precision=precision.float())
    assert torch.allclose(found.mean_x0, full.mean_x0, atol=1e-5)
    found = rotation_posterior(x_t + 3.0, x_0, 0.7, precision=precision)
    assert torch.allclose(found.mean_x0, full.mean_x0, atol=1e-10)
    shift = 1.5 * math.log(2 * math.pi * 0.8**2)
    assert torch.allclose(found.log_evidence, full.log_evidence + shift)


def test_scalars_may_differ_between_samples():
    x_t, x_0 = draw(3, 5, 0.8)
    alpha, sigma = torch.tensor([0.5, 1.0, 0.9]), torch.tensor([0.1, 1.0, 30.0])
    found = rotation_posterior(x_t, x_0, alpha, sigma)
    for row in range(3):
        one = slice(row, row + 1)
        alone = rotation_posterior(x_t[one], x_0[one], float(alpha[row]), float(sigma[row]))
        assert torch.allclose(found.mean_x0[one], alone.mean_x0, atol=1e-10)


def test_orbit_of_a_subgroup_has_one_target():
    """Any image of x_0 under a subgroup gives the same mean; a list that is none does not."""
    x_t, x_0 = draw(3, 4, 1.0)
    swap = torch.tensor([1, 0, 3, 2])
    group = torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0]])
    other = torch.tensor([[0, 1, 2, 3], [1, 2, 0, 3]])
    for lists, same in ((group, True), (other, False)):
        lists = lists.expand(3, -1, -1)
        found = rotation_posterior(x_t, x_0, 1.0, 1.0, permutations=lists).mean_x0
        moved = rotation_posterior(x_t, x_0[:, swap], 1.0, 1.0, permutations=lists).mean_x0
        assert torch.allclose(found, moved, atol=1e-9) is same


@pytest.mark.parametrize("sigma", [0.02, 0.3, 1.0, 5.0])
@pytest.mark.parametrize("reflections", [False, True])
def test_pruning_changes_nothing(sigma, reflections, monkeypatch):
    x_t, x_0 = draw(4, 5, sigma)
    lists = torch.tensor(list(itertools.permutations(range(5)))).expand(4, -1, -1)
    more = {"permutations": lists, "reflections": reflections}
    computed: list[int] = []

    def counted(cross, **options):
        computed.append(cross.shape[:-2].numel())
        return orthogonal_moments(cross, **options)

    monkeypatch.setattr(rotation_pruning, "orthogonal_moments", counted)
    pruned = rotation_posterior(x_t, x_0, 1.0, sigma, **more)
    assert sum(computed) < 100 or sigma > 0.3
    monkeypatch.setattr(rotation_pruning, "FEW", 1000)
    computed.clear()
    every = rotation_posterior(x_t, x_0, 1.0, sigma, **more)
    assert computed == [480]
    for found, expected in zip(pruned, every, strict=True):
        if expected is not None:
            assert torch.allclose(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("count", [1, 2, 3, 9])
@pytest.mark.parametrize("sigma", [0.01, 0.3, 2.0, 80.0])
@pytest.mark.parametrize("shape", ["generic", "planar", "linear", "mirror", "point"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_degenerate_clouds_are_finite_and_shrink_with_noise(
    count, sigma, shape, dtype, monkeypatch
):
    x_t, x_0 = draw(4, count, sigma)
    flat = {"planar": [1.0, 1.0, 0.0], "linear": [1.0, 0.0, 0.0], "point": [0.0] * 3}
    if shape in flat:
        x_0 = x_0 * torch.tensor(flat[shape], dtype=torch.float64)
    if shape == "mirror":
        x_t = -x_0
    x_t, x_0 = x_t.to(dtype), x_0.to(dtype)
    narrow = rotation_posterior(x_t, x_0, 1.0, sigma)
    x_t, x_0 = x_t.double(), x_0.double()
    found = rotation_posterior(x_t, x_0, 1.0, sigma)
    assert all(part.dtype == dtype for part in narrow)
    size = 1e-6 * (1 + float(x_0.abs().max()))
    assert float((narrow.mean_x0.double() - found.mean_x0).abs().max()) <= size
    monkeypatch.setattr(matrix_fisher, "MANY", 1)
    many = rotation_posterior(x_t, x_0, 1.0, sigma)
    assert torch.allclose(many.mean_x0, found.mean_x0, atol=1e-9)
    assert torch.allclose(many.log_evidence, found.log_evidence, rtol=1e-11, atol=1e-9)
    assert bool(torch.isfinite(found.mean_x0).all() & torch.isfinite(found.log_evidence).all())
    assert bool((found.mean_x0.norm(dim=(1, 2)) <= x_0.norm(dim=(1, 2)) + 1e-9).all())
    assert float(torch.linalg.matrix_norm(found.mean_rotation, 2).max()) <= 1 + 1e-9
    if sigma == 80.0:
        assert float(found.mean_x0.abs().max()) < 0.2
    if count == 1 or shape == "point":
        assert bool((found.mean_x0 == 0).all())


def test_two_atoms_are_a_direction():
    """E[R x] along the axis is coth k - 1/k times the length (Langevin)."""
    x_0 = torch.tensor([[[0.0, 0.0, 0.6], [0.0, 0.0, -0.6]]], dtype=torch.float64)
    x_t = torch.tensor([[[0.5, 0.0, 0.0], [-0.5, 0.0, 0.0]]], dtype=torch.float64)
    k = 0.9 * 0.6 / 0.7**2
    found = rotation_posterior(x_t, x_0, 0.9, 0.7).mean_x0
    expected = 0.6 * (1 / math.tanh(k) - 1 / k)
    assert float(found[0, 0, 0]) == pytest.approx(expected, abs=1e-10)
    assert found[0, :, 1:].abs().max() < 1e-12


def call(**change):
    base = {
        "x_t": torch.zeros(2, 3, 3),
        "x_0": torch.zeros(2, 3, 3),
        "alpha": 1.0,
        "sigma": 0.5,
    }
    # the tests' own type checker would answer first
    return inspect.unwrap(rotation_posterior)(**(base | change))


IDENTITY = torch.arange(3).expand(2, 1, -1)
CENTRE = (torch.eye(3) - 1 / 3).expand(2, -1, -1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_0": torch.zeros(2, 4, 3)}, "x_0 of shape"),
        ({"x_0": torch.zeros(2, 0, 3, 3)}, "at least one data point"),
        ({"x_t": torch.zeros(2, 3, 2)}, "x_t of shape"),
        ({"x_t": torch.zeros(3, 3)}, "x_t of shape"),
        ({"x_t": torch.zeros(2, 3, 3, dtype=torch.int64)}, "float32 or float64"),
        ({"x_0": torch.zeros(2, 3, 3, dtype=torch.float64)}, "float32 or float64"),
        ({"sigma": torch.ones(3)}, "sigma"),
        ({"alpha": torch.ones(2, 1)}, "alpha"),
        ({"sigma": None}, "either sigma or precision"),
        ({"precision": CENTRE}, "either sigma or precision"),
        ({"sigma": None, "precision": CENTRE[:1]}, "precision of shape"),
        ({"sigma": None, "precision": CENTRE.long()}, "precision of dtype"),
        ({"mask": torch.ones(2, 4, dtype=torch.bool)}, "mask of shape"),
        ({"mask": torch.ones(2, 3)}, "mask of dtype"),
        ({"log_prior": torch.zeros(2, 1)}, "several data points"),
        ({"x_0": torch.zeros(2, 4, 3, 3), "log_prior": torch.zeros(2, 3)}, "log_prior of shape"),
        ({"permutations": torch.zeros(2, 1, 4, dtype=torch.int64)}, "permutations of shape"),
        ({"permutations": torch.zeros(2, 0, 3, dtype=torch.int64)}, "permutations"),
        ({"permutations": torch.zeros(2, 1, 3)}, "permutations of dtype"),
        ({"permutation_mask": torch.ones(2, 1, dtype=torch.bool)}, "without permutations"),
        (
            {"permutations": IDENTITY, "permutation_mask": torch.ones(2, 2, dtype=torch.bool)},
            "permutation_mask of shape",
        ),
    ],
)
def test_wrong_shapes_are_value_errors(change, message):
    with pytest.raises(ValueError, match=message):
        call(**change)


def second(value, like):
    """A copy of `like` whose second sample is bad."""
    bad = like.clone().float()
    bad.view(2, -1)[1, 0] = value
    return bad


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_t": second(math.nan, torch.zeros(2, 3, 3))}, "finite coordinates x_t"),
        ({"x_0": second(math.inf, torch.zeros(2, 3, 3))}, "finite coordinates x_0"),
        ({"sigma": second(0.0, torch.ones(2))}, "sigma > 0"),
        ({"sigma": second(-1.0, torch.ones(2))}, "sigma > 0"),
        ({"sigma": second(math.nan, torch.ones(2))}, "sigma > 0"),
        ({"alpha": second(math.nan, torch.ones(2))}, "finite alpha"),
        ({"sigma": None, "precision": second(math.nan, CENTRE)}, "finite precision"),
        ({"sigma": None, "precision": second(2.0, CENTRE)}, "zero row sums"),
        ({"sigma": None, "precision": second(0.0, -CENTRE)}, "precision"),
        ({"permutations": second(3, IDENTITY).long()}, "indices"),
        ({"permutations": second(1, IDENTITY).long()}, "rows that are permutations"),
        (
            {
                "permutations": IDENTITY,
                "permutation_mask": torch.tensor([[True], [False]]),
            },
            "permutation_mask",
        ),
        (
            {
                "permutations": torch.tensor([[[0, 1, 2]], [[2, 1, 0]]]),
                "mask": torch.tensor([[True] * 3, [True, True, False]]),
            },
            "padding",
        ),
        (
            {
                "x_0": torch.zeros(2, 2, 3, 3),
                "log_prior": torch.tensor([[0.0, -math.inf], [-math.inf, -math.inf]]),
            },
            "log_prior",
        ),
    ],
)
def test_wrong_values_name_the_sample(change, message):
    with pytest.raises(BadInput, match=f"sample 1: .*{message}"):
        call(**change)


def test_negative_precision_names_the_sample():
    bad = torch.stack([CENTRE[0], -CENTRE[0]])
    with pytest.raises(BadInput, match="sample 1: .*positive on the centred"):
        call(sigma=None, precision=bad)
    skewed = CENTRE.clone()
    skewed[1] += torch.tensor([[0.0, 1, -1], [-1, 0, 1], [1, -1, 0]])
    with pytest.raises(BadInput, match="sample 1: .*symmetric"):
        call(sigma=None, precision=skewed)


@pytest.mark.parametrize("kind", KINDS)
def test_images_go_through_in_passes_with_the_same_result(kind, monkeypatch):
    x_t, x_0 = draw(7, 5, 0.8)
    data, more = settings(kind, x_0)
    expected = rotation_posterior(x_t, data, 1.0, **more)
    passes = []

    def counted(cross, *rest, **options):
        passes.append(len(cross))
        return mixture_moments(cross, *rest, **options)

    monkeypatch.setattr(rotation, "mixture_moments", counted)
    each = data[:1].numel() * (more["permutations"].shape[1] if "permutations" in more else 1)
    monkeypatch.setattr(rotation, "AT_ONCE", {False: 3 * each, True: 0})
    for found, whole in zip(rotation_posterior(x_t, data, 1.0, **more), expected, strict=True):
        assert (found is None) is (whole is None)
        if found is not None:
            assert torch.allclose(found, whole, rtol=1e-12, atol=1e-12)
    assert passes == [3, 3, 1]
