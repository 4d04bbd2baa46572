"""Contract tests for extenders: subclass, build your object, run pytest.

>>> class TestMyGroup(GroupContract):
...     def group(self):
...         return MyGroup()
...     def points(self, generator):
...         return torch.randn(6, 4, 3, generator=generator, dtype=torch.float64)
"""

from orbitdiff.testing.estimators import EstimatorContract as EstimatorContract
from orbitdiff.testing.estimators import SampledEstimatorContract as SampledEstimatorContract
from orbitdiff.testing.groups import GroupContract as GroupContract
from orbitdiff.testing.kernels import KernelContract as KernelContract
from orbitdiff.testing.samplers import SamplerContract as SamplerContract
