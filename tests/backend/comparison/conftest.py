"""Synthetic cases: lesions in a noisy body, and two arms of which one finds more."""

from __future__ import annotations

import numpy as np
import pytest

from napari_backsplit.backend.comparison.compare import CaseInput
from napari_backsplit.backend.geometry import Geometry
from napari_backsplit.backend.volume import Volume

IDENTITY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def ball(shape, center, radius_vox):
    grid = np.indices(shape)
    away = sum((grid[k] - center[k]) ** 2 for k in range(3))
    return away <= radius_vox**2


def draw_case(number, seen="verified", shape=(40, 60, 60), spacing_mm=(5.0, 3.0, 3.0), free=False):
    """A body with up to three lesions; the second arm finds more of them than the first."""
    rng = np.random.default_rng(number)
    body = (ball(shape, (20, 30, 30), 26)) * 60.0 + rng.normal(0, 12, shape)
    reference = np.zeros(shape, bool)
    arms = {"baseline": reference.copy(), "backsplit": reference.copy()}
    for _ in range(0 if free else rng.integers(1, 4)):
        center, radius = rng.integers((8, 16, 16), (32, 44, 44)), rng.uniform(2, 4.5)
        lesion = ball(shape, center, radius)
        reference |= lesion
        body[lesion] = rng.normal(10, 12, lesion.sum())
        for arm, chance in (("baseline", 0.55), ("backsplit", 0.85)):
            if rng.random() < chance:
                arms[arm] |= ball(
                    shape, center + rng.integers(-1, 2, 3), radius * rng.uniform(0.7, 1.15)
                )
    for mask in arms.values():
        if rng.random() < 0.35:
            mask |= ball(shape, rng.integers((8, 16, 16), (32, 44, 44)), rng.uniform(1.2, 2.5))
    geometry = Geometry(shape, spacing_mm, (0.0, 0.0, 0.0), IDENTITY)
    return CaseInput(
        case=f"case_{number:03}",
        patient=f"patient_{number:03}",
        spacing_mm=spacing_mm,
        reference={"lesion": reference},
        predictions={arm: {"lesion": mask} for arm, mask in arms.items()},
        image=Volume(body.astype(np.float32), geometry),
        seen=seen,
    )


def draw_cases(count=24, **options):
    return [draw_case(k, free=k % 3 == 0, **options) for k in range(1, count + 1)]


@pytest.fixture(scope="session")
def cases():
    return draw_cases()


@pytest.fixture
def draw():
    return draw_case
