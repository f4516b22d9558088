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

from napari_backsplit.backend.comparison.charts import OKABE_ITO, arm_colours
from napari_backsplit.backend.comparison.compare import CaseInput
from napari_backsplit.backend.comparison.results import Comparison, Row
from napari_backsplit.backend.pictures import (
    Bools,
    crop_box,
    draw_outline,
    draw_scale_bar,
    grey_limits,
    mark_directions,
    new_figure,
    png,
    show_plane,
    write_in_corner,
)
from napari_backsplit.backend.volume import Volume

_DASHES = ("-", (0, (3.2, 1.6)), "-", (0, (1, 1.2)))


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
    plain, outlined = figure.subplots(1, 2)
    for axes in (plain, outlined):
        size_mm = show_plane(axes, image, spacing_mm, grey_limits(image))
    mark_directions(plain, size_mm)
    draw_scale_bar(plain, size_mm)
    write_in_corner(plain, size_mm, f"slice {z + 1} of {count}")
    for k, (name, mask) in enumerate(outlines.items()):
        width = (2.6, 1.9, 1.5)[min(k, 2)]
        draw_outline(outlined, mask, spacing_mm, colours[name], _DASHES[k], width)
    return png(figure)
