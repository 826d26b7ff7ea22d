"""Which series of a DICOM tree become cases, with which labels, and why the others do not.

A study gives a case for every series that is wanted and that labels refer to. Labels belong to the series whose UID
they name; where nobody names a wanted series, labels with the same frame of reference will do. For more than one
channel, the partners of a series come from its study or its frame of reference.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from fnmatch import translate
from hashlib import sha256
from itertools import groupby
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from attentus.data.imports.survey import ImageSeries, LabelObject, Survey

Naming = Literal["number", "hash", "patient"]

NOWHERE, FRAME, PARTNER, DIRECT = range(4)
"""How close labels are: not there; in the same frame of reference; drawn on another channel; on the first one."""


@dataclass(frozen=True)
class Channel:
    """What a channel is made of. A pattern is as in a shell (`*T1*`); letters may be large or small."""

    name: str
    """Empty: the modality of what is found."""
    modality: str | None = None
    description: str | None = None
    either: str | None = None
    """Pattern that the modality or the description must fulfil."""

    @property
    def asks(self) -> bool:
        """Whether it asks for anything at all."""
        return bool(self.modality or self.description or self.either)

    def takes(self, image: ImageSeries) -> bool:
        """Whether a series is of this kind."""
        wanted = ((self.modality, (image.modality,)), (self.description, (image.description,)))
        both = (*wanted, (self.either, (image.modality, image.description)))
        return all(pattern is None or any(fits(pattern, text) for text in texts) for pattern, texts in both)


@dataclass(frozen=True)
class Wish:
    """What is wanted of a tree."""

    channels: tuple[Channel, ...] = (Channel(""),)
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Label to the patterns of structures it is made of; empty takes every structure by its own name."""
    unlabelled: bool = False
    """Whether scans without labels are wanted, too."""
    names: Naming = "number"
    """How cases are called: counted, by a hash of their UIDs, or by PatientID."""


@dataclass(frozen=True)
class Case:
    """A case to be."""

    name: str
    subject: str
    images: tuple[ImageSeries, ...]
    """One per channel; the first gives the grid."""
    structures: tuple[tuple[LabelObject, str, str], ...]
    """Where it is drawn, how it is called there, and the label it becomes."""
    notes: tuple[str, ...] = ()

    @property
    def problem(self) -> str:
        """Why it cannot be converted, as far as headers tell; empty if nothing is wrong."""
        return next((image.geometry for image in self.images if isinstance(image.geometry, str)), "")

    @property
    def fingerprint(self) -> str:
        """Tells whether it is still the same scan with the same labels; gives away none of the UIDs it is made from."""
        parts = [f"{image.owner.series} {image.slices}" for image in self.images]
        parts += [f"{drawn.owner.series} {name} {label}" for drawn, name, label in self.structures]
        return _hash("\n".join(parts), 16)


@dataclass(frozen=True)
class Row:
    """What becomes of one series."""

    patient: str
    study: int
    """Counted from 1 for each patient."""
    what: ImageSeries | LabelObject
    structures: tuple[str, ...]
    use: str
    """Case and channel, or why it is not used."""
    chosen: bool


@dataclass(frozen=True)
class Plan:
    """What an import will do."""

    channels: tuple[str, ...]
    labels: tuple[str, ...]
    """In the order of their numbers, from 1."""
    cases: tuple[Case, ...]
    rows: tuple[Row, ...]
    damaged: tuple[str, ...]
    """Files that cannot be read, as messages."""
    refusal: str = ""
    """Why it cannot be done as it is asked for; empty if it can."""


def choose(survey: Survey, wish: Wish) -> Plan:
    """Decide what becomes of every series.

    Args:
        survey: of the tree.
        wish: what is wanted.
    """
    links = _Links(survey, wish)
    left: dict[str, str] = {}
    drafts = [
        draft
        for _, images in groupby(survey.images, key=lambda image: image.owner.patient)
        for draft in _of_patient(list(images), wish, links, left)
    ]
    cases = _named(drafts, wish.names)
    used = {label for case in cases for _, _, label in case.structures}
    order = wish.labels or sorted(set(links.called.values()), key=_natural)
    channels = _channel_names(cases, wish)
    return Plan(
        channels,
        tuple(label for label in order if label in used),
        cases,
        (*_image_rows(survey, cases, channels, left), *_label_rows(survey, cases, links)),
        tuple(survey.damaged.values()),
        _refusal(cases, wish, channels),
    )


def fits(pattern: str, text: str) -> bool:
    """Whether a text fulfils a pattern as in a shell, letters large or small."""
    return re.match(translate(pattern.casefold()), text.strip().casefold()) is not None


