"""Our predictor against nnU-Net's predict_from_files_sequential, same model, same images.

python benchmarks/prediction.py [--cases 4] [--size 48] prints seconds, a ratio, and whether the
label maps are identical. Both load the model once and keep to one thread; best of three rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["nnUNet_def_n_proc"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")


def _tiny() -> Any:
    path = Path(__file__).parents[1] / "tests" / "backend" / "prediction" / "tiny_model.py"
    spec = importlib.util.spec_from_file_location("tiny_model", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _stock(model: Path, images: list[Path], out: Path) -> None:
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    out.mkdir(exist_ok=True)
    stock = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    stock.initialize_from_trained_model_folder(str(model), (0,))
    stock.predict_from_files_sequential([[str(image)] for image in images], str(out))


def _ours(model: Path, images: list[Path], out: Path) -> None:
    from napari_backsplit.backend.prediction.model_folder import ModelFolder
    from napari_backsplit.backend.prediction.predictor import Predictor, write_array

    predictor = Predictor(ModelFolder.open(model, [0]))
    for image in images:
        prediction = predictor.predict([image])
        name = image.name.replace("_0000", "")
        write_array(prediction.label_map, out / name, prediction.grid)


def _seconds(what: Callable[[Path, list[Path], Path], None], *arguments: Any) -> float:
    began = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        what(*arguments)
    return time.perf_counter() - began


def _identical(images: list[Path], one: Path, other: Path) -> bool:
    import SimpleITK as sitk

    names = [image.name.replace("_0000", "") for image in images]
    pairs = [[sitk.ReadImage(str(folder / n)) for folder in (one, other)] for n in names]
    return all((sitk.GetArrayFromImage(a) == sitk.GetArrayFromImage(b)).all() for a, b in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=4)
    parser.add_argument("--size", type=int, default=48)
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    tiny = _tiny()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = tiny.write_model(folder / "model", {"lesion": 1, "liver": 2, "spleen": 3})
        images = [
            tiny.write_image(folder / "in" / f"c{i}_0000.nii.gz", (arguments.size,) * 3, i)
            for i in range(arguments.cases)
        ]
        # Alternating, so that a busy machine slows both.
        rounds = [
            [_seconds(what, model, images, folder / what.__name__) for what in (_stock, _ours)]
            for _ in range(3)
        ]
        stock, ours = (min(seconds) for seconds in zip(*rounds, strict=True))
        same = _identical(images, folder / "_stock", folder / "_ours")
    print(f"stock {stock:.2f} s, ours {ours:.2f} s, ratio {stock / ours:.2f}, identical: {same}")


if __name__ == "__main__":
    main()
