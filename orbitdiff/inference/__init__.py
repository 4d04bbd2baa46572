"""Use a trained model: load a checkpoint, draw samples, return objects of the field's libraries."""

from orbitdiff.inference.backbones import BackboneModel, generate_backbones
from orbitdiff.inference.conformers import ConformerModel, generate_conformers
from orbitdiff.inference.crystals import (
    CrystalModel,
    generate_crystals,
    parse_formula,
)
from orbitdiff.inference.demo import demo_checkpoint

__all__ = [
    "BackboneModel",
    "ConformerModel",
    "CrystalModel",
    "demo_checkpoint",
    "generate_backbones",
    "generate_conformers",
    "generate_crystals",
    "parse_formula",
]