class _Links:
    """Which label objects, with structures that are wanted, belong to which series."""

    def __init__(self, survey: Survey, wish: Wish) -> None:
        self.called = _called(survey, wish)
        """Structure to the label it becomes; structures that are not wanted are left out."""
        self.by_series: defaultdict[str, list[LabelObject]] = defaultdict(list)
        self.by_frame: defaultdict[str, list[LabelObject]] = defaultdict(list)
        for drawn in survey.labels:
            if self.wanted(drawn):
                for uid in drawn.refers_to:
                    self.by_series[uid].append(drawn)
                self.by_frame[drawn.owner.frame].append(drawn)

    def wanted(self, drawn: LabelObject) -> bool:
        """Whether any of its structures is."""
        return any(name in self.called for name in drawn.structures)

    def to(self, images: Sequence[ImageSeries]) -> tuple[int, list[LabelObject]]:
        """How close the nearest labels are, and all of them."""
        direct = [drawn for image in images for drawn in self.by_series.get(image.owner.series, ())]
        if direct:
            return DIRECT if images[0].owner.series in self.by_series else PARTNER, list(dict.fromkeys(direct))
        near = self.by_frame.get(images[0].owner.frame, []) if images[0].owner.frame else []
        return (FRAME, near) if near else (NOWHERE, [])

    def newest(self, labels: Sequence[LabelObject]) -> tuple[tuple[tuple[LabelObject, str, str], ...], list[str]]:
        """Structures and the labels they become, with remarks; of a label in several objects, the newest one's."""
        owner: dict[str, LabelObject] = {}
        structures, notes = [], []
        for drawn in sorted(labels, key=lambda label: (label.stamp, label.file.name), reverse=True):
            for name, label in ((name, self.called[name]) for name in drawn.structures if name in self.called):
                if owner.setdefault(label, drawn) is drawn:
                    structures.append((drawn, name, label))
                else:
                    notes.append(f"{label}: in a {owner[label].kind} and an older {drawn.kind}; the newer is used")
        return tuple(structures), list(dict.fromkeys(notes))


def _called(survey: Survey, wish: Wish) -> dict[str, str]:
    names = sorted({name for drawn in survey.labels for name in drawn.structures})
    if wish.labels:
        pairs = (
            (name, next((k for k, v in wish.labels.items() if any(fits(p, name) for p in v)), None)) for name in names
        )
        return {name: label for name, label in pairs if label is not None}
    spelled: dict[str, str] = {}  # "Liver" and "liver" are one label
    return {name: spelled.setdefault(name.strip().casefold(), name.strip()) for name in names}


def _of_patient(images: Sequence[ImageSeries], wish: Wish, links: _Links, left: dict[str, str]) -> list[Case]:
    """The cases of a patient, without names yet; `left` gets the reasons of what is left out."""
    found = []
    for _, study in groupby(images, key=lambda image: image.owner.study):
        groups = []
        for image in sorted(filter(wish.channels[0].takes, study), key=_preference):
            group, missing = _partners(image, images, wish.channels)
            if missing:
                left[image.owner.series] = f"no series for channel {missing} beside it"
            else:
                groups.append((group, *links.to(group)))
        best = max((closeness for _, closeness, _ in groups), default=NOWHERE)
        nearest = [group for group in groups if group[1] == best]
        chosen = nearest if best == DIRECT else nearest[: 1 if best > NOWHERE or wish.unlabelled else 0]
        for group, closeness, _ in groups:
            if not any(group is taken for taken, _, _ in chosen):
                left[group[0].owner.series] = _reason(closeness, best, unlabelled=wish.unlabelled)
        for group, closeness, labels in chosen:
            structures, notes = links.newest(labels)
            found.append(Case("", "", tuple(group), structures, (*notes, *_remarks(group, closeness))))
    return found


def _reason(closeness: int, best: int, *, unlabelled: bool) -> str:
    """Why a series of a study is no case, though it is of the kind that is wanted."""
    if best == NOWHERE and not unlabelled:
        return "no labels that are wanted refer to it"
    return (
        "another series of its study has more slices"
        if closeness == best
        else "another series of its study has the labels"
    )


def _partners(
    first: ImageSeries, images: Sequence[ImageSeries], channels: Sequence[Channel]
) -> tuple[list[ImageSeries], str]:
    """The series with one partner for every further channel; or the name of the channel that lacks one."""
    group = [first]
    for channel in channels[1:]:
        near = [
            i
            for i in images
            if i not in group and channel.takes(i) and (_same_study(i, first) or _same_frame(i, first))
        ]
        if not near:
            return [], channel.name
        group.append(min(near, key=lambda i: (not _same_frame(i, first), not _same_study(i, first), *_preference(i))))
    return group, ""


def _preference(image: ImageSeries) -> tuple[bool, int, str]:
    """Sound before damaged, many slices before few."""
    return isinstance(image.geometry, str), -image.slices, image.owner.series


def _same_frame(a: ImageSeries, b: ImageSeries) -> bool:
    return bool(a.owner.frame) and a.owner.frame == b.owner.frame


def _same_study(a: ImageSeries, b: ImageSeries) -> bool:
    return a.owner.study == b.owner.study


