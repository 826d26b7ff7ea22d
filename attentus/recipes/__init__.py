"""Recipes: typed, complete descriptions of a result, one YAML file each. Needs no torch."""

from attentus.recipes.load import build, differences, dump, load, shipped, text_of
from attentus.recipes.schema import Augment, Infer, Intensity, Prepare, Recipe, Split, Structure, Train

__all__ = [
    "Augment",
    "Infer",
    "Intensity",
    "Prepare",
    "Recipe",
    "Split",
    "Structure",
    "Train",
    "build",
    "differences",
    "dump",
    "load",
    "shipped",
    "text_of",
]
