"""Every golden case of the torus, in both dtypes, at the stated tolerances."""

import itertools
import json
from pathlib import Path

import pytest
import torch

from orbitdiff.orbit import torus_posterior

FOLDER = Path(__file__).parent
CASES = json.loads((FOLDER / "torus_posterior.json").read_text())["cases"]
PERMUTED = json.loads((FOLDER / "torus_perm_posterior.json").read_text())["cases"]
DTYPES = (torch.float64, torch.float32)


def tolerance(dtype, sigma):
    return 1e-9 if dtype is torch.float64 else 1e-6 + 4e-7 / sigma


def points(rows, dtype):
    return torch.tensor([rows], dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_translations(case, dtype):
    sigma = case["sigma"]
    found = torus_posterior(points(case["xt"], dtype), points(case["x0"], dtype), sigma)
    expected = points(case["expected"]["score"], torch.float64)
    error = (found.mean_score.double() - expected).abs().max() * sigma
    assert error < tolerance(dtype, sigma)
    evidence = case["expected"]["log_evidence"]
    limit = (1e-9 if dtype is torch.float64 else 1e-5) * max(1.0, abs(evidence))
    assert abs(float(found.log_evidence) - evidence) < limit


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", PERMUTED, ids=lambda case: case["id"])
def test_translations_and_permutations(case, dtype):
    types, sigma = case["types"], case["sigma"]
    lists = [
        p
        for p in itertools.permutations(range(len(types)))
        if all(types[image] == own for image, own in zip(p, types, strict=True))
    ]
    permutations = torch.tensor([lists])
    found = torus_posterior(
        points(case["xt"], dtype), points(case["x0"], dtype), sigma, permutations=permutations
    )
    expected = points(case["expected"]["score"], torch.float64)
    error = (found.mean_score.double() - expected).abs().max() * sigma
    assert error < tolerance(dtype, sigma)
    assignment = torch.zeros(len(types), len(types), dtype=torch.float64)
    for weight, images in zip(found.weights[0].double(), lists, strict=True):
        assignment[torch.arange(len(types)), list(images)] += weight
    expected_assignment = torch.tensor(case["expected"]["assignment"], dtype=torch.float64)
    limit = 1e-9 if dtype is torch.float64 else 2e-6
    assert (assignment - expected_assignment).abs().max() < limit