def _remarks(group: Sequence[ImageSeries], closeness: int) -> list[str]:
    apart = sum(not _same_frame(group[0], image) for image in group[1:])
    remarks = [f"{apart} channel(s) in another frame of reference, taken to be aligned"] if apart else []
    return [
        *remarks,
        *(["labels were drawn on another series in the same frame of reference"] if closeness == FRAME else []),
    ]


def _named(drafts: Sequence[Case], names: Naming) -> tuple[Case, ...]:
    patients = {patient: k for k, patient in enumerate(dict.fromkeys(_patient(case) for case in drafts), start=1)}
    named: list[Case] = []
    for number, case in enumerate(drafts, start=1):
        name, subject = f"case_{number:03d}", f"subject_{patients[_patient(case)]:03d}"
        if names == "hash":
            name = f"case_{_hash(case.images[0].owner.study + case.images[0].owner.series, 8)}"
            subject = (
                f"subject_{_hash(min(c.images[0].owner.study for c in drafts if _patient(c) == _patient(case)), 8)}"
            )
        elif names == "patient":
            subject = re.sub(r"[^A-Za-z0-9-]+", "_", _patient(case)).strip("_") or subject
            before = sum(other.subject == subject for other in named)
            name = f"{subject}_{before + 1}" if before else subject
        named.append(replace(case, name=name, subject=subject))
    return tuple(named)


def _patient(case: Case) -> str:
    return case.images[0].owner.patient


def _channel_names(cases: Sequence[Case], wish: Wish) -> tuple[str, ...]:
    found = [case.images[0].modality for case in cases]
    return tuple(channel.name or (found[0] if found else "image") for channel in wish.channels)


def _refusal(cases: Sequence[Case], wish: Wish, channels: Sequence[str]) -> str:
    kinds = Counter(case.images[0].modality for case in cases)
    if len(kinds) > 1 and not wish.channels[0].asks:
        listed = ", ".join(f"{count} {modality}" for modality, count in sorted(kinds.items()))
        return f"series of several modalities have labels ({listed}): choose with --modality, or make channels of them."
    if len(set(channels)) < len(channels):
        return "two channels have the same name: give each its own."
    if not cases:
        return "no series is of the kind asked for and has labels that are wanted; --dry-run tells about each."
    return ""


def _image_rows(
    survey: Survey, cases: Sequence[Case], channels: Sequence[str], left: Mapping[str, str]
) -> Iterator[Row]:
    uses: defaultdict[str, list[str]] = defaultdict(list)
    for case in cases:
        for channel, image in zip(channels, case.images, strict=True):
            uses[image.owner.series].append(f"{case.name} {channel}" if len(channels) > 1 else case.name)
    place = _places(survey)
    drawn_on: defaultdict[str, list[str]] = defaultdict(list)
    for drawn in survey.labels:
        for uid in drawn.refers_to:
            drawn_on[uid] += drawn.structures
    for image in survey.images:
        uid = image.owner.series
        use = ", ".join(uses[uid]) or left.get(uid, "not of the kind asked for")
        broken = f"{use}: cannot be used, {image.geometry}" if uses[uid] and isinstance(image.geometry, str) else use
        yield Row(*place[uid], image, tuple(dict.fromkeys(drawn_on[uid])), broken, chosen=bool(uses[uid]))


def _label_rows(survey: Survey, cases: Sequence[Case], links: _Links) -> Iterator[Row]:
    place = _places(survey)
    known = {image.owner.series for image in survey.images}
    patients = {image.owner.patient: place[image.owner.series] for image in survey.images}
    for drawn in survey.labels:
        used = [case.name for case in cases if any(source is drawn for source, _, _ in case.structures)]
        if used:
            use = f"labels of {', '.join(used)}"
        elif not links.wanted(drawn):
            use = "none of its structures is wanted"
        elif drawn.refers_to and not known & set(drawn.refers_to):
            use = "drawn on a series that is not here"
        else:
            use = "drawn on a series that is not used, or older than other labels"
        near = next(
            (place[uid] for uid in drawn.refers_to if uid in place), patients.get(drawn.owner.patient, ("?", 0))
        )
        yield Row(*near, drawn, drawn.structures, use, chosen=bool(used))


def _places(survey: Survey) -> dict[str, tuple[str, int]]:
    """Number of the patient, and of the study among the patient's, for every series."""
    patients: dict[str, dict[str, int]] = {}
    places = {}
    for image in survey.images:
        studies = patients.setdefault(image.owner.patient, {})
        studies.setdefault(image.owner.study, len(studies) + 1)
        places[image.owner.series] = (str(len(patients)), studies[image.owner.study])
    return places


def _hash(text: str, length: int) -> str:
    return sha256(text.encode()).hexdigest()[:length]


def _natural(name: str) -> list[tuple[int, str]]:
    """Key by which "lesion 2" comes before "lesion 10"."""
    return [(int(part), "") if part.isdigit() else (-1, part.casefold()) for part in re.split(r"(\d+)", name) if part]
