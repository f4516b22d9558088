"""A case as pictures: a slice, the outlines on it, and where the arms agree, as SVG.

Slices are axial and in the radiological convention: the patient's right on the left, anterior
up. Outlines run along the voxels' edges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_backsplit.backend.comparison.agreement import CLASSES, OUTLINE_COLOURS, agreement
from napari_backsplit.backend.comparison.compare import CaseInput
from napari_backsplit.backend.pictures import Bools, Pair, crop_box, grey_limits, jpeg_uri
from napari_backsplit.backend.volume import Volume

_LONGEST_PX = 440
_FINE = 4
"""How many times finer than the voxels an outline is traced."""

Voxel = tuple[int, int, int]


@dataclass(frozen=True)
class Picture:
    """A slice three times: with outlines, with the parts that agree and differ, and bare.

    Parameters
    ----------
    outlines, parts, bare : str
        SVG elements; the last two show the image that the first holds.
    position : str
        Which slice, in words.
    """

    outlines: str
    parts: str
    bare: str
    position: str

    @property
    def together(self) -> str:
        """The three beside one another, as one SVG element."""
        width, height = (
            float(v) for v in self.bare.split('viewBox="0 0 ')[1].split('"')[0].split()
        )
        panels = "".join(
            panel.replace("<svg", f'<svg x="{k * 1.02 * width:g}" width="{width:g}"', 1)
            for k, panel in enumerate((self.outlines, self.parts, self.bare))
        )
        return f'<svg viewBox="0 0 {3.04 * width:g} {height:g}">{panels}</svg>'


def draw_slice(
    case: CaseInput, target: str, arm: str, against: str, name: str, voxel: Voxel | None = None
) -> Picture | None:
    """Draw one slice of a case.

    Parameters
    ----------
    case : CaseInput
        With its image.
    target, arm, against : str
        Which pair.
    name : str
        Id of the image within the page.
    voxel : tuple of int, optional
        (z, y, x) of the stored image: its slice is drawn, and what lies there is in the middle;
        otherwise the slice on which the arms differ most.

    Returns
    -------
    Picture or None
        None if the case has no image or all its masks are empty.
    """
    if case.image is None:
        return None
    masks = _masks(case, target, arm, against)
    if voxel is not None:
        masks["voxel"] = np.zeros(case.image.array.shape, bool)
        masks["voxel"][voxel] = True
    masks = _canonical_masks(case.image, masks)
    mark = masks.pop("voxel", None)
    z = _slice_of(masks, mark)
    if z is None:
        return None
    image = case.image.canonical()
    plane = {key: mask[z] for key, mask in masks.items()}
    spacing_mm = (image.spacing_mm[1], image.spacing_mm[2])
    shown = np.logical_or.reduce(list(plane.values()))
    if mark is not None:
        shown = _around(shown, mark[z])
    box = crop_box(shown, spacing_mm)
    position = f"slice {z + 1} of {image.array.shape[0]}"
    cut = {key: mask[box] for key, mask in plane.items()}
    cropped = image.array[z][box]
    limits = grey_limits(cropped, case.modality)
    uri = jpeg_uri(cropped, spacing_mm, limits, _LONGEST_PX)
    return _draw(uri, cut, spacing_mm, name, position)


def _masks(case: CaseInput, target: str, arm: str, against: str) -> dict[str, Bools]:
    return {
        "reference": np.asarray(case.reference[target]) != 0,
        "baseline": np.asarray(case.predictions[against][target]) != 0,
        "new": np.asarray(case.predictions[arm][target]) != 0,
    }


def _canonical_masks(image: Volume, masks: Mapping[str, Bools]) -> dict[str, Bools]:
    return {name: image.with_array(mask).canonical().array for name, mask in masks.items()}


def _slice_of(masks: Mapping[str, Bools], mark: Bools | None) -> int | None:
    if mark is not None:
        return int(np.flatnonzero(mark.any(axis=(1, 2)))[0])
    score = slice_scores(masks["reference"], masks["baseline"], masks["new"])
    return int(np.argmax(score)) if score.any() else None


def slice_scores(reference: Bools, theirs: Bools, ours: Bools) -> NDArray[np.float64]:
    """Score each slice (z): voxels where the arms differ, then any foreground."""
    differ = np.count_nonzero(theirs != ours, axis=(1, 2))
    present = np.count_nonzero(reference | theirs | ours, axis=(1, 2))
    return np.asarray(differ + 0.01 * present, np.float64)


def _around(shown: Bools, mark: Bools) -> Bools:
    """Return the part of a slice's foreground that a marked pixel lies in, or the pixel."""
    parts, _ = ndimage.label(shown)
    number = int(parts[mark][0])
    return np.asarray(parts == number) if number else mark


