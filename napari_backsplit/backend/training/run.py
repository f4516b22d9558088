"""What a training needs beside its data, and how it tells of itself. Worker only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from napari_backsplit.backend.files import read_json, write_json
from napari_backsplit.backend.training.course import Course
from napari_backsplit.backend.training.memory import peak_gpu_bytes, peak_rss
from napari_backsplit.backend.training.spec import RunSpec


@dataclass(frozen=True)
class Run:
    """What a training needs beside its data.

    Attributes
    ----------
    spec : RunSpec
        Its `same_epochs_as` is already a number of `epochs`.
    folder : Path
        Model folder; checkpoints go to its fold_<k>/.
    check : callable
        Called between two batches; raises to cancel, blocks to pause.
    metric : callable
        (name, epoch, value) of a figure to show.
    progress : callable
        (iterations done, iterations in all, text, seconds left or None).
    note : callable
        (level, sentence) for who follows the run.
    picture : callable
        (PNG, epoch, text) of a held-out slice.
    """

    spec: RunSpec
    folder: Path
    check: Callable[[], None] = lambda: None
    metric: Callable[[str, int, float], None] = lambda name, epoch, value: None
    progress: Callable[[int, int, str, float | None], None] = lambda done, total, text, eta_s: None
    note: Callable[[Literal["info", "warning"], str], None] = lambda level, text: None
    picture: Callable[[bytes, int, str], None] = lambda png, epoch, text: None


def write_end(model: Path, epochs: int, course: Course, dice: float, parameters: int) -> None:
    """Write into the card of a model how its training ended, and what it took.

    Figures on whole cases come from a comparison. Memory is the most that the process of the last
    attempt had; of a GPU what torch held, None on a CPU.

    Parameters
    ----------
    model : Path
        Model folder, with the dataset.json of the run's beginning.
    epochs : int
        Epochs that were trained.
    course : Course
    dice : float
        Of the targets, after the last epoch.
    parameters : int
        Of the network.
    """
    card = read_json(model / "dataset.json")
    card["backsplit"] |= {
        "figures": {
            "Dice of the targets": f"{dice:.3f} (patches of the validation cases, last epoch)"
        },
        "trained": {
            "epochs": epochs,
            "seconds": round(course.seconds),
            "ended": course.ended,
            "parameters": parameters,
            "peak_memory_bytes": peak_rss(),
            "peak_gpu_bytes": peak_gpu_bytes(course.spec.device),
        },
    }
    write_json(model / "dataset.json", card)
