"""The checks of masks: seconds for a large case, and what they find of planted faults."""

import argparse
from collections import Counter
from pathlib import Path
from time import process_time

import numpy as np
from scipy import ndimage

from napari_backsplit.backend.fusion.audit import examine_masks
from napari_backsplit.backend.fusion.components import islands
from napari_backsplit.backend.fusion.findings import Limits
from napari_backsplit.backend.fusion.quality import check_shift
from napari_backsplit.backend.fusion.quality_shift import fit_shift
from napari_backsplit.backend.geometry import Geometry

EYE = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
ORGANS = tuple(f"organ_{i}" for i in range(10))


def grid(shape):
    return Geometry(tuple(shape), (1.5, 0.8, 0.8), (0.0, 0.0, 0.0), EYE)


def draw(shape, seed=0):
    """Ten ellipsoids of a tenth to a quarter of the volume's width, and the noisy image of them."""
    rng = np.random.default_rng(seed)
    image, masks = rng.normal(0, 15, shape).astype(np.float32), {}
    axes = np.ogrid[tuple(slice(n) for n in shape)]
    for i, name in enumerate(ORGANS):
        center, radii = rng.uniform(0.25, 0.75, 3) * shape, rng.uniform(0.05, 0.13, 3) * shape
        terms = (((a - c) / r) ** 2 for a, c, r in zip(axes, center, radii, strict=True))
        masks[name] = sum(terms) <= 1
        image[masks[name]] = image[masks[name]] + 40 + 10 * i
    return image, masks


def specks(shape, spacing=(8, 13, 13)):
    """Return a mask of islands of two voxels: 300 x 512 x 512 holds about 60,000."""
    mask = np.zeros(shape, bool)
    z, y, x = spacing
    mask[1:-1:z, 1:-1:y, 1:-1:x] = True
    mask[2:-1:z, 1:-1:y, 1:-1:x] = True
    return mask


def naive_islands(mask):
    """Label, then count each component on its own."""
    labels, count = ndimage.label(mask, np.ones((3, 3, 3)))
    return [int(np.count_nonzero(labels == i)) for i in range(1, count + 1)]


def clock(function):
    """Seconds of one processor: others use the machine too."""
    start = process_time()
    result = function()
    return process_time() - start, result


def speed(shape):
    image, masks = draw(shape)
    seconds, found = clock(lambda: examine_masks("case", grid(shape), masks, (), ORGANS, image))
    print(f"one case of {shape}, ten organs    {seconds:7.1f} s, {len(found)} findings")
    mask = specks(shape)
    small = mask[:60, :100, :100].copy()
    slow, sizes = clock(lambda: naive_islands(small))
    quick, same = clock(lambda: islands(small, 1.0))
    print(
        f"{len(sizes)} islands of {small.shape}: one by one {slow:.2f} s, ours {quick:.3f} s, "
        f"{slow / quick:.0f}x; same: {sorted(sizes) == sorted(i.voxels for i in same)}"
    )
    given = {"specks": mask, "organ_0": masks["organ_0"]}
    count = len(islands(mask, 1.0))
    for kind, targets in (("support", ()), ("target", ("specks",))):
        supports = tuple(name for name in given if name not in targets)
        seconds, found = clock(
            lambda t=targets, s=supports: examine_masks("case", grid(shape), given, t, s, image)
        )
        print(f"{count} islands as a {kind}   {seconds:7.1f} s, {len(found)} findings")


def planted_and_found(scenes):
    """Fault -> how often it was found, and found in its place."""
    from tests.backend.fusion.planting import faults

    found, placed = Counter(), Counter()
    for scene in scenes:
        clean = scene.findings()
        for name, planted in faults(scene).items():
            finding = planted.found(clean)
            found[name] += finding is not None
            placed[name] += finding is not None and planted.is_placed(finding)
    return {name: (found[name], placed[name]) for name in found}


def shifts_told(scenes):
    """What was done to a mask -> of how many a shift was told, of how many that are looked at."""
    from tests.backend.fusion.planting import moved

    rng = np.random.default_rng(0)
    told, number = Counter(), Counter()
    for scene in scenes:
        for mask in scene.masks.values():
            shift = np.zeros(3, int)
            shift[rng.integers(3)] = rng.choice([-4, -3, 3, 4])
            done = {
                "left alone": mask,
                "grown by a voxel": ndimage.binary_dilation(mask),
                "shrunk by a voxel": ndimage.binary_erosion(mask),
                "moved by one voxel": moved(mask, np.sign(shift)),
                "moved by 3 or 4 voxels": moved(mask, shift),
            }
            for name, changed in done.items():
                if fit_shift(scene.image, changed, Limits().shift_surface):
                    args = ("", "", changed, scene.image, scene.grid, Limits())
                    told[name] += bool(check_shift(*args))
                    number[name] += 1
    return {name: (told[name], number[name]) for name in number}


def faults_found(data, seeds):
    from tests.backend.fusion.planting import SHAPES, phantom_scene, real_scene

    scenes = [phantom_scene(seed, shape) for shape in SHAPES for seed in range(seeds)]
    sets = {"phantom": scenes} | ({"real": [real_scene(data)]} if data else {})
    for kind, some in sets.items():
        for name, (found, placed) in planted_and_found(some).items():
            print(f"{kind} | {name} | {found} found, {placed} in their place, of {len(some)}")
        told = Counter((f.severity, f.code, f.structure) for s in some for f in s.findings())
        for key, count in sorted(told.items()):
            print(f"{kind} | clean | {' | '.join(key)} | {count}")
        for name, (shifts, number) in shifts_told(some).items():
            print(f"{kind} | masks {name} | a shift told of {shifts} of {number}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=(300, 512, 512))
    parser.add_argument("--faults", action="store_true", help="plant faults instead")
    parser.add_argument("--data", type=Path, help="what BACKSPLIT_TEST_DATA names")
    parser.add_argument("--seeds", type=int, default=4, help="phantoms of each shape")
    options = parser.parse_args()
    if options.faults:
        faults_found(options.data, options.seeds)
    else:
        speed(tuple(options.shape))


if __name__ == "__main__":
    main()
