"""Distances between meshes (S2S)."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attentus import metrics
from attentus.errors import BadInput
from attentus.metrics import mesh as module
from attentus.metrics.mesh import directed, mesh, to_mesh

pytest.importorskip("skimage", reason="meshes need scikit-image")


def box(shape, *ranges):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, b) for a, b in ranges)] = True
    return mask


INNER, OUTER = box((10, 10, 10), *[(3, 7)] * 3), box((10, 10, 10), *[(2, 8)] * 3)


@pytest.mark.parametrize(
    ("spacing", "there", "back"),
    [((1, 1, 1), 1.0, 1.2654338952), ((2, 1, 1), 1.2083333333, 1.6438823733)],
    ids=["isotropic", "thick slices"],
)
def test_golden_cubes(spacing, there, back):
    small, large = mesh(INNER, spacing), mesh(OUTER, spacing)
    assert (len(small[0]), len(large[0])) == (96, 216)
    assert directed(small, large) == pytest.approx(there, abs=1e-9)
    assert directed(large, small) == pytest.approx(back, abs=1e-9)
    assert metrics.s2s(INNER, OUTER, spacing) == pytest.approx((there + back) / 2, abs=1e-9)


def test_golden_g2():
    prediction, reference = box((6, 8, 8), (1, 4), (2, 6), (2, 6)), box((6, 8, 8), (2, 5), (2, 6), (1, 6))
    assert metrics.s2s(prediction, reference, (2.5, 0.8, 0.8)) == pytest.approx(0.9862713579, abs=1e-6)
    assert metrics.s2s(reference, reference, (2.5, 0.8, 0.8)) == pytest.approx(0, abs=1e-12)


@settings(max_examples=8)
@given(st.integers(0, 2**32 - 1), st.floats(0.5, 20))
def test_distances_are_those_of_trying_every_triangle(seed, away):
    rng = np.random.default_rng(seed)
    vertices, triangles = mesh(rng.random((5, 6, 4)) > 0.5, (2.0, 1.0, 0.7))
    points = rng.normal(size=(30, 3)) * away
    steps = np.array([(i, j, 10 - i - j) for i in range(11) for j in range(11 - i)]) / 10
    samples = np.einsum("sk,tkd->tsd", steps, vertices[triangles]).reshape(-1, 3)
    sampled = np.linalg.norm(points[:, None] - samples, axis=2).min(axis=1)  # at most a tenth of an edge too far
    with patch.object(module, "FIRST_GUESS", 3):  # so that it takes several rounds
        exact = to_mesh(points, vertices, triangles)
    with patch.object(module, "FIRST_GUESS", len(triangles)):
        assert exact == pytest.approx(to_mesh(points, vertices, triangles), abs=1e-12)
    assert (exact <= sampled + 1e-9).all()
    assert (sampled <= exact + 0.24).all()


def test_far_surfaces_are_exact_too():
    """Every vertex of the hollow is equally far: all triangles have to be looked at."""
    z, y, x = np.ogrid[-16:17, -16:17, -16:17]
    large, dot = z * z + y * y + x * x <= 15**2, z * z + y * y + x * x <= 1
    assert metrics.s2s(dot, large, (1, 1, 1)) == pytest.approx(metrics.s2s(large, dot, (1, 1, 1)))
    assert 13.5 < metrics.s2s(dot, large, (1, 1, 1)) < 15


def test_pictures_have_no_mesh():
    with pytest.raises(BadInput, match="3D"):
        metrics.s2s(INNER[5], OUTER[5], (1, 1))
