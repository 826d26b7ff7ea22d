"""What DICOM calls a structure: codes for the names that people give to labels, and a colour.

The codes come from the standard's own lists of what segments may be, as pydicom carries them: a name is the entry whose
words it has, whatever their order, spelling and side. What is ill, as a tumour in the liver, is coded as such, with the
organ as its region. A name that nobody knows is tissue.
"""

from __future__ import annotations

import colorsys
import re
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

from attentus.errors import BadFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from pydicom.sr.coding import Code

    from attentus.recipes import Coding

Colour = tuple[int, int, int]
Words = frozenset[str]

_ORGAN, _ILL, _TISSUE = "AnatomicalStructure", "MorphologicallyAbnormalStructure", "Tissue"
_GROUPS = {_ORGAN: 7192, _ILL: 7194, _TISSUE: 7191, "BodySubstance": 7197}
"""Category to the context group (CID) whose entries belong to it; earlier ones win."""

_WORDS = {
    **dict.fromkeys(("tumour", "tumor", "cancer", "carcinoma", "gtv"), "neoplasm"),
    **dict.fromkeys(("metastasis", "metastases"), "neoplasm secondary"),
    **dict.fromkeys(("oedema", "ed"), "edema"),
    **dict.fromkeys(("necrotic", "ncr"), "necrosis"),
    "haemorrhage": "hemorrhage",
    "nonenhancing": "non enhancing",
    "hippocampal": "hippocampus",
    "oesophagus": "esophagus",
    "vertebrae": "vertebra",
    "suprarenal": "adrenal",
    "grey": "gray",
    "brainstem": "brain stem",
    "csf": "cerebrospinal fluid",
    "vessel": "blood vessel",
    "fat": "adipose tissue",
    "muscle": "muscle tissue",
    "bone": "bone tissue",
    "bowel": "intestine",
    "ivc": "inferior vena cava",
    "postcava": "inferior vena cava",
    "la": "left atrium",
    "lv": "left ventricle",
    "rv": "right ventricle",
}
"""Words as people write them, and as the standard does."""

_PHRASES = {
    **dict.fromkeys(("wt", "tc", "core of neoplasm"), "Neoplasm"),
    **dict.fromkeys(("et", "enhancing", "enhancing neoplasm", "enhancing neoplasm core"), "EnhancingLesion"),
    **dict.fromkeys(("non enhancing", "non enhancing neoplasm", "non enhancing neoplasm core"), "NonEnhancingLesion"),
    **dict.fromkeys(("necrosis non enhancing neoplasm core", "necrosis neoplasm core", "necrosis core"), "Necrosis"),
    "gall bladder": "Gallbladder",
    "myocardium": "LeftVentricleMyocardium",
    "hepatic blood vessel": "BloodVessel",
    "portal vein and splenic vein": "PortalVein",
}
"""Names that mean another than their words do, BraTS' parts of a tumour first of all."""

_SILENT = frozenset(
    {"of", "the", "in", "and", "whole", "structure", "gland", "urinary", "label", "mask", "peritumoral"}
)
"""Words without which a name means the same."""

_COLOURS: dict[str, Colour] = {
    "Liver": (221, 130, 101),
    "Spleen": (157, 108, 162),
    "Kidney": (185, 102, 83),
    "Pancreas": (249, 180, 111),
    "Aorta": (224, 97, 76),
    "Gallbladder": (139, 150, 98),
    "Stomach": (216, 132, 105),
    "Heart": (206, 110, 84),
    "InferiorVenaCava": (0, 151, 206),
    "LeftAtrium": (185, 71, 85),
    "LeftVentricle": (152, 55, 13),
    "Lung": (197, 165, 145),
    "Brain": (250, 250, 225),
    "Hippocampus": (111, 184, 210),
    "Bladder": (222, 154, 132),
    "AdrenalGland": (244, 186, 150),
    "Esophagus": (211, 171, 143),
    "BoneTissue": (241, 214, 145),
    "Neoplasm": (144, 238, 144),
    "EnhancingLesion": (255, 90, 60),
    "NonEnhancingLesion": (90, 150, 255),
    "Necrosis": (216, 191, 216),
    "Edema": (140, 224, 228),
    "Cyst": (205, 205, 100),
    "Lesion": (253, 232, 158),
}
"""Close to what 3D Slicer shows, so that viewers agree; what is not here gets the next free hue."""
GOLDEN = (5**0.5 - 1) / 2
"""Hues that follow each other by this share of the circle stay apart, however many there are."""


@dataclass(frozen=True)
class Concept:
    """A structure in codes."""

    category: Code
    type: Code
    region: Code | None = None
    """The organ that it lies in."""
    modifier: Code | None = None
    """Left, right, anterior or posterior."""
    colour: Colour | None = None


