"""The label-set loss, forward and backward, against nnU-Net's Dice + cross-entropy.

One thread, a batch of two 64^3 patches: fully labelled, and with a third of the voxels partial.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import perf_counter

import torch
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch import Tensor

from napari_backsplit.backend.training.losses import LabelSetLoss, membership_table

ROUNDS = 5


def seconds(loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, target: Tensor) -> float:
    begin = perf_counter()
    loss(logits, target).backward()
    return perf_counter() - begin


def main() -> None:
    torch.set_num_threads(1)
    options = {"batch_dice": True, "smooth": 1e-5, "do_bg": False, "ddp": False}
    theirs = DC_and_CE_loss(options, {}, dice_class=MemoryEfficientSoftDiceLoss)
    print("  K  nnU-Net s  ours s  ratio  partial s  ratio")
    for classes in (2, 4, 10, 26):
        logits = torch.randn(2, classes, 64, 64, 64, requires_grad=True)
        target = torch.randint(0, classes, (2, 1, 64, 64, 64))
        partial = torch.where(torch.rand(target.shape) < 1 / 3, classes, target)
        ours = LabelSetLoss(membership_table(classes, [[0, classes - 1]]), batch_dice=True)
        runs = [
            (seconds(theirs, logits, target), seconds(ours, logits, target),
             seconds(ours, logits, partial))
            for _ in range(ROUNDS)
        ]  # fmt: skip
        stock, full, part = (median(column) for column in zip(*runs, strict=True))
        print(
            f"{classes:3d}  {stock:9.3f}  {full:6.3f}  {full / stock:5.2f}  {part:9.3f}  "
            f"{part / stock:5.2f}"
        )


if __name__ == "__main__":
    main()
