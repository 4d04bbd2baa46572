"""Symmetry groups: what acts on x_0."""

from orbitdiff.groups.automorphism import GraphAutomorphisms as GraphAutomorphisms
from orbitdiff.groups.automorphism import graph_automorphisms as graph_automorphisms
from orbitdiff.groups.base import Group as Group
from orbitdiff.groups.base import LinearIsometry as LinearIsometry
from orbitdiff.groups.finite import FiniteGroup as FiniteGroup
from orbitdiff.groups.finite import Sign as Sign
from orbitdiff.groups.graph import LabelledGraph as LabelledGraph
from orbitdiff.groups.kabsch import kabsch as kabsch
from orbitdiff.groups.permutation import BlockPermutations as BlockPermutations
from orbitdiff.groups.rotation import O3 as O3
from orbitdiff.groups.rotation import SO3 as SO3
from orbitdiff.groups.torus import TorusTranslation as TorusTranslation
