"""The Compare step's layers over a small project, for the tests of what they show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from napari.layers import Image, Labels, Layer, Vectors
from numpy.typing import NDArray

from napari_backsplit.backend.comparison.overlays import Loaded, Overlay, overlay_of
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.volume import Volume, write_volume
from napari_backsplit.widgets._comparison_layers import ComparisonLayers
from tests.backend.structures.drawing import make_project
from tests.widgets.conftest import Window

SHAPE = (9, 10, 11)
CASES = ("case_001", "case_002", "case_003")
REFERENCE = (slice(2, 6), slice(3, 8), slice(2, 8))
BASELINE = (slice(2, 5), slice(3, 8), slice(2, 6))
NEW = (slice(3, 6), slice(2, 7), slice(4, 9))


def make_compared(tmp_path: Path) -> Path:
    """Three cases, the third without a reference, with predictions of two models."""
    with make_project(tmp_path, cases=3) as project:
        for number, case in enumerate(CASES):
            geometry = project.geometry(case)
            masks = {}
            for name, (z, y, x) in (("r", REFERENCE), ("baseline", BASELINE), ("new", NEW)):
                masks[name] = np.zeros(geometry.shape, np.uint8)
                masks[name][z, y, slice(x.start + number, x.stop + number)] = 1
            if number < 2:
                project.set_mask(case, "lesion", Volume(masks["r"], geometry), {"engine": "test"})
            for arm in ("baseline", "new"):
                inner = project.folder / arm / "predictions"
                inner.mkdir(parents=True, exist_ok=True)
                write_volume(Volume(masks[arm], geometry), inner / f"{case}.nii.gz")
                share = Volume(masks[arm] * np.float32(0.5), geometry)
                write_volume(share, inner / f"{case}_probability.nii.gz")
        return project.folder


class Canvas:
    """The comparison's layers over the first case."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.viewer, self.desk = window.viewer, window.desk
        self.layers = ComparisonLayers(window.viewer, window.desk, window.dock.layers)
        self.said: list[str] = []
        self.errors: list[BaseException] = []
        self.layers.told.connect(self.said.append)
        self.layers.failed.connect(self.errors.append)

    @property
    def project(self) -> Project:
        assert self.desk.project is not None
        return self.desk.project

    def overlay(self, case: str) -> Overlay:
        folders = {"baseline": (Path("baseline"),), "new": (Path("new"),)}
        return overlay_of(self.project, folders, case, "lesion", "baseline", "new")

    def show(self, case: str = CASES[0]) -> Loaded:
        if self.window.work.case != case:
            self.desk.open_case(case)
        self.layers.show(self.overlay(case))
        self.window.until(lambda: self.layers.loaded and self.layers.loaded.overlay.case == case)
        assert self.layers.loaded is not None
        return self.layers.loaded

    def shown(self) -> set[str]:
        """Return the layers that are seen, but for the image."""
        images = self.window.dock.layers.images
        return {layer.name for layer in self.viewer.layers if layer not in images and seen(layer)}

    def settled(self) -> None:
        done: list[bool] = []
        self.layers._lane.do(lambda: None, lambda _: done.append(True))
        self.window.until(lambda: done)


def seen(layer: Layer) -> bool:
    """Whether a layer is visible, not transparent, and not without lines."""
    return (
        layer.visible
        and layer.opacity > 0
        and not (isinstance(layer, Vectors) and not len(layer.data))
    )


def drawn(layer: Labels | Image) -> NDArray[np.generic]:
    """Return the slice of a layer that is on the canvas, (rows, columns) as displayed."""
    return np.asarray(layer._slice.image.raw)


def ends(canvas: Canvas, name: str) -> NDArray[np.float64]:
    """Return both ends of the lines of an outline that are drawn: (N, 2, 2), world mm."""
    layer = canvas.viewer.layers[name]
    start, way = layer.data[:, 0], layer.data[:, 1]
    both = np.stack([start, start + way], axis=1) * layer.scale + layer.translate
    return both[..., list(canvas.viewer.dims.displayed)]
