from __future__ import annotations

import numpy as np
import torch

from napari_backsplit.backend.training.loading import VoxelWeights


def test_lesions_of_two_targets_that_touch_are_one_and_supports_are_none() -> None:
    """Weights are of the connected parts of the foreground, whatever target they are of."""
    codes = np.zeros((1, 1, 4, 8), np.int16)
    codes[0, 0, 0, :2], codes[0, 0, 0, 2:4] = 1, 2  # two targets side by side: 4 voxels
    codes[0, 0, 3, 7] = 2  # one voxel alone
    codes[0, 0, 2, :4] = 3  # a support
    sample = {"segmentation": torch.from_numpy(codes)}
    weights = VoxelWeights((1, 2)).made(sample)
    assert isinstance(weights, torch.Tensor)
    found = weights.numpy()[0, 0]
    assert np.allclose(found[0, :4], 32 / (3 * 4))
    assert np.allclose(found[3, 7], 32 / 3)
    assert np.allclose(found[2, :4], max(1, 32 / (3 * 27)))
    assert found[1, 0] == found[2, 0], "a support weighs what the rest of the background does"