def read_codes(file: Path) -> dict[str, Coding]:
    """Codes by name of the structure from a YAML or JSON file; fields as in a recipe's `infer.codes`.

    Raises:
        BadFile: missing, or anything else; the message names the field.
    """
    import yaml
    from pydantic import TypeAdapter, ValidationError

    from attentus.recipes import Coding

    try:
        return TypeAdapter(dict[str, Coding]).validate_python(yaml.safe_load(file.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadFile(file, f"cannot be read ({error})", "Name a YAML or JSON file with codes.") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        example = 'tumour: {type: "SCT:108369006:Neoplasm", region: "SCT:10200004:Liver"}'
        raise BadFile(file, f"{place or 'it'}: {first['msg']}", f"Write for example {example}.") from None


def concepts(names: Iterable[str], given: Mapping[str, Coding] | None = None) -> dict[str, Concept]:
    """Codes and colours for the structures of one segmentation.

    A tumour whose name does not say where lies in the one organ that is among the others, or in the brain where its
    parts are told apart as only those of gliomas are.

    Args:
        names: of the structures.
        given: codes that somebody chose, by name; what they leave out is found as for the others.

    Returns:
        Name to concept; all have a colour of their own.
    """
    found = {name: _found(name) for name in names}
    if {_plain(name) for name in found} == {"anterior", "posterior"}:  # all that the Decathlon says of its hippocampi
        found = {name: _found(f"{name} hippocampus") for name in found}
    organs = {concept.type for concept in found.values() if concept.category == _code(_ORGAN)}
    if not organs and {c.type for c in found.values()} & {_code("EnhancingLesion"), _code("NonEnhancingLesion")}:
        organs = {_code("Brain")}
    if len(organs) == 1:
        ill = {n: c for n, c in found.items() if c.category == _code(_ILL) and c.region is None}
        found |= {name: replace(concept, region=next(iter(organs))) for name, concept in ill.items()}
    found |= {name: _chosen(found[name], coding) for name, coding in (given or {}).items() if name in found}
    return _coloured(found)


def _found(name: str) -> Concept:
    """The concept that a name speaks of."""
    words = _words(name)
    if (concept := _entry(words)) is not None:
        return concept
    side = next((word for word in ("left", "right", "anterior", "posterior") if word in words), None)
    if side is not None and (concept := _composed(words - {side})) is not None:
        return replace(concept, modifier=_code(side.title()))
    return _composed(words) or Concept(_code(_TISSUE), _code(_TISSUE))


def _composed(words: Words) -> Concept | None:
    """The entry of these words, or of those that say what is ill, with that of the others as its region."""
    if (concept := _entry(words)) is not None:
        return concept
    ill = [part for part, concept in _known().items() if part <= words and concept.category == _code(_ILL)]
    if not ill:
        return None
    part = max(ill, key=len)
    organ = _entry(words - part)
    return replace(_known()[part], region=organ.type if organ else None)


def _entry(words: Words) -> Concept | None:
    rest = words - _SILENT
    tries = (words, rest, frozenset(word.removesuffix("s") for word in rest))
    return next((_known()[some] for some in tries if some in _known()), None)


@cache
def _known() -> dict[Words, Concept]:
    """The entries of the standard's lists, by the words of their names."""
    from pydicom.sr._cid_dict import cid_concepts

    known: dict[Words, Concept] = {}
    for category, group in _GROUPS.items():
        for scheme, keywords in cid_concepts[group].items():
            for keyword in keywords:
                code = _code(keyword, scheme)
                for name in (keyword.lstrip("_"), code.meaning.split("(")[0]):
                    words = _words(name)
                    known.setdefault(words, Concept(_code(category), code))
                    known.setdefault(words - _SILENT, Concept(_code(category), code))
    known.pop(frozenset(), None)
    by_code = {concept.type: concept for concept in known.values()}
    for phrase, keyword in _PHRASES.items():
        code = _code(keyword)
        known[_words(phrase)] = by_code.get(code, Concept(_code(_ORGAN), code))
    return known


def _code(keyword: str, scheme: str = "") -> Code:
    """The code that pydicom knows under a keyword, in SNOMED CT or, for parts of gliomas, the NCI thesaurus."""
    from pydicom.sr.codedict import codes

    scheme = scheme or ("NCIt" if keyword.endswith("EnhancingLesion") else "SCT")
    code: Code = getattr(getattr(codes, scheme), keyword)
    return code


def _plain(name: str) -> str:
    """Lower case, words apart by one blank; CamelCase is several words."""
    return " ".join(re.findall(r"[a-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])", " ", name).lower()))


def _words(name: str) -> Words:
    words = _plain(name).split()
    said = (_WORDS.get(word, _WORDS.get(word.removesuffix("s"), word)) for word in words)
    return frozenset(" ".join(said).split())


def _chosen(concept: Concept, coding: Coding) -> Concept:
    """A concept with what was chosen in its place."""
    from pydicom.sr.coding import Code

    def parsed(text: str) -> Code:
        scheme, value, meaning = text.split(":", 2)
        return Code(value, scheme, meaning)

    chosen = {field: parsed(text) for field in _FIELDS if (text := getattr(coding, field))}
    if "type" in chosen:  # what was found belongs to another type
        concept = Concept(_code(_ORGAN), chosen["type"])
    return replace(concept, **chosen, colour=coding.colour)


_FIELDS = ("type", "category", "region", "modifier")


def _coloured(found: Mapping[str, Concept]) -> dict[str, Concept]:
    usual = {_code(keyword): colour for keyword, colour in _COLOURS.items()}
    taken = {concept.colour for concept in found.values()}
    result = {}
    for number, (name, concept) in enumerate(found.items()):
        colour = concept.colour or usual.get(concept.type)
        if concept.colour is None and (colour is None or colour in taken):
            r, g, b = colorsys.hsv_to_rgb(0.08 + GOLDEN * number % 1, 0.65, 0.9)
            colour = (round(255 * r), round(255 * g), round(255 * b))
        taken.add(colour)
        result[name] = replace(concept, colour=colour)
    return result
