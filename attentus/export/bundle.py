"""A model as one folder or zip file that runs with numpy and onnxruntime alone; `bundle_runtime` is its program."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attentus.data.resolve import values_in
from attentus.export import bundle_runtime
from attentus.infer.segment import mute
from attentus.io.atomic import replacing, replacing_folder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from attentus.infer.model import Model

RUN = """
## Run it

    pip install numpy onnxruntime
    python segment.py scan.nii.gz -o labels.nii.gz

`segment.py` says more. `SHA256SUMS` holds the checksums of all files (`sha256sum -c SHA256SUMS`).
"""


def to_bundle(model: Model, out: Path, onnx: bytes, card: str, *, int8: bool = False, overwrite: bool = False) -> None:
    """Write a model, how scans are prepared for it and what becomes of its output, with a program that does it all.

    Args:
        model: with a resolved recipe.
        out: a folder, or a file whose name ends with .zip.
        onnx: the net as an ONNX file for batches of the recipe's `infer.batch` windows.
        card: card.md, to which is added how to run the bundle.
        int8: whether that file is quantised; written down.
        overwrite: whether an earlier bundle may be replaced.

    Raises:
        BadFile: the place holds something that may not be replaced, or cannot be written to.
    """
    program = Path(bundle_runtime.__file__).read_text(encoding="utf-8")
    texts = {"bundle.json": json.dumps(contents(model, int8=int8), indent=1), "segment.py": program}
    files = {name: text.encode() for name, text in (texts | {"card.md": card + RUN}).items()} | {"model.onnx": onnx}
    sums = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(files.items()))
    files[bundle_runtime.SUMS] = sums.encode()
    if out.suffix == ".zip":
        with replacing(out, overwrite=overwrite) as temporary, zipfile.ZipFile(temporary, "w") as whole:
            for name, content in files.items():
                whole.writestr(name, content, zipfile.ZIP_DEFLATED)
    else:
        write_folder(out, files, holds="bundle.json", overwrite=overwrite)


def write_folder(out: Path, files: Mapping[str, bytes], *, holds: str, overwrite: bool) -> None:
    """Write files into a new folder.

    Args:
        out: the folder.
        files: name to content.
        holds: the file that shows a folder there to be an earlier export, which `overwrite` allows to replace.
        overwrite: see there.

    Raises:
        BadFile: see `replacing_folder`.
    """
    with replacing_folder(out, holds=holds, overwrite=overwrite) as folder:
        for name, content in files.items():
            (folder / name).write_bytes(content)


def contents(model: Model, *, int8: bool = False) -> dict[str, Any]:
    """What bundle.json says: plain numbers and texts."""
    recipe, infer = model.recipe, model.recipe.infer
    values = values_in(recipe)
    prepare = recipe.prepare.model_dump(
        mode="json", include={"spacing", "crop_above", "crop_block", "crop_size", "size"}
    )
    fields = {"window", "percentiles", "normalise", "moments"}
    return {
        "format": bundle_runtime.FORMAT,
        "version": bundle_runtime.VERSION,
        "name": recipe.name,
        "about": recipe.about,
        "precision": "int8" if int8 else "fp32",
        "dims": recipe.net.dims,
        "channels": list(recipe.channels),
        "outputs": len(recipe.outputs),
        "labels": [{"name": s.name, "value": s.value, "values": list(values[s.name])} for s in recipe.labels],
        "regions": recipe.regions,
        "mute": mute(recipe),
        "prepare": {
            **prepare,
            "order": recipe.prepare.order,
            "anti_alias": recipe.prepare.anti_alias,
            "intensity": [spec.model_dump(mode="json", include=fields) for spec in recipe.prepare.intensity],
        },
        "window": {
            "size": list(model.window.size),
            "overlap": infer.overlap,
            "blend": infer.blend,
            "batch": infer.batch,
        },
        "mirror": list(infer.mirror),
        "skip_below": infer.skip_below,
        "temperature": infer.temperature,
        "clean": {name: rule.model_dump(mode="json") for name, rule in infer.clean.items()},
    }
