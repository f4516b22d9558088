"""The seeded engine: seconds a click at 512x512x200, and Dice with simulated clicks."""

import argparse
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from napari_backsplit.backend.phantom import PhantomSpec, draw
from napari_backsplit.backend.structures.engines import Request, Scene
from napari_backsplit.backend.structures.prompts import Point, slices
from napari_backsplit.backend.structures.seeded import Seeded
from napari_backsplit.backend.volume import read_mask, read_volume

SPACING_MM = (2.0, 0.75, 0.75)
ORGANS = ("liver", "spleen", "kidney_left", "kidney_right")
COUNTS = (1, 2, 3, 7)


def synthetic(shape, seed=0):
    """Two touching ellipsoids and a small one in noise; returns the image and the first."""
    rng = np.random.default_rng(seed)
    axes = np.ogrid[tuple(slice(n) for n in shape)]
    image = rng.standard_normal(shape, dtype=np.float32) * 12

    def ellipsoid(center, radii):
        terms = zip(axes, center, radii, shape, strict=True)
        return sum(((a - c * n) / (r * n)) ** 2 for a, c, r, n in terms) <= 1

    organ = ellipsoid((0.5, 0.45, 0.35), (0.3, 0.2, 0.2))
    image[ellipsoid((0.5, 0.6, 0.62), (0.2, 0.15, 0.1))] += 60
    image[organ] += 100
    return image, organ


def dice(reference, prediction):
    return 2 * (reference & prediction).sum() / (reference.sum() + prediction.sum())


def clicks(reference, count, seed):
    at = np.argwhere(reference)
    chosen = np.random.default_rng(seed).choice(len(at), count, replace=False)
    return [Point(at=tuple(int(i) for i in at[k])) for k in chosen]


def follow(engine, scene, prompts):
    """Give clicks one after the other; yields the seconds and the mask after each."""
    mask = np.zeros(scene.image.shape, bool)
    for count in range(1, len(prompts) + 1):
        request = Request(scene, "run", None, tuple(prompts[:count]), mask)
        begin = perf_counter()
        answer = engine.segment(request, lambda: False)
        seconds = perf_counter() - begin
        mask = mask.copy()
        mask[slices(answer.bounds)] = answer.mask
        yield seconds, mask


def peer(image, at):
    begin, used = perf_counter(), process_time()
    sitk.ConfidenceConnected(
        sitk.GetImageFromArray(image), [at[::-1]], numberOfIterations=2, multiplier=2.5
    )
    return perf_counter() - begin, process_time() - used


def speed(shape):
    """CPU seconds of all threads too: on a busy machine they tell more."""
    image, organ = synthetic(shape)
    scene = Scene("speed", image, SPACING_MM)
    prompts = clicks(organ, 5, 0)
    walls, marks = [], [process_time()]
    for seconds, answer in follow(Seeded(None), scene, prompts):
        mask = answer
        walls.append(seconds)
        marks.append(process_time())
    used, (plain, plain_cpu) = np.diff(marks), peer(image, prompts[0].at)
    print(f"{'x'.join(map(str, shape[::-1]))} at {SPACING_MM} mm, Dice {dice(organ, mask):.3f}")
    print("                       wall s  CPU s  faster than the peer")
    for name, wall, cpu in (
        ("first click", walls[0], used[0]),
        ("later click, median", np.median(walls[1:]), np.median(used[1:])),
        ("slowest", max(walls), max(used)),
        ("ConfidenceConnected", plain, plain_cpu),
    ):
        print(f"{name:22s} {wall:6.2f} {cpu:6.2f}  {plain / wall:.1f}x")


def phantom(seed, shape):
    drawn = draw(seed, PhantomSpec(shape=shape))
    masks = {name: drawn.masks[name] for name in ("liver", "spleen", "gallbladder")}
    masks |= {f"kidney {i}": part for i, part in enumerate(parts(drawn.masks["kidney"], 2))}
    masks |= dict(zip(["cyst"], parts(drawn.masks["lesion"], 1), strict=False))
    image = np.ascontiguousarray(drawn.image.array, np.float32)
    scene = Scene(f"phantom {seed} {shape}", image, drawn.image.spacing_mm)
    return scene, {name: mask for name, mask in masks.items() if mask.sum() > 20}


def parts(mask, most):
    """The largest components, largest first."""
    labels, count = ndimage.label(mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    return [labels == i + 1 for i in np.argsort(-sizes, kind="stable")[:most]]


def sample(folder):
    volume = read_volume(folder / "example_ct_sm.nii.gz").canonical()
    image = np.ascontiguousarray(volume.array, np.float32)
    masks = {
        n: read_mask(folder / "example_seg_fast" / f"{n}.nii.gz").canonical().array for n in ORGANS
    }
    return Scene("sample", image, volume.spacing_mm), masks


def measure(cases, seeds):
    """Returns {(structure, clicks): Dice of each draw} and the seconds of all clicks."""
    found, times = {}, []
    for scene, masks in cases:
        engine = Seeded(None)
        for name, reference in masks.items():
            for seed in seeds:
                prompts = clicks(reference, max(COUNTS), seed)
                for count, (seconds, mask) in enumerate(follow(engine, scene, prompts), start=1):
                    times.append(seconds)
                    key = name.removesuffix(" 0").removesuffix(" 1"), count
                    found.setdefault(key, []).append(dice(reference, mask))
    return found, times


def table(title, found, times):
    """Mean, median and worst Dice for each structure and count of clicks."""
    print(f"\n{title}; {np.median(times):.2f} s a click, slowest {max(times):.2f} s\n")
    print("| structure |" + "".join(f" {n} |" for n in COUNTS) + "\n|---|" + "---|" * len(COUNTS))
    for name in dict.fromkeys(name for name, _ in found):
        cells = [found[name, count] for count in COUNTS]
        shown = (f" {np.mean(c):.3f} / {np.median(c):.3f} / {min(c):.3f} |" for c in cells)
        print(f"| {name} |" + "".join(shown))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=(200, 512, 512))
    parser.add_argument("--data", type=Path, help="folder that holds totalsegmentator/")
    parser.add_argument("--phantoms", type=int, nargs="+", default=[10, 11, 12])
    parser.add_argument("--draws", type=int, nargs="+", default=list(range(10)))
    options = parser.parse_args()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(2)
    speed(tuple(options.shape))
    if options.data is None:
        return
    print("\nDice: mean / median / worst of all draws, after as many clicks")
    table(
        "TotalSegmentator sample, 3 mm",
        *measure([sample(options.data / "totalsegmentator")], options.draws),
    )
    for shape in ((40, 60, 60), (80, 120, 120), (128, 192, 192)):
        cases = [phantom(seed, shape) for seed in options.phantoms]
        millimetres = 288 / shape[2]
        table(f"Phantom, {millimetres:.1f} mm", *measure(cases, options.draws[:3]))


if __name__ == "__main__":
    main()
