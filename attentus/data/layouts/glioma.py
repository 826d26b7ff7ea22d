"""Names of brain tumours: the same things have the same names in every dataset, whatever number stands for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

EDEMA, NECROSIS, NON_ENHANCING, ENHANCING = "edema", "necrosis", "non-enhancing tumor", "enhancing tumour"
"""As the Medical Segmentation Decathlon spells them; necrosis is a label of its own in BraTS 2012 to 2016 only."""

CHANNELS = ("flair", "t1", "t1c", "t2")
"""Channels of BraTS, in the order of the Medical Segmentation Decathlon."""


def regions(labels: Mapping[str, int]) -> dict[str, tuple[str, ...]]:
    """The nested regions of BraTS, outer ones first, made of the labels of a dataset.

    Args:
        labels: label name to integer.

    Returns:
        Region to labels; empty if these are no labels of gliomas.
    """
    if not {EDEMA, NON_ENHANCING, ENHANCING} <= set(labels):
        return {}
    core = tuple(name for name in labels if name in (NECROSIS, NON_ENHANCING, ENHANCING))
    return {"whole tumour": (EDEMA, *core), "tumour core": core}
