"""Attention as volumes: a net whose attention is known from the input shows that every voxel lies where it should."""

from __future__ import annotations

import json

import make
import nibabel as nib
import numpy as np
import pytest
import torch
from netting import small
from torch import nn

from attentus import Model, io
from attentus.cli.main import run
from attentus.errors import BadFile, BadInput, UnknownName
from attentus.explain import attention
from attentus.infer import attention as capturing
from attentus.infer import segment as segmenting
from attentus.infer.sliding import laid_over
from attentus.nets.parts import AttentionTap, pad_to_multiple, resize
from attentus.report.explanation import write_explanation
from attentus.transforms import prepare as preparing
from attentus.types import Volume


class Glass(nn.Module):
    """Its attention is what it sees, clipped to 0..1, in `fine`; the same at half the resolution in `coarse`; channels
    are weighed by 0.25 and 0.75, and the first by the window's mean on top.
    """

    multiple = 4

    def __init__(self, channels=2):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.fine, self.coarse, self.both = AttentionTap(), AttentionTap("residual"), AttentionTap("channel")
        self.channels = channels

    def forward(self, x):
        size, x = x.shape[2:], pad_to_multiple(x[:, :1], self.multiple)
        pool = nn.functional.avg_pool3d if x.ndim == 5 else nn.functional.avg_pool2d
        clipped = x.clamp(0, 1)
        fine = self.fine(clipped, x)
        self.coarse(torch.cat([pool(clipped, 2), torch.zeros_like(pool(x, 2))], dim=1), torch.cat([pool(x, 2)] * 2, 1))
        mean = clipped.flatten(1).mean(1)
        factors = torch.stack([0.25 + 0 * mean, mean], dim=1).view(len(x), 2, *[1] * (x.ndim - 2))
        self.both(factors, torch.cat([x, x], dim=1))
        for axis, n in enumerate(size, start=2):
            fine = fine.narrow(axis, 0, n)
        return (torch.cat([0.25 - 0 * fine, fine], dim=1) * self.weight,)


def glass(patch=(8, 8, 8), *, dims=3, spacing="keep", **infer):
    """A model made of it; values of the scan are used as they are."""
    recipe = make.recipe(
        labels=[{"name": "bright", "parts": ["bright"], "value": 7}],
        channels=["made"],
        prepare={"spacing": spacing, "intensity": [{"normalise": "none"}]},
        net={"name": "attention-unet", "dims": dims},
        train__patch=list(patch),
        infer={"batch": 2, **infer},
    )
    return Model(recipe, Glass().eval())


def scene(shape=(9, 14, 11), *, seed=0, axes=None, oblique=5, spacing=(3.5, 0.8, 0.7)):
    """Noise between -0.2 and 1.2 on an oblique grid with unequal voxels."""
    where = make.grid(axes, oblique=oblique, shape=shape, spacing=spacing)
    array = np.random.default_rng(seed).uniform(-0.2, 1.2, (1, *where.shape)).astype(np.float32)
    return Volume(array, where)


@pytest.mark.parametrize("mirror", [[], ["x", "y"]])
@pytest.mark.parametrize(
    ("dims", "patch"),
    [(3, (8, 8, 8)), (3, (12, 16, 12)), (3, (5, 6, 7)), (2, (8, 8)), (2, (32, 16)), (2, (7, 9))],
    ids=str,
)
def test_every_voxel_of_a_layer_is_where_the_scan_has_it(tmp_path, dims, patch, mirror):
    for number, axes in enumerate(make.ORIENTATIONS[::17]):
        scan = scene(axes=axes)
        io.write(scan, tmp_path / f"scan{number}.nii.gz")
        model = glass(patch, dims=dims, mirror=mirror)
        found = attention(model, tmp_path / f"scan{number}.nii.gz", flips=False)
        write_explanation(found, tmp_path / f"out{number}")
        file = tmp_path / f"out{number}" / "attention_fine.nii.gz"
        layer, source = nib.load(file), nib.load(tmp_path / f"scan{number}.nii.gz")
        np.testing.assert_array_equal(layer.affine, source.affine)
        np.testing.assert_allclose(layer.get_fdata(), source.get_fdata().clip(0, 1), atol=1e-3)
        labels = nib.load(tmp_path / f"out{number}" / "labels.nii.gz").get_fdata()
        sure = np.abs(source.get_fdata().clip(0, 1) * source.get_fdata() - 0.25) > 1e-3
        np.testing.assert_array_equal(
            (labels == 7)[sure], (source.get_fdata().clip(0, 1) * source.get_fdata() > 0.25)[sure]
        )


