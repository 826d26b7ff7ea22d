from __future__ import annotations

import make
import numpy as np
import pytest
import torch

from attentus import Dataset, Model, io
from attentus.data.resolve import resolve
from attentus.errors import BadFile, BadInput
from attentus.infer.cohort import find_scans, predict_cohort
from attentus.infer.model import create_net, save_weights
from attentus.types import Case, Volume


@pytest.fixture
def model(tmp_path):
    """A net that has learned nothing, saved and loaded again."""
    recipe = resolve(make.recipe(), Dataset.open(make.dataset(tmp_path / "data", cases=3)))
    torch.manual_seed(0)
    Model(recipe, create_net(recipe)).save(tmp_path / "model")
    return Model.load(tmp_path / "model")


def test_a_saved_model_is_the_same_model(model, tmp_path):
    again = Model.load(tmp_path / "model")
    scan, _ = make.case(1)
    assert again.recipe == model.recipe
    np.testing.assert_array_equal(again.predict(scan).labels.array, model.predict(scan).labels.array)
    assert model.names == {"core": 1, "shell": 2}


def test_loading_draws_no_random_numbers(model, tmp_path):
    model.save(tmp_path / "model")
    state = torch.get_rng_state()
    loaded = Model.load(tmp_path / "model")
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(model.net.parameters(), loaded.net.parameters(), strict=True))


@pytest.mark.parametrize("oblique", [None, 6])
def test_labels_lie_on_the_scans_own_grid(model, tmp_path, oblique):
    scan, _ = make.case(2)
    expected = model.predict(scan).labels.array
    for k, axes in enumerate(make.ORIENTATIONS[::7]):
        turned = Volume(
            axes.apply(scan.array), make.grid(axes, oblique=oblique, shape=scan.grid.shape, spacing=scan.grid.spacing)
        )
        file = tmp_path / f"scan{k}.nii.gz"
        io.write(turned, file)
        prediction = model.predict(file)
        assert prediction.labels.as_stored().grid.matches(turned.grid)
        np.testing.assert_array_equal(prediction.labels.array, expected)
        io.write(prediction.labels, tmp_path / f"out{k}.nii.gz")
        before, after = (io.read_grid(tmp_path / f"{name}{k}.nii.gz") for name in ("scan", "out"))
        assert before == after


def test_probabilities_and_attention_on_request(model):
    scan, _ = make.case(3)
    plain = model.predict(scan)
    assert plain.probabilities is None
    assert plain.attention == {}
    full = model.predict(scan, probabilities=True, attention=True)
    np.testing.assert_array_equal(full.labels.array, plain.labels.array)
    assert full.probabilities.array.shape == (3, *scan.grid.shape)
    found = full.probabilities.array.astype(np.float32)
    clear = np.ptp(np.sort(found, axis=0)[-2:], axis=0) > 1e-3  # half precision knows no smaller difference
    np.testing.assert_array_equal(found.argmax(0)[clear], plain.labels.array[0][clear])
    assert clear.mean() > 0.9
    assert len(full.attention) == 6
    for volume in full.attention.values():
        assert volume.grid == scan.grid
        assert volume.array.shape == (1, *scan.grid.shape)
        np.testing.assert_allclose(volume.array.astype(np.float32), 0.952574, atol=1e-3)  # gates start open
    assert plain.seconds > 0


def test_structures_are_written_in_the_datasets_integers(model):
    recipe = model.recipe.model_copy(
        update={"labels": tuple(s.model_copy(update={"value": s.value + 299}) for s in model.recipe.labels)}
    )
    labels = Model(recipe, model.net).predict(make.case(1)[0]).labels.array
    assert labels.dtype == np.uint16
    assert set(np.unique(labels)) <= {0, 300, 301}
    assert labels.any()


def test_wrong_scans_are_refused(model, tmp_path):
    scan, _ = make.case(1, channels=2)
    with pytest.raises(BadInput, match=r"2 channel\(s\); this model takes 1 \(channel 0\)"):
        model.predict(scan)
    nan = make.case(1)[0]
    nan.array[0, 0, 0, 0] = np.nan
    with pytest.raises(BadInput, match="not finite"):
        model.predict(nan)
    with pytest.raises(BadFile, match="no image"):
        model.predict(Case("x", ()))
    with pytest.raises(BadFile, match="does not exist"):
        model.predict(tmp_path / "nowhere.nii.gz")


