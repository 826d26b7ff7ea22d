"""A segmentation as a DICOM SEG with highdicom: binary, as a label map, or fractional with probabilities.

Segments are coded (see `dicom_codes`), say which algorithm drew them, and refer frame by frame to the images. A binary
SEG holds frames only where a structure is, as is usual, but always those of the first and the last slice, so that
whoever reads it alone sees how far the scan reached. A structure that was not found is a segment without frames.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from attentus.errors import BadFile, BadInput, MissingExtra, UnknownName
from attentus.io.atomic import replacing
from attentus.io.dicom import quietly
from attentus.io.dicom_codes import Concept, concepts
from attentus.io.dicom_source import UNICODE, source_headers

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from numpy.typing import NDArray
    from pydicom import Dataset as Header

    from attentus.recipes import Coding
    from attentus.types import Prediction

Kind = Literal["binary", "labelmap", "fractional"]
MAKER = "Attentus"
MOST = 254
"""What a probability of 1 becomes in a fractional SEG, whose voxels are bytes; even, so that 0.5 stays what it is, and
no two structures whose probabilities add up to 1 both exceed it."""
SERIES = 1000
"""Added to the number of the images' series, so that results stand behind them in a study."""
LONGEST = 64
"""Characters of a name in DICOM."""
_EXPLICIT, _RLE = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.5"  # Explicit VR Little Endian; RLE Lossless
RESEARCH = "Research use only; made by software, not reviewed"


@dataclass(frozen=True)
class Dicom:
    """How a segmentation becomes DICOM.

    Raises:
        UnknownName: no such kind.
        BadInput: a report on a label map.
    """

    kind: Kind = "binary"
    """"binary": one mask per structure. "labelmap": one number per voxel, smaller, which older viewers cannot read.
    "fractional": the probability of each structure."""
    codes: Mapping[str, Coding] = field(default_factory=dict)
    """Codes of structures whose names do not say them."""
    fingerprint: str = ""
    """Of the model (`Model.fingerprint`)."""
    report: bool = False
    """Whether a report on what was measured goes with it."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise UnknownName("kind of DICOM segmentation", self.kind, get_args(Kind))
        if self.report and self.kind == "labelmap":  # dciodvfy calls a report with such references invalid
            raise BadInput(
                "A DICOM report cannot refer to the segments of a label map.\n"
                "  Write a binary or a fractional segmentation (--seg-type), or no report (--sr)."
            )

    def facts(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**vars(self), "codes": {name: coding.model_dump() for name, coding in self.codes.items()}}


@dataclass(frozen=True)
class Segment:
    """A structure as the SEG numbers it."""

    number: int
    name: str
    values: tuple[int, ...]
    """What its voxels hold in the prediction."""
    concept: Concept


def make_seg(prediction: Prediction, how: Dicom | None = None) -> Header:
    """The DICOM SEG of a prediction.

    Args:
        prediction: of a DICOM series; with probabilities, if they are to be written.
        how: which kind, which codes, by which model.

    Returns:
        The data set, ready to be saved. Segments follow the integers of the labels; where these are 1, 2, 3, ..., and
        always in a label map, segments have the same numbers.

    Raises:
        BadInput: the scan is no DICOM series, or the wish cannot be met: no probabilities for a fractional SEG,
            structures that overlap in a label map.
        BadFile: the images are gone, or lack what a SEG must have.
        MissingExtra: highdicom is not installed.
    """
    how = how or Dicom()
    try:
        from highdicom.seg import Segmentation
    except ImportError:
        raise MissingExtra("highdicom", "dicom", "Writing a DICOM segmentation") from None
    stored = prediction.labels.as_stored()
    headers, order = source_headers(stored)
    segments = _segments(prediction, how)
    labels, marks = stored.array[0][order], np.zeros(0, np.intp)
    if how.kind == "fractional":
        labels = np.broadcast_to(np.uint8(0), labels.shape)  # filled in later, frame by frame
    elif how.kind == "binary":
        labels, marks = _masks(labels, segments)
    try:
        seg: Header = quietly(
            Segmentation,
            headers,
            labels,
            how.kind.upper(),
            [_description(segment, prediction, how) for segment in segments],
            omit_empty_frames=how.kind == "binary",
            max_fractional_value=MOST,
            transfer_syntax_uid=_EXPLICIT,
            content_label="SEGMENTATION",
            content_description=RESEARCH,
            **identity(headers[0], f"Segmentation: {prediction.model}", how),
        )
    except (ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
        place = stored.source.path if stored.source and stored.source.path else "the scan"
        fix = "Write NIfTI, NRRD or MHA, or export the series from the archive again."
        raise BadFile(place, f"is a series that no DICOM segmentation can refer to ({error})", fix) from error
    planes = _planes(headers)
    _unmark(seg, {place for place, k in planes.items() if k in marks})
    if how.kind == "fractional":
        _fill(seg, _probabilities(prediction)[:, order], planes)
    if how.kind != "binary":  # by pydicom itself: GDCM's encoder ends the process at frames of odd length
        quietly(seg.compress, _RLE, encoding_plugin="pydicom", generate_instance_uid=False)
    return seg


def save(made: Header, path: str | PathLike[str], *, overwrite: bool = False) -> None:
    """Write a data set.

    Raises:
        BadFile: see `attentus.io.atomic.replacing`.
    """
    with replacing(path, overwrite=overwrite) as temporary:
        quietly(made.save_as, temporary)


def identity(source: Header, description: str, how: Dicom) -> dict[str, Any]:
    """What every new object in a study says of itself: a series of its own, by this software."""
    from pydicom.uid import generate_uid

    return {
        "series_instance_uid": generate_uid(),
        "series_number": SERIES + int(source.get("SeriesNumber") or 0),
        "series_description": description[:LONGEST],
        "sop_instance_uid": generate_uid(),
        "instance_number": 1,
        "manufacturer": MAKER,
        "manufacturer_model_name": MAKER,
        "software_versions": version("attentus"),
        "device_serial_number": how.fingerprint or "unknown",
        "specific_character_set": UNICODE,
    }


def _segments(prediction: Prediction, how: Dicom) -> list[Segment]:
    found = concepts(prediction.names, how.codes)
    inner = prediction.parts
    values = {name: inner.get(name) or (value,) for name, value in prediction.names.items()}
    shared = [value for values in values.values() for value in values]
    if how.kind == "labelmap" and len(shared) > len(set(shared)):
        raise BadInput(
            f"The structures {', '.join(values)} lie within each other, which one number per voxel cannot hold.\n"
            "  Write a binary segmentation, in which segments may overlap."
        )
    by_value = sorted(prediction.names, key=lambda name: prediction.names[name])
    numbers = prediction.names if how.kind == "labelmap" else {name: k for k, name in enumerate(by_value, start=1)}
    return [Segment(numbers[name], name, values[name], found[name]) for name in by_value]


def _description(segment: Segment, prediction: Prediction, how: Dicom) -> Header:
    from highdicom.color import CIELabColor
    from highdicom.content import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentDescription
    from highdicom.sr import CodedConcept
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid

    concept = segment.concept
    algorithm = AlgorithmIdentificationSequence(
        (prediction.model or MAKER)[:LONGEST],
        codes.DCM.ArtificialIntelligence,
        version("attentus"),
        source=MAKER,
        parameters={"model": how.fingerprint} if how.fingerprint else None,
    )
    description: Header = SegmentDescription(
        segment.number,
        segment.name[:LONGEST],
        concept.category,
        concept.type,
        "AUTOMATIC",
        algorithm,
        tracking_uid=generate_uid(),
        tracking_id=segment.name[:LONGEST],
        anatomic_regions=[concept.region] if concept.region else None,
        display_color=CIELabColor.from_rgb(*concept.colour) if concept.colour else None,
    )
    if concept.modifier:
        modifiers = [CodedConcept.from_code(concept.modifier)]
        description.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = modifiers
    return description


def _masks(labels: NDArray[Any], segments: list[Segment]) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Segment numbers (z, y, x), or masks (z, y, x, segment) if they overlap; and which planes were marked.

    A plane at either end where nothing is gets a single voxel, so that it has a frame; `_unmark` takes it away again.
    """
    table = np.zeros((1 + max(int(labels.max()), *(v for s in segments for v in s.values)), len(segments)), np.uint8)
    for column, segment in enumerate(segments):
        table[list(segment.values), column] = 1
    if (table.sum(axis=1) > 1).any():
        masks = table[labels]
        ends = masks[..., 0]
    else:
        numbers = (table @ np.arange(1, 1 + len(segments))).astype(np.uint8 if len(segments) < 256 else np.uint16)
        masks = ends = numbers[labels]
    marks = np.array([k for k in sorted({0, len(masks) - 1}) if not masks[k].any()], np.intp)
    ends[marks, 0, 0] = 1
    return masks, marks


