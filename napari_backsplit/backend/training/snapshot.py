"""A held-out slice with the reference and the current prediction, to look at. Worker only.

Nothing is drawn at random, and the network is left in the mode that it was in: a training with
pictures ends with the same weights as one without.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cc3d
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_backsplit.backend.pictures import (
    draw_outline,
    grey_limits,
    new_figure,
    png,
    show_plane,
)

if TYPE_CHECKING:
    from napari_backsplit.backend.training.trainer import BackSplitTrainer

REFERENCE, PREDICTION = "#009E73", "#D55E00"
"""Colours of Okabe and Ito, as in a comparison; the prediction is dashed as well."""

PIXELS = 512
DASHES = (0, (3, 1.5))
_DPI = 144  # of `new_figure`


@dataclass(frozen=True)
class View:
    """What every picture of a run shows.

    Attributes
    ----------
    case : str
        Held-out case with the most target voxels.
    patch : ndarray
        (channels, ...) float32, the image around its largest lesion, as the network sees it.
    reference : ndarray
        (y, x) bool, the targets in the slice.
    plane : int or None
        Index of the slice in the patch; None where the network is two-dimensional.
    spacing_mm : tuple of float
        Of the slice.
    place : str
        Which slice of the network's grid it is.
    """

    case: str
    patch: NDArray[np.float32]
    reference: NDArray[np.bool_]
    plane: int | None
    spacing_mm: tuple[float, float]
    place: str


class Album:
    """The pictures of a run. One that fails is said once, and ends no training.

    Parameters
    ----------
    trainer : BackSplitTrainer
        Whose network predicts.
    """

    def __init__(self, trainer: BackSplitTrainer) -> None:
        self._trainer = trainer
        self._view: View | None = None
        self._chosen = self._failed = False

    def add(self, epoch: int) -> None:
        """Take a picture after an epoch."""
        if self._failed:
            return
        try:
            self._take(epoch)
        except Exception as error:  # Whatever it was, the training matters more.
            self._failed = True
            text = f"No pictures are taken of this run ({type(error).__name__})."
            self._trainer.run.note("warning", text)

    def _take(self, epoch: int) -> None:
        trainer = self._trainer
        if not self._chosen:
            self._view, self._chosen = view_of(trainer), True
        if self._view is None:
            return
        network = getattr(trainer.network, "_orig_mod", trainer.network)
        with trainer.precision():
            classes = predict(network, self._view, trainer.device, trainer.decisive)
        title = f"{self._view.case}, after epoch {epoch + 1}"
        picture = draw(self._view, np.isin(classes, trainer.targets), title)
        trainer.run.picture(picture, epoch, f"{title}, {self._view.place}")


def view_of(trainer: BackSplitTrainer) -> View | None:
    """Return what the pictures of a run show; None where no held-out case has a target."""
    _, held_out = trainer.do_split()
    dataset = trainer.dataset_class(trainer.preprocessed_dataset_folder, held_out)
    configuration = trainer.configuration_manager
    axis = "zyx"[trainer.plans_manager.transpose_forward[0]]
    return choose_view(
        dataset.load_case,
        held_out,
        trainer.targets,
        configuration.patch_size,
        configuration.spacing,
        axis,
    )


def choose_view(
    load: Callable[[str], Any],
    cases: Sequence[str],
    targets: Sequence[int],
    patch_size: Sequence[int],
    spacing_mm: Sequence[float],
    axis: str,
) -> View | None:
    """Return the slice through the largest lesion of the held-out case with the most target voxels.

    Parameters
    ----------
    load : callable
        nnU-Net's `load_case`: case -> image (c, ...), codes (1, ...), codes of an earlier stage,
        properties.
    cases : sequence of str
    targets : sequence of int
    patch_size : sequence of int
        Of the network: two or three numbers.
    spacing_mm : sequence of float
        Of the network's grid, as many.
    axis : str
        Name of the axis of the image file that the slices are counted along.

    Returns
    -------
    View or None
        None where no case has a target.
    """
    sizes = {case: _target_voxels(load(case)[3], targets) for case in sorted(cases)}
    case = max(sizes, key=lambda name: sizes[name], default="")
    if not case or not sizes[case]:
        return None
    image, codes, *_ = load(case)
    mask = np.isin(codes[:][0], targets)
    center = _center(mask)
    if center is None:
        return None
    flat = len(patch_size) == 2
    box = _around(center, (1, *patch_size) if flat else patch_size)
    patch = np.stack([_cut(np.asarray(channel), box) for channel in image[:]]).astype(np.float32)
    plane = center[0] - box[0].start
    return View(
        case,
        patch[:, 0] if flat else patch,
        _cut(mask, box)[plane],
        None if flat else plane,
        (float(spacing_mm[-2]), float(spacing_mm[-1])),
        f"slice {center[0] + 1} of {mask.shape[0]} across {axis}",
    )


def predict(
    network: torch.nn.Module,
    view: View,
    device: torch.device,
    decisive: Callable[[Tensor], Tensor] = lambda logits: logits,
) -> NDArray[np.int64]:
    """Return the classes (y, x) that a network predicts in the slice of a view.

    Parameters
    ----------
    network : Module
    view : View
    device : torch.device
    decisive : callable
        Outputs (1, K, ...) -> scores as many, whose argmax is the decision.
    """
    trains = network.training
    network.eval()
    try:
        patch = torch.from_numpy(view.patch)[None].to(device)
        with torch.no_grad(), torch.autocast("cuda", enabled=device.type == "cuda"):
            logits = network(patch)
        logits = logits[0] if isinstance(logits, list | tuple) else logits
        classes = decisive(logits)[0].argmax(0)
        shown: NDArray[np.int64] = classes.cpu().numpy()
        return shown if view.plane is None else shown[view.plane]
    finally:
        network.train(trains)


def draw(view: View, predicted: NDArray[np.bool_], title: str) -> bytes:
    """Return a picture of 512 x 512 pixels as PNG: the slice, both outlines and a legend."""
    figure = new_figure(PIXELS / _DPI, PIXELS / _DPI)
    figure.set_layout_engine("none")
    figure.patch.set(alpha=1, facecolor="black")
    axes = figure.add_axes((0.0, 0.13, 1.0, 0.79))
    plane = view.patch[0] if view.plane is None else view.patch[0, view.plane]
    show_plane(axes, plane, view.spacing_mm, grey_limits(plane))
    draw_outline(axes, view.reference, view.spacing_mm, REFERENCE, width=2.0)
    draw_outline(axes, predicted, view.spacing_mm, PREDICTION, DASHES, width=2.0)
    nothing = "" if predicted.any() else " (nothing)"
    for x, y, text, colour in (
        (0.02, 0.945, title, "white"),
        (0.02, 0.075, "— reference", REFERENCE),
        (0.40, 0.075, f"- - prediction{nothing}", PREDICTION),
        (0.02, 0.02, f"{view.place}, network's grid", "white"),
    ):
        figure.text(x, y, text, color=colour, fontsize=8)
    return png(figure)


def _target_voxels(properties: dict[str, Any], targets: Sequence[int]) -> int:
    """Return how many target voxels nnU-Net noted of a case (of very many, a share)."""
    found = properties["class_locations"]
    return sum(len(found.get(target, ())) for target in targets)


def _center(mask: NDArray[np.bool_]) -> tuple[int, int, int] | None:
    """Return the middle of the largest lesion in the slice (axis 0) where it is largest."""
    if not mask.any():
        return None
    labels = cc3d.connected_components(np.pad(mask, 1), connectivity=26)[1:-1, 1:-1, 1:-1]
    sizes = np.bincount(labels.ravel())
    lesion = labels == 1 + int(sizes[1:].argmax())
    z = int(lesion.sum(axis=(1, 2)).argmax())
    y, x = (round(float(where.mean())) for where in np.nonzero(lesion[z]))
    return z, y, x


def _around(center: Sequence[int], size: Sequence[int]) -> tuple[slice, ...]:
    starts = (middle - length // 2 for middle, length in zip(center, size, strict=True))
    return tuple(slice(start, start + length) for start, length in zip(starts, size, strict=True))


def _cut(array: NDArray[Any], box: Sequence[slice]) -> NDArray[Any]:
    """Return what lies in a box that may reach beyond the array, 0 outside."""
    inside = tuple(
        slice(max(part.start, 0), min(part.stop, length))
        for part, length in zip(box, array.shape, strict=True)
    )
    margins = [
        (have.start - want.start, want.stop - have.stop)
        for have, want in zip(inside, box, strict=True)
    ]
    return np.pad(array[inside], margins)
