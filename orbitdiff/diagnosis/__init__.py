"""What averaging over a group would bring on given data: shares, errors, costs, and advice."""

from orbitdiff.diagnosis.measure import LevelResult as LevelResult
from orbitdiff.diagnosis.measure import Row as Row
from orbitdiff.diagnosis.measure import measure_level as measure_level
from orbitdiff.diagnosis.points import read_structures as read_structures
from orbitdiff.diagnosis.problem import Problem as Problem
from orbitdiff.diagnosis.problem import Settings as Settings
from orbitdiff.diagnosis.problem import pose as pose
from orbitdiff.diagnosis.recommend import Recommendation as Recommendation
from orbitdiff.diagnosis.recommend import recommend as recommend
