"""Seconds of processor and peak memory to read and to write a large .nii.gz: ours beside nibabel alone.

    python benchmarks/reading.py [--slices 300] [--turns 3]

A synthetic CT, smoothed as reconstruction kernels do, 512 x 512, int16, in the orientation most files have (RAS), and
its labels. Both bring it into the same orientation, contiguous. Each reading is a process of its own, so that its peak
is its own; a ratio is the median of nibabel over ours.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.ndimage import gaussian_filter

from attentus import io
from attentus.data.phantom import abdomen
from attentus.types import Volume

AFFINE = np.diag([0.7, 0.7, 1.0, 1.0])


def write(folder: Path, slices: int) -> None:
    """The scan and its labels, packed by nibabel."""
    phantom, rng = abdomen(1), np.random.default_rng(0)
    where = np.linspace(0, phantom.image.grid.shape[0] - 1, slices).round().astype(int)
    scan = np.empty((slices, 512, 512), np.int16)
    for k, z in enumerate(where):
        fine = phantom.image.array[0, z].repeat(2, 0).repeat(2, 1)
        scan[k] = np.rint(gaussian_filter(fine + rng.normal(0, 8, fine.shape), 1.0))
    labels = phantom.labels.array[0, where].repeat(2, 1).repeat(2, 2)
    for name, array in (("scan", scan), ("labels", labels)):
        nib.save(nib.Nifti1Image(array.transpose(2, 1, 0)[::-1, ::-1], AFFINE), folder / f"{name}.nii.gz")


def nibabel_read(path: Path) -> np.ndarray:
    """As most programs do it."""
    return np.ascontiguousarray(np.asanyarray(nib.load(path).dataobj)[::-1, ::-1].transpose(2, 1, 0))


def measure(who: str, what: str, folder: Path) -> dict[str, float]:
    """One reading or writing, in this process."""
    path, out = folder / f"{what.split()[1]}.nii.gz", folder / "out.nii.gz"
    writing = what.startswith("write")
    io.read_grid(path)  # imports what is needed
    volume = io.read(path, as_stored=True) if writing else None
    before, started = _peak_mib(), time.process_time()
    if volume is None:
        array = nibabel_read(path) if who == "nibabel" else io.read(path, as_stored=True).array
        assert array.flags.c_contiguous
    elif who == "nibabel":
        nib.save(nib.Nifti1Image(volume.array[0].transpose(2, 1, 0), AFFINE), out)
    else:
        io.write(Volume(volume.array, volume.grid), out, overwrite=True)
    seconds = time.process_time() - started
    return {"s": seconds, "MiB": _peak_mib() - before, "file MB": (out if writing else path).stat().st_size / 1e6}


def _peak_mib() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--make", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--one", nargs=3, metavar=("WHO", "WHAT", "FOLDER"), help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.one:
        print(json.dumps(measure(*wanted.one[:2], Path(wanted.one[2]))))
        return
    if wanted.make:
        write(wanted.make, wanted.slices)
        return
    with tempfile.TemporaryDirectory() as folder:
        # In a process of its own, too: a child's peak starts from what its parent holds.
        subprocess.run([sys.executable, __file__, "--make", folder, "--slices", str(wanted.slices)], check=True)
        for what in ("read scan", "read labels", "write labels", "write scan"):
            found: dict[str, list[dict[str, float]]] = {"nibabel": [], "attentus": []}
            for _ in range(wanted.turns):
                for who, rows in found.items():
                    command = [sys.executable, __file__, "--one", who, what, folder]
                    rows.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
            middle = {who: {k: statistics.median(r[k] for r in rows) for k in rows[0]} for who, rows in found.items()}
            for who, row in middle.items():
                print(f"{what:13} {who:9}" + "".join(f"{value:10.2f} {key}" for key, value in row.items()))
            print(f"{what:13} ratio    {middle['nibabel']['s'] / middle['attentus']['s']:10.2f}")


if __name__ == "__main__":
    main()
