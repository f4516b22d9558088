"""Measures a training: `python -m napari_backsplit.backend.training.probe FOLDER` (worker only).

It builds the very network, loss and optimiser, trains some batches of random images with the very
augmentation, and writes what it found to FOLDER/stages.jsonl as it goes, so that a probe that is
ended says what it had. Nothing is downloaded, and nothing is written elsewhere.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.files import read_json
from napari_backsplit.backend.jobs.devices import cards_now, visible
from napari_backsplit.backend.training.architectures import with_architecture
from napari_backsplit.backend.training.workload import Workload

STEPS_S = 15.0
"""Seconds after which no further iteration is begun."""

MOST_STEPS = 40
CONTEXT_BYTES = 500_000_000
"""What CUDA itself takes of a GPU where it cannot be measured."""

Tell = Callable[..., None]


class RandomCases:
    """Cases of random voxels in memory, as nnU-Net's loader reads them: larger than a patch."""

    def __init__(self, load: Workload, shape: tuple[int, ...]) -> None:
        random = np.random.default_rng(0)
        self.identifiers, self.source_folder = ["random"], ""  # they lie nowhere
        self._data = random.standard_normal((load.channels, *shape), dtype=np.float32)
        self._labels = np.zeros((1, *shape), np.int16)
        for label in range(load.classes):  # slabs, the target among them
            low = label * shape[-1] // load.classes
            self._labels[..., low:] = label
        self._places = {label: self._some(label) for label in range(1, 1 + len(load.targets))}

    def _some(self, label: int) -> NDArray[Any]:
        return np.argwhere(self._labels == label)[::7]

    def load_case(self, identifier: str) -> tuple[Any, Any, None, dict[str, Any]]:
        """Return data, labels, no labels of an earlier stage, and properties."""
        return self._data, self._labels, None, {"class_locations": self._places}


def measure(load: Workload, folder: Path, tell: Tell) -> None:
    """Measure a training, and tell what is known as soon as it is."""
    from napari_backsplit.backend.training.environment import set_environment
    from napari_backsplit.backend.training.memory import peak_rss

    used_before = _gpu_used(load.spec.device)
    spec = load.spec.model_copy(update={"workers": 0, "initial_lr": 1e-6})
    set_environment(spec)
    trainer = _trainer(load, folder)
    parameters = sum(p.numel() for p in trainer.network.parameters())
    patch = list(trainer.configuration_manager.patch_size)
    tell(parameters=parameters, patch_size=patch, peak_rss_bytes=peak_rss())
    clock = _clock(load)
    training, validation = trainer.get_dataloaders()
    batch, seconds = _timed(lambda: next(training), 8, time.process_time)
    tell(seconds_per_batch=seconds)
    judged, seconds = _timed(lambda: next(validation), 3, time.process_time)
    tell(seconds_per_validation_batch=seconds)
    _time_steps(trainer, batch, clock, tell)
    tell(seconds_per_validation=_time_validation(trainer, judged, clock))
    _time_checkpoint(trainer, folder, tell)
    tell(peak_gpu_bytes=_gpu_peak(trainer, used_before), peak_rss_bytes=peak_rss())


def _trainer(load: Workload, folder: Path) -> Any:
    from napari_backsplit.backend.training.run import Run
    from napari_backsplit.backend.training.trainer import trainer_for

    for kind in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{kind}"] = str(folder)
    spec = load.spec.model_copy(update={"initial_lr": 1e-6, "fold": 0})
    names = ("background", *load.targets, *load.supports)
    dataset_json = {
        "channel_names": {str(channel): "random" for channel in range(load.channels)},
        "labels": {name: label for label, name in enumerate(names)},
        "numTraining": 1,
        "file_ending": ".nii.gz",
        "backsplit": {"targets": load.targets, "supports": load.supports, "label_sets": []},
    }
    plans, load = _planned(load)
    ((name, configuration),) = plans["configurations"].items()
    _pretend(folder / plans["dataset_name"] / str(configuration["data_identifier"]))
    trainer = trainer_for(Run(spec, folder / "model"), plans, name, dataset_json)
    patch = plans["configurations"][name]["patch_size"]
    shape = tuple(int(1.5 * size) for size in patch)
    shape = shape if len(shape) == 3 else (4, *shape)
    cases = RandomCases(load, shape)
    trainer.dataset_class = RandomCases
    trainer.get_tr_and_val_datasets = lambda: (cases, cases)
    return trainer


