"""The most telling cases of a comparison as slices with outlines.

Slices are axial and in the radiological convention: the patient's right on the left, anterior
up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.comparison.charts import OKABE_ITO, arm_colours, new_figure, png
from napari_backsplit.backend.comparison.compare import CaseInput
from napari_backsplit.backend.comparison.results import Comparison, Row
from napari_backsplit.backend.volume import Volume

MARGIN_MM = 18.0
SMALLEST_MM = 90.0
_DASHES = ("-", (0, (3.2, 1.6)), "-", (0, (1, 1.2)))

Bools = NDArray[np.bool_]
Box = tuple[slice, slice]


@dataclass(frozen=True)
class TellingCase:
    """A case worth a look, and why."""

    case: str
    why: str


def telling_cases(comparison: Comparison, target: str, arm: str, against: str) -> list[TellingCase]:
    """Choose the largest gain and loss in Dice and the most false positives without a lesion.

    Ties go to the first case; a gain or loss that is none is left out.
    """
    pairs = _pairs(comparison, target, arm, against, "lesion")
    chosen = []
    if gains := [p for p in pairs if _gain(*p) > 0]:
        ours, theirs = max(gains, key=lambda pair: _gain(*pair))
        chosen.append(TellingCase(ours.case, _dice_words("Largest gain", ours, theirs)))
    if losses := [p for p in pairs if _gain(*p) < 0]:
        ours, theirs = min(losses, key=lambda pair: _gain(*pair))
        chosen.append(TellingCase(ours.case, _dice_words("Largest loss", ours, theirs)))
    free = _pairs(comparison, target, arm, against, "lesion-free")
    if any(_false_ml(*pair) for pair in free):
        ours, theirs = max(free, key=lambda pair: _false_ml(*pair))
        chosen.append(TellingCase(ours.case, _free_words(ours, theirs)))
    return chosen


def _pairs(
    comparison: Comparison, target: str, arm: str, against: str, group: Any
) -> list[tuple[Row, Row]]:
    theirs = {row.case: row for row in comparison.select(target, against, group, counted=False)}
    ours = comparison.select(target, arm, group, counted=False)
    return [(row, theirs[row.case]) for row in ours]


def _gain(ours: Row, theirs: Row) -> float:
    gain = ours.measures.dice - theirs.measures.dice
    return gain if isfinite(gain) else 0.0


def _false_ml(ours: Row, theirs: Row) -> float:
    return max(ours.measures.false_positive_ml, theirs.measures.false_positive_ml)


def _dice_words(what: str, ours: Row, theirs: Row) -> str:
    return (
        f"{what}: Dice {theirs.measures.dice:.2f} ({theirs.arm}) → "
        f"{ours.measures.dice:.2f} ({ours.arm})"
    )


def _free_words(ours: Row, theirs: Row) -> str:
    return (
        "Lesion-free, most false positives: "
        f"{theirs.measures.false_positive_ml:.2f} ml ({theirs.arm}), "
        f"{ours.measures.false_positive_ml:.2f} ml ({ours.arm})"
    )


def draw_slice(
    case: CaseInput, target: str, arm: str, against: str, comparison: Comparison
) -> bytes | None:
    """Draw the slice on which most differs, without and with outlines.

    Returns
    -------
    bytes or None
        A PNG file; None if the case has no image or all its masks are empty.
    """
    if case.image is None:
        return None
    masks = _canonical_masks(case.image, _masks(case, target, arm, against))
    score = slice_scores(masks["reference"], masks[against], masks[arm])
    if not score.any():
        return None
    image = case.image.canonical()
    z = int(np.argmax(score))
    plane = {name: mask[z] for name, mask in masks.items()}
    spacing_mm = (image.spacing_mm[1], image.spacing_mm[2])
    box = crop_box(np.logical_or.reduce(list(plane.values())), spacing_mm)
    outlines = {name: mask[box] for name, mask in plane.items()}
    colours = {"reference": str(OKABE_ITO["reference"]), **arm_colours(comparison)}
    return _draw(image.array[z][box], outlines, colours, spacing_mm, z, image.array.shape[0])


def _masks(case: CaseInput, target: str, arm: str, against: str) -> dict[str, Bools]:
    return {
        "reference": np.asarray(case.reference[target]) != 0,
        against: np.asarray(case.predictions[against][target]) != 0,
        arm: np.asarray(case.predictions[arm][target]) != 0,
    }


def _canonical_masks(image: Volume, masks: Mapping[str, Bools]) -> dict[str, Bools]:
    return {name: image.with_array(mask).canonical().array for name, mask in masks.items()}


def slice_scores(reference: Bools, theirs: Bools, ours: Bools) -> NDArray[np.float64]:
    """Score each slice (z): voxels where the arms differ, then any foreground."""
    differ = np.count_nonzero(theirs != ours, axis=(1, 2))
    present = np.count_nonzero(reference | theirs | ours, axis=(1, 2))
    return np.asarray(differ + 0.01 * present, np.float64)


def crop_box(mask: Bools, spacing_mm: tuple[float, float]) -> Box:
    """Return the square around the foreground of a slice (y, x), with a margin, in the image."""
    spans = []
    for axis in (0, 1):
        hit = np.flatnonzero(mask.any(axis=1 - axis))
        spans.append((hit[0], hit[-1] + 1))
    sides_mm = [
        (stop - start) * step for (start, stop), step in zip(spans, spacing_mm, strict=True)
    ]
    side_mm = max(SMALLEST_MM, max(sides_mm) + 2 * MARGIN_MM)
    y, x = (
        _span((start + stop) / 2, side_mm / step, count)
        for (start, stop), step, count in zip(spans, spacing_mm, mask.shape, strict=True)
    )
    return y, x


def _span(center: float, length: float, count: int) -> slice:
    """Return a slice of about `length` around `center`, pushed inside 0..count."""
    size = min(round(length), count)
    start = min(max(round(center - size / 2), 0), count - size)
    return slice(start, start + size)


def _draw(
    image: NDArray[Any],
    outlines: Mapping[str, Bools],
    colours: Mapping[str, str],
    spacing_mm: tuple[float, float],
    z: int,
    count: int,
) -> bytes:
    height_mm, width_mm = (n * step for n, step in zip(image.shape, spacing_mm, strict=True))
    figure = new_figure(8.6, 4.3 * height_mm / width_mm)
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.01)
    low, high = np.percentile(image, [0.5, 99.5])
    extent = (0, width_mm, height_mm, 0)
    for axes in figure.subplots(1, 2):
        axes.imshow(
            image,
            "gray",
            vmin=low,
            vmax=max(high, low + 1e-6),
            extent=extent,
            interpolation="bicubic",
        )
        axes.set_axis_off()
    _mark(figure.axes[0], width_mm, height_mm, f"slice {z + 1} of {count}")
    for k, (name, mask) in enumerate(outlines.items()):
        width = (2.6, 1.9, 1.5)[min(k, 2)]
        _outline(figure.axes[1], mask, extent, colours[name], _DASHES[k], width)
    return png(figure)


def _outline(
    axes: Any, mask: Bools, extent: tuple[float, ...], colour: str, dashes: Any, width: float
) -> None:
    """Draw the outline along the voxels' edges."""
    if not mask.any():
        return
    fine = max(1, 900 // max(mask.shape))
    dense = np.pad(np.kron(mask, np.ones((fine, fine), np.uint8)), 1)
    step_x, step_y = extent[1] / mask.shape[1] / fine, extent[2] / mask.shape[0] / fine
    x = (np.arange(dense.shape[1]) - 0.5) * step_x
    y = (np.arange(dense.shape[0]) - 0.5) * step_y
    axes.contour(x, y, dense, [0.5], colors=[colour], linewidths=width, linestyles=[dashes])


def _mark(axes: Any, width_mm: float, height_mm: float, text: str) -> None:
    """Write the directions at the edges, a bar of 2 cm, and the number of the slice."""
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=2.5, foreground="black")]
    style = {"color": "white", "fontsize": 12, "fontweight": "bold", "path_effects": halo}
    edge = 0.025
    axes.text(width_mm * edge, height_mm / 2, "R", ha="left", va="center", **style)
    axes.text(width_mm * (1 - edge), height_mm / 2, "L", ha="right", va="center", **style)
    axes.text(width_mm / 2, height_mm * edge, "A", ha="center", va="top", **style)
    axes.text(width_mm / 2, height_mm * (1 - edge), "P", ha="center", va="bottom", **style)
    bar_y = height_mm * (1 - 1.6 * edge)
    axes.plot(
        [width_mm * edge, width_mm * edge + 20],
        [bar_y, bar_y],
        color="white",
        lw=3,
        path_effects=halo,
    )
    small = {"color": "white", "fontsize": 10, "path_effects": halo}
    axes.text(width_mm * edge, bar_y - height_mm * 0.015, "2 cm", va="bottom", **small)
    axes.text(width_mm * (1 - edge), height_mm * (1 - edge), text, ha="right", va="bottom", **small)
