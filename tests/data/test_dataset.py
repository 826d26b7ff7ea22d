from __future__ import annotations

import json

import make
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attentus import Dataset, io
from attentus.data.splits import deal
from attentus.errors import BadFile, BadInput, UnknownName
from attentus.types import Case, Volume


def put(path, value=1, shape=(3, 4, 5)):
    array = np.zeros((1, *shape), np.uint8)
    array[0, 1, 2, 3] = value
    io.write(Volume.from_array(array if path.suffix != ".png" else array[:, 1:2]), path)


def test_msd_layout(tmp_path):
    dataset = Dataset.open(make.dataset(tmp_path, cases=4))
    assert (dataset.name, dataset.layout, len(dataset)) == ("Made", "msd", 4)
    assert dataset.labels == {"core": 1, "shell": 2}
    assert dataset.channels == ("channel 0",)
    case = dataset["case_02"]
    image, labels = io.read_case(case), io.read_labels(case.label)
    image.grid.require_match(labels.grid, case.id)
    assert set(np.unique(labels.array)) == {0, 1, 2}
    assert Dataset.open(tmp_path / "dataset.json").cases == dataset.cases
    with pytest.raises(UnknownName, match=r"No case is called 'case_2'\. Did you mean"):
        dataset["case_2"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d.pop("labels"), "not a complete MSD description.*labels"),
        (lambda d: d.update(labels={"one": "x"}), "not a complete MSD description"),
        (lambda d: d.update(training=[{"image": "a"}]), "not a complete MSD description.*label"),
    ],
)
def test_a_malformed_description_is_explained(tmp_path, edit, message):
    file = make.dataset(tmp_path, cases=1) / "dataset.json"
    tree = json.loads(file.read_text())
    edit(tree)
    file.write_text(json.dumps(tree))
    with pytest.raises(BadFile, match=message):
        Dataset.open(tmp_path)
    file.write_text("{")
    with pytest.raises(BadFile, match="not valid JSON"):
        Dataset.open(tmp_path)


@pytest.mark.parametrize(
    ("image", "label", "case", "subject"),
    [
        ("images/a.nii.gz", "labels/a.nii.gz", "a", "a"),
        ("imagesTr/a.nii.gz", "labelsTr/a.nrrd", "a", "a"),
        ("scans/p1/a.mha", "masks/p1/a.mha", "p1_a", "p1"),
        ("image/0.png", "label/0.png", "0", "0"),
        ("images/a.png", "masks/a_mask.png", "a", "a"),
        ("a_image.nrrd", "a_label.nrrd", "a", "a"),
        ("a.nii.gz", "a_seg.nii.gz", "a", "a"),
        ("a.nii.gz", "a-mask.nii.gz", "a", "a"),
        ("a/image.nii.gz", "a/label.nii.gz", "a", "a"),
        ("p/CT_image.nii.gz", "p/CT_mask.nii.gz", "p_CT", "p"),
        ("Images/a.nii", "Ground Truth/a.nii".replace(" ", "_"), "a", "a"),
    ],
)
def test_pairs_are_told_by_their_names(tmp_path, image, label, case, subject):
    put(tmp_path / image)
    put(tmp_path / label)
    (found,) = Dataset.open(tmp_path)
    assert (found.id, found.subject) == (case, subject)
    assert found.images == (tmp_path / image,)
    assert found.label == tmp_path / label


def test_pairs_without_a_manifest_discover_labels_and_channels(tmp_path):
    put(tmp_path / "images" / "a.png", 200)
    put(tmp_path / "labels" / "a.png", 255)
    dataset = Dataset.open(tmp_path)
    assert dataset.layout == "pairs"
    assert dataset.labels == {"label 255": 255}
    assert dataset.channels == ("image",)


def test_a_manifest_says_what_names_cannot(tmp_path):
    for name in ("left_07_1", "right_07_2", "left_08_1"):
        put(tmp_path / "files" / "images" / f"{name}.png", 9)
        put(tmp_path / "files" / "masks" / f"{name}.png", 255)
    manifest = tmp_path / "eyes.yaml"
    manifest.write_text("root: files\nname: Eyes\nlabels: {disc: 255}\nchannels: [red-free]\nsubject: '_(\\d+)_'\n")
    dataset = Dataset.open(manifest)
    assert (dataset.name, dataset.labels, dataset.channels) == ("Eyes", {"disc": 255}, ("red-free",))
    assert {case.id: case.subject for case in dataset} == {"left_07_1": "07", "right_07_2": "07", "left_08_1": "08"}
    manifest.rename(tmp_path / "files" / "dataset.yaml")
    text = (tmp_path / "files" / "dataset.yaml").read_text().replace("root: files\n", "")
    (tmp_path / "files" / "dataset.yaml").write_text(text)
    assert Dataset.open(tmp_path / "files").labels == {"disc": 255}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("subject: '(x)'", "finds no subject in the case id 'a'"),
        ("subjct: '(x)'", "no manifest of a dataset.*Its fields are"),
        ("labels: [", "not valid YAML"),
        ("root: nowhere", "holds no images"),
    ],
)
def test_a_wrong_manifest_is_explained(tmp_path, text, message):
    put(tmp_path / "images" / "a.png")
    put(tmp_path / "masks" / "a.png")
    (tmp_path / "m.yaml").write_text(text)
    with pytest.raises(BadFile, match=f"(?s){message}"):
        Dataset.open(tmp_path / "m.yaml")


def test_what_is_no_dataset_is_told_what_was_looked_for(tmp_path):
    put(tmp_path / "lonely.nii.gz")
    with pytest.raises(BadFile, match=r"no dataset Attentus recognises(?s:.*)Decathlon(?s:.*)image/label pairs"):
        Dataset.open(tmp_path)
    with pytest.raises(BadFile, match="does not exist"):
        Dataset.open(tmp_path / "nowhere")


def cases(subjects):
    return [Case(f"{s}-{k}", (), subject=s) for s, n in subjects.items() for k in range(n)]


@given(
    st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(1, 4), min_size=5, max_size=30),
    st.integers(0, 9),
)
def test_folds_cover_everything_once_and_never_part_a_subject(subjects, seed):
    everyone = cases(subjects)
    folds = deal(everyone, 5, seed)
    assert sorted(id_ for fold in folds for id_ in fold) == sorted(case.id for case in everyone)
    homes = [{id_.split("-")[0] for id_ in fold} for fold in folds]
    assert sum(len(home) for home in homes) == len(set().union(*homes))
    assert max(map(len, folds)) - min(map(len, folds)) <= max(subjects.values()) + 1
    assert deal(everyone[::-1], 5, seed) == folds


def test_folds_depend_on_the_seed():
    everyone = cases(dict.fromkeys("abcdefghijkl", 1))
    assert deal(everyone, 3, 0) != deal(everyone, 3, 1)


def test_too_few_subjects_are_refused(tmp_path):
    dataset = Dataset.open(make.dataset(tmp_path, cases=3))
    train, held_back = dataset.split(folds=3, fold=1)
    assert len(train) == 2
    assert len(held_back) == 1
    assert dataset.labels == train.labels
    with pytest.raises(BadInput, match=r"3 labelled subject\(s\) cannot be dealt into 5 parts(?s:.*)split\.folds"):
        dataset.split(folds=5)


def test_hippocampus_opens():
    dataset = Dataset.open(make.real_data("hippocampus"))
    assert len(dataset.labelled) == 208
    assert dataset.labels == {"Anterior": 1, "Posterior": 2}
    assert [len(part) for part in dataset.split(5, 0, 0)] == [166, 42]
