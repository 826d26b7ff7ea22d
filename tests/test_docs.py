"""What the documentation says, done: Python blocks run, commands run or at least parse, generated pages are current."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LONG = (["demo"], ["train"], ["data", "phantom"], ["audit", "runs/a"], ["figure", "surface"], ["reproduce"])
"""Commands that are only parsed: they take long, or need a model that has learned something."""

pytestmark = pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="an installed copy has no docs")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[list[str]]:
    lines = [line for block in blocks(page, "console") for line in block.splitlines() if line.startswith("$ attentus")]
    return [shlex.split(line.removeprefix("$ attentus"), comments=True) for line in lines]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with what the pages speak of: phantom/, runs/a, runs/b (the same again), runs/nested, masks/."""
    from attentus.cli.main import run
    from attentus.data.phantom import write_dataset

    folder = tmp_path_factory.mktemp("docs")
    write_dataset(folder / "phantom", 6, coarse=5)
    quick = ["--set", "train.steps=2", "--set", "train.patch=[16, 32, 32]", "--set", "train.validate_every=2"]
    quick += ["--set", "prepare.spacing=[20, 12, 12]", "--set", "infer.overlap=0"]  # a few windows per scan
    assert run(["train", "demo", str(folder / "phantom"), "-o", str(folder / "runs" / "a"), *quick]) == 0
    shutil.copytree(folder / "runs" / "a", folder / "runs" / "b")
    nested = ["--set", "net.name=anu-net", "--set", "net.options={preset: tiny}"]
    assert run(["train", "demo", str(folder / "phantom"), "-o", str(folder / "runs" / "nested"), *quick, *nested]) == 0
    images = str(folder / "phantom" / "imagesTr")
    assert run(["predict", str(folder / "runs" / "a"), images, "-o", str(folder / "masks")]) == 0
    return folder


@pytest.fixture
def here(place, page, tmp_path, monkeypatch):
    """A fresh working directory that sees them, but for the masks a page makes itself."""
    makes_masks = any(c[0] == "predict" and "masks" in c and "--overwrite" not in c for c in commands(page))
    for name in ("phantom", "runs", *(() if makes_masks else ("masks",))):
        (tmp_path / name).symlink_to(place / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=lambda p: p.stem)
def test_python_blocks_run(page, here):
    names: dict[str, object] = {}
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), names)


@pytest.mark.parametrize("page", [p for p in PAGES if commands(p) and p.stem != "cli"], ids=lambda p: p.stem)
def test_commands_work(page, here, capsys):
    from attentus.cli.main import app, run

    for arguments in commands(page):
        if any(arguments[: len(long)] == long for long in LONG):
            import typer

            command = typer.main.get_command(app)
            while hasattr(command, "list_commands"):
                command = command.get_command(
                    command.make_context("attentus", [], resilient_parsing=True), arguments.pop(0)
                )
            command.make_context("attentus", arguments)
        else:
            assert run(arguments) == 0, (arguments, capsys.readouterr().err)


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "yaml")], ids=lambda p: p.stem)
def test_yaml_blocks_are_what_they_claim(page, tmp_path):
    from attentus.data.layouts.manifest import Manifest
    from attentus.recipes import build, load_cascade

    for block in blocks(page, "yaml"):
        tree = yaml.safe_load(block)
        if "stages" in tree:
            (tmp_path / "cascade.yaml").write_text(block, encoding="utf-8")
            load_cascade(tmp_path / "cascade.yaml")
        elif "net" in tree:
            build(tree, str(page))
        else:
            Manifest.model_validate(tree)


def test_every_page_is_in_the_navigation_and_links_lead_somewhere():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        assert str(page.relative_to(ROOT / "docs")).replace(os.sep, "/") in text
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_reference_pages_are_current():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    assert generate.main(check=True) == 0


def test_every_recipe_and_command_is_mentioned():
    from attentus.recipes import shipped

    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    for name in shipped():
        assert name in text or name.startswith("hippocampus-"), name


def test_the_metrics_page_defines_everything_there_is():
    from attentus.metrics import METRICS, PRESETS
    from attentus.metrics.pair import DETECTED
    from attentus.metrics.pooled import POOLED

    text = (ROOT / "docs" / "concepts" / "metrics.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([^` ]+)`", text))
    named |= {f"detected_lesion{name}" for name in named if name.startswith("_")}
    assert {*METRICS, *PRESETS} <= named
    assert {name for name in POOLED if not name.startswith("detected_")} <= named
    assert len(DETECTED) == sum(name.startswith("detected_lesion_") and "…" not in name for name in named)
