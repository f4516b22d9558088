"""Waiting between two batches: while the job is paused, and for a person's click. Worker only."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from napari_backsplit.backend.jobs import courtesy

POLL_S = 0.01
LONGEST_S = 120.0
"""How long a training waits for one answer; then it goes on for a batch and looks again."""


class StandingAside:
    """Called between two batches; returns when the training may go on.

    Parameters
    ----------
    check : callable
        Returns when the job is not paused; raises to end it.
    device : str
        Kind of the device that the training is on; "" to stand aside for nobody.
    """

    def __init__(self, check: Callable[[], None], device: str) -> None:
        self._check, self._device = check, device

    def __call__(self) -> None:
        """Wait."""
        self._check()
        if self._device and courtesy.claimed(self._device):
            self._let_pass()

    def _let_pass(self) -> None:
        released, until = False, time.monotonic() + LONGEST_S
        while courtesy.claimed(self._device) and time.monotonic() < until:
            if not released and courtesy.release_asked(self._device):
                released = True
                free_memory(self._device)
            time.sleep(POLL_S)
            self._check()


def free_memory(device: str) -> None:
    """Give memory back that torch keeps for later."""
    if device == "cuda":
        torch.cuda.empty_cache()
    elif device == "mps":
        torch.mps.empty_cache()
