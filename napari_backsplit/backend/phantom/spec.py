"""What a phantom is drawn from, and what comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.volume import Geometry, Volume

Triple = tuple[float, float, float]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]

NOTE = "SYNTHETIC: drawn by napari-backsplit, no patient data."
LESION = "lesion"
STRUCTURES = (
    "air",
    "fat",
    "muscle",
    "spine",
    "csf",
    "aorta",
    "vena_cava",
    "liver",
    "spleen",
    "kidney",
    "stomach",
    "gallbladder",
    "bowel",
)
"""What a voxel can belong to, apart from a lesion; `air` is outside the body."""


@dataclass(frozen=True)
class PhantomSpec:
    """What a phantom is drawn from; the anatomy fills the field of view at every shape.

    Parameters
    ----------
    shape : tuple of int
        Voxels along z, y, x. A larger shape is a finer phantom of the same size in mm.
    field_mm : tuple of float
        Field of view along z, y, x.
    lesion_free : float
        Probability of a case without a lesion.
    lesions, lesion_radius_mm : tuple
        Least and most renal cysts of a case with lesions, and their radii.
    liver_cysts, splenic_cysts : float
        Mean counts of look-alikes (Poisson).
    bowel_loops : tuple of int
        Least and most loops; half are filled with water.
    noise_hu : float
        Standard deviation of the noise.
    """

    shape: tuple[int, int, int] = (40, 60, 60)
    field_mm: Triple = (192.0, 288.0, 288.0)
    lesion_free: float = 1 / 3
    lesions: tuple[int, int] = (1, 4)
    lesion_radius_mm: tuple[float, float] = (9.6, 18.2)
    liver_cysts: float = 3.0
    splenic_cysts: float = 1.5
    bowel_loops: tuple[int, int] = (12, 17)
    noise_hu: float = 12.0

    def __post_init__(self) -> None:
        if min(self.shape) < 8:
            raise InputError(f"A phantom of shape {self.shape} is too small.", "Use 8 or more.")

    @property
    def spacing_mm(self) -> Triple:
        """Voxel size along z, y, x."""
        (a, b, c), (p, q, r) = self.field_mm, self.shape
        return a / p, b / q, c / r

    @property
    def geometry(self) -> Geometry:
        """The grid, centred on the origin, axes along LPS."""
        z, y, x = ((s - f) / 2 for s, f in zip(self.spacing_mm, self.field_mm, strict=True))
        eye = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
        return Geometry(self.shape, self.spacing_mm, (x, y, z), eye)


@dataclass(frozen=True)
class Cyst:
    """A cyst: its centre in voxels and its half axes in mm, both z, y, x."""

    center_vox: Triple
    radii_mm: Triple


@dataclass(frozen=True, eq=False)
class Phantom:
    """One synthetic case.

    Attributes
    ----------
    image : Volume
        CT, int16, Hounsfield units.
    masks : dict of str to ndarray of bool
        `lesion` and every name of `STRUCTURES` but air, (z, y, x). Structures do not overlap,
        and `kidney` includes the lesions. A lesion-free case has an empty `lesion`.
    lesions : tuple of Cyst
        The renal cysts, one component each.
    look_alikes : tuple of Cyst
        The cysts of liver and spleen.
    """

    image: Volume
    masks: dict[str, Mask]
    lesions: tuple[Cyst, ...]
    look_alikes: tuple[Cyst, ...]

    def union(self, names: Sequence[str]) -> Mask:
        """Return the union of some masks."""
        return np.asarray(np.logical_or.reduce([self.masks[name] for name in names]))