def _planes(headers: list[Header]) -> dict[tuple[float, ...], int]:
    """Position of each plane, and its number."""
    groups = headers[0].get("PerFrameFunctionalGroupsSequence")
    places = [group.PlanePositionSequence[0] for group in groups] if groups else headers
    return {_position(place): k for k, place in enumerate(places)}


def _position(place: Header) -> tuple[float, ...]:
    return tuple(float(value) for value in place.ImagePositionPatient)


def _unmark(seg: Header, marked: set[tuple[float, ...]]) -> None:
    """Take away the voxel that gave the first segment a frame in these planes."""
    if not marked:
        return
    pixels, bits = bytearray(seg.PixelData), int(seg.Rows) * int(seg.Columns)
    for frame, (number, place) in enumerate(_frames(seg)):
        if number == 1 and place in marked:
            pixels[frame * bits // 8] &= ~(1 << (frame * bits % 8)) & 0xFF
    seg.PixelData = bytes(pixels)


def _frames(seg: Header) -> list[tuple[int, tuple[float, ...]]]:
    """Segment and position of each frame."""
    shared = seg.SharedFunctionalGroupsSequence[0]
    return [
        (
            int(
                (group if "SegmentIdentificationSequence" in group else shared)
                .SegmentIdentificationSequence[0]
                .ReferencedSegmentNumber
            ),
            _position(group.PlanePositionSequence[0]),
        )
        for group in seg.PerFrameFunctionalGroupsSequence
    ]


def _probabilities(prediction: Prediction) -> NDArray[Any]:
    """(segment, z, y, x) in the order of the segments, as stored."""
    if prediction.probabilities is None:
        raise BadInput(
            "A fractional segmentation holds probabilities, and there are none: predict(..., probabilities=True)."
        )
    array = prediction.probabilities.as_stored().array
    background = len(array) - len(prediction.names)  # regions come without
    names = list(prediction.names)
    rows = [background + names.index(name) for name in sorted(names, key=lambda name: prediction.names[name])]
    return array[rows]


def _fill(seg: Header, probabilities: NDArray[Any], planes: Mapping[tuple[float, ...], int]) -> None:
    """Put probabilities into the frames of a fractional SEG; as one array they would be in memory several times."""
    pixels = bytearray()
    for number, place in _frames(seg):
        plane = probabilities[number - 1, planes[place]].astype(np.float32)
        pixels += np.rint(plane * MOST).astype(np.uint8).tobytes()
    seg.PixelData = bytes(pixels) + b"\0" * (len(pixels) % 2)
    if len(probabilities) > 1:
        seg.SegmentsOverlap = "UNDEFINED"
