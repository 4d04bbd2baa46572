"""Every golden case of rotations, in both dtypes, at the stated tolerances, by both routes."""

import json
from pathlib import Path

import pytest
import torch

from orbitdiff.groups import quaternion
from orbitdiff.kernels.base import Parametrization
from orbitdiff.kernels.harmonic import HarmonicKernel
from orbitdiff.kernels.harmonic_prior import HarmonicPrior
from orbitdiff.orbit import matrix_fisher
from orbitdiff.orbit.rotation import rotation_posterior

FOLDER = Path(__file__).parent
DTYPES = (torch.float64, torch.float32)


def cases(name):
    return json.loads((FOLDER / f"{name}_posterior.json").read_text())["cases"]


def each(name):
    return pytest.mark.parametrize("case", cases(name), ids=lambda case: case["id"])


def exact(value):
    return torch.tensor(value, dtype=torch.float64)


def points(rows, dtype):
    return torch.tensor([rows], dtype=dtype)


def limits(dtype):
    """Tolerances of weights and rotations, of targets, and of logs (relative)."""
    return (1e-9, 1e-8, 1e-9) if dtype is torch.float64 else (2e-6, 2e-5, 1e-5)


def distance(found, expected):
    return float((found.double() - exact(expected)).abs().max())


def same_log(found, expected, dtype):
    return abs(float(found) - expected) < limits(dtype)[2] * max(1.0, abs(expected))


def score_error(found, x_t, expected, alpha, sigma):
    """Error of the score that the target implies, times sigma^2."""
    score = (alpha * found[0].double() - x_t[0].double()) / sigma**2
    return distance(score, expected) * sigma**2


def score_limit(x_t):
    ulp = torch.finfo(torch.float32).eps * float(x_t.abs().max())
    return 1e-8 if x_t.dtype is torch.float64 else 2e-5 + ulp


@pytest.fixture(params=["eigh", "polynomial", "jacobi"], autouse=True)
def route(request, monkeypatch):
    """Run each case by the routes of the CPU, for few and for many, and by that of CUDA."""
    if request.param == "polynomial":
        monkeypatch.setattr(matrix_fisher, "MANY", 1)
    if request.param == "jacobi":
        monkeypatch.setattr(
            matrix_fisher,
            "quaternion_eigen",
            lambda cross: quaternion.jacobi_eigen(quaternion.davenport(cross)),
        )


@pytest.mark.parametrize("dtype", DTYPES)
@each("so3")
def test_rotations(case, dtype):
    expected, alpha, sigma = case["expected"], case["alpha"], case["sigma"]
    x_t, x_0 = points(case["xt"], dtype), points(case["x0"], dtype)
    found = rotation_posterior(x_t, x_0, alpha, sigma)
    rotation, target, _ = limits(dtype)
    assert distance(found.mean_rotation[0], expected["E_R"]) < rotation
    assert distance(found.mean_x0[0], expected["target_x0"]) < target
    error = score_error(found.mean_x0, x_t, expected["score"], alpha, sigma)
    assert error < score_limit(x_t)
    assert same_log(found.log_evidence, expected["log_evidence"], dtype)
    assert float(found.reflection_probability) == 0
    cross = alpha / sigma**2 * x_t[0].double().T @ x_0[0].double()
    log_constant = matrix_fisher.orthogonal_moments(cross).log_constant
    assert same_log(log_constant, expected["log_c"], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@each("so3")
def test_reflections(case, dtype):
    expected, alpha, sigma = case["expected"]["o3"], case["alpha"], case["sigma"]
    x_t, x_0 = points(case["xt"], dtype), points(case["x0"], dtype)
    found = rotation_posterior(x_t, x_0, alpha, sigma, reflections=True)
    rotation, target, _ = limits(dtype)
    assert distance(found.mean_rotation[0], expected["E_g"]) < rotation
    assert distance(found.mean_x0[0], expected["target_x0"]) < target
    assert abs(1 - float(found.reflection_probability) - expected["weight_proper"]) < rotation
    shift = expected["log_c"] - case["expected"]["log_c"]
    evidence = case["expected"]["log_evidence"] + shift
    assert same_log(found.log_evidence, evidence, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@each("so3_aut")
def test_automorphisms(case, dtype):
    expected, alpha, sigma = case["expected"], case["alpha"], case["sigma"]
    x_t, x_0 = points(case["xt"], dtype), points(case["x0"], dtype)
    lists = torch.tensor([case["permutations"]])
    found = rotation_posterior(x_t, x_0, alpha, sigma, permutations=lists)
    rotation, target, _ = limits(dtype)
    assert distance(found.weights[0, 0], expected["weights"]) < rotation
    assert distance(found.mean_x0[0], expected["target_x0"]) < target
    error = score_error(found.mean_x0, x_t, expected["score"], alpha, sigma)
    assert error < score_limit(x_t)
    assert same_log(found.log_evidence, expected["log_evidence"], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@each("so3_conformers")
def test_conformers(case, dtype):
    expected, alpha, sigma = case["expected"], case["alpha"], case["sigma"]
    x_t, x_0 = points(case["xt"], dtype), points(case["conformers"], dtype)
    log_prior = exact([case["prior"]]).log()
    found = rotation_posterior(x_t, x_0, alpha, sigma, log_prior=log_prior)
    rotation, target, _ = limits(dtype)
    assert distance(found.weights[0, :, 0], expected["weights"]) < rotation
    assert distance(found.mean_x0[0], expected["target_x0"]) < target
    error = score_error(found.mean_x0, x_t, expected["score"], alpha, sigma)
    assert error < score_limit(x_t)
    assert same_log(found.log_evidence, expected["log_evidence"], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@each("harmonic")
def test_harmonic(case, dtype):
    """The file's time runs from noise to data: t, x1 and velocity turn round."""
    expected, t = case["expected"], exact([1 - case["t"]])
    x_t, x_0 = points(case["xt"], dtype), points(case["x1"], dtype)
    bonds = torch.zeros(case["n"], case["n"], dtype=torch.bool)
    first, second = torch.tensor(case["edges"]).T
    bonds[first, second] = bonds[second, first] = True
    harmonic = HarmonicPrior.from_bonds(bonds, spring=case["harmonic_alpha"])
    kernel = HarmonicKernel(harmonic, sigma=case["sigma"])
    precision = kernel.precision(t)
    found = rotation_posterior(x_t, x_0, case["t"], precision=precision)
    rotation, target, _ = limits(dtype)
    assert distance(found.mean_rotation[0], expected["E_R"]) < rotation
    assert distance(found.mean_x0[0], expected["target_x1"]) < target
    assert same_log(found.log_evidence, expected["log_evidence"], dtype)
    wide, mean = x_t.double(), found.mean_x0.double()
    smallest = float(1 / torch.linalg.eigvalsh(precision).max())
    score = kernel.convert(mean, Parametrization.DATA, Parametrization.SCORE, wide, t)
    assert distance(score[0], expected["score"]) * smallest < score_limit(x_t)
    noise = kernel.mean_prior_sample(wide, mean, t)
    velocity = kernel.convert(mean, Parametrization.DATA, Parametrization.VELOCITY, wide, t)
    assert distance(noise[0], expected["E_x0"]) < target
    assert distance(-velocity[0], expected["velocity"]) < target
