"""Branching vessels grown towards the tissue they supply.

Growth by space colonisation (Runions 2007, "Modeling trees with a space colonization algorithm"): points of tissue pull
the nearest tip towards them until a branch reaches them. Radii follow Murray's law from the tips to the root.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from attentus.data.phantom.shapes import smooth_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from attentus.data.phantom.shapes import Rod, Vector

MURRAY = 2.6
"""Exponent m in r_parent^m = sum of r_child^m; 3 in Murray's theory, somewhat less looks more like real trees."""


def grow(
    stems: Sequence[Sequence[Vector]], tissue: NDArray[np.float64], radius: float, tip: float, step: float = 9.0
) -> list[Rod]:
    """Rods of a tree.

    Args:
        stems: paths of the trunk and the main branches, each of which starts at its nearest point of an earlier one.
        tissue: (n, 3) points to reach, mm.
        radius: of the trunk at its start, mm.
        tip: radius of the thinnest branches, mm.
        step: length of one rod, mm.
    """
    nodes, parents = _stems(stems, step)
    thirsty = tissue
    for _ in range(40):
        nodes, parents, thirsty = _reach(nodes, parents, thirsty, step)
        if not len(thirsty):
            break
    radii = _murray(parents, radius, tip)
    pairs = [(node, parent) for node, parent in enumerate(parents) if parent >= 0]
    return [
        (tuple(nodes[parent]), tuple(nodes[node]), min(radii[parent], 1.3 * radii[node]), radii[node])
        for node, parent in pairs
    ]


def _stems(stems: Sequence[Sequence[Vector]], step: float) -> tuple[NDArray[np.float64], list[int]]:
    nodes = np.empty((0, 3))
    parents: list[int] = []
    for stem in stems:
        path = smooth_path(stem, step)
        root = int(np.argmin(np.linalg.norm(nodes - path[0], axis=1))) if parents else -1
        first = len(parents)
        parents += [root, *range(first, first + len(path) - 1)]
        nodes = np.concatenate([nodes, path])
    return nodes, parents


def _reach(
    nodes: NDArray[np.float64], parents: list[int], tissue: NDArray[np.float64], step: float
) -> tuple[NDArray[np.float64], list[int], NDArray[np.float64]]:
    """One round of growth: each node that is nearest to some tissue sprouts one step towards it."""
    apart = np.linalg.norm(tissue[:, None] - nodes[None], axis=2)
    nearest = apart.argmin(axis=1)
    open_tissue = apart[np.arange(len(tissue)), nearest] > 1.2 * step
    tissue, nearest = tissue[open_tissue], nearest[open_tissue]
    sprouts = []
    for node in np.unique(nearest):
        pull = tissue[nearest == node] - nodes[node]
        length = np.linalg.norm(pull, axis=1, keepdims=True)
        directions = pull / length
        heading = directions.mean(axis=0) + 0.5 * directions[length.argmin()]  # the nearest decides where pulls cancel
        if parents[node] >= 0:
            heading = heading + 0.35 * (nodes[node] - nodes[parents[node]]) / step
        sprouts.append(nodes[node] + heading * (step / max(float(np.linalg.norm(heading)), 0.1)))
        parents = [*parents, int(node)]
    return np.concatenate([nodes, np.reshape(sprouts, (-1, 3))]), parents, tissue


def _murray(parents: list[int], radius: float, tip: float) -> list[float]:
    """Radius of each node, so that the root has `radius` and no branch is thinner than `tip`."""
    load = np.ones(len(parents))
    for node in range(len(parents) - 1, -1, -1):  # children come after their parents
        if parents[node] >= 0:
            load[parents[node]] += load[node]
    return [float(r) for r in np.maximum(radius * (load / load[0]) ** (1 / MURRAY), tip)]
