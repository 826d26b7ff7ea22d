"""Write the reference pages from the code: `python docs/generate.py`, or `--check` to fail if they are out of date."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Any, get_args, get_origin

import torch
from pydantic import BaseModel

import attentus
from attentus import losses, nets
from attentus.recipes import Recipe

HERE = Path(__file__).parent / "reference"
NOTE = "<!-- Made by docs/generate.py from the code; change it there. -->\n\n"


def cli() -> str:
    """Every command with its arguments and options."""
    import typer

    from attentus.cli.main import app

    root = typer.main.get_command(app)
    context = _context(root, "attentus", None)
    parts = ["# Command line\n", _prose(root.help), "", _prose(root.epilog), ""]
    for path, command, inner in _commands(root, context):
        parts += [f"\n## {path}\n", _prose(command.help), ""]
        rows = [row for parameter in command.params if (row := _parameter(parameter, inner))]
        if rows:
            parts += ["| | |", "|---|---|", *rows, ""]
        if command.epilog:
            parts += ["```console", f"$ {command.epilog.removeprefix('Example: ')}", "```", ""]
    return "\n".join(parts)


def recipe() -> str:
    """Every field of a recipe with its type, default and docstring."""
    parts = [
        "# Recipe fields\n",
        "A recipe is one YAML file. `attentus recipe copy NAME mine.yaml` gives you one to change;",
        "`attentus recipe check mine.yaml` tells what is wrong with it.\n",
    ]
    return "\n".join(parts + _section(Recipe, ""))


def python() -> str:
    """The public names with signature and docstring."""
    parts = [
        "# Python\n",
        "`import attentus as at` costs no torch; what needs it is loaded when first touched. Arrays are (C, z, y, x),",
        "spacing is (z, y, x) in mm, world coordinates are (L, P, S) in mm.\n",
    ]
    for name in attentus.__all__:
        thing = getattr(attentus, name)
        parts += _documented(f"at.{name}", thing)
        if inspect.isclass(thing) and not issubclass(thing, BaseModel):
            for member, function in inspect.getmembers(thing):
                if not member.startswith("_") and (inspect.isfunction(function) or inspect.ismethod(function)):
                    parts += _documented(f"at.{name}.{member}", function, "###")
    return "\n".join(parts)


def nets_and_losses() -> str:
    """What `create` can build, with options."""
    parts = [
        "# Networks and losses\n",
        "## Networks\n",
        "`at.nets.create(name, dims, in_channels, out_channels, ...)`\n",
    ]
    for name in nets.names():
        known = nets.card(name)
        with torch.device("meta"):  # nobody looks at weights
            net = nets.create(name, known.dims[-1] if known else 3, 1, 2)
        parts += [f"### {name}\n", f"```text\n{inspect.getdoc(net)}\n```\n"]
        parts += _options(nets.options(name))
        if nets.presets(name):
            parts += [f"Presets: {', '.join(f'`{preset}`' for preset in nets.presets(name))}\n"]
    parts += ["## Losses\n", "`at.losses.create(name, ...)`\n"]
    for name in losses.names():
        parts += [f"### {name}\n", f"```text\n{inspect.getdoc(losses.create(name))}\n```\n"]
    return "\n".join(parts)


def _documented(name: str, thing: Any, heading: str = "##") -> list[str]:
    text = inspect.getdoc(thing) or ""
    if inspect.ismodule(thing):
        return [f"{heading} {name}\n", text, ""]
    try:
        signature = re.sub(r"'([^']*)'", r"\1", str(inspect.signature(thing)))
    except (TypeError, ValueError):
        signature = ""
    code = f"{name}{signature}" if not (inspect.isclass(thing) and issubclass(thing, BaseModel)) else name
    return [f"{heading} {name}\n", f"```text\n{code}\n```\n", f"```text\n{text}\n```\n"]


def _section(model: type[BaseModel], prefix: str) -> list[str]:
    title = prefix.rstrip(".") or "recipe"
    lines = [f"\n## {title}\n", _prose(inspect.getdoc(model)), "", "| field | default | meaning |", "|---|---|---|"]
    nested: list[str] = []
    for name, field in model.model_fields.items():
        inner = [
            a
            for a in (field.annotation, *get_args(field.annotation))
            if inspect.isclass(a) and issubclass(a, BaseModel)
        ]
        if inner and inner[0] is not Recipe:
            named = get_origin(field.annotation) is dict
            several = "" if field.annotation is inner[0] else ".NAME" if named else "[]"
            nested += _section(inner[0], f"{prefix}{name}{several}.")
        default = "required" if field.is_required() else _default(field.get_default())
        meaning = field.description or (inspect.getdoc(inner[0]) if inner else "") or ""
        lines.append(f"| `{prefix}{name}` | {default} | {' '.join(meaning.split())} |".replace("\n", " "))
    return lines + nested


def _default(value: Any) -> str:
    if isinstance(value, BaseModel) or (isinstance(value, tuple) and value and isinstance(value[0], BaseModel)):
        return "see below"
    text = {None: "null", (): "[]", "": "empty"}.get(value, str(value)) if not isinstance(value, dict) else "{}"
    return f"`{text}`"


def _options(options: dict[str, Any]) -> list[str]:
    return ["| option | default |", "|---|---|", *(f"| `{k}` | `{v}` |" for k, v in options.items()), ""]


def _commands(command: Any, context: Any) -> Any:
    for name in command.list_commands(context):
        child = command.get_command(context, name)
        inner = _context(child, name, context)
        if hasattr(child, "list_commands"):
            yield from _commands(child, inner)
        else:
            yield inner.command_path, child, inner


def _context(command: Any, name: str, parent: Any) -> Any:
    return command.make_context(name, [], parent=parent, resilient_parsing=True)


def _parameter(parameter: Any, context: Any) -> str | None:
    if parameter.param_type_name == "argument":
        return f"| `{parameter.metavar or parameter.name.upper()}` | {_prose(parameter.help)} |"
    record = parameter.get_help_record(context)
    if record is None or "--help" in record[0]:
        return None
    flags, text = (re.sub(r"\s+", " ", part).replace("|", "\\|") for part in record)
    return f"| `{flags}` | {text} |"


def _prose(text: str | None) -> str:
    return re.sub(r"\[/?bold\]", "**", text or "")


PAGES = {"cli.md": cli, "recipe.md": recipe, "python.md": python, "nets.md": nets_and_losses}


def main(*, check: bool) -> int:
    """Write the pages, or say which differ from what would be written."""
    stale = []
    for name, make in PAGES.items():
        text = re.sub(r"\n{3,}", "\n\n", NOTE + make()).rstrip() + "\n"
        page = HERE / name
        if not page.is_file() or page.read_text(encoding="utf-8") != text:
            stale.append(name)
            if not check:
                page.parent.mkdir(exist_ok=True)
                page.write_text(text, encoding="utf-8")
    if check and stale:
        print(f"out of date: {', '.join(stale)}. Run: python docs/generate.py", file=sys.stderr)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv))