def _planned(load: Workload) -> tuple[dict[str, Any], Workload]:
    """Return the run's own plans, a residual encoder planned, and the workload with its patch."""
    (name,) = load.plans["configurations"]
    plans, _ = with_architecture(load.plans, name, load.spec, load.chosen)
    load = load.at_patch(plans["configurations"][name]["patch_size"])
    return {"dataset_name": "Dataset001_probe", **plans}, load


def _pretend(arrays: Path) -> None:
    """Make the folder by which nnU-Net tells how its arrays are kept."""
    arrays.mkdir(parents=True)
    (arrays / "random.b2nd").touch()


def _clock(load: Workload) -> Callable[[], float]:
    """Return a clock: of the processor where one core does all the work.

    What else the machine does just now then does not count.
    """
    alone = load.spec.device == "cpu" and load.spec.threads == 1
    return time.process_time if alone else time.perf_counter


def _timed(call: Callable[[], Any], times: int, clock: Callable[[], float]) -> tuple[Any, float]:
    """Return what a call gives, after one to warm up, and its median seconds."""
    result, seconds = call(), []
    for _ in range(times):
        began = clock()
        result = call()
        seconds.append(clock() - began)
    return result, median(seconds)


def _time_steps(
    trainer: Any, batch: dict[str, Any], clock: Callable[[], float], tell: Tell
) -> None:
    """Train on a batch again and again, after one iteration to warm up."""
    trainer.network.train()
    tell(stepping_since=time.time())
    limit = time.perf_counter() + STEPS_S
    seconds: list[float] = []
    while len(seconds) <= MOST_STEPS and (len(seconds) < 2 or time.perf_counter() < limit):
        began = clock()
        trainer.train_step(batch)
        _wait(trainer)
        seconds.append(clock() - began)
        known = median(seconds[1:] or seconds)
        tell(seconds_per_iteration=known, iterations=max(1, len(seconds) - 1))


def _time_validation(trainer: Any, batch: dict[str, Any], clock: Callable[[], float]) -> float:
    import torch

    trainer.network.eval()

    def judge() -> None:
        trainer.validation_step(batch)
        _wait(trainer)

    with torch.no_grad():
        _, seconds = _timed(judge, 3, clock)
    return seconds


def _time_checkpoint(trainer: Any, folder: Path, tell: Tell) -> None:
    file = folder / "checkpoint.pth"
    began = time.perf_counter()
    trainer.save_checkpoint(str(file))
    tell(seconds_per_checkpoint=time.perf_counter() - began, checkpoint_bytes=file.stat().st_size)
    file.unlink()


def _wait(trainer: Any) -> None:
    """Wait until the GPU has done what it was given."""
    if trainer.device.type == "cuda":
        import torch

        torch.cuda.synchronize()


def _gpu_used(device: str) -> int | None:
    """Return what is in use of the GPU that a run names, by anybody."""
    kind, _, index = device.partition(":")
    if kind != "cuda":
        return None
    cards = visible(cards_now(), os.environ)
    return cards[int(index or 0)].used_bytes if int(index or 0) < len(cards) else None


def _gpu_peak(trainer: Any, used_before: int | None) -> int | None:
    """Return the most that this process took of the GPU: torch's share, and CUDA's own."""
    import torch

    if trainer.device.type == "mps":
        return int(torch.mps.driver_allocated_memory())
    if trainer.device.type != "cuda":
        return None
    peak = torch.cuda.max_memory_reserved()
    free, total = torch.cuda.mem_get_info()
    own = total - free - torch.cuda.memory_reserved() - (used_before or 0)
    sure = used_before is not None and 1e8 < own < 3e9
    return int(peak + (own if sure else CONTEXT_BYTES))


def _problem(error: BaseException) -> str:
    """Return what kind of result an error is."""
    text = str(error).lower()
    names = {kind.__name__ for kind in type(error).__mro__}
    if "OutOfMemoryError" in names or ("cuda" in text and "out of memory" in text):
        return "gpu memory"
    if "MemoryError" in names or "can't allocate memory" in text or "out of memory" in text:
        return "gpu memory" if "mps" in text else "memory"
    return "failed"


def _teller(file: Path) -> Tell:
    def tell(**values: Any) -> None:
        with file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(values) + "\n")

    return tell


def main(folder: Path) -> int:
    """Measure what FOLDER/workload.json holds; what goes wrong is a result too."""
    tell = _teller(folder / "stages.jsonl")
    try:
        measure(Workload.from_json(read_json(folder / "workload.json")), folder, tell)
    except Exception as error:
        first = next(iter(str(error).splitlines()), "")
        tell(problem=_problem(error), text=f"{type(error).__name__}: {first[:300]}")
        gc.collect()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
