"""Measurements of a segmentation as a DICOM structured report (TID 1500) with highdicom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from attentus.io.dicom import quietly
from attentus.io.dicom_write import MAKER, Dicom, identity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydicom import Dataset as Header


class Size(Protocol):
    """What is told of a structure."""

    @property
    def volume_ml(self) -> float:
        """Millilitres."""

    @property
    def longest_mm(self) -> float | None:
        """Longest diameter; None where nothing was found."""


def make_report(seg: Header, sizes: Mapping[str, Size], how: Dicom | None = None) -> Header:
    """A report on the structures of a segmentation.

    Args:
        seg: as `make_seg` gives it; the report refers to its segments.
        sizes: by name of the structure; those without a segment are left out.
        how: as the segmentation was made.

    Returns:
        The data set, ready to be saved. A structure that was not found has a volume of 0 ml and no diameter.
    """
    from highdicom.sr import Comprehensive3DSR, MeasurementReport
    from pydicom.sr.codedict import codes

    groups = [
        _group(seg, segment, sizes[segment.SegmentLabel])
        for segment in seg.SegmentSequence
        if segment.SegmentLabel in sizes
    ]
    content = MeasurementReport(
        observation_context=_observer(how or Dicom()),
        procedure_reported=codes.SCT.ImagingProcedure,
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
    )
    report: Header = quietly(
        Comprehensive3DSR,
        evidence=[seg],
        content=content[0],
        is_complete=True,
        **identity(seg, f"Measurements: {MAKER}", how or Dicom()),
    )
    return report


def _observer(how: Dicom) -> Any:
    """This software observed, nobody else."""
    from highdicom.sr import DeviceObserverIdentifyingAttributes, ObservationContext, ObserverContext
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid

    device = DeviceObserverIdentifyingAttributes(
        uid=generate_uid(entropy_srcs=[MAKER, how.fingerprint]),  # one device for each model
        name=MAKER,
        manufacturer_name=MAKER,
        serial_number=how.fingerprint or None,
    )
    return ObservationContext(observer_device_context=ObserverContext(codes.DCM.Device, device))


def _group(seg: Header, segment: Header, size: Size) -> Any:
    """What is measured of one structure."""
    from highdicom import sr
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
    measured = [sr.Measurement(codes.SCT.Volume, round(size.volume_ml, 4), Code("ml", "UCUM", "ml"))]
    if size.longest_mm is not None:
        length = round(size.longest_mm, 3), codes.UCUM.Millimeter
        measured.append(sr.Measurement(codes.SCT.Diameter, *length, derivation=codes.SCT.Maximum))
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=segment.TrackingUID, identifier=segment.TrackingID),
        referenced_segment=sr.ReferencedSegment(
            seg.SOPClassUID,
            seg.SOPInstanceUID,
            int(segment.SegmentNumber),
            source_series=sr.SourceSeriesForSegmentation(seg.ReferencedSeriesSequence[0].SeriesInstanceUID),
        ),
        finding_category=_copied(segment.SegmentedPropertyCategoryCodeSequence[0]),
        finding_type=_copied(segment.SegmentedPropertyTypeCodeSequence[0]),
        finding_sites=_sites(segment),
        algorithm_id=sr.AlgorithmIdentification(algorithm.AlgorithmName, algorithm.AlgorithmVersion),
        measurements=measured,
    )


def _sites(segment: Header) -> list[Any] | None:
    """The organ that a structure lies in, or which of two organs it is."""
    from highdicom.sr import FindingSite
    from pydicom.sr.codedict import codes

    kind = segment.SegmentedPropertyTypeCodeSequence[0]
    regions = segment.get("AnatomicRegionSequence")
    modifiers = [_copied(code) for code in kind.get("SegmentedPropertyTypeModifierCodeSequence", ())]
    side = next((code for code in modifiers if code in (codes.SCT.Left, codes.SCT.Right)), None)
    if not regions and side is None:
        return None
    return [FindingSite(_copied(regions[0] if regions else kind), laterality=side)]


def _copied(item: Header) -> Any:
    """A code without what hangs on it."""
    from highdicom.sr import CodedConcept

    return CodedConcept(item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning)