# --- drawing ------------------------------------------------------------------------------------


def _draw(
    uri: str, masks: Mapping[str, Bools], spacing_mm: Pair, name: str, position: str
) -> Picture:
    shape = masks["reference"].shape
    height, width = (n * mm for n, mm in zip(shape, spacing_mm, strict=True))
    image = f'<image id="{name}" href="{uri}" width="{width:g}" height="{height:g}"/>'
    again = f'<use href="#{name}"/>'
    scale = f'transform="scale({spacing_mm[1]:g} {spacing_mm[0]:g})"'
    outlines = "".join(_outline(key, mask) for key, mask in masks.items())
    parts = _parts(agreement(masks["reference"], masks["baseline"], masks["new"]))

    def panel(*inside: str) -> str:
        return f'<svg class="slice" viewBox="0 0 {width:g} {height:g}">{"".join(inside)}</svg>'

    return Picture(
        outlines=panel(image, f'<g class="outlines" {scale}>{outlines}</g>'),
        parts=panel(again, f'<g class="parts" {scale}>{parts}</g>'),
        bare=panel(again, _marks(width, height, position)),
        position=position,
    )


_STROKES = {"reference": (3.2, ""), "baseline": (2.2, "6 3"), "new": (1.8, "")}


def _outline(who: str, mask: Bools) -> str:
    width, dashes = _STROKES[who]
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    colour = OUTLINE_COLOURS[who]  # type: ignore[index]
    return (
        f'<path d="{trace(mask)}" fill="none" stroke="{colour}" stroke-width="{width}"{dashed} '
        'stroke-linejoin="round" vector-effect="non-scaling-stroke"/>'
    )


def trace(mask: Bools) -> str:
    """Return the outline of a mask (y, x) along the pixels' edges as an SVG path, in pixels."""
    from skimage.measure import find_contours

    fine = np.kron(mask.astype(np.uint8), np.ones((_FINE, _FINE), np.uint8))
    loops = find_contours(np.pad(fine, 1), 0.5)
    return "".join(_loop((loop - 0.5) / _FINE) for loop in loops)


def _loop(points: NDArray[np.float64]) -> str:
    """Return a closed line of (y, x) points, without those on a straight stretch, as a path."""
    points = points[:-1]
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    turns = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
    return "M" + "L".join(f"{x:g} {y:g}" for y, x in np.round(points[turns], 2)) + "Z"


def _parts(label_map: NDArray[np.uint8]) -> str:
    return "".join(
        f'<path d="{_runs(label_map == part.number)}" fill="{part.colour}" '
        'fill-opacity=".85" shape-rendering="crispEdges"/>'
        for part in CLASSES
        if (label_map == part.number).any()
    )


def _runs(mask: Bools) -> str:
    """Return the rows of a mask as rectangles of an SVG path, in pixels."""
    steps = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    starts, stops = np.argwhere(steps == 1), np.argwhere(steps == -1)
    return "".join(
        f"M{x} {y}h{stop - x}v1h-{stop - x}z"
        for (y, x), (_, stop) in zip(starts, stops, strict=True)
    )


def _marks(width: float, height: float, position: str) -> str:
    """Return the directions, a bar of 2 cm and the position as text on a slice, sizes in mm."""
    size = 0.05 * max(width, height)
    style = f'class="mark" font-size="{size:g}"'
    far, low = width - 0.4 * size, height - 0.5 * size
    bar = f"M{0.5 * size:g} {low:g}h20"
    return (
        f'<text {style} x="{0.4 * size:g}" y="{height / 2:g}">R</text>'
        f'<text {style} x="{far:g}" y="{height / 2:g}" text-anchor="end">L</text>'
        f'<text {style} x="{width / 2:g}" y="{size:g}" text-anchor="middle">A</text>'
        f'<text {style} x="{width / 2:g}" y="{low:g}" text-anchor="middle">P</text>'
        f'<path d="{bar}" stroke="#000" stroke-width="{0.28 * size:g}"/>'
        f'<path d="{bar}" stroke="#fff" stroke-width="{0.14 * size:g}"/>'
        f'<text {style} x="{0.5 * size:g}" y="{low - 0.4 * size:g}">2 cm</text>'
        f'<text {style} x="{far:g}" y="{low:g}" text-anchor="end">{position}</text>'
    )
