"""Use a trained model: load a checkpoint, draw samples, return objects of the field's libraries."""

from orbitdiff.inference.backbones import BackboneModel, generate_backbones
from orbitdiff.inference.conformers import ConformerModel, generate_conformers
from orbitdiff.inference.crystals import (
    CrystalModel,
    generate_crystals,
    parse_formula,
)
from orbitdiff.inference.demo import demo_checkpoint
from orbitdiff.inference.text_crystal_model import TextCrystalModel
from orbitdiff.inference.text_crystals import generate_text_crystals

__all__ = [
    "BackboneModel",
    "ConformerModel",
    "CrystalModel",
    "TextCrystalModel",
    "demo_checkpoint",
    "generate_backbones",
    "generate_conformers",
    "generate_crystals",
    "generate_text_crystals",
    "parse_formula",
]
