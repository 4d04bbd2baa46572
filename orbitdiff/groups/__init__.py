"""Symmetry groups: what acts on x_0."""

from orbitdiff.groups.base import Group as Group
from orbitdiff.groups.finite import FiniteGroup as FiniteGroup
from orbitdiff.groups.finite import Sign as Sign
from orbitdiff.groups.torus import TorusTranslation as TorusTranslation