@pytest.mark.parametrize("dims", [2, 3])
def test_what_a_net_pads_inside_does_not_shift_a_coarse_map(dims):
    net, size = Glass(), (10, 6, 10)[-dims:]
    ramp = torch.linspace(0, 1, 10).expand(1, 1, *size)
    padded = [12, 8, 12][-dims:]
    straight = torch.arange(12.0).expand(1, 1, *padded) / 9
    pool = nn.functional.avg_pool3d if dims == 3 else nn.functional.avg_pool2d
    found = laid_over(net, pool(straight, 2), size)
    assert found.shape == ramp.shape
    torch.testing.assert_close(found[..., 1:], ramp[..., 1:], rtol=0, atol=1e-6)
    assert not torch.allclose(resize(pool(straight, 2), size)[..., 1:], ramp[..., 1:], atol=0.02)


def test_several_maps_are_shown_by_their_mean_and_coarse_ones_lie_over_the_fine():
    scan = scene((8, 16, 16))
    smooth = np.broadcast_to(np.linspace(0.1, 0.9, 16, dtype=np.float32), scan.array.shape)
    found = attention(glass((8, 16, 16)), scan.like(smooth.copy()), flips=False)
    coarse = found.prediction.attention["coarse"].array[0].astype(float)
    np.testing.assert_allclose(coarse[..., 1:-1], smooth[0, ..., 1:-1] / 2, atol=1e-3)  # the other map is zero
    assert found.kinds == {"fine": "gate", "coarse": "residual", "both": "channel"}
    assert set(found.prediction.attention) == {"fine", "coarse"}


def test_factors_of_channels_are_averaged_over_the_windows():
    scan = scene((4, 4, 8))
    array = np.where(np.arange(8) < 4, 0.2, 0.6).astype(np.float32) * np.ones((1, 4, 4, 8), np.float32)
    found = attention(glass((4, 4, 4), overlap=0.0), scan.like(array))
    vector = found.vectors["both"]
    assert vector.windows == 2
    np.testing.assert_allclose(vector.mean, [0.25, 0.4], atol=1e-6)
    np.testing.assert_allclose(vector.sd, [0.0, 0.2], atol=1e-6)
    assert found.scores["both"] == {"kind": "channel", "channels": 2, "mean": pytest.approx(0.325)}


def test_features_before_and_after():
    scan = scene()
    found = attention(glass(), scan, features=True, flips=False)
    x = scan.canonical().array[0]
    np.testing.assert_allclose(found.before["fine"].array[0].astype(float), np.abs(x), atol=1e-3)
    np.testing.assert_allclose(found.after["fine"].array[0].astype(float), np.abs(x.clip(0, 1) * x), atol=1e-3)
    assert set(found.before) == set(found.after) == {"fine", "coarse", "both"}


def test_maps_come_back_from_another_spacing_and_are_zero_where_the_scan_was_cropped():
    scan = scene((12, 16, 16), oblique=None, spacing=(2.0, 1.0, 1.0))
    array = np.full_like(scan.array, -1.0)
    array[:, 2:10, 4:12, 3:13] = 0.5
    model = glass((4, 8, 8), spacing=[4.0, 1.5, 1.5])
    prepare = model.recipe.prepare.model_copy(update={"crop_above": 0.0})
    model = Model(model.recipe.model_copy(update={"prepare": prepare}), model.net)
    found = attention(model, scan.like(array), flips=False).prediction.attention["fine"]
    np.testing.assert_allclose(
        found.canonical().array[0].astype(float), (scan.canonical().like(array).array[0] > 0) / 2
    )


