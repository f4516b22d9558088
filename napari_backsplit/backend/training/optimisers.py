"""What turns gradients into weights: the spec's optimiser and its learning rate. Worker only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from napari_backsplit.backend.training.head_split import is_head
from napari_backsplit.backend.training.schedule import lr_factor
from napari_backsplit.backend.training.spec import RunSpec


def make_optimiser(network: torch.nn.Module, spec: RunSpec) -> torch.optim.Optimizer:
    """Return the spec's optimiser; the output layers are a group of their own if they need one."""
    groups = [{"params": list(network.parameters())}]
    if spec.head_lr_factor != 1:
        named = list(network.named_parameters())
        groups = [
            {"params": [value for name, value in named if is_head(name) == head]}
            for head in (False, True)
        ]
    lr, decay = spec.initial_lr, spec.weight_decay
    if spec.optimiser == "sgd":
        return torch.optim.SGD(groups, lr, weight_decay=decay, momentum=0.99, nesterov=True)
    if spec.optimiser == "adam":
        return torch.optim.Adam(groups, lr, eps=spec.epsilon, weight_decay=decay)
    return torch.optim.AdamW(groups, lr, eps=spec.epsilon, weight_decay=decay)


def descend(
    loss: torch.Tensor, network: torch.nn.Module, optimizer: torch.optim.Optimizer, scaler: Any
) -> None:
    """Turn a loss into a step, its gradient clipped as nnU-Net does; `scaler` None: not scaled."""
    if scaler is None:
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 12)
        optimizer.step()
        return
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    torch.nn.utils.clip_grad_norm_(network.parameters(), 12)
    scaler.step(optimizer)
    scaler.update()


class Schedule:
    """Sets the learning rate of an epoch; nnU-Net calls `step` when the epoch starts.

    Parameters
    ----------
    optimizer : Optimizer
        As `make_optimiser` gives it.
    spec : RunSpec
    used : callable
        Share of a budget of time that is used; None where the budget is epochs.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, spec: RunSpec, used: Callable[[], float | None]
    ) -> None:
        self.optimizer, self.spec, self.used = optimizer, spec, used

    def step(self, epoch: int) -> None:
        """Set the rates of an epoch."""
        lr = self.spec.initial_lr * lr_factor(self.spec, epoch, self.used())
        body, *heads = self.optimizer.param_groups
        body["lr"] = lr
        for group in heads:
            group["lr"] = lr * self.spec.head_lr_factor
