"""Faults planted in cases that have none: what each should be found as, and where.

`python -m benchmarks.quality --faults` prints what is found of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from napari_backsplit.backend.fusion.audit import examine_masks
from napari_backsplit.backend.fusion.findings import Finding, Limits
from napari_backsplit.backend.fusion.fuse import bounding_box
from napari_backsplit.backend.fusion.quality import check_outliers
from napari_backsplit.backend.geometry import Geometry
from napari_backsplit.backend.phantom import LESION, PhantomSpec, draw
from napari_backsplit.backend.volume import read_label_map, read_volume

SHAPES = ((40, 60, 60), (64, 96, 96), (96, 144, 144))
PARTS = ("csf", "aorta", "vena_cava", "liver", "spleen", "stomach", "gallbladder", "bowel")
TOTAL = {
    1: "spleen", 2: "kidney_right", 3: "kidney_left", 4: "gallbladder", 5: "liver", 6: "stomach",
    7: "pancreas", 8: "adrenal_gland_right", 9: "adrenal_gland_left", 10: "lung_upper_lobe_left",
    11: "lung_lower_lobe_left", 13: "lung_middle_lobe_right", 14: "lung_lower_lobe_right",
    18: "small_bowel", 19: "duodenum", 20: "colon", 30: "vertebrae_l2", 31: "vertebrae_l1",
    32: "vertebrae_t12", 33: "vertebrae_t11", 52: "aorta", 63: "inferior_vena_cava",
    64: "portal_vein_and_splenic_vein", 79: "spinal_cord", 86: "autochthon_left",
    87: "autochthon_right", 88: "iliopsoas_left", 89: "iliopsoas_right",
    117: "costal_cartilages",
    **{97 - 6 + n: f"rib_left_{n}" for n in range(7, 13)},
    **{103 + n: f"rib_right_{n}" for n in range(7, 13)},
}  # fmt: skip
"""The labels of the real sample (TotalSegmentator's task `total`, version 2)."""


@dataclass(frozen=True, eq=False)
class Scene:
    """One case in memory: canonical, or in file order, as its grid says."""

    name: str
    grid: Geometry
    image: np.ndarray
    masks: dict[str, np.ndarray]
    supports: tuple[str, ...]

    def findings(self, limits: Limits | None = None) -> list[Finding]:
        return examine_masks(
            self.name, self.grid, self.masks, [LESION], self.supports, self.image, limits
        )

    def only(self, *supports: str) -> Scene:
        masks = {name: self.masks[name] for name in (LESION, *supports)}
        return replace(self, masks=masks, supports=supports)

    def put(self, **masks: np.ndarray) -> Scene:
        return replace(self, masks=self.masks | masks)


@dataclass(frozen=True, eq=False)
class Planted:
    """A scene with a fault: what it should be found as, and in which voxels, None for nowhere."""

    scene: Scene
    code: str
    structure: str
    place: np.ndarray | None
    severity: str = "warning"

    def found(self, clean: list[Finding]) -> Finding | None:
        """Return the finding that tells of it, which the clean scene has not."""
        wanted = (self.code, self.structure, self.severity)
        new = [finding for finding in self.scene.findings() if finding not in clean]
        told = [f for f in new if (f.code, f.structure, f.severity) == wanted]
        return max(told, key=self.is_placed, default=None)

    def is_placed(self, finding: Finding) -> bool:
        if self.place is None or finding.position_zyx is None:
            return self.place is None and finding.position_zyx is None
        return bool(self.place[finding.position_zyx])


def phantom_scene(seed: int, shape=SHAPES[0], lesions=True) -> Scene:
    """Draw a phantom whose kidneys are two supports, with cysts or without."""
    phantom = draw(seed, PhantomSpec(shape=shape, lesion_free=float(not lesions)))
    kidney = phantom.masks["kidney"]
    left = np.zeros(shape, bool)
    left[:, :, shape[2] // 2 :] = True
    masks = {LESION: phantom.masks[LESION], "kidney_left": kidney & left}
    masks |= {"kidney_right": kidney & ~left} | {name: phantom.masks[name] for name in PARTS}
    masks["bowel"] = phantom.union(("bowel", "gallbladder"))
    del masks["gallbladder"]
    supports = tuple(name for name in masks if name != LESION)
    return Scene(f"phantom_{seed}", phantom.image.geometry, phantom.image.array, masks, supports)


def real_scene(folder: Path) -> Scene:
    """Read the CT and its 41 labels; its reference is empty."""
    image = read_volume(folder / "totalsegmentator/example_ct_sm.nii.gz")
    ids = read_label_map(folder / "totalsegmentator/example_seg.nii.gz").array
    masks = {LESION: np.zeros(ids.shape, bool)} | {n: ids == i for i, n in TOTAL.items()}
    return Scene("real", image.geometry, image.array, masks, tuple(TOTAL.values()))


# --- planting -----------------------------------------------------------------------------------


def ball(shape, center, radius) -> np.ndarray:
    axes = np.ogrid[tuple(slice(n) for n in shape)]
    return sum((a - c) ** 2 for a, c in zip(axes, center, strict=True)) <= radius**2


def deepest(mask: np.ndarray) -> tuple[int, ...]:
    """The voxel farthest from the mask's surface and the image's edges."""
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1, 1:-1]
    return tuple(int(i) for i in np.unravel_index(depth.argmax(), mask.shape))


def moved(mask: np.ndarray, shift) -> np.ndarray:
    result = np.zeros_like(mask)
    pairs = list(zip(shift, mask.shape, strict=True))
    to = tuple(slice(max(d, 0), n + min(d, 0)) for d, n in pairs)
    result[to] = mask[tuple(slice(max(-d, 0), n + min(-d, 0)) for d, n in pairs)]
    return result


def elsewhere(scene: Scene) -> np.ndarray:
    """Voxels of the body that no mask is near."""
    return ~np.logical_or.reduce(list(scene.masks.values())) & (scene.image > -300)


def with_lesion(scene: Scene, organ: str, radius=2.5) -> Scene:
    """Put the lesion as deep into an organ as it goes."""
    return scene.put(lesion=ball(scene.image.shape, deepest(scene.masks[organ]), radius))


def island(scene: Scene, organ: str) -> Planted:
    crumb = np.zeros(scene.image.shape, bool)
    crumb[deepest(elsewhere(scene))] = True
    return Planted(scene.put(**{organ: scene.masks[organ] | crumb}), "tiny_islands", organ, crumb)


def hole(scene: Scene, organ: str) -> Planted:
    cavity = ball(scene.image.shape, deepest(scene.masks[organ]), 2.5)
    return Planted(scene.put(**{organ: scene.masks[organ] & ~cavity}), "hole", organ, cavity)


def lesion_hole(scene: Scene, organ: str) -> Planted:
    scene = with_lesion(scene, organ)
    lesion = scene.masks[LESION]
    result = scene.put(**{organ: scene.masks[organ] & ~lesion})
    return Planted(result, "lesion_hole", organ, lesion, "info")


def emptied(scene: Scene, organ: str) -> Planted:
    nothing = np.zeros(scene.image.shape, bool)
    return Planted(scene.put(**{organ: nothing}), "empty_support", organ, None)


def removed(scene: Scene, organ: str) -> Planted:
    masks = {name: mask for name, mask in scene.masks.items() if name != organ}
    return Planted(replace(scene, masks=masks), "partial", organ, None, "info")


def cropped(scene: Scene, organ: str, axis: int) -> Planted:
    """Cut the image in the middle of a structure, across a file axis."""
    box = bounding_box(scene.masks[organ])
    last = (box[axis].start + box[axis].stop) // 2
    keep = tuple(slice(0, last + 1) if k == axis else slice(None) for k in range(3))
    shape = tuple(last + 1 if k == axis else n for k, n in enumerate(scene.grid.shape))
    masks = {name: mask[keep] for name, mask in scene.masks.items()}
    result = replace(
        scene, grid=replace(scene.grid, shape=shape), image=scene.image[keep], masks=masks
    )
    place = masks[organ].copy()
    place[tuple(slice(0, -1) if k == axis else slice(None) for k in range(3))] = False
    return Planted(result, "border", organ, place, "warning" if organ == LESION else "info")


def swapped(scene: Scene, stem: str) -> Planted:
    left, right = f"{stem}_left", f"{stem}_right"
    result = scene.put(**{left: scene.masks[right], right: scene.masks[left]})
    return Planted(result, "side", left, scene.masks[right])


def alone_on_the_wrong_side(scene: Scene, stem: str) -> Planted:
    left, right = f"{stem}_left", f"{stem}_right"
    masks = {name: mask for name, mask in scene.masks.items() if name != right}
    masks[left] = scene.masks[right]
    return Planted(replace(scene, masks=masks), "side", left, scene.masks[right])


def lesion_outside(scene: Scene) -> Planted:
    lesion = ball(scene.image.shape, deepest(elsewhere(scene)), 1.5)
    return Planted(scene.put(lesion=lesion), "outside_supports", LESION, lesion)


def overlapping(scene: Scene, organ: str, other: str) -> Planted:
    """Grow an organ until it overlaps another by a tenth of the smaller one."""
    grown, mask = scene.masks[organ], scene.masks[other]
    while (grown & mask).sum() < 0.1 * min(grown.sum(), mask.sum()):
        grown = ndimage.binary_dilation(grown)
    first = min(organ, other, key=scene.supports.index)
    return Planted(scene.put(**{organ: grown}), "overlap", first, grown & mask)


def shifted(scene: Scene, organ: str, shift=(0, 4, 0)) -> Planted:
    mask = moved(scene.masks[organ], shift)
    return Planted(scene.put(**{organ: mask}), "shift", organ, mask)


def faults(scene: Scene) -> dict[str, Planted]:
    """Plant every fault of one case; the liver, the kidneys and the stomach have to be there."""
    whole = with_lesion(scene, "liver") if not scene.masks[LESION].any() else scene
    return {
        "an island of one voxel": island(scene, "liver"),
        "a hole": hole(scene, "liver"),
        "a hole that a lesion fills": lesion_hole(scene, "liver"),
        "an emptied mask": emptied(scene, "stomach"),
        "a support taken away": removed(scene, "stomach"),
        "an organ cut by the edge": cropped(scene, "kidney_left", 2),
        "a lesion at the edge": cropped(whole, LESION, 1),
        "left and right swapped": swapped(scene, "kidney"),
        "one alone, on the wrong side": alone_on_the_wrong_side(scene, "kidney"),
        "a lesion moved out of every organ": lesion_outside(scene),
        "an organ grown over another": overlapping(scene, "kidney_right", "liver"),
        "a mask moved by 4 voxels": shifted(scene, "liver"),
        "a mask moved by 3 voxels": shifted(scene, "kidney_left", (0, 0, -3)),
    }


def tripled(mask: np.ndarray) -> np.ndarray:
    """Grow a mask until it has three times its voxels."""
    grown = mask
    while grown.sum() < 3 * mask.sum():
        grown = ndimage.binary_dilation(grown)
    return grown


def volume_outliers(masks: list[np.ndarray], number: int) -> list[str]:
    """The cases of a cohort, "0", "1", ..., whose volume stands out once one is tripled."""
    sizes = {str(i): float(mask.sum()) for i, mask in enumerate(masks)}
    sizes[str(number)] = float(tripled(masks[number]).sum())
    return [finding.case for finding in check_outliers("organ", sizes, "warning", Limits())]


def hippocampi(folder: Path) -> list[np.ndarray]:
    """The reference masks of the real hippocampi, both parts together."""
    files = sorted((folder / "hippocampus/labels").glob("*.nii.gz"))
    return [read_label_map(file).array > 0 for file in files]
