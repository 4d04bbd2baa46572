import torch

from orbitdiff.groups import Sign, TorusTranslation
from orbitdiff.testing import GroupContract


class TestTorusTranslation(GroupContract):
    def group(self):
        return TorusTranslation()

    def points(self, generator):
        return torch.rand(6, 4, 3, generator=generator, dtype=torch.float64)


class TestTorusOfOneDimension(TestTorusTranslation):
    def group(self):
        return TorusTranslation(1)

    def points(self, generator):
        return torch.rand(6, 4, 1, generator=generator, dtype=torch.float64)


class TestSign(GroupContract):
    def group(self):
        return Sign()

    def points(self, generator):
        return torch.randn(6, 4, 3, generator=generator, dtype=torch.float64)