def test_folders_that_are_no_models_are_refused(model, tmp_path):
    with pytest.raises(BadFile, match="is no model folder"):
        Model.load(tmp_path)
    weights = tmp_path / "model" / "weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadFile, match="damaged"):
        Model.load(tmp_path / "model")
    weights.unlink()
    with pytest.raises(BadFile, match="does not exist"):
        Model.load(tmp_path / "model")
    other = make.recipe(net__options={"feature_scale": 8})
    save_weights(create_net(other.model_copy(update={"channels": ("a",), "labels": model.recipe.labels})), weights)
    with pytest.raises(BadFile, match=r"does not fit the net of recipe\.yaml"):
        Model.load(tmp_path / "model")


def names(scans):
    return {scan.name: scan.result.name for scan in scans}


def test_scans_are_found_and_named(tmp_path):
    volume, _ = make.case(1)
    for name in ("a.nii.gz", "b.nrrd"):
        io.write(volume, tmp_path / "files" / name)
    out = tmp_path / "out"
    assert names(find_scans(tmp_path / "files", out)) == {"a": "a.nii.gz", "b": "b.nii.gz"}
    assert names(find_scans(tmp_path / "files", out, "mha")) == {"a": "a.mha", "b": "b.mha"}
    assert names(find_scans(tmp_path / "files" / "a.nii.gz", tmp_path / "x.nrrd")) == {"a": "x.nrrd"}
    for patient in ("p1", "p2"):
        make.dicom_series(tmp_path / "dicom" / patient, volume)
    assert names(find_scans(tmp_path / "dicom", out)) == {"p1": "p1.nii.gz", "p2": "p2.nii.gz"}
    assert names(find_scans(tmp_path / "dicom" / "p1", out)) == {"p1": "p1.nii.gz"}
    io.write(Volume.from_array(np.zeros((1, 4, 4), np.uint8)), tmp_path / "pictures" / "s.png")
    assert names(find_scans(tmp_path / "pictures", out)) == {"s": "s.png"}
    with pytest.raises(BadFile, match="is one file, but"):
        find_scans(tmp_path / "files", tmp_path / "x.nii.gz")
    with pytest.raises(BadFile, match="'xyz' is no format"):
        find_scans(tmp_path / "files", out, "xyz")
    with pytest.raises(BadFile, match="holds no scan"):
        find_scans(make_empty(tmp_path), out)


def make_empty(tmp_path):
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


def test_two_series_in_one_folder_are_two_scans(tmp_path):
    volume, _ = make.case(1)
    make.dicom_series(tmp_path / "p", volume, SeriesDescription="one")
    files = make.dicom_series(tmp_path / "q", volume, SeriesDescription="two")
    for file in files:
        file.rename(tmp_path / "p" / f"two_{file.name}")
    scans = find_scans(tmp_path / "p", tmp_path / "out")
    assert [scan.name for scan in scans] == ["p_1", "p_2"]
    assert len({scan.series for scan in scans}) == 2


def test_a_cohort_survives_bad_scans(model, tmp_path):
    volume, _ = make.case(4)
    for name in ("good", "empty", "other"):
        io.write(volume, tmp_path / "in" / f"{name}.nii.gz")
    (tmp_path / "in" / "empty.nii.gz").write_bytes(b"")
    io.write(make.case(4, channels=2)[0], tmp_path / "in" / "other.nii.gz", overwrite=True)
    scans = find_scans(tmp_path / "in", tmp_path / "out")
    done = predict_cohort(model, scans, attention=True, probabilities=True)
    assert "empty (0 bytes)" in done["empty"]
    assert "2 channel(s)" in done["other"]
    assert done["good"].file == tmp_path / "out" / "good.nii.gz"
    labels = io.read_labels(done["good"].file)
    assert done["good"].volumes_ml["core"] == pytest.approx((labels.array == 1).sum() * 2 / 1000)
    written = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert "labels.json" in written
    assert "good_probabilities.nii.gz" in written
    assert sum("attention" in name for name in written) == 6
    again = predict_cohort(model, scans[1:2])
    assert "exists already" in again["good"]
    assert predict_cohort(model, scans[1:2], overwrite=True)["good"].seconds > 0


def test_names_beside_predicted_regions_list_what_lies_within(tmp_path):
    from attentus.io.names import folder_names

    dataset = Dataset.open(make.dataset(tmp_path / "data", cases=3))
    recipe = resolve(make.recipe(regions=True, labels={"whole": ["core", "shell"], "inner": ["core"]}), dataset)
    model = Model(recipe, create_net(recipe))
    io.write(make.case(4)[0], tmp_path / "scan.nii.gz")
    predict_cohort(model, find_scans(tmp_path / "scan.nii.gz", tmp_path / "out"))
    names = folder_names(tmp_path / "out")
    assert names["inner"] == (model.names["inner"],)
    assert sorted(names["whole"]) == sorted(model.names.values())
