"""The abdomen: body, bones, organs, vessels, bowel."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from napari_backsplit.backend.phantom.canvas import Canvas, ellipsoid, oval
from napari_backsplit.backend.phantom.spec import Mask, Triple


def paint_body(canvas: Canvas) -> None:
    """Paint skin and fat, the muscle wall and the cavity, psoas and back muscles."""
    size = float(canvas.rng.uniform(0.94, 1.02))
    fat = float(canvas.rng.uniform(0.06, 0.13))
    canvas.paint(oval(canvas, 0.74 * size, 0.68 * size, 0.93 * size), 40, "muscle")
    inner = (0.74 * size - fat, 0.66 * size - fat / 2, 0.92 * size - fat)
    fat_hu, muscle_hu = canvas.rng.normal(-105, 4), canvas.rng.normal(55, 4)
    canvas.paint(oval(canvas, 0.72 * size, 0.66 * size, 0.91 * size), fat_hu, "fat")
    canvas.paint(oval(canvas, *inner), muscle_hu, "muscle")
    cavity = oval(canvas, inner[0] - 0.06, inner[1] - 0.12, inner[2] - 0.08)
    canvas.paint(cavity, fat_hu, "fat")
    canvas.cores["cavity"] = cavity
    canvas.cores["ribs"] = oval(canvas, inner[0] - 0.01, inner[1] - 0.06, inner[2] - 0.02) & ~cavity
    for side in (-1, 1):
        canvas.paint(ellipsoid(canvas, (0, 0.47, 0.2 * side), (3, 0.13, 0.17)), muscle_hu, "muscle")
        psoas = ellipsoid(canvas, (-1, 0.27, 0.24 * side), (1.0, 0.14, 0.12), -0.08 * side)
        canvas.paint(psoas, muscle_hu, "muscle")


def paint_bones(canvas: Canvas) -> None:
    """Paint ribs, vertebrae with their discs and arches, and the fluid around the cord."""
    z, y, x = canvas.grid
    rib = ((z + 0.55 * y + canvas.rng.uniform(0, 0.3)) % 0.3 < 0.1) & (z + 0.8 * y > -0.05)
    canvas.paint(rib & canvas.cores["ribs"] & (np.abs(x) > 0.4), 320, "spine")
    body = ellipsoid(canvas, (0, 0.28, 0), (9, 0.13, 0.16))
    canvas.paint(body, 230, "spine")
    canvas.paint(body & ((z + canvas.rng.uniform(0, 0.36)) % 0.36 < 0.09), 90, "spine")
    arch = ellipsoid(canvas, (0, 0.45, 0), (9, 0.09, 0.13))
    process = ellipsoid(canvas, (0, 0.54, 0), (9, 0.1, 0.035))
    canvas.paint(arch | process, 300, "spine")
    canvas.paint(ellipsoid(canvas, (0, 0.44, 0), (9, 0.055, 0.075)), canvas.water(), "csf")


def paint_organs(canvas: Canvas) -> None:
    """Paint liver, spleen, kidneys and the great vessels inside the cavity."""
    liver_hu, spleen_hu = canvas.rng.normal(85, 8, 2)
    shift = float(canvas.rng.uniform(-0.06, 0.06))
    _paint_liver(canvas, liver_hu, shift)
    spleen = _organ(canvas, "spleen", (0.5 + shift, 0.15, 0.59), (0.4, 0.27, 0.16), -0.1)
    canvas.paint(spleen, spleen_hu, "spleen")
    for z, side in ((-0.16, -1), (-0.04, 1)):
        _paint_kidney(canvas, liver_hu + 15, (z + shift, 0.22, 0.45 * side), side)
    aorta = ellipsoid(canvas, canvas.jitter((0, 0.07, 0.08), 0.015), (9, 0.07, 0.07))
    cava = ellipsoid(canvas, canvas.jitter((0, 0.09, -0.13), 0.015), (9, 0.065, 0.085))
    canvas.paint(cava, canvas.rng.normal(125, 8), "vena_cava")
    canvas.paint(aorta, canvas.rng.normal(160, 10), "aorta")


def _organ(canvas: Canvas, name: str, center: Triple, radii: Triple, tilt: float = 0.0) -> Mask:
    """Return a solid organ, varied and kept in the cavity; remember its core for cysts."""
    center = canvas.jitter(center, 0.03)
    z, y, x = (r * float(canvas.rng.uniform(0.9, 1.1)) for r in radii)
    core = ellipsoid(canvas, center, (0.6 * z, 0.6 * y, 0.6 * x), tilt)
    canvas.cores[name] = core | canvas.cores.get(name, np.zeros_like(core))
    free = canvas.cores["cavity"] & canvas.is_("fat")
    return _largest(free & ellipsoid(canvas, center, (z, y, x), tilt))


def _largest(mask: Mask) -> Mask:
    """Keep the largest component: an organ that others cut is not left in crumbs."""
    components, _ = ndimage.label(mask)
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    return np.asarray(mask & (components == sizes.argmax()))


def _paint_liver(canvas: Canvas, hu: float, shift: float) -> None:
    right = _organ(canvas, "liver", (0.5 + shift, -0.04, -0.44), (0.72, 0.5, 0.42), 0.15)
    left = _organ(canvas, "liver", (0.62 + shift, -0.3, -0.02), (0.36, 0.2, 0.44))
    dome = ~ellipsoid(canvas, (-0.3 + shift, 0.12, -0.12), (0.7, 0.26, 0.3))
    canvas.paint(_largest((right | left) & dome), hu, "liver")


def _paint_kidney(canvas: Canvas, hu: float, center: Triple, side: int) -> None:
    z, y, x = center
    hilum = ellipsoid(canvas, (z, y - 0.06, x - 0.24 * side), (0.16, 0.12, 0.12))
    tilt = -0.12 * side
    bed = ellipsoid(canvas, center, (0.58, 0.23, 0.24), tilt) & canvas.is_("liver")
    canvas.paint(bed, -100, "fat")
    kidney = _organ(canvas, "kidney", center, (0.5, 0.19, 0.19), tilt)
    canvas.paint(_largest(kidney & ~hilum), hu, "kidney")


def paint_hollow_organs(canvas: Canvas) -> None:
    """Paint stomach, gallbladder, colon and bowel loops where the cavity is still free."""
    stomach = canvas.jitter((0.5, -0.2, 0.38), 0.03)
    _paint_hollow(canvas, "stomach", stomach, (0.38, 0.24, 0.24), "level")
    _paint_gallbladder(canvas)
    for side in (-1, 1):
        colon = canvas.jitter((-0.6, 0.1, 0.62 * side), 0.03)
        _paint_hollow(canvas, "bowel", colon, (0.7, 0.11, 0.11), "stool")
    least, most = canvas.spec.bowel_loops
    for index in range(int(canvas.rng.integers(least, most + 1))):
        _paint_loop(canvas, "water" if index % 2 == 0 else "stool")


def _paint_gallbladder(canvas: Canvas) -> None:
    """Paint the gallbladder at the lower edge of the liver."""
    center = canvas.jitter((0.02, -0.22, -0.3), 0.04)
    radii = canvas.jitter((0.2, 0.12, 0.11), 0.02)
    free = canvas.is_("fat") | canvas.is_("liver")
    mask = ellipsoid(canvas, center, radii) & canvas.cores["cavity"] & free
    canvas.paint(mask, canvas.water(), "gallbladder")


def _paint_loop(canvas: Canvas, content: str) -> None:
    """Paint one bowel loop, lying along a random axis."""
    uniform = canvas.rng.uniform
    center = (float(uniform(-1.0, 0.1)), float(uniform(-0.5, 0.0)), float(uniform(-0.55, 0.55)))
    radii = np.asarray(canvas.jitter((0.18, 0.16, 0.16), 0.03))
    radii[canvas.rng.integers(3)] *= float(uniform(1.2, 1.8))
    z, y, x = radii.tolist()
    _paint_hollow(canvas, "bowel", center, (z, y, x), content)


def _paint_hollow(canvas: Canvas, name: str, center: Triple, radii: Triple, content: str) -> None:
    """Paint a wall and its content: water, stool, or water under gas (`level`)."""
    free = canvas.cores["cavity"] & canvas.is_("fat")
    canvas.paint(free & ellipsoid(canvas, center, radii), 55, name)
    z, y, x = (r - 0.033 for r in radii)
    lumen = free & ellipsoid(canvas, center, (z, y, x))
    canvas.paint(lumen, canvas.rng.uniform(30, 45) if content == "stool" else canvas.water(), name)
    if content == "level":
        canvas.paint(lumen & (canvas.grid[1] < center[1] - 0.3 * y), -850, name)
