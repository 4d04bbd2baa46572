import pytest

from orbitdiff.samplers import SamplerConfig, build_sampler
from orbitdiff.testing import SamplerContract

CONFIGS = [
    SamplerConfig("ancestral", 1),
    SamplerConfig("ancestral", 1, eta=0.0),
    SamplerConfig("ode", 1),
    SamplerConfig("ode", 1, order=2),
    SamplerConfig("multistep", 1),
    SamplerConfig("predictor_corrector", 1, step_lr=1e-5),
]


class TestEverySampler(SamplerContract):
    config: SamplerConfig

    @pytest.fixture(autouse=True, params=CONFIGS, ids=lambda c: f"{c.name}-{c.order}-{c.eta}")
    def _each(self, request):
        self.config = request.param

    def build(self, fields, *, steps):
        config = {**vars(self.config), "steps": steps}
        return build_sampler(SamplerConfig(**config), fields)
