"""What to measure and by which conventions, as the challenges and papers do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from attentus.errors import BadInput, UnknownName
from attentus.metrics.pair import DETECTED, DETECTION, LESIONWISE, STANDARD, metric_named
from attentus.metrics.rules import DEFAULT, Rules

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from attentus.metrics.structures import Values

COUNTS = ("true_positive", "false_positive", "false_negative")
"""Voxel counts, from which scores over all cases together (global Dice) follow."""
LESION_METRICS = {*DETECTION, *DETECTED, *LESIONWISE}
"""Measured on lesions only."""


@dataclass(frozen=True)
class Preset:
    """A way to measure.

    Raises:
        UnknownName: a metric that does not exist.
    """

    about: str = ""
    rules: Rules = DEFAULT
    metrics: tuple[str, ...] = STANDARD
    """Names of metrics; those of single lesions apply to `lesions`, all others to every structure."""
    labels: Mapping[str, Values] | None = None
    """Structures, where the source prescribes them; what the caller says goes first."""
    lesions: tuple[str, ...] = ()
    """Structures that come in many pieces, each of which is to be found."""
    organ: str = ""
    """Structure that holds the lesions, for the tumour burden."""

    def __post_init__(self) -> None:
        for metric in self.metrics:
            metric_named(metric)

    def metrics_of(self, structure: str) -> tuple[str, ...]:
        """What is measured on a structure."""
        return tuple(m for m in self.metrics if structure in self.lesions or m not in LESION_METRICS)

    def rules_of(self, structure: str) -> Rules:
        """Conventions for a structure: LiTS has 9001 for a missed organ, and leaves out lesions that were not found."""
        organs_only = self.rules.empty == "lits" and structure in self.lesions
        return replace(self.rules, empty="default") if organs_only else self.rules

    def describe(self) -> dict[str, str]:
        """The rules that play a part here, each with the choice made, as text."""
        idle: set[str] = set()
        if not (LESION_METRICS - {*LESIONWISE}) & {*self.metrics}:
            idle |= {"matching", "overlap"}
        if not {*LESIONWISE} & {*self.metrics}:
            idle |= {"merge", "smallest_mm3"}
        return {rule: choice for rule, choice in self.rules.describe().items() if rule not in idle}

    def but(
        self,
        *,
        rules: Rules | None = None,
        metrics: Sequence[str] = (),
        lesions: Sequence[str] = (),
        organ: str = "",
    ) -> Preset:
        """The same with some things changed; asking for lesions adds their metrics if none is there."""
        changes: dict[str, Any] = {"rules": rules, "metrics": tuple(metrics), "lesions": tuple(lesions), "organ": organ}
        changed = replace(self, **{name: value for name, value in changes.items() if value})
        if lesions and not LESION_METRICS & {*changed.metrics}:
            return replace(changed, metrics=(*changed.metrics, *DETECTION, *DETECTED))
        return changed


def preset_named(name: str) -> Preset:
    """A preset of `PRESETS`.

    Raises:
        UnknownName: no such preset.
    """
    if name not in PRESETS:
        raise UnknownName("preset", name, PRESETS)
    return PRESETS[name]


def check_values(labels: Mapping[str, Values], found: Sequence[int]) -> None:
    """Refuse voxels that a preset's own labels do not account for: numberings differ between releases of a dataset.

    Args:
        labels: of the preset.
        found: values above 0 that occur.

    Raises:
        BadInput: some value belongs to no structure, or "any" would join several.
    """
    if "any" in labels.values():
        strange = [] if len(found) <= 1 else list(found)
    else:
        known = {value for values in labels.values() for value in (values if isinstance(values, tuple) else (values,))}
        strange = [value for value in found if value not in known]
    if strange:
        named = ", ".join(f"{name}={values}" for name, values in labels.items())
        raise BadInput(
            f"The preset expects {named}, but there are voxels of value {', '.join(map(str, strange))}.\n"
            "  Say which values the structures have, for example --label liver=1 (in Python: labels={'liver': 1})."
        )


_LIVER: Mapping[str, Values] = {"liver": (1, 2), "lesion": 2}
_OVERLAP = ("dice", "iou", "voe", "rvd", "ravd")

PRESETS: dict[str, Preset] = {
    "default": Preset("All metrics by the conventions of MONAI and MetricsReloaded."),
    "nnunet": Preset(
        "Dice and IoU as nnU-Net reports them: structures that both sides lack are left out.",
        Rules(empty="nnunet"),
        ("dice", "iou", *COUNTS),
    ),
    "lits": Preset(
        "The Liver Tumor Segmentation challenge, liver and lesions; without the error in its union.",
        Rules(empty="lits", connectivity=2, matching="lits"),
        (*_OVERLAP, "assd_mm", "rmsd_mm", "msd_mm", *COUNTS, *DETECTION, *DETECTED),
        _LIVER,
        ("lesion",),
        "liver",
    ),
    "chaos": Preset(
        "The CHAOS challenge: what lies outside the scan continues it; MSSD is msd_mm.",
        Rules(border="foreground"),
        ("dice", "ravd", "assd_mm", "msd_mm", "volume_ml", "reference_ml", *COUNTS),
        {"liver": "any"},
    ),
    "brats": Preset(
        "BraTS up to 2020: nested regions of labels 1, 2 and 4; a missed region is as far off as the diagonal.",
        Rules(empty="brats"),
        ("dice", "sensitivity", "specificity", "hd95_mm", *COUNTS),
        {"WT": (1, 2, 4), "TC": (1, 4), "ET": 4},
    ),
    "brats-msd": Preset(
        "The same regions in the numbering of MSD Task01: 1 oedema, 2 non-enhancing, 3 enhancing.",
        Rules(empty="brats"),
        ("dice", "sensitivity", "specificity", "hd95_mm", *COUNTS),
        {"WT": (1, 2, 3), "TC": (2, 3), "ET": 3},
    ),
    "brats-2023": Preset(
        "BraTS from 2023 on (adult glioma, paediatric, Africa): lesion-wise scores, labels 1, 2 and 3.",
        Rules(empty="brats-2023"),
        (*LESIONWISE, "dice", "sensitivity", "specificity", "hd95_mm", *COUNTS),
        {"WT": (1, 2, 3), "TC": (1, 3), "ET": 3},
        ("WT", "TC", "ET"),
    ),
    "anu-net": Preset(
        "ANU-Net: overlap of the volume, and means over slices.",
        metrics=("dice", "iou", "precision", "recall", "slice_dice", "slice_iou", *COUNTS),
    ),
    "ra-unet": Preset(
        "RA-UNet: LiTS scores of liver and lesions (DC and DG, Jaccard, VOE, RVD, ASSD, MSD).",
        Rules(empty="lits", connectivity=2, matching="lits"),
        (*_OVERLAP, "assd_mm", "msd_mm", *COUNTS, "lesion_detected", *DETECTED),
        _LIVER,
        ("lesion",),
        "liver",
    ),
    "attention-unet": Preset(
        "Attention U-Net: overlap and the distance between meshes (needs scikit-image).",
        metrics=("dice", "precision", "recall", "s2s_mm", *COUNTS),
    ),
    "msconvlstm-att": Preset(
        "MSConvLSTM-Att: Dice of the BraTS regions in the numbering of MSD Task01.",
        Rules(empty="brats"),
        ("dice", *COUNTS),
        {"WT": (1, 2, 3), "TC": (2, 3), "ET": 3},
    ),
    "dpc-net": Preset(
        "DPC-Net: overlap, surface distances, lesions detected at half overlap.",
        metrics=("dice", "rvd", "assd_mm", "hd95_mm", "hd_mm", *COUNTS, *DETECTION),
        labels=_LIVER,
        lesions=("lesion",),
        organ="liver",
    ),
}
"""Ways to measure by name."""
