"""Weights of voxels inverse to the volume of their lesion, made where patches are loaded.

Shirokikh et al. 2020, "Universal loss reweighting to balance lesion size inequality in 3D medical
image segmentation", doi 10.1007/978-3-030-59719-1_51.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.fusion.components import label_components

LEAST, MOST = 1.0, 2e5
"""A weight is neither below nor above these."""


def inverse_weights(target: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the weight of each voxel of a patch: N / ((K + 1) |component|), within [1, 2e5].

    N is the number of voxels and K that of the target's components; all that is no target is one
    component more. So each lesion weighs as much as any other, but for the limits.

    The paper has one class beside the background. Here several targets are joined, and supports
    are part of the background: they weigh what it does.

    Parameters
    ----------
    target : ndarray of bool
        (z, y, x) or (y, x): voxels of any target. Components are 26-connected, 8-connected in 2D.

    Returns
    -------
    ndarray of float32
        Of the same shape; all 1 where there is no target voxel.
    """
    parts = label_components(target.reshape((1,) * (3 - target.ndim) + target.shape))
    rest = target.size - int(parts.voxels.sum())
    sizes = np.maximum(np.concatenate([[rest], parts.voxels]), 1)
    weight = np.clip(target.size / (len(sizes) * sizes), LEAST, MOST).astype(np.float32)
    weights = np.full(target.shape, weight[0])
    weights.reshape((1,) * (3 - target.ndim) + target.shape)[parts.box] = weight[parts.labels]
    return weights
