"""Connected components of masks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Connectivity = Literal["faces", "edges", "corners"]
_NEIGHBOURS: dict[int, dict[str, Literal[4, 6, 8, 18, 26]]] = {
    2: {"faces": 4, "edges": 8, "corners": 8},
    3: {"faces": 6, "edges": 18, "corners": 26},
}


def label(mask: NDArray[np.bool_], connectivity: Connectivity = "corners") -> NDArray[np.unsignedinteger]:
    """Number the connected components of a mask from 1, in the order of their first voxels; 0 elsewhere.

    Args:
        mask: boolean, 2D or 3D.
        connectivity: what neighbours share at least.
    """
    import cc3d

    numbers = np.ascontiguousarray(mask).view(np.uint8)  # of booleans, cc3d 4.1 refuses some a voxel wide
    return cc3d.connected_components(numbers, connectivity=_NEIGHBOURS[mask.ndim][connectivity])
