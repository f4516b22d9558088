"""The export of a lesion's mask against nnU-Net's own, on the same logits, in one run.

Half-float logits of 150 x 150 x 150 voxels become a mask of 300 x 300 x 200, in one thread: a
small lesion among K classes; the hard case, in which the target beats the background in a third of
the volume; separate z; and noise alone, in which nothing can be spared. Each side runs in a process
of its own and says its processor time (other programs' turns are not counted) and its memory beyond
the logits: ours as allocated at the peak, the mask included; nnU-Net's as the process grew.
With K = 118 nnU-Net's side takes four minutes and 9 GB: --quick leaves it out.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np

SIZE = 150
OUTPUTS = (300, 300, 200)
CASES = {
    "2 classes": (2, "", 15, 0.15),
    "4 classes": (4, "", None, 0.15),
    "10 classes": (10, "", 60, 0.15),
    "25 classes": (25, "", None, 0.15),
    "118 classes": (118, "", 150, 0.15),
    "11 classes, hard": (11, "hard", 15, 0.3),
    "4 classes, separate z": (4, "separate", None, 0.15),
    "4 classes, noise alone": (4, "noise", None, None),
}
MOST_S = 2
ROUNDS = 3


def smooth_noise(rng, size):
    """Noise with a scale of some five voxels, and a little of each voxel's own."""
    from scipy.ndimage import zoom

    coarse = rng.normal(size=(size // 5 + 1,) * 3).astype(np.float32)
    fine = zoom(coarse, size / coarse.shape[0], order=1)
    return fine + 0.15 * rng.standard_normal(fine.shape, np.float32)


def blob(rng, size, radius):
    """Logits of an ellipsoid: 8 deep inside, -12 far away, a slope of two voxels."""
    center, radii = rng.uniform(0.2, 0.8, 3) * size, rng.uniform(0.7, 1.3, 3) * radius
    axes = np.ogrid[:size, :size, :size]
    terms = (((a - c) / r) ** 2 for a, c, r in zip(axes, center, radii, strict=True))
    return np.clip((1 - np.sqrt(sum(terms))).astype(np.float32) * radius, -12, 8)


def draw(path, k, kind, size):
    """Write logits (K, z, y, x): class 1 the target, 0 the background, the others organs."""
    rng = np.random.default_rng(k)
    logits = np.lib.format.open_memmap(path, "w+", np.float16, (k, size, size, size))
    if kind == "noise":  # nothing is decided before it is interpolated: the worst that can come
        logits[:] = rng.standard_normal(logits.shape, np.float32)
        return
    logits[0] = 3 + smooth_noise(rng, size)
    target = np.max([blob(rng, size, size * r) for r in (0.06, 0.07, 0.08)], axis=0)
    logits[1] = target + smooth_noise(rng, size)
    for index in range(2, k):
        logits[index] = blob(rng, size, size * rng.uniform(0.05, 0.2)) + smooth_noise(rng, size)
    if kind == "hard":
        middle = np.abs(np.arange(size) - size / 2) < 0.17 * size
        logits[1] = np.where(middle[:, None, None], 5 + smooth_noise(rng, size), logits[1])
    logits.flush()


def made(logits, kind, outputs):
    """Give the logits a model and an image of its own."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.backend.prediction.export_cases import case

    thick = (5.0, 1.0, 1.0) if kind == "separate" else (1.0, 1.0, 1.0)
    return case(logits, outputs, spacing=(1.0, 1.0, 1.0), planned=thick)


class Watch:
    """The most that this process's own memory grew while something ran, in bytes."""

    def __enter__(self):
        self._before, self.grown = anonymous(), 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def _look(self):
        while not self._stop.wait(0.005):
            self.grown = max(self.grown, anonymous() - self._before)

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()


def anonymous():
    """Memory that is this process's own: mapped files, as the logits are, do not count."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def side(which, path, kind, outputs, out):
    """Run one side: nnU-Net's once, ours for the time first and then for the memory."""
    one = made(np.load(path), kind, outputs)
    small = made(one.logits[:, :8, :8, :8].copy(), kind, (12, 12, 12))
    if which == "nnunet":
        small.nnunet()
        with Watch() as watch:
            seconds, found = clock(one.nnunet)
        grown = watch.grown
    else:
        small.export("label1")
        seconds = min(clock(lambda: one.export("label1"))[0] for _ in range(ROUNDS))
        tracemalloc.start()
        found = one.export("label1").mask
        grown = tracemalloc.get_traced_memory()[1]
    np.save(out, (found == 1).astype(np.uint8))
    print(json.dumps({"s": seconds, "grown": grown}))


def clock(run):
    """Return the processor time of this thread that something takes, and its result."""
    began = time.thread_time()
    result = run()
    return time.thread_time() - began, result


def child(which, path, kind, outputs, out):
    """Run a side in a process of its own and return what it says."""
    command = [sys.executable, __file__, "--side", which, str(path), kind, str(out)]
    command += ["--outputs", *map(str, outputs)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "nnUNet_def_n_proc": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def row(name, folder, options):
    k, kind, ratio, memory = CASES[name]
    path = folder / "logits.npy"
    draw(path, k, kind, options.size)
    ours = child("ours", path, kind, options.outputs, folder / "ours.npy")
    said = f"{name:24}{ours['s']:8.2f} s{ours['grown'] / 1e9:7.2f} GB"
    problems = []
    if options.quick and k > 25:
        said += "   nnU-Net's side left out"
    else:
        theirs = child("nnunet", path, kind, options.outputs, folder / "theirs.npy")
        masks = [np.load(folder / f"{side}.npy") for side in ("ours", "theirs")]
        differ = int((masks[0] != masks[1]).sum())
        faster = theirs["s"] / ours["s"]
        said += f"{theirs['s']:9.1f} s{theirs['grown'] / 1e9:7.2f} GB{faster:7.0f}x"
        said += f"{differ:6}{100 * masks[1].mean():7.2f} %"
        problems += [f"{faster:.0f}x"] * (ratio is not None and faster < ratio)
        problems += [f"{differ} voxels differ"] * (differ > 0)
    if memory is None:
        print(f"{said}   no aim")
        return
    problems += [f"{ours['s']:.1f} s"] * (ours["s"] > MOST_S)
    problems += [f"{ours['grown'] / 1e9:.2f} GB"] * (ours["grown"] > memory * 1e9)
    aim = f"{ratio}x, " * (ratio is not None) + f"{memory} GB"
    print(f"{said}   {aim}: {'MISSED by ' + ', '.join(problems) if problems else 'holds'}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="without nnU-Net's side at K = 118")
    parser.add_argument("--only", help="one row")
    parser.add_argument("--size", type=int, default=SIZE)
    parser.add_argument("--outputs", type=int, nargs=3, default=OUTPUTS)
    parser.add_argument("--side", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        which, path, kind, out = options.side
        side(which, path, kind, tuple(options.outputs), out)
        return
    print(f"{'':24}{'ours':>20}{'nnU-Net':>21}{'ratio':>8}{'differ':>8}{'target':>8}   aim")
    with tempfile.TemporaryDirectory() as name:
        for words in CASES:
            if options.only in (None, words):
                row(words, Path(name), options)


if __name__ == "__main__":
    main()
