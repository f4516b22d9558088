"""Two predictions in one array: the baseline left of a line, the new model right of it.

The array is made of what napari asks for, a slice as a rule: moving the line copies no volume.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.components import ViewerModel
from numpy.typing import NDArray

from napari_backsplit.backend.comparison.agreement import LabelMap, part_of
from napari_backsplit.widgets._layers import Placement

BASELINE, NEW = 1, 2
"""The ids of the two predictions."""


class SwipedMap:
    """What a labels layer shows of two predictions, divided at a voxel's edge.

    It has what napari asks of an array: dtype, shape, ndim, size, and parts of it by index.

    Attributes
    ----------
    axis : int
        The axis that runs to the right on the screen.
    column : int
        Voxels before it are the baseline's.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, agreement: LabelMap, axis: int = 2, column: int = 0) -> None:
        self.agreement, self.axis, self.column = agreement, axis, column
        self.shape: tuple[int, ...] = agreement.shape
        self.ndim, self.size = agreement.ndim, agreement.size

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        key = (*key,) if isinstance(key, tuple) else (key,)
        key += (slice(None),) * (self.ndim - len(key))
        block = self.agreement[key]
        return np.where(
            self._is_left(key), part_of(block, "baseline"), part_of(block, "new") * np.uint8(NEW)
        ).astype(np.uint8)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self[:].astype(dtype or self.dtype, copy=False)

    def _is_left(self, key: tuple[Any, ...]) -> Any:
        """Return whether the voxels of a key are the baseline's, to be broadcast over them."""
        is_left = (np.arange(self.shape[self.axis]) < self.column)[key[self.axis]]
        after = sum(not np.isscalar(k) for k in key[self.axis + 1 :])
        return np.reshape(is_left, (*np.shape(is_left), *(1,) * after))


def column_of(viewer: ViewerModel, place: Placement, share: float) -> tuple[int, int] | None:
    """Return the axis to the right, and the first voxel on it that is right of a line.

    Parameters
    ----------
    share : float
        Of the width of the image as far as it is in view, 0 to 1.

    Returns
    -------
    tuple of int, optional
        None where the axis is not one of the volume's.
    """
    axis = viewer.dims.displayed[-1] - (viewer.dims.ndim - 3)
    if axis < 0:
        return None
    left, step = place.translate[axis] - place.scale[axis] / 2, place.scale[axis]
    right = left + step * place.shape[axis]
    camera = viewer.scene.camera
    half = viewer.canvas.size[1] / 2 / max(camera.zoom, 1e-9)
    if viewer.dims.ndisplay == 2:
        seen = max(left, camera.center[-1] - half), min(right, camera.center[-1] + half)
        left, right = seen if seen[0] < seen[1] else (left, right)
    first = place.translate[axis] - step / 2
    column = round((left + share * (right - left) - first) / step)
    return axis, int(np.clip(column, 0, place.shape[axis]))
