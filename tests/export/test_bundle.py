"""A bundle does what the model does, with numpy and onnxruntime alone, and refuses damage."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile

import make
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from attentus import io, nets
from attentus.data.patches import window
from attentus.export import bundle_runtime as runtime
from attentus.export import to_bundle
from attentus.export.bundle import contents
from attentus.infer.backends import onnx_runner
from attentus.infer.clean import clean, label
from attentus.infer.model import Model, create_net
from attentus.recipes import Clean, Prepare
from attentus.transforms.prepare import prepare
from attentus.transforms.resample import axis_matrix
from attentus.types import Volume

BLOCKED = ["torch", "attentus", "scipy", "nibabel", "SimpleITK", "pydantic", "cc3d", "onnx"]


def model_of(channels=1, regions=False, **changes):
    recipe = make.recipe(**{"regions": regions, "labels": {"core": [], "shell": []}, **changes})
    labels = tuple(s.model_copy(update={"value": k, "parts": (s.name,)}) for k, s in enumerate(recipe.labels, start=1))
    recipe = recipe.model_copy(update={"labels": labels, "channels": tuple(f"c{k}" for k in range(channels))})
    torch.manual_seed(1)
    net = create_net(recipe)
    with torch.no_grad():  # so that no class wins everywhere
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return Model(recipe, net.eval())


def bundle_of(model, out, **options):
    shape = (model.window.batch, len(model.recipe.channels), *model.window.size[-model.recipe.net.dims :])
    to_bundle(model, out, onnx_runner.fetch(model.net, shape, None), "# made\n", **options)
    return out


@pytest.fixture(scope="module")
def model():
    return model_of(
        prepare__spacing=[1.5, 1.25, None],
        prepare__intensity=[{"percentiles": [1, 99], "normalise": "zscore"}],
        infer__mirror=["x"],
        infer__clean={"core": {"largest": True}, "shell": {"min_ml": 0.05, "fill_holes": True}},
    )


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    return bundle_of(model, tmp_path_factory.mktemp("export") / "bundle")


def agree(model, bundle, scan, file):
    """Same labels, and probabilities within 1e-3, of a scan in a file."""
    io.write(scan, file, overwrite=True)
    expected = model.predict(file, probabilities=True)
    found = bundle.segment(runtime.read_nifti([file]), probabilities=True)
    exact = expected.probabilities.as_stored().array.astype(np.float32)
    labels = expected.labels.as_stored().array[0]
    assert np.abs(found.probabilities.astype(np.float32) - exact).max() <= 1e-3
    assert len(np.unique(labels)) > 1
    assert (found.labels == labels).mean() > 0.9999
    for value in np.unique(labels)[1:]:
        both = ((found.labels == value) & (labels == value)).sum()
        assert 2 * both / ((found.labels == value).sum() + (labels == value).sum()) >= 0.999
    return found


@pytest.mark.parametrize("turned", make.ORIENTATIONS[::11])
def test_says_what_the_model_says_on_the_scans_own_grid(model, folder, tmp_path, turned):
    scan, _ = make.case(3, shape=(20, 24, 30))
    where = make.grid(turned, oblique=2, shape=scan.grid.shape, spacing=scan.grid.spacing)
    stored = Volume(turned.apply(scan.array), where)
    found = agree(model, runtime.Bundle(folder), stored, tmp_path / "scan.nii.gz")
    runtime.write_nifti(tmp_path / "out.nii.gz", found.labels, runtime.read_nifti([tmp_path / "scan.nii.gz"]))
    assert io.read_grid(tmp_path / "out.nii.gz") == io.read_grid(tmp_path / "scan.nii.gz")
    np.testing.assert_array_equal(io.read_labels(tmp_path / "out.nii.gz").as_stored().array[0], found.labels)


@pytest.mark.parametrize(
    "changes",
    [
        {
            "prepare__spacing": [3.0, 0.8, 1.4],
            "prepare__order": 3,
            "prepare__anti_alias": 0.6,
            "prepare__crop_above": 0,
            "infer__skip_below": -60,
            "infer__temperature": 1.7,
            "infer__overlap": 0.25,
            "prepare__intensity": [{"window": [-90, 110], "normalise": "range"}],
        },
        {
            "regions": True,
            "labels": {"core": ["core", "shell"], "shell": ["shell"]},
            "prepare__intensity": [{"normalise": "zscore-nonzero"}],
            "prepare__crop_size": [10, None, 12],
            "infer__blend": "constant",
            "infer__clean": {"shell": {"threshold": 0.4, "largest": True}},
        },
        {
            "net__dims": 2,
            "net__options": {"feature_scale": 16},
            "train__patch": [32, 32],
            "augment": {},
            "infer__batch": 3,
            "prepare__size": [None, 28, 28],
            "infer__clean": {"core": {"threshold": 0.3}, "shell": {"fill_holes": "slices", "inside": "core"}},
        },
    ],
    ids=["cubic, skipping", "regions", "slices"],
)
def test_every_way_to_prepare_and_decide_is_repeated(changes, tmp_path):
    model = model_of(channels=2, **changes)
    bundle = runtime.Bundle(bundle_of(model, tmp_path / "bundle"))
    agree(model, bundle, make.case(5, channels=2)[0], tmp_path / "scan.nii.gz")


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_needs_only_numpy_and_onnxruntime(model, folder, tmp_path, form):
    scan, _ = make.case(4)
    io.write(scan, tmp_path / "scan.nii.gz")
    root = folder if form == "folder" else bundle_of(model, tmp_path / "bundle.zip")
    code = f"""
