"""Sizes and files as splits; folds are tested with the dataset."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attentus.data.splits import part, share_out
from attentus.errors import BadFile, BadInput
from attentus.recipes import Split
from attentus.types import Case


def cases(count, per_subject=1):
    return [Case(f"c{k:03d}", (Path("x"),), Path("y"), f"s{k // per_subject:03d}") for k in range(count)]


@pytest.mark.parametrize(
    ("count", "sizes", "expected"),
    [
        (285, (225, 30, 30), [225, 30, 30]),  # MSConvLSTM-Att
        (131, (5, 1), [109, 22]),  # ANU-Net on LiTS
        (150, (120, 30), [120, 30]),  # Attention U-Net on CT-150
        (82, (61, 21), [61, 21]),  # and on CT-82
    ],
)
def test_the_papers_splits(count, sizes, expected):
    split = part(cases(count), Split(sizes=sizes, seed=3))
    assert [len(side) for side in split][: len(expected)] == expected
    assert len({*split.train, *split.validation, *split.test}) == count
    assert part(cases(count), Split(sizes=sizes, seed=3)) == split
    assert part(cases(count), Split(sizes=sizes, seed=4)) != split


@given(st.lists(st.integers(1, 20), min_size=2, max_size=4), st.integers(0, 99))
def test_whole_numbers_are_met_exactly(sizes, seed):
    assert [len(side) for side in share_out(cases(sum(sizes)), sizes, seed)] == sizes


@given(st.integers(6, 40), st.integers(2, 5), st.integers(0, 9))
def test_subjects_never_part(count, per_subject, seed):
    everyone = cases(count, per_subject)
    subject = {case.id: case.subject for case in everyone}
    if len(set(subject.values())) < 3:
        return
    sides = [{subject[case] for case in side} for side in share_out(everyone, (3, 1, 1), seed)]
    assert sum(map(len, sides)) == len(set().union(*sides)) == len(set(subject.values()))


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_splits_final_of_nnunet(tmp_path):
    entries = [{"train": ["c000", "c001"], "val": ["c002"]}, {"train": ["c002"], "val": ["c000"]}]
    file = write(tmp_path / "splits_final.json", entries)
    assert part(cases(5), Split(file=file, fold=1)) == (["c002"], ["c000"], [])
    three = write(tmp_path / "own.yaml", "train: [c000]\nvalidation: [c001]\ntest: [c002, c003]\n")
    assert part(cases(5), Split(file=three)) == (["c000"], ["c001"], ["c002", "c003"])


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ([{"train": ["c00"], "val": []}], BadInput, "no labelled case 'c00'. Did you mean"),
        ([{"train": ["c000"], "val": ["c000"]}], BadInput, "'c000' is named twice"),
        ([{"train": ["c000"]}], BadFile, "has no lists 'train' and 'val'"),
        ("{", BadFile, "cannot be read as JSON or YAML"),
        ("just words", BadFile, "is no list of splits"),
    ],
)
def test_files_that_are_wrong(tmp_path, content, error, message):
    with pytest.raises(error, match=message):
        part(cases(3), Split(file=write(tmp_path / "s.json", content)))


def test_a_missing_file_and_a_missing_entry(tmp_path):
    with pytest.raises(BadFile, match="does not exist"):
        part(cases(3), Split(file=tmp_path / "none.json"))
    file = write(tmp_path / "s.json", [{"train": ["c000"], "val": ["c001"]}])
    with pytest.raises(BadInput, match=r"has 1 split\(s\), numbered from 0; split.fold is 2"):
        part(cases(3), Split(file=file, fold=2))
