"""Synthetic patients: CT of the abdomen and MRI of the brain, drawn from a seed, with exact labels.

They stand in for real scans in `attentus demo` and in the tests. Sizes, positions and tissue values are textbook
values with the spread between people, so pictures look familiar to a radiologist; they teach a network nothing about
disease.

    abdomen.py      CT: liver with tumours, spleen, kidneys, pancreas, aorta; painted part by part on a Canvas
      result.py pose.py scan.py canvas.py contrast.py        what comes out, position, scanner, voxels, tissue values
      trunk.py wall.py spine.py cage.py chest.py             skin to ribs, diaphragm, lungs, heart
      vessels.py organs.py liver.py tumours.py bowel.py      what lies in the cavity
    brain.py        MRI: FLAIR, T1w, T1w with gadolinium, T2w
      cerebrum.py glioma.py
    shapes.py texture.py trees.py                            smooth shapes, random smoothness, branching vessels
    write.py        a data set folder with dataset.json
"""

from __future__ import annotations

from attentus.data.phantom.abdomen import abdomen
from attentus.data.phantom.brain import brain
from attentus.data.phantom.result import Phantom
from attentus.data.phantom.write import write_dataset

__all__ = ["Phantom", "abdomen", "brain", "write_dataset"]
