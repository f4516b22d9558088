"""Our prediction against the command nnUNetv2_predict, from image file to lesion mask.

python benchmarks/prediction.py [--cases 2] [--size 96] [--classes 2 4 10] [--rounds 3] prints, for
each number of classes, the seconds of both, a ratio, and whether the masks are identical. Each is a
child process with the same model, the same images and one thread. nnU-Net runs without processes
of its own (-npp 0 -nps 0): each of those would import torch again, which for few images takes
longer than it saves (--workers: -npp 1 -nps 1). The two alternate, so that a busy machine slows
both; the best of the rounds counts. The start-up of each, which is its imports, is measured in the
same rounds; the second ratio is without it. The network is small and sees a grid coarser than the
image, so that reading, resampling and exporting count beside it.

python benchmarks/prediction.py --memory prints the peak memory of a child that predicts a
512x512x600 CT with 2 and with 25 classes, and the bound that we state for it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ["nnUNet_def_n_proc"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"

RESULTS = "Dataset777_Tiny/nnUNetTrainer__tinyPlans__3d_fullres"
COARSE = {"spacing": [2.6, 1.8, 1.5], "patch_size": [32, 48, 48]}
"""The images have a spacing of 1.7 x 1.1 x 0.9 mm."""

# The command takes all cores for torch; here it is to take one, as ours does.
_STOCK = """
import multiprocessing
multiprocessing.cpu_count = lambda: 1
from nnunetv2.inference.predict_from_raw_data import predict_entry_point
if __name__ == "__main__":
    predict_entry_point()
"""
_STOCK_IMPORTS = "from nnunetv2.inference.predict_from_raw_data import predict_entry_point"
_OUR_IMPORTS = "from napari_backsplit.backend.prediction.predictor import Predictor"
_OURS = """
import json, sys
from pathlib import Path
from napari_backsplit.backend.prediction.tasks import predict_files
model, out, *images = map(Path, sys.argv[1:])
for image in images:
    name = image.name.replace("_0000.nii.gz", ".nii.gz")
    predict_files(model, [image], out / name, targets=["lesion"])
