"""A plainly visible organ on a noisy image, and prompts on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.structures.engines import Engine, Request, Scene
from napari_backsplit.backend.structures.prompts import Box, Lasso, Point, Scribble, slices

Mask = NDArray[np.bool_]
AnyPrompt = Point | Box | Scribble | Lasso

SHAPE = (48, 72, 64)
CENTRE = (22, 36, 30)
RADII = (9, 15, 11)
LARGE = (13, 18, 16)


@dataclass(frozen=True, eq=False)
class Organ:
    scene: Scene
    mask: Mask


def organ(key: str = "organ", seed: int = 0, radii: tuple[int, ...] = RADII) -> Organ:
    """Draw an ellipsoid 130 HU above its surroundings, a neighbour and noise of 12 HU."""
    rng = np.random.default_rng(seed)
    mask, neighbour = _inside(CENTRE, radii), _inside((36, 60, 54), (7, 8, 6))
    image = rng.normal(scale=12, size=SHAPE).astype(np.float32)
    image[mask] += 130
    image[neighbour] -= 90
    return Organ(Scene(key, image, (2.0, 1.0, 1.0)), mask)


def _inside(centre: tuple[int, ...], radii: tuple[int, ...]) -> Mask:
    grid = np.ogrid[tuple(slice(n) for n in SHAPE)]
    parts = ((g - c) ** 2 / r**2 for g, c, r in zip(grid, centre, radii, strict=True))
    return np.asarray(sum(parts) <= 1)


def click(dz: int = 0, dy: int = 0, dx: int = 0, *, positive: bool = True) -> Point:
    """Click beside the centre of the organ."""
    z, y, x = CENTRE
    return Point(at=(z + dz, y + dy, x + dx), positive=positive)


def flat_box() -> Box:
    (z, y, x), (_, b, c) = CENTRE, RADII
    return Box(low=(z, y - b, x - c), high=(z + 1, y + b + 1, x + c + 1))


def deep_box() -> Box:
    low = tuple(c - r for c, r in zip(CENTRE, RADII, strict=True))
    high = tuple(c + r + 1 for c, r in zip(CENTRE, RADII, strict=True))
    return Box(low=low, high=high)  # type: ignore[arg-type]


def line() -> Scribble:
    z, y, x = CENTRE
    return Scribble(axis=0, index=z, path=((y - 9.0, x), (y + 9.0, x)))


def loop(share: float = 1.0) -> Lasso:
    (z, y, x), (_, b, c) = CENTRE, RADII
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    path = tuple((y + share * b * np.sin(t), x + share * c * np.cos(t)) for t in turn)
    return Lasso(axis=0, index=z, path=path)


def dice(a: Mask, b: Mask) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def never() -> bool:
    return False


def ask(
    engine: Engine,
    target: Organ,
    prompts: tuple[AnyPrompt, ...],
    mask: Mask | None = None,
    run: str = "run",
    cancelled: Callable[[], bool] = never,
    **more: Any,
) -> Mask:
    """Answer the last of some prompts; return the mask as it is then."""
    mask = np.zeros(SHAPE, bool) if mask is None else mask
    start = more.pop("start", None)
    request = Request(target.scene, run, start, prompts, mask, **more)
    answer = engine.segment(request, cancelled)
    changed = mask.copy()
    changed[slices(answer.bounds)] = answer.mask
    return changed


def play(
    engine: Engine, target: Organ, prompts: tuple[AnyPrompt, ...], run: str = "run", **more: Any
) -> Mask:
    """Give some prompts one after the other; return the mask after the last."""
    mask = more.get("start")
    mask = np.zeros(SHAPE, bool) if mask is None else mask
    for count in range(1, len(prompts) + 1):
        mask = ask(engine, target, prompts[:count], mask, run, **more)
    return mask
