"""Every shipped recipe trains, evaluates and predicts on made-up data of its layout: the whole recipe on small scans.

Nets are narrowed and patches cut down; labels, channels, preparation, sampling, augmentation, loss, schedule and split
stay as they are.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from attentus import Dataset, Recipe, fit, fit_cascade, io, load, nets
from attentus.metrics.summary import from_json
from attentus.recipes import build, is_cascade, load_cascade, shipped, variants
from attentus.train.log import read_log
from attentus.types import Grid, Volume

ORGANS = {"liver": 1, "cancer": 2, "spleen": 3, "pancreas": 4, "kidney": 5, "right kidney": 6, "left kidney": 7}
BRAIN = {"edema": 1, "non-enhancing tumor": 2, "enhancing tumour": 3, "necrosis": 4}
ALL = [name for name in shipped() if "@" not in name and not is_cascade(name)]


def scans(folder, labels, channels, slices, cases=4):
    """A dataset in MSD layout: a body of noise above zero, and in it a box per label."""
    shape, entries = (slices, 40, 40), []
    for number in range(cases):
        rng = np.random.default_rng(number)
        truth = np.zeros(shape, np.uint8)
        image = rng.normal(40, 20, (len(channels), *shape))
        for place, value in enumerate(labels.values()):
            row, column = 4 + 12 * (place // 3), 4 + 12 * (place % 3)
            depth = slice(0, 1) if slices == 1 else slice(slices // 4, 3 * slices // 4)
            truth[depth, row : row + 10, column : column + 10] = value
        image += 30.0 * truth + 1
        image[:, :, :2] = 0  # air, or skull-stripped
        for part, array in (("images", image.astype(np.float32)), ("labels", truth[None])):
            where = Grid(shape, (2.5, 1.5, 1.5), (float(number), 0.0, 0.0))
            io.write(Volume(array, where), folder / f"{part}Tr" / f"case{number}.nii.gz")
        entries.append({part: f"./{part}sTr/case{number}.nii.gz" for part in ("image", "label")})
    names = {"0": "background", **{str(value): name for name, value in labels.items()}}
    description = {"name": "Made", "labels": names, "training": entries}
    description["modality"] = {str(k): name for k, name in enumerate(channels)}
    (folder / "dataset.json").write_text(json.dumps(description))
    return Dataset.open(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A dataset for a recipe, made once per kind."""
    made = {}

    def find(recipe):
        parts = [part for s in recipe.labels for part in (s.parts or (s.name,))]
        if set(parts) & set(BRAIN):
            wanted = recipe.channels or ("FLAIR", "T1w", "t1gd", "T2w")
            labels = BRAIN
        else:
            named = [*parts, *(name for name in recipe.sampling.within if name not in parts)]
            wanted, labels = ("CT",), {name: ORGANS[name] for name in named or ["liver", "cancer"]}
        slices = 1 if recipe.name.startswith("liver-2d") else 12
        key = (tuple(wanted), tuple(labels), slices)
        if key not in made:
            made[key] = scans(tmp_path_factory.mktemp("data"), labels, wanted, slices)
        return made[key]

    return find


def narrowed(recipe):
    """The same recipe with a tiny net, small patches and two steps."""
    tree = recipe.model_dump(mode="json")
    kept = {"deep_supervision", "gates", "design", "pfe", "spacor", "semcor", "order", "attention", "n_gates", "gated"}
    options = {name: value for name, value in recipe.net.options.items() if name in kept}
    tree["net"]["options"] = {"preset": "tiny", **options}
    with torch.device("meta"):
        net = nets.create(recipe.net.name, recipe.net.dims, 1, 2, **tree["net"]["options"])
    side = max(getattr(net, "multiple", 1), 32)  # the deepest maps of most nets then have two voxels a side
    tree["train"] |= {"patch": [side] * recipe.net.dims, "batch": 2, "validate_every": 1, "validate_cases": 1}
    tree["train"] |= {"steps": 2, "epochs": 1 if recipe.train.epochs else None}
    tree["sampling"]["per_case"] = 1
    for axis, size in enumerate(recipe.prepare.size or ()):
        tree["prepare"]["size"][axis] = size and 32
    for axis, size in enumerate(recipe.prepare.crop_size or ()):
        tree["prepare"]["crop_size"][axis] = size and (8 if axis == 0 else 32)
    tree["split"]["folds"] = min(recipe.split.folds, 4)
    tree["infer"] |= {"overlap": 0.0}
    return build(tree, recipe.name)


VARIANTS = [f"{name}@{variant}" for name in ALL for variant in variants(name)]


@pytest.mark.parametrize("name", [*ALL, *(pytest.param(name, marks=pytest.mark.slow) for name in VARIANTS)])
def test_a_shipped_recipe_runs_from_data_to_scores(data, tmp_path, name):
    recipe = narrowed(Recipe.load(name))
    dataset = data(recipe)
    if recipe.start.model:  # first the model it fine-tunes
        variant = {"ct150": "", "ct150-unet": "@unet"}[recipe.start.model.name]
        first = narrowed(Recipe.load(f"attention-unet-ct150{variant}"))
        fit(first, dataset, tmp_path / "donor")
        start = recipe.start.model_copy(update={"model": tmp_path / "donor"})
        recipe = recipe.model_copy(update={"start": start})
    model = fit(recipe, dataset, tmp_path / "run")
    steps = [line for line in read_log(tmp_path / "run" / "metrics.jsonl") if line["kind"] == "step"]
    assert steps
    assert all(np.isfinite(line["loss"]) for line in steps)
    scores = from_json((tmp_path / "run" / "scores.json").read_text())
    assert scores.failures == {}
    assert scores.cases
    assert set(scores.structures) == {structure.name for structure in model.recipe.labels}
    case = dataset.cases[0]
    found = model.predict(case)
    truth = io.read_labels(case.label)
    assert found.labels.grid == truth.grid
    assert set(np.unique(found.labels.array)) <= {0, *model.names.values()}
    assert set(model.names.values()) <= set(dataset.labels.values())  # predictions are in the dataset's own numbers


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in shipped() if is_cascade(name)])
def test_a_shipped_cascade_runs_from_data_to_scores(tmp_path, name):
    plan = load_cascade(name)
    small = {key: stage.model_copy(update={"recipe": narrowed(stage.recipe)}) for key, stage in plan.stages.items()}
    split = plan.split.model_copy(update={"folds": 2})
    plan = plan.model_copy(update={"stages": small, "split": split})
    tumour = "cancer" if name == "ra-unet-lits" else "liver tumour"
    dataset = scans(tmp_path, {"liver": 1, tumour: 2}, ("CT",), 12)
    done = fit_cascade(plan, dataset, tmp_path / "run")
    assert not done.failures
    assert sorted(done.scores.cases) == [case.id for case in dataset.cases]
    assert done.scores.structures == ["liver", "tumour"]
    case = dataset.cases[0]
    found = load(tmp_path / "run").predict(case)
    assert found.labels.grid == io.read_labels(case.label).grid
    assert set(np.unique(found.labels.array)) <= {0, 1, 2}