def test_sums_that_would_take_too_much_memory_go_to_a_file(monkeypatch):
    scan = scene((16, 12, 12))
    plain = attention(glass(), scan, flips=False)
    rings = []
    kept = segmenting.Walk._ring
    monkeypatch.setattr(segmenting, "LAYERS_IN_MEMORY", 1)
    monkeypatch.setattr(capturing, "FEW", 1)
    monkeypatch.setattr(segmenting.Walk, "_ring", lambda walk, maps: rings.append(kept(walk, maps)) or rings[-1])
    again = attention(glass(), scan, flips=False)
    assert rings
    assert all(isinstance(ring.sums, np.memmap) for ring in rings)
    assert isinstance(again.prediction.attention.arrays["fine"], np.memmap)
    for name, volume in plain.prediction.attention.items():
        np.testing.assert_array_equal(volume.array, again.prediction.attention[name].array)


def test_what_is_in_memory_does_not_grow_with_the_scan(monkeypatch):
    """Sums of maps in memory are as many rows as windows span; whole maps lie in a file."""
    monkeypatch.setattr(preparing, "SLAB_VOXELS", 6 * 12 * 12)  # rows of all maps that come back at a time
    monkeypatch.setattr(capturing, "FEW", 2**12)
    made, held = segmenting.Walk._ring, {}
    for depth in (24, 48, 96):
        rings = []
        monkeypatch.setattr(
            segmenting.Walk, "_ring", lambda walk, maps, to=rings: to.append(made(walk, maps)) or to[-1]
        )
        found = attention(glass(), scene((depth, 12, 12)), flips=False, features=True)
        assert len(found.before) == len(found.after) == 3
        assert all(isinstance(one, np.memmap) for one in (*found.before.arrays.values(), *found.after.arrays.values()))
        held[depth] = sum(ring.sums.nbytes for ring in rings)
    assert held[24] == held[48] == held[96]


def test_the_labels_are_those_of_predict_and_only_named_modules_are_kept():
    torch.manual_seed(0)
    recipe = glass().recipe
    net = small("anu-net", dims=3)
    model = Model(recipe, net)
    scan = scene((10, 20, 18))
    found = attention(model, scan, modules=["attention.x0_1_from_x0_0"])
    np.testing.assert_array_equal(found.prediction.labels.array, model.predict(scan).labels.array)
    assert set(found.prediction.attention) == set(found.scores) == {"attention.x0_1_from_x0_0"}
    every = model.predict(scan, attention=True).attention["attention.x0_1_from_x0_0"]
    own = found.prediction.attention["attention.x0_1_from_x0_0"]
    np.testing.assert_array_equal(own.array, every.array)
    with pytest.raises(UnknownName, match="x0_1_from_x0_0"):
        attention(model, scan, modules=["attention.x0_1_from_x0_9"])


@pytest.mark.parametrize(
    ("name", "dims"),
    [("attention-unet", 2), ("anu-net", 2), ("ra-unet", 2), ("dpc-net", 3), ("daf", 2), ("msconvlstm-att", 2)],
)
def test_every_kind_of_attention_can_be_seen(name, dims):
    model = glass((32, 32, 32)[-dims:], dims=dims)
    net = small(name, dims)
    scan = scene((4, 33, 35) if dims == 2 else (33, 32, 32), oblique=None)
    found = attention(Model(model.recipe, net), scan, features=True)
    for module, kind in found.kinds.items():
        assert (module in found.vectors) == (kind == "channel")
        assert (module in found.prediction.attention) == (kind != "channel")
        assert found.before[module].grid == scan.canonical().grid
        if kind != "received":
            values = found.vectors[module].mean if kind == "channel" else found.prediction.attention[module].array
            assert 0 <= np.min(values) <= np.max(values) <= 1
        else:
            assert float(found.prediction.attention[module].array[0, 1].mean(dtype=float)) == pytest.approx(1, abs=0.1)


