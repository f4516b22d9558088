"""Random numbers of a training: each epoch has a stream of its own. Worker only."""

from __future__ import annotations

import random

import numpy as np
import torch

VALIDATION_STREAM = 2**31 - 1
"""Stream of random numbers that draws the validation patches: the same after every epoch."""

WEIGHTS_STREAM = VALIDATION_STREAM - 1


def seed_everything(seed: int, stream: int) -> None:
    """Seed NumPy, torch and random from a seed and the number of a stream."""
    state = np.random.SeedSequence([seed, stream]).generate_state(3)
    np.random.seed(state[0])  # noqa: NPY002  nnU-Net draws from the global generators
    torch.manual_seed(int(state[1]))
    random.seed(int(state[2]))
