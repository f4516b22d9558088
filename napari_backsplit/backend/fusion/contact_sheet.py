"""The cohort at a glance: one axial slice of each case with the outlines of its label map.

The patient's right is on the left, anterior is up. A case is read, cut to one slice and freed
before the next one is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from textwrap import fill, wrap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend import NOTICE
from napari_backsplit.backend.errors import BackSplitError, InputError
from napari_backsplit.backend.fusion.cases import Admit, fuse_case
from napari_backsplit.backend.fusion.fuse import LabelMap
from napari_backsplit.backend.fusion.review import CaseState
from napari_backsplit.backend.fusion.review_table import case_words
from napari_backsplit.backend.geometry import to_canonical
from napari_backsplit.backend.pictures import (
    CT_WINDOW,
    LIGHT,
    Pair,
    Theme,
    draw_outline,
    draw_scale_bar,
    grey_limits,
    mark_directions,
    new_figure,
    png,
    shorten,
    show_plane,
)
from napari_backsplit.backend.project import ProjectReader
from napari_backsplit.backend.project.schema import Schema
from napari_backsplit.backend.volume import read_volume

PER_PAGE = 24
COLUMNS = 6

_TILE_IN, _WORDS_IN, _NOTE_IN, _GAP_IN = 2.1, 0.37, 0.4, 0.12
_BARS_MM = (100.0, 50.0, 20.0, 10.0, 5.0, 2.0, 1.0)


@dataclass(frozen=True, eq=False)
class Tile:
    """What is shown of one case.

    Attributes
    ----------
    case : str
    state : str
        How the case stands, in words.
    note : str
        Which slice it is, and why; or why there is none.
    plane : ndarray or None
        The slice (y, x), toward back and left; None where the image cannot be read.
    labels : ndarray
        Ids of the label map there; all 0 where a mask cannot be read.
    spacing_mm : tuple of float
        (y, x).
    modality : str
        Of the channel that is shown.
    """

    case: str
    state: str
    note: str
    plane: NDArray[Any] | None
    labels: LabelMap
    spacing_mm: Pair
    modality: str


def make_tiles(
    project: ProjectReader, states: Iterable[CaseState], admit: Admit = "unreviewed"
) -> Iterator[Tile]:
    """Yield the tile of each case, in order; no more than one case is in memory at a time."""
    return (make_tile(project, state, admit) for state in states)


def make_tile(project: ProjectReader, state: CaseState, admit: Admit = "unreviewed") -> Tile:
    """Read a case and keep one slice of it.

    It is the slice with most lesion; without a lesion the one with most of the supports, without
    those the middle one. What cannot be read is said in the tile's note.
    """
    geometry = project.geometry(state.case)
    grid = geometry.canonical()
    label_map, missing, problem = _label_map(project, state.case, admit)
    z, why = telling_slice(label_map, len(project.schema.targets))
    labels = label_map[z].copy()
    del label_map
    plane, modality = _plane(project, state.case, z)
    lacking = f"; missing: {', '.join(missing)}" if missing else ""
    note = problem or f"slice {z + 1} of {grid.shape[0]}: {why}{lacking}"
    if plane is None:
        note = "The image cannot be read."
    spacing_mm = (grid.spacing_mm[1], grid.spacing_mm[2])
    return Tile(state.case, case_words(state), note, plane, labels, spacing_mm, modality)


def _label_map(
    project: ProjectReader, case: str, admit: Admit
) -> tuple[LabelMap, tuple[str, ...], str]:
    """Return the canonical label map, the missing supports, and why the map is empty."""
    geometry = project.geometry(case)
    try:
        fused = fuse_case(project, case, admit=admit).fused
    except (BackSplitError, OSError):
        empty = np.zeros(geometry.canonical().shape, np.uint8)
        return empty, (), "A mask cannot be read: middle slice, no outlines."
    missing = tuple(n for n in fused.missing if n not in project.schema.target_names)
    return to_canonical(fused.label_map, geometry), missing, ""


def telling_slice(label_map: LabelMap, targets: int) -> tuple[int, str]:
    """Choose a slice of a label map (z, y, x) whose ids 1..`targets` are lesions; say why."""
    lesion = [np.count_nonzero((plane > 0) & (plane <= targets)) for plane in label_map]
    if any(lesion):
        return int(np.argmax(lesion)), "most lesion"
    supports = [np.count_nonzero(plane) for plane in label_map]
    if any(supports):
        return int(np.argmax(supports)), "no lesion, most of the supports"
    return len(label_map) // 2, "no mask, the middle"


def _plane(project: ProjectReader, case: str, z: int) -> tuple[NDArray[Any] | None, str]:
    """Return a canonical slice of the first channel that a case has, and what was measured."""
    images = project.case(case).images
    channel = next((c for c in project.schema.channels if c.name in images), None)
    if channel is None:
        return None, ""
    try:
        volume = read_volume(project.folder / images[channel.name].file)
    except (BackSplitError, OSError):
        return None, channel.modality
    if project.geometry(case).difference(volume.geometry):
        return None, channel.modality
    return volume.canonical().array[z].copy(), channel.modality


# --- drawing ------------------------------------------------------------------------------------


def tile_png(tile: Tile, schema: Schema) -> bytes | None:
    """Return the picture of a case alone, without words; None where there is none."""
    if tile.plane is None:
        return None
    height_mm, width_mm = _size_mm(tile)
    scale = 2.4 / max(height_mm, width_mm)
    figure = _bare_figure(width_mm * scale, height_mm * scale)
    draw_tile(figure.add_axes((0, 0, 1, 1)), tile, schema)
    return png(figure)


def draw_tile(axes: Any, tile: Tile, schema: Schema) -> None:
    """Draw the slice of a tile that has one, the outlines, targets on top, and the directions."""
    assert tile.plane is not None
    limits = grey_limits(tile.plane, tile.modality)
    size_mm = show_plane(axes, tile.plane, tile.spacing_mm, limits)
    structures = (*schema.targets, *schema.fused_supports)
    for label, structure in reversed(list(enumerate(structures, start=1))):
        width = 1.6 if label <= len(schema.targets) else 1.0
        mask = tile.labels == label
        draw_outline(axes, mask, tile.spacing_mm, structure.colour, width=width, points=400)
    mark_directions(axes, size_mm, fontsize=7.5)
    fitting = [mm for mm in _BARS_MM if mm <= 0.3 * size_mm[1]]
    if fitting:
        draw_scale_bar(axes, size_mm, fitting[0], fontsize=6.5, width=2)


def _bare_figure(width_in: float, height_in: float) -> Any:
    """Return a figure whose parts are placed by hand."""
    figure = new_figure(width_in, height_in)
    figure.set_layout_engine("none")
    return figure


def _size_mm(tile: Tile) -> Pair:
    rows, columns = tile.labels.shape
    return rows * tile.spacing_mm[0], columns * tile.spacing_mm[1]


def sheet_pages(
    tiles: Iterable[Tile], schema: Schema, count: int, theme: Theme = LIGHT,
    per_page: int = PER_PAGE, after: Callable[[Tile], None] = lambda tile: None,
) -> Iterator[bytes]:  # fmt: skip
    """Yield the pages of a contact sheet, as PNG files; no more than one page is in memory.

    Parameters
    ----------
    tiles : iterable of Tile
    schema : Schema
        For the names and colours of the structures.
    count : int
        Number of tiles.
    theme : Theme
    per_page : int
    after : callable
        Is given each tile when it was made.

    Raises
    ------
    InputError
        A page holds fewer than one case.
    """
    if per_page < 1:
        raise InputError(f"A page of {per_page} cases holds none.", "Give at least 1.")
    page: list[Tile] = []
    drawn, pages = 0, ceil(count / per_page)
    for tile in tiles:
        page.append(tile)
        after(tile)
        if len(page) == per_page:
            drawn += 1
            yield draw_sheet(page, schema, theme, f"page {drawn} of {pages}")
            page = []
    if page:
        yield draw_sheet(page, schema, theme, f"page {drawn + 1} of {pages}")


def draw_sheet(
    tiles: Sequence[Tile], schema: Schema, theme: Theme = LIGHT, page: str = ""
) -> bytes:
    """Draw the tiles of one page, with a legend; return a PNG file."""
    columns = min(COLUMNS, max(len(tiles), 3))
    rows = ceil(len(tiles) / columns)
    width = columns * (_TILE_IN + _GAP_IN) + _GAP_IN
    cell = _WORDS_IN + _TILE_IN + _NOTE_IN
    legend = _Legend.of(schema, columns)
    height = legend.height_in + rows * cell + 0.32
    figure = _bare_figure(width, height)
    figure.patch.set(facecolor=theme.page, alpha=1)
    _draw_legend(figure, schema, theme, legend)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        left = _GAP_IN + column * (_TILE_IN + _GAP_IN)
        top = height - legend.height_in - row * cell
        _draw_cell(figure, tile, schema, theme, (left / width, top / height), (width, height))
    style = {"color": theme.ink, "fontsize": 8}
    figure.text(_GAP_IN / width, 0.1 / height, NOTICE, va="bottom", **style)
    figure.text(1 - _GAP_IN / width, 0.1 / height, page, va="bottom", ha="right", **style)
    return png(figure)


def _draw_cell(
    figure: Any, tile: Tile, schema: Schema, theme: Theme, corner: Pair, size_in: Pair
) -> None:
    """Draw a tile below its words and above its note; `corner` is the upper left one."""
    (left, top), (width, height) = corner, size_in
    style = {"color": theme.ink, "va": "top"}
    figure.text(left, top, shorten(tile.case, 26), fontsize=9, fontweight="bold", **style)
    figure.text(left, top - 0.16 / height, tile.state, fontsize=8, **style)
    height_mm, width_mm = _size_mm(tile)
    picture_in = _TILE_IN * min(1.0, height_mm / width_mm) if tile.plane is not None else _TILE_IN
    bottom = top - (_WORDS_IN + picture_in) / height
    place = (left, bottom, _TILE_IN / width, picture_in / height)
    axes = figure.add_axes(place, anchor="NW")
    if tile.plane is None:
        axes.patch.set_alpha(0)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_color(theme.faint)
        axes.text(0.5, 0.5, fill(tile.note, 24), ha="center", va="center", fontsize=8,
                  color=theme.ink, transform=axes.transAxes)  # fmt: skip
        return
    draw_tile(axes, tile, schema)
    figure.text(left, bottom - 0.04 / height, _two_lines(tile.note), fontsize=6.5, **style)


def _two_lines(text: str) -> str:
    return "\n".join(wrap(text, 38, max_lines=2, placeholder=" …"))


def shown_as(schema: Schema) -> str:
    """Say how the slices are to be read."""
    channel = schema.channels[0]
    low, high = (f"{value:.0f}".replace("-", "−") for value in CT_WINDOW)
    window = f", {low} to {high} HU" if channel.modality.upper() == "CT" else ""
    return f"Axial slices of {channel.name}{window}; the patient's right is on the left."


@dataclass(frozen=True)
class _Legend:
    """The names of the structures and how they are laid out; long ones take two tiles each."""

    names: tuple[str, ...]
    span: int
    columns: int

    @classmethod
    def of(cls, schema: Schema, columns: int) -> _Legend:
        names = [f"{target.name} (target)" for target in schema.targets]
        names += [support.name for support in schema.fused_supports]
        span = 1 if max(map(len, names)) <= 24 else 2
        return cls(tuple(names), span, columns // span)

    @property
    def height_in(self) -> float:
        return 0.5 + 0.2 * ceil(len(self.names) / self.columns)


def _draw_legend(figure: Any, schema: Schema, theme: Theme, legend: _Legend) -> None:
    from matplotlib.lines import Line2D

    width, height = figure.get_size_inches()
    left = _GAP_IN / width
    figure.text(left, 1 - 0.1 / height, shown_as(schema), va="top", color=theme.ink, fontsize=8.5)
    structures = (*schema.targets, *schema.fused_supports)
    for number, (structure, name) in enumerate(zip(structures, legend.names, strict=True)):
        row, column = divmod(number, legend.columns)
        x = left + column * legend.span * (_TILE_IN + _GAP_IN) / width
        y = 1 - (0.42 + 0.2 * row) / height
        thick = 3 if number < len(schema.targets) else 1.8
        ends = [x, x + 0.22 / width], [y, y]
        line = Line2D(*ends, color=structure.colour, lw=thick, solid_capstyle="butt")
        figure.add_artist(line)
        text = shorten(name, 24 if legend.span == 1 else 50)
        figure.text(x + 0.3 / width, y, text, va="center", color=theme.ink, fontsize=8.5)