"""
_MEMORY = """
import json, resource, sys, time
from pathlib import Path
from napari_backsplit.backend.prediction.predictor import Predictor, Settings
from napari_backsplit.backend.prediction.model_folder import ModelFolder
from napari_backsplit.backend.prediction.orientation import Turn
from napari_backsplit.backend.prediction.wanted import Wanted
from napari_backsplit.backend.prediction.written import write_array
from napari_backsplit.backend.volume import read_geometry
model, image, out = map(Path, sys.argv[1:])
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
predictor = Predictor(ModelFolder.open(model), Settings(mirroring=False, step_size=1.0))
wanted, began, said = Wanted(("lesion",)), time.perf_counter(), {"imports": peak()}
need = predictor._preparation.need(read_geometry(image), Turn(), wanted)
prepared = predictor.prepare([image], wanted)
said["preprocessed"] = peak()
prediction = predictor.finish(predictor.compute(prepared, wanted))
write_array(prediction.exported.mask, out, prediction.grid)
said |= {"peak": peak(), "bound": need.peak / 1e9, "seconds": time.perf_counter() - began}
said |= {"lesion": float((prediction.exported.mask == 1).mean())}
print(json.dumps(said))
"""


def _tiny() -> Any:
    path = Path(__file__).parents[1] / "tests" / "backend" / "prediction" / "tiny_model.py"
    spec = importlib.util.spec_from_file_location("tiny_model", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _labels(classes: int) -> dict[str, int]:
    return {"lesion": 1, **{f"support{i}": i for i in range(2, classes)}}


def _child(code: str, arguments: Sequence[object], folder: Path) -> str:
    script = folder / "child.py"
    script.write_text(code)
    variables = {f"nnUNet_{name}": str(folder) for name in ("raw", "preprocessed", "results")}
    done = subprocess.run(
        [sys.executable, str(script), *map(str, arguments)],
        env=os.environ | variables,
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    return done.stdout


def _seconds(code: str, arguments: Sequence[object], folder: Path) -> float:
    began = time.perf_counter()
    _child(code, arguments, folder)
    return time.perf_counter() - began


def _identical(folder: Path, images: Sequence[Path]) -> bool:
    import SimpleITK as sitk

    def lesion(side: str, image: Path) -> Any:
        name = image.name.replace("_0000", "")
        return sitk.GetArrayFromImage(sitk.ReadImage(str(folder / side / name))) == 1

    return all((lesion("ours", i) == lesion("stock", i)).all() for i in images)


def _race(
    classes: int, images: Sequence[Path], rounds: int, folder: Path, processes: int = 0
) -> None:
    model = folder / RESULTS
    _tiny().write_model(model, _labels(classes), mirroring=None, plans_changes=COARSE)
    where = ["-i", images[0].parent, "-o", folder / "stock", "-d", 777, "-p", "tinyPlans"]
    how = ["-c", "3d_fullres", "-f", 0, "-device", "cpu", "-npp", processes, "-nps", processes]
    sides = {
        "stock": (_STOCK, [*where, *how]),
        "ours": (_OURS, [model, folder / "ours", *images]),
        "stock starts": (_STOCK_IMPORTS, []),
        "ours starts": (_OUR_IMPORTS, []),
    }
    taken: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        shutil.rmtree(folder / "ours", ignore_errors=True)
        for side, (code, arguments) in sides.items():
            taken[side].append(_seconds(code, arguments, folder))
    best = {side: min(seconds) for side, seconds in taken.items()}
    _say(classes, best, _identical(folder, images))


def _say(classes: int, best: Mapping[str, float], identical: bool) -> None:
    work = {side: best[side] - best[f"{side} starts"] for side in ("stock", "ours")}
    print(
        f"{classes} classes: nnUNetv2_predict {best['stock']:.2f} s (start-up "
        f"{best['stock starts']:.2f}), ours {best['ours']:.2f} s (start-up "
        f"{best['ours starts']:.2f}), ratio {best['stock'] / best['ours']:.2f}, without start-up "
        f"{work['stock'] / work['ours']:.2f}, identical: {identical}",
        flush=True,
    )


def _write_ct(path: Path) -> None:
    import numpy as np
    import SimpleITK as sitk

    rng = np.random.default_rng(0)
    small = sitk.GetImageFromArray(rng.normal(0, 400, (60, 52, 52)).astype(np.float32))
    small.SetSpacing((8.0, 8.0, 10.0))
    grid = sitk.Image(512, 512, 600, sitk.sitkInt16)
    grid.SetSpacing((0.8, 0.8, 1.0))
    sitk.WriteImage(sitk.Resample(small, grid, outputPixelType=sitk.sitkInt16), str(path))


def _memory(classes: Sequence[int], folder: Path) -> None:
    image = folder / "ct.nii"
    _write_ct(image)
    small = _tiny().plans()["configurations"]["3d_fullres"]["architecture"]
    small["arch_kwargs"]["features_per_stage"] = [4, 4]
    changes = {"patch_size": [96, 160, 160], "spacing": [1.25, 1.0, 1.0], "architecture": small}
    for count in classes:
        model = folder / f"model{count}"
        _tiny().write_model(model, _labels(count), plans_changes=changes)
        said = json.loads(_child(_MEMORY, [model, image, folder / "mask.nii.gz"], folder))
        print(
            f"{count} classes: peak {said['peak']:.2f} GB (imports {said['imports']:.2f}, until "
            f"preprocessed {said['preprocessed']:.2f}), stated bound {said['bound']:.2f} GB on top "
            f"of the imports, lesion in {said['lesion']:.1%}, {said['seconds']:.0f} s",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=2)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--classes", type=int, nargs="+")
    parser.add_argument("--workers", action="store_true")
    parser.add_argument("--memory", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if asked.memory:
            _memory(asked.classes or [2, 25], folder)
            return
        images = [
            _tiny().write_image(folder / "in" / f"c{i}_0000.nii.gz", (asked.size,) * 3, i)
            for i in range(asked.cases)
        ]
        for classes in asked.classes or [2, 4, 10]:
            _race(classes, images, asked.rounds, folder, int(asked.workers))


if __name__ == "__main__":
    main()
