"""Recipes: typed, complete descriptions of a result, one YAML file each. Needs no torch."""

from attentus.recipes.load import build, differences, dump, load, shipped, text_of, variants
from attentus.recipes.schema import (
    Augment,
    Clean,
    Infer,
    Intensity,
    Prepare,
    Recipe,
    Sampling,
    Schedule,
    Split,
    Start,
    Structure,
    Train,
)

__all__ = [
    "Augment",
    "Clean",
    "Infer",
    "Intensity",
    "Prepare",
    "Recipe",
    "Sampling",
    "Schedule",
    "Split",
    "Start",
    "Structure",
    "Train",
    "build",
    "differences",
    "dump",
    "load",
    "shipped",
    "text_of",
    "variants",
]
