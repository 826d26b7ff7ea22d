"""The public face: names, errors, look-up, progress."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

import attentus
from attentus import errors
from attentus.errors import AttentusError, BadFile, MissingExtra, UnknownName, did_you_mean
from attentus.progress import Silent, track
from attentus.registry import Factory, Registry


def test_the_root_exports_exactly_what_it_says_in_order():
    assert attentus.__all__ == sorted(attentus.__all__)
    for name in attentus.__all__:
        assert getattr(attentus, name) is not None
    assert set(attentus.__all__) <= set(dir(attentus))
    with pytest.raises(AttributeError, match="no attribute 'reed'"):
        _ = attentus.reed


def test_import_needs_no_torch_and_reading_neither():
    code = (
        "import sys, attentus as at; at.read; at.write; at.score; at.metrics; at.Dataset; at.Recipe;"
        "import attentus.report.html; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_module_imports_with_what_is_required():
    """Optional packages hidden, every module still imports: nothing optional has become required unnoticed."""
    code = """
import importlib, pkgutil, sys
for name in ("tensorboard", "gdcm", "mkdocs", "hypothesis", "pytest", "highdicom", "skimage", "monai"):
    sys.modules[name] = None
import attentus
for module in pkgutil.walk_packages(attentus.__path__, "attentus."):
    importlib.import_module(module.name)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_tree_of_errors_is_the_one_drawn_at_the_top():
    drawn = [line.split("──")[-1].split()[0] for line in errors.__doc__.splitlines() if "──" in line]
    kinds = {n for n, thing in vars(errors).items() if isinstance(thing, type) and issubclass(thing, AttentusError)}
    assert {*drawn, "AttentusError"} == kinds


@pytest.mark.parametrize(
    "error",
    [
        BadFile("a.nii", "is empty", "Copy it again."),
        UnknownName("net", "x", ["unet"]),
        MissingExtra("p", "e", "Doing it"),
    ],
)
def test_errors_survive_the_trip_between_processes(error):
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert type(again) is type(error)


def test_messages_say_what_and_what_to_do():
    assert str(BadFile("a.nii", "is empty", "Copy it again.")) == "a.nii: is empty\n  Copy it again."
    assert "pip install 'attentus[dicom]'" in str(MissingExtra("python-gdcm", "dicom", "Reading it"))
    assert did_you_mean("livr", ["liver", "spleen"]) == " Did you mean 'liver'? Known: liver, spleen."
    assert did_you_mean("zzz", []) == " Known: none."


def test_look_up_suggests_and_builds():
    colours = Registry("colour", {"red": 1, "blue": 2})
    assert colours.get("red") == 1
    assert colours.names() == ["blue", "red"]
    with pytest.raises(UnknownName, match=r"No colour is called 'rad'\. Did you mean 'red'\? Known: blue, red\."):
        colours.get("rad")

    def box(width, *, height=2):
        return width * height

    shapes = Factory("shape", {"box": box})
    assert shapes.options("box") == {"height": 2}
    assert shapes.create("box", 3, height=4) == 12
    with pytest.raises(AttentusError, match=r"The shape 'box' has no option 'hight'\. Did you mean 'height'"):
        shapes.create("box", 3, hight=4)


def test_plug_ins_are_loaded_only_when_asked_for(monkeypatch):
    from attentus import registry

    class Point:
        name, loaded = "mine", 0

        def load(self):
            Point.loaded += 1
            return "loaded"

    monkeypatch.setattr(registry, "entry_points", lambda group: [Point()] if group == "attentus.things" else [])
    things = Registry("thing", {"ours": "built in"}, group="attentus.things")
    assert things.names() == ["mine", "ours"]
    assert Point.loaded == 0
    assert things.get("mine") == "loaded"
    assert things.get("mine") == "loaded"
    assert Point.loaded == 1


def test_silent_progress_changes_nothing():
    assert list(track(Silent(), "x", [1, 2, 3])) == [1, 2, 3]
    Silent().say("hello")


def test_lines_tell_what_how_far_and_how_long(capsys, monkeypatch):
    from attentus.cli import show

    clock = iter(range(0, 1000, 6))
    monkeypatch.setattr(show.time, "monotonic", lambda: next(clock))
    lines = show.Lines()
    with lines.task("training", 10, done=2) as task:
        task.advance(1, "loss 0.5")
        task.advance(1, total=4)
    lines.say("done")
    err = capsys.readouterr().err.splitlines()
    assert err == ["training 3/10  42 s left  loss 0.5", "training 4/4  0 s left", "done"]


def test_bars_draw_nested_tasks():
    from attentus.cli.show import Bars

    bars = Bars()
    with bars.task("outer", 2) as outer:
        with bars.task("inner", 3, done=1) as inner:
            inner.advance(2, "note")
        outer.advance(1)
        bars.say("between")
    assert not bars._bars.live.is_started
