"""An engine for tests: a click paints all voxels of its value in its slice."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from napari_backsplit.backend.jobs import JobContext
from napari_backsplit.backend.structures import engines
from napari_backsplit.backend.structures.engines import (
    About,
    Answer,
    EngineCancelled,
    EngineState,
    Request,
)
from napari_backsplit.backend.structures.settings import EngineSettings

MODEL = "slices 1.0"
LICENCE = "CC0"
REGISTRY = {"slices": f"{__name__}:Slices"}
TRACE = "SLICE_ENGINE_TRACE"
"""Names a file to which the engine writes what was asked of it, a line each."""
SLOW = "SLICE_ENGINE_SLOW"


class Slices:
    kinds = ("point", "lasso")

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings

    @staticmethod
    def look(settings: EngineSettings) -> EngineState:
        if settings.model_folder == "nowhere":
            return EngineState("slices", "Slices", "needs", "There is no model.", "Choose one.")
        return EngineState("slices", "Slices", "ready", model=MODEL, licence=LICENCE)

    def start(self, tell: Callable[[str], None]) -> About:
        tell("starting the slices")
        trace(f"start {self.settings.device}")
        return About("slices", MODEL, LICENCE)

    def segment(self, request: Request, cancelled: Callable[[], bool]) -> Answer:
        trace(f"segment {request.run} {len(request.prompts)} {np.count_nonzero(request.mask)}")
        while SLOW in os.environ:
            if cancelled():
                raise EngineCancelled
            time.sleep(0.02)
        prompt = request.prompts[-1]
        z = prompt.bounds()[0][0]
        image = request.scene.image
        value = image[tuple(low for low, _ in prompt.bounds())]
        (_, height, width) = image.shape
        answer = (image[z : z + 1] == value) | request.mask[z : z + 1]
        return Answer(((z, z + 1), (0, height), (0, width)), answer)

    def close(self) -> None:
        trace("close")


def trace(line: str) -> None:
    if file := os.environ.get(TRACE):
        with Path(file).open("a") as lines:
            lines.write(f"{line}\n")


def run(context: JobContext) -> dict[str, Any] | None:
    """The task `segment` in a process of its own that knows this engine."""
    from napari_backsplit.backend.structures.tasks import run_segment

    engines.ENGINES = REGISTRY
    return run_segment(context)
