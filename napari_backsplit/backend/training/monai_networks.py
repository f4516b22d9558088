"""MONAI's SegResNet and SwinUNETR as nnU-Net builds a network from plans.json. Worker only.

Named in plans.json, they are found by any nnU-Net beside which this package is installed. The
weights' names are MONAI's own.
"""

from __future__ import annotations

from monai.networks.nets.segresnet import SegResNet
from monai.networks.nets.swin_unetr import SwinUNETR
from torch import nn


class MonaiSegResNet(SegResNet):
    """MONAI's SegResNet for volumes, with MONAI's defaults but the number of filters.

    Parameters
    ----------
    input_channels, num_classes : int
    deep_supervision : bool
        Only False: it has one output.
    init_filters : int
        Features at the full resolution, a multiple of 8.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        deep_supervision: bool = False,
        init_filters: int = 32,
    ) -> None:
        _refuse_levels(deep_supervision)
        super().__init__(3, init_filters, input_channels, num_classes)

    @property
    def encoder(self) -> nn.ModuleList:
        """What comes before the bottleneck's way back, to be frozen."""
        return nn.ModuleList([self.convInit, self.down_layers])


class MonaiSwinUNETR(SwinUNETR):
    """MONAI's SwinUNETR for volumes, with MONAI's defaults but the number of features.

    Parameters
    ----------
    input_channels, num_classes : int
    deep_supervision : bool
        Only False: it has one output.
    feature_size : int
        Features at half the resolution, a multiple of 12.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        deep_supervision: bool = False,
        feature_size: int = 48,
    ) -> None:
        _refuse_levels(deep_supervision)
        super().__init__(input_channels, num_classes, feature_size=feature_size)

    @property
    def encoder(self) -> nn.ModuleList:
        """The transformer and the blocks beside it, to be frozen."""
        sides = (self.encoder1, self.encoder2, self.encoder3, self.encoder4, self.encoder10)
        return nn.ModuleList([self.swinViT, *sides])


def _refuse_levels(deep_supervision: bool) -> None:
    if deep_supervision:
        raise ValueError("MONAI's networks have one output: deep_supervision must be False")
