import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from orbitdiff.errors import IncompatibleKernel
from orbitdiff.groups import FiniteGroup, LinearIsometry, Sign
from orbitdiff.kernels import GaussianKernel, GeometricSigma, Parametrization
from orbitdiff.orbit import FiniteOrbit, Haar, ImportanceOrbit
from orbitdiff.testing import EstimatorContract, GroupContract, SampledEstimatorContract

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))
OPTIONAL = {"lightning_module": "lightning", "flow_matching_loop": "flow_matching"}
KERNEL = GaussianKernel(GeometricSigma(0.1, 10.0))
DATA = Parametrization.DATA


def load(name):
    path = next(path for path in EXAMPLES if path.stem == name)
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def output(name):
    if name in OPTIONAL:
        pytest.importorskip(OPTIONAL[name])
    path = next(path for path in EXAMPLES if path.stem == name)
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short(path):
    assert len(path.read_text().splitlines()) < 40


@pytest.mark.parametrize("name", ["plain_pytorch", "flow_matching_loop"])
def test_the_orbit_target_has_less_noise(name):
    plain, orbit = (float(n) for n in re.findall(r"(?:target|plain|orbit) (\d\.\d+)", output(name)))
    assert orbit < 0.75 * plain


def test_lightning_runs_its_steps():
    assert "100 steps, loss 0." in output("lightning_module")


def test_flat_batches_shrink_with_noise():
    shrink = [float(n) for n in re.findall(r"= (\d\.\d\d)$", output("flat_batches"), re.MULTILINE)]
    assert len(shrink) == 3
    assert shrink == sorted(shrink, reverse=True)


@pytest.mark.parametrize("name", ["custom_group", "toy_orbit"])
def test_the_others_print_something(name):
    assert output(name).strip()


TURNS = load("custom_group").Turns


class TestTurns(GroupContract):
    def group(self):
        return TURNS(6)

    def points(self, generator):
        return torch.randn(6, 4, 3, generator=generator, dtype=torch.float64)


class OverTurns:
    times = (0.3, 0.6, 0.9)

    def kernel(self):
        return KERNEL

    def group(self):
        return TURNS(6)

    def exact(self):
        return FiniteOrbit(KERNEL, TURNS(6), parametrization=DATA)

    def points(self, num, generator):
        return torch.randn(num, 4, 3, generator=generator, dtype=torch.float64)

    def act_on_target(self, g, value):
        return TURNS(6).act(g, value)


class TestFiniteOrbitOverTurns(OverTurns, EstimatorContract):
    def estimator(self):
        return self.exact()


class TestSamplesOverTurns(OverTurns, SampledEstimatorContract):
    def build(self, num_samples):
        return ImportanceOrbit(
            KERNEL, TURNS(6), Haar(TURNS(6)), parametrization=DATA, num_samples=num_samples
        )


def test_a_group_that_does_not_declare_itself_is_refused():
    class Undeclared(FiniteGroup):
        order = 2
        element_shape = ()
        elements = Sign.elements
        act = Sign.act
        compose = Sign.compose
        inverse = Sign.inverse
        difference = Sign.difference

    assert not issubclass(Undeclared, LinearIsometry)
    with pytest.raises(IncompatibleKernel, match="LinearIsometry"):
        FiniteOrbit(KERNEL, Undeclared(), parametrization=DATA)
