"""Networks of soft labels with their activation: shares of a voxel are averaged, not outputs.

Worker-only: imports torch. Over tiles, mirrored tiles and folds nnU-Net averages what a network
gives. What a network of soft labels was trained to give is a share, so that its activation is part
of it, and is applied to each tile as it was to each patch.
"""

from __future__ import annotations

import torch

from napari_backsplit.backend.training.losses.soft import deciding


class SharesNetwork(torch.nn.Module):
    """A network whose output is 0.5, then the share of each class but the background.

    Parameters
    ----------
    network : torch.nn.Module
        (b, channels, ...) -> outputs (b, K, ...).
    activation : str
        sigmoid, or normalised-relu: relu(x) over its maximum in the tile, 0 in a tile without a
        positive output.
    """

    def __init__(self, network: torch.nn.Module, activation: str) -> None:
        super().__init__()
        self.network, self.activation = network, activation

    def forward(self, tile: torch.Tensor) -> torch.Tensor:
        """Return the shares of a tile, float32 (b, K, ...)."""
        return deciding(self.network(tile), self.activation)
