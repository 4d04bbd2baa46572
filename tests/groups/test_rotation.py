import math

import pytest
import torch

from orbitdiff.groups.kabsch import kabsch
from orbitdiff.groups.quaternion import davenport, jacobi_eigen, quaternion_eigen, to_rotation
from orbitdiff.groups.rotation import O3, SO3
from orbitdiff.testing import GroupContract

EYE = torch.eye(3, dtype=torch.float64)


class TestSO3(GroupContract):
    def group(self):
        return SO3()

    def points(self, generator):
        return torch.randn(6, 4, 3, generator=generator, dtype=torch.float64)


class TestO3(TestSO3):
    def group(self):
        return O3()


@pytest.mark.parametrize("group", [SO3(), O3()])
def test_elements_are_orthogonal_with_the_declared_determinants(group, generator):
    g = group.sample(4000, generator=generator)
    assert torch.allclose(g @ g.mT, EYE.expand_as(g), atol=1e-12)
    proper = torch.linalg.det(g) > 0
    share = float(proper.double().mean())
    assert share == 1 if isinstance(group, SO3) else abs(share - 0.5) < 4 * 0.5 / 4000**0.5


def test_angles_follow_the_haar_law(generator):
    """P(angle < a) = (a - sin a) / pi."""
    g = SO3().sample(20_000, generator=generator)
    trace = torch.diagonal(g, dim1=1, dim2=2).sum(1)
    angle = torch.acos(((trace - 1) / 2).clamp(-1, 1)).sort().values
    below = (angle - torch.sin(angle)) / math.pi
    rank = (torch.arange(len(g), dtype=torch.float64) + 0.5) / len(g)
    assert (below - rank).abs().max() < 2 / len(g) ** 0.5


def test_quaternions_are_exponentials(generator):
    """(cos a/2, sin a/2 n) is exp of the cross product with a n."""
    axis = torch.randn(10, 3, generator=generator, dtype=torch.float64)
    angle = axis.norm(dim=1, keepdim=True)
    q = torch.cat([torch.cos(angle / 2), torch.sin(angle / 2) * axis / angle], 1)
    cross = torch.linalg.cross(axis[:, None, :], EYE.expand(10, -1, -1)).mT
    assert torch.allclose(to_rotation(q[:, :, None] * q[:, None, :]), torch.matrix_exp(cross))


def test_davenport_matrix_is_the_trace(generator):
    cross = torch.randn(8, 3, 3, generator=generator, dtype=torch.float64)
    q = torch.randn(8, 4, generator=generator, dtype=torch.float64)
    q = q / q.norm(dim=1, keepdim=True)
    rotation = to_rotation(q[:, :, None] * q[:, None, :])
    quadratic = torch.einsum("ba,bac,bc->b", q, davenport(cross), q)
    assert torch.allclose(quadratic, (cross * rotation).sum((1, 2)))


def difficult(generator):
    """K of generic, repeated, rank-deficient, mirror, zero and huge F."""

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    rank_one = draw(4, 3, 1) @ draw(4, 1, 3)
    rank_two = draw(4, 3, 2) @ draw(4, 2, 3)
    special = torch.stack([EYE, -EYE, 0 * EYE, torch.diag(torch.tensor([1.0, 1.0, -1.0])).double()])
    tiny = EYE + 1e-9 * draw(4, 3, 3)
    return davenport(torch.cat([draw(50, 3, 3), rank_one, rank_two, special, tiny]))


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_jacobi_sweeps_diagonalise(scale, generator):
    matrix = scale * difficult(generator)
    values, vectors = jacobi_eigen(matrix)
    size = torch.linalg.matrix_norm(matrix).amax()
    expected = torch.linalg.eigvalsh(matrix)
    assert (values.sort().values - expected).abs().max() < 1e-14 * size
    assert (matrix @ vectors - vectors * values[:, None, :]).abs().max() < 1e-14 * size
    assert (vectors.mT @ vectors - torch.eye(4)).abs().max() < 1e-14


def test_jacobi_has_no_branch_on_data():
    """Traceable by shapes alone: a meta tensor passes."""
    found = jacobi_eigen(torch.empty(5, 4, 4, device="meta", dtype=torch.float64))
    assert found.values.shape == (5, 4)


def test_both_routes_give_the_same_projectors(generator):
    cross = torch.randn(20, 3, 3, generator=generator, dtype=torch.float64)
    for one, other in [(quaternion_eigen(cross), jacobi_eigen(davenport(cross)))]:
        order = other.values.argsort(-1)
        turned = other.vectors.gather(2, order[:, None, :].expand(-1, 4, -1))
        overlap = (one.vectors * turned).sum(1).abs()
        assert torch.allclose(overlap, torch.ones_like(overlap))


def superposed(source, target):
    """Kabsch by singular values, with the sign of the determinant."""
    u, _, vh = torch.linalg.svd(target.mT @ source)
    sign = torch.sign(torch.linalg.det(u) * torch.linalg.det(vh))
    return u @ torch.diag_embed(torch.stack([sign**0, sign**0, sign], -1)) @ vh


def test_kabsch_is_the_singular_value_solution(generator):
    source = torch.randn(30, 5, 3, generator=generator, dtype=torch.float64)
    target = torch.randn(30, 5, 3, generator=generator, dtype=torch.float64)
    found = kabsch(source, target)
    assert torch.allclose(found, superposed(source, target), atol=1e-10)
    mirrored = kabsch(source, -source)
    assert torch.allclose(torch.linalg.det(mirrored), torch.ones(30, dtype=torch.float64))
    assert torch.allclose(mirrored, superposed(source, -source), atol=1e-10)


def test_kabsch_finds_the_rotation(generator):
    source = torch.randn(10, 4, 3, generator=generator, dtype=torch.float64)
    planar = source * torch.tensor([1.0, 1.0, 0.0])
    g = SO3().sample(10, generator=generator)
    for points in (source, planar):
        assert torch.allclose(kabsch(points, SO3().act(g, points)), g, atol=1e-10)
