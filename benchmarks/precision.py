"""A training step in bfloat16 against float32 on the CPU: the demo's network, one thread.

Alternates the two; the gain needs a CPU that computes in bfloat16 (AMX or AVX-512 BF16).
"""

from __future__ import annotations

from statistics import median
from time import perf_counter

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from napari_backsplit.backend.training.losses import LabelSetLoss, membership_table

ROUNDS = 15
FEATURES = (8, 16, 32, 64)


def seconds(
    network: nn.Module, loss: nn.Module, optimiser: torch.optim.Optimizer, bfloat16: bool
) -> float:
    """Train on one batch of two 32^3 patches, as a run does, and return the time it took."""
    data, target = torch.randn(2, 1, 32, 32, 32), torch.randint(0, 3, (2, 1, 32, 32, 32))
    begin = perf_counter()
    optimiser.zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        value = loss(network(data), target)
    value.backward()
    optimiser.step()
    return perf_counter() - begin


def main() -> None:
    torch.set_num_threads(1)
    network = PlainConvUNet(
        input_channels=1, n_stages=4, features_per_stage=FEATURES, conv_op=nn.Conv3d,
        kernel_sizes=3, strides=(1, 2, 2, 2), n_conv_per_stage=2, num_classes=3,
        n_conv_per_stage_decoder=2, conv_bias=True, norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"affine": True}, nonlin=nn.LeakyReLU,
    )  # fmt: skip
    loss = LabelSetLoss(membership_table(3, []), batch_dice=True)
    optimiser = torch.optim.AdamW(network.parameters(), 3e-3)
    runs = [
        (seconds(network, loss, optimiser, False), seconds(network, loss, optimiser, True))
        for _ in range(ROUNDS)
    ]
    full, half = (median(column) for column in zip(*runs, strict=True))
    print(f"float32 {full:.3f} s, bfloat16 {half:.3f} s a step, ratio {full / half:.2f}")


if __name__ == "__main__":
    main()