def test_where_a_point_looks():
    torch.manual_seed(3)
    net = small("msconvlstm-att", attention_stride=1)
    scan = scene((3, 16, 16), oblique=None)
    model = Model(glass((16, 16), dims=2).recipe, net)
    found = attention(model, scan, point=(1, 4, 9), flips=False)
    assert set(found.towards) == {name for name, kind in found.kinds.items() if kind == "received"}
    sam = net.sam[0][0]
    seen = []
    handle = sam.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0]))
    with torch.no_grad():
        net(torch.from_numpy(scan.canonical().array[:, 1])[None])
        expected = sam.attention_of(seen[0], [(4, 9)])[0, 0].numpy() * 256
    handle.remove()
    looks = found.towards["sam.0.0"].array[0].astype(float)
    np.testing.assert_allclose(looks[1], expected, rtol=2e-3)
    assert not looks[0].any()
    assert not looks[2].any()
    with pytest.raises(BadInput, match="outside the scan"):
        attention(model, scan, point=(3, 0, 0))
    with pytest.raises(BadInput, match="msconvlstm-att"):
        attention(glass(), scan, point=(1, 1, 1))


def test_a_net_without_attention_is_refused():
    model = glass()
    with pytest.raises(BadInput, match="has no attention"):
        attention(Model(model.recipe, small("plain-unet", 3)), scene())


def test_pointwise_maps_are_alike_when_mirrored():
    found = attention(glass((8, 8, 8)), scene((12, 12, 12)))
    assert found.scores["fine"]["flips"] == {axis: pytest.approx(1) for axis in "zyx"}
    in_2d = attention(glass((8, 8), dims=2), scene((3, 12, 12)))
    assert set(in_2d.scores["fine"]["flips"]) == {"y", "x"}


def test_the_command_writes_maps_numbers_and_a_page(tmp_path, capsys):
    recipe = glass((16, 16), dims=2).recipe
    recipe = recipe.model_copy(
        update={"net": recipe.net.model_copy(update={"name": "anu-net", "options": {"preset": "tiny", "levels": 2}})}
    )
    torch.manual_seed(1)
    Model(recipe, small("anu-net", levels=2)).save(tmp_path / "model")
    scan = scene((3, 20, 20))
    io.write(scan, tmp_path / "scan.nii.gz")
    io.write(scan.like((scan.array > 0.8).astype(np.uint8) * 7), tmp_path / "truth.nii.gz")
    call = ["explain", str(tmp_path / "model"), str(tmp_path / "scan.nii.gz"), "-o", str(tmp_path / "out")]
    assert run([*call, "--label", str(tmp_path / "truth.nii.gz"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["target"] == "label"
    assert set(told["files"]) == {file.name for file in (tmp_path / "out").iterdir()}
    facts = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert len(facts["modules"]) == 4
    assert set(facts["modules"]["attention.x0_2_from_x0_1"]["targets"]["bright"]) >= {"mass_inside", "pointing"}
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.count('class="heat"') >= 4
    assert str(tmp_path) not in page
    assert run(call) == 2  # nothing is overwritten
    assert run([*call, "--overwrite", "--no-flips", "--features"]) == 0
    assert json.loads((tmp_path / "out" / "scores.json").read_text())["target"] == "prediction"
    for module in facts["modules"]:
        for what in ("before", "after"):
            file = tmp_path / "out" / f"{what}_{module.replace('.', '-')}.nii.gz"
            np.testing.assert_array_equal(nib.load(file).affine, nib.load(tmp_path / "scan.nii.gz").affine)
    assert "features before" in (tmp_path / "out" / "index.html").read_text()
    assert run([*call, "--overwrite", "--point", "1,2"]) == 2
    assert "three whole numbers" in capsys.readouterr().err
    with pytest.raises(BadFile):
        write_explanation(attention(glass(), scan), tmp_path)