import sys
for name in {BLOCKED}:
    sys.modules[name] = None  # importing it fails
sys.path.insert(0, {str(root)!r})
import segment
assert segment.__file__.startswith({str(root)!r})
sys.exit(segment.main(["scan.nii.gz", "-o", "out.nii.gz", "--probabilities", "p.nii.gz", "--threads", "1"]))
"""
    command = [sys.executable, "-I", "-B", "-c", code]
    done = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "core" in done.stdout
    expected = model.predict(tmp_path / "scan.nii.gz", probabilities=True)
    np.testing.assert_array_equal(io.read_labels(tmp_path / "out.nii.gz").array, expected.labels.array)
    exact = expected.probabilities.array.astype(np.float32)
    assert np.abs(io.read(tmp_path / "p.nii.gz").array - exact).max() <= 1e-3
    again = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert again.returncode == 2
    assert "exists already" in again.stderr


@pytest.mark.parametrize("name", ["model.onnx", "bundle.json", "segment.py", "card.md"])
def test_damaged_bundles_are_refused(model, folder, tmp_path, name):
    whole = {file.name: file.read_bytes() for file in folder.iterdir()}
    for what, content in {"damaged": whole[name][:-7] + b"forged!", "missing": None}.items():
        broken = tmp_path / what
        broken.mkdir()
        for other, original in whole.items():
            (broken / other).write_bytes(original)
        if content is None:
            (broken / name).unlink()
        else:
            (broken / name).write_bytes(content)
        with pytest.raises(runtime.BundleError, match=f"{name} is {what}"):
            runtime.Bundle(broken)


def test_other_damage_and_other_versions_are_refused(folder, tmp_path):
    (tmp_path / "cut.zip").write_bytes(b"PK\3\4 not a zip")
    with pytest.raises(runtime.BundleError, match="cannot be read"):
        runtime.Bundle(tmp_path / "cut.zip")
    with pytest.raises(runtime.BundleError, match="no whole bundle"):
        runtime.verified(tmp_path)
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    later = files["bundle.json"].replace(b'"version": 1', b'"version": 2')
    digest = runtime.hashlib.sha256(files["bundle.json"]).hexdigest()
    sums = files["SHA256SUMS"].replace(digest.encode(), runtime.hashlib.sha256(later).hexdigest().encode())
    with zipfile.ZipFile(tmp_path / "later.zip", "w") as whole:
        for name, content in {**files, "bundle.json": later, "SHA256SUMS": sums}.items():
            whole.writestr(name, content)
    with pytest.raises(runtime.BundleError, match="reads attentus-bundle 1"):
        runtime.Bundle(tmp_path / "later.zip")


def test_scans_that_cannot_be_used_are_refused(folder, tmp_path):
    bundle = runtime.Bundle(folder)
    io.write(make.case(1, channels=2)[0], tmp_path / "two.nii")
    with pytest.raises(runtime.BundleError, match=r"2 channel\(s\)"):
        bundle.segment(runtime.read_nifti([tmp_path / "two.nii"]))
    content = (tmp_path / "two.nii").read_bytes()
    (tmp_path / "cut.nii").write_bytes(content[: len(content) // 2])
    with pytest.raises(runtime.BundleError, match="cut off"):
        runtime.read_nifti([tmp_path / "cut.nii"])
    (tmp_path / "text.nii").write_text("no image")
    with pytest.raises(runtime.BundleError, match="no NIfTI-1"):
        runtime.read_nifti([tmp_path / "text.nii"])
    scan, _ = make.case(1)
    scan.array[0, 0, 0, 0] = np.nan
    io.write(scan, tmp_path / "nan.nii")
    with pytest.raises(runtime.BundleError, match="not finite"):
        bundle.segment(runtime.read_nifti([tmp_path / "nan.nii"]))
    io.write(make.case(1, shape=(12, 20, 17))[0], tmp_path / "small.nii")
    with pytest.raises(runtime.BundleError, match="another grid"):
        runtime.read_nifti([tmp_path / "nan.nii", tmp_path / "small.nii"])


def test_what_it_says_is_plain_data(model):
    assert json.loads(json.dumps(contents(model))) == contents(model)


# Its parts beside those of Attentus


@given(
    old=st.integers(1, 40), new=st.integers(1, 40), order=st.sampled_from([1, 3]), blur=st.sampled_from([0.0, 0.4, 1.3])
)
def test_resampling_is_scipys(old, new, order, blur):
    if old == new:
        return
    np.testing.assert_allclose(runtime.mixing(old, new, order, blur), axis_matrix(old, new, order, blur), atol=1e-6)


@settings(max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 7), st.integers(1, 9), st.integers(1, 9)),
    share=st.floats(0, 1),
    seed=st.integers(0, 1000),
    connectivity=st.sampled_from(["faces", "edges", "corners"]),
)
def test_components_are_those_of_cc3d(shape, share, seed, connectivity):
    mask = np.random.default_rng(seed).random(shape) < share
    np.testing.assert_array_equal(runtime.components_of(mask, connectivity), label(mask, connectivity))


@settings(max_examples=60)
@given(seed=st.integers(0, 10_000))
def test_cleaning_is_the_same(seed):
    rng = np.random.default_rng(seed)
    names = {"a": 1, "b": 2, "c": 5}
    how = {}
    for name, outer in (("a", None), ("b", "a"), ("c", "b")):
        how[name] = Clean(
            inside=outer if rng.random() < 0.5 else None,
            min_ml=0.004 if rng.random() < 0.4 else None,
            largest=bool(rng.random() < 0.4),
            fill_holes=[False, True, "slices"][rng.integers(3)],
            connectivity=["faces", "edges", "corners"][rng.integers(3)],
            becomes=[None, "background", "a"][rng.integers(3)] if name != "a" else None,
        )
    labels = rng.choice([0, 1, 2, 5], size=(int(rng.integers(1, 5)), 9, 9), p=[0.3, 0.4, 0.2, 0.1]).astype(np.uint8)
    expected = labels.copy()
    clean(expected, (1.0, 1.0, 1.0), how, names)
    structures = [{"name": name, "value": value, "values": [value]} for name, value in names.items()]
    rules = {name: rule.model_dump(mode="json") for name, rule in how.items()}
    runtime.clean(labels, 1e-3, {"clean": rules, "labels": structures})
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("block", [0, 3.1])
def test_preparing_is_the_same(block):
    scan, _ = make.case(8, shape=(9, 21, 17), channels=2)
    crop = {"crop_above": 50, "crop_block": block, "crop_size": (None, 14, 11)}
    how = Prepare(spacing=(1.3, 1.7, None), order=3, anti_alias=0.5, **crop)
    config = {**how.model_dump(mode="json"), "intensity": [spec.model_dump(mode="json") for spec in how.intensity]}
    found = runtime.prepare(scan.array, np.array(scan.grid.spacing), config)
    expected = prepare(scan, how)
    assert (found.start, found.stop) == (expected.start, expected.stop)
    np.testing.assert_allclose(found.array, expected.array, atol=1e-5)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("forms", ["sform", "qform", "neither"])
def test_nifti_is_read_as_nibabel_reads_it(kind, forms, tmp_path):
    import nibabel as nib

    rng = np.random.default_rng(0)
    image = nib.Nifti1Image(rng.integers(0, 100, (5, 6, 7, 2)).astype(kind), None)
    affine = np.diag([-1.5, 2.0, 0.7, 1.0])
    affine[:3, :3] = make.rotation(3) @ affine[:3, :3]
    affine[:3, 3] = 10, -20, 30
    image.header.set_zooms((1.5, 2.0, 0.7, 1.0))
    image.set_sform(affine if forms == "sform" else None, 1 if forms == "sform" else 0)
    image.set_qform(affine if forms == "qform" else None, 1 if forms == "qform" else 0)
    image.header.set_xyzt_units("meter" if forms == "qform" else "mm")
    image.header.set_slope_inter(0.5 if kind is np.int16 else 1, 3 if kind is np.int16 else 0)
    nib.save(image, tmp_path / "image.nii.gz")
    expected = io.read(tmp_path / "image.nii.gz")
    found = runtime.read_nifti([tmp_path / "image.nii.gz"])
    np.testing.assert_allclose(found.canonical().astype(np.float32), expected.array)
    np.testing.assert_allclose(found.spacing, expected.grid.spacing)
    np.testing.assert_allclose(found.affine, expected.as_stored().grid.affine, atol=1e-4)


PAPERS = [(name, dims) for name in nets.names() if (card := nets.card(name)) for dims in card.dims]
"""Those of the papers, and what they are compared with."""


class Balanced(nn.Module):
    """A net that has learnt nothing, its logits shifted and scaled such that every class wins somewhere."""

    def __init__(self, net, windows):
        super().__init__()
        self.net = net.eval()
        with torch.no_grad():
            logits = net(windows)[0].transpose(0, 1).flatten(1)
        self.shape = (1, -1, *[1] * (windows.ndim - 2))
        self.register_buffer("mean", logits.mean(1))
        self.register_buffer("deviation", logits.std(1) + 1e-6)

    def forward(self, x):
        return ((self.net(x)[0] - self.mean.view(self.shape)) / self.deviation.view(self.shape),)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "dims"), PAPERS)
def test_every_net_can_be_bundled(name, dims, tmp_path):
    size = {"net__dims": dims, "train__patch": [32] * dims, "augment": {}}
    model = model_of(net__name=name, net__options={"preset": "tiny"}, **size)
    scan, _ = make.case(6, shape=(20, 40, 36))
    prepared = prepare(scan, model.recipe.prepare).array
    parts = [window(prepared, start, model.window.size, [0.0]) for start in model.window.starts(prepared.shape[1:])]
    windows = torch.from_numpy(np.stack(parts))
    model.net = Balanced(model.net, windows[:, :, 0] if dims == 2 else windows)
    agree(model, runtime.Bundle(bundle_of(model, tmp_path / "bundle")), scan, tmp_path / "scan.nii.gz")
