"""One phantom: the anatomy, its cysts, and the scan of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from napari_backsplit.backend.phantom.anatomy import (
    paint_body,
    paint_bones,
    paint_hollow_organs,
    paint_organs,
)
from napari_backsplit.backend.phantom.canvas import Canvas
from napari_backsplit.backend.phantom.spec import (
    LESION,
    NOTE,
    STRUCTURES,
    Cyst,
    Floats,
    Mask,
    Phantom,
    PhantomSpec,
    Triple,
)
from napari_backsplit.backend.volume import Volume


def draw(seed: int | Sequence[int], spec: PhantomSpec | None = None) -> Phantom:
    """Draw one case; the same seed and spec give the same voxels.

    Parameters
    ----------
    seed : int or sequence of int
        Not negative.
    spec : PhantomSpec, optional
        Defaults to the coarse phantom of about 4.8 mm.
    """
    spec = spec or PhantomSpec()
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
    canvas = Canvas(spec, rng)
    paint_body(canvas)
    paint_bones(canvas)
    paint_organs(canvas)
    paint_hollow_organs(canvas)
    look_alikes = paint_look_alikes(canvas)
    lesion, lesions = paint_lesions(canvas)
    masks = {LESION: lesion}
    masks |= {n: canvas.owner == i for i, n in enumerate(STRUCTURES) if n != "air"}
    return Phantom(_image(canvas), masks, lesions, look_alikes)


def paint_look_alikes(canvas: Canvas) -> tuple[Cyst, ...]:
    """Paint cysts inside liver and spleen; they stay part of the organ."""
    cysts: list[Cyst] = []
    for name, mean in (("liver", canvas.spec.liver_cysts), ("spleen", canvas.spec.splenic_cysts)):
        for _ in range(int(canvas.rng.poisson(mean))):
            cyst = _new_cyst(canvas, name, cysts)
            if cyst is not None:
                canvas.paint(_ball(canvas, cyst) & canvas.is_(name), canvas.water(), name)
                cysts.append(cyst)
    return tuple(cysts)


def paint_lesions(canvas: Canvas) -> tuple[Mask, tuple[Cyst, ...]]:
    """Paint the renal cysts, which may bulge into the fat, and give them to the kidney."""
    lesion = np.zeros(canvas.spec.shape, bool)
    cysts: list[Cyst] = []
    least, most = canvas.spec.lesions
    is_free = canvas.rng.random() < canvas.spec.lesion_free
    for _ in range(0 if is_free else int(canvas.rng.integers(least, most + 1))):
        cyst = _new_cyst(canvas, "kidney", cysts)
        if cyst is not None:
            mask = _ball(canvas, cyst) & (canvas.is_("kidney") | canvas.is_("fat"))
            canvas.paint(mask, canvas.water(), "kidney")
            lesion |= mask
            cysts.append(cyst)
    return lesion, tuple(cysts)


def _new_cyst(canvas: Canvas, organ: str, others: Sequence[Cyst]) -> Cyst | None:
    """Return a cyst apart from the others, or None where 20 tries find no room."""
    room = np.argwhere(canvas.cores[organ] & canvas.is_(organ))
    for _ in range(20 if len(room) else 0):
        at = room[canvas.rng.integers(len(room))] + canvas.rng.uniform(-0.5, 0.5, 3)
        radius = canvas.rng.uniform(*canvas.spec.lesion_radius_mm)
        cyst = Cyst(_triple(at), _triple(radius * canvas.rng.uniform(0.87, 1.0, 3)))
        if all(_gap_mm(canvas.spec, cyst, other) > 0 for other in others):
            return cyst
    return None


def _gap_mm(spec: PhantomSpec, one: Cyst, other: Cyst) -> float:
    """Return the least distance between two cysts, less two voxels."""
    spacing = np.asarray(spec.spacing_mm)
    offset = (np.asarray(one.center_vox) - other.center_vox) * spacing
    distance = float(np.sqrt(np.sum(offset * offset)))
    return distance - max(one.radii_mm) - max(other.radii_mm) - 2 * float(spacing.max())


def _ball(canvas: Canvas, cyst: Cyst) -> Mask:
    """Return the voxels of a cyst; it is not warped."""
    axes = np.ogrid[tuple(slice(n) for n in canvas.spec.shape)]
    parts = zip(axes, cyst.center_vox, cyst.radii_mm, canvas.spec.spacing_mm, strict=True)
    return np.asarray(sum(((a - c) * s / r) ** 2 for a, c, r, s in parts) <= 1)


def _triple(values: Floats) -> Triple:
    z, y, x = (float(v) for v in values)
    return z, y, x


def _image(canvas: Canvas) -> Volume:
    """Return the scan: partial volume, noise, whole Hounsfield units."""
    blurred = ndimage.gaussian_filter(canvas.hu, 0.5, mode="nearest")
    noisy = blurred + canvas.rng.normal(0, canvas.spec.noise_hu, canvas.spec.shape)
    hu = np.clip(np.rint(noisy), -1024, 3071).astype(np.int16)
    return Volume(hu, canvas.spec.geometry, (NOTE,))
