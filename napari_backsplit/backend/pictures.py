"""What the pictures of several steps share: figures without a screen, slices with outlines.

Slices are axial and in the radiological convention: the patient's right on the left, anterior up.
"""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

GREY = "#8b929a"

MARGIN_MM = 18.0
SMALLEST_MM = 90.0
CT_WINDOW = (-160.0, 240.0)
"""Soft tissue, in HU."""
_EDGE = 0.025

Bools = NDArray[np.bool_]
Box = tuple[slice, slice]
Pair = tuple[float, float]


# --- pages --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Theme:
    """Colours of a page."""

    ink: str
    faint: str
    page: str


LIGHT = Theme("#1f2328", "#d0d5db", "#ffffff")
DARK = Theme("#e6e8eb", "#454c55", "#14171a")
PAGE = Theme("#010203", "#c1c2c3", "#fdfcfb")
"""Of a figure for `svg`: each stands for what the page says it is."""
_VARIABLES = {PAGE.ink: "var(--ink)", PAGE.faint: "var(--line)", PAGE.page: "var(--page)"}


def new_figure(width_in: float, height_in: float) -> Any:
    """Return a transparent matplotlib figure on an Agg canvas; no global state is touched."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), dpi=144, layout="constrained")
    FigureCanvasAgg(figure)
    figure.patch.set_alpha(0)
    return figure


def png(figure: Any) -> bytes:
    """Return the figure as a PNG file without metadata."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def data_uri(image: bytes) -> str:
    """Return a PNG file as an address that holds it."""
    return "data:image/png;base64," + base64.b64encode(image).decode("ascii")


def svg(figure: Any, name: str) -> str:
    """Return the figure as an SVG element for a page, in the page's fonts and colours.

    The page defines ``--ink``, ``--line`` and ``--page``; the figure is drawn in the theme
    `PAGE`. Its ids begin with a hash of `name`, so that several fit one page.
    """
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    body = text[text.index(">", text.index("<svg")) + 1 : text.rindex("</svg>")]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.S)
    body = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", body)  # the same in every figure
    body = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", body)
    body = re.sub(r"\s+", " ", body).replace("xlink:href", "href")
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, variable)
    width, height = (72 * inches for inches in figure.get_size_inches())
    return f'<svg class="chart" viewBox="0 0 {width:g} {height:g}">{body}</svg>'


def standalone(element: str, theme: Theme = LIGHT) -> str:
    """Return an SVG element as a file of its own, in the colours of a theme."""
    colours = (theme.ink, theme.faint, theme.page)
    for variable, colour in zip(_VARIABLES.values(), colours, strict=True):
        element = element.replace(variable, colour)
    return element.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)


def style_axes(axes: Any, theme: Theme, grid: str = "y") -> None:
    """Keep what is needed to read a value."""
    axes.patch.set_alpha(0)
    axes.tick_params(colors=theme.ink, labelsize=9, length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(theme.faint)
    axes.grid(axis=grid, color=theme.faint, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.xaxis.label.set(color=theme.ink, fontsize=10)
    axes.set_title(axes.get_title("left"), loc="left", color=theme.ink, fontsize=10.5)


def shorten(name: str, length: int = 18) -> str:
    """Shorten a long name for an axis."""
    return name if len(name) <= length else name[: length - 1] + "…"


# --- slices -------------------------------------------------------------------------------------


def crop_box(mask: Bools, spacing_mm: Pair) -> Box:
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


def grey_limits(plane: NDArray[Any], modality: str = "") -> Pair:
    """Return the values that become black and white.

    For "CT" it is the soft-tissue window, unless hardly a voxel lies in it (the values are no
    Hounsfield units); otherwise the range without its extremes. Voxels that are not finite are
    left out; without any other it is (0, 1).
    """
    values = plane[np.isfinite(plane)]
    if not values.size:
        return 0.0, 1.0
    low, high = CT_WINDOW
    if modality.upper() == "CT" and np.mean((values > low) & (values < high)) > 0.02:
        return CT_WINDOW
    least, most = (float(value) for value in np.percentile(values, [0.5, 99.5]))
    return least, max(most, least + 1e-6)


def show_plane(axes: Any, plane: NDArray[Any], spacing_mm: Pair, limits: Pair) -> Pair:
    """Draw a slice (y, x) on axes in mm from its upper left corner; return (height, width)."""
    height_mm, width_mm = (n * step for n, step in zip(plane.shape, spacing_mm, strict=True))
    axes.imshow(
        plane,
        "gray",
        vmin=limits[0],
        vmax=limits[1],
        extent=(0, width_mm, height_mm, 0),
        interpolation="bicubic" if max(plane.shape) < 300 else "hanning",
    )
    axes.set_axis_off()
    return height_mm, width_mm


def jpeg_uri(plane: NDArray[Any], spacing_mm: Pair, limits: Pair, longest_px: int) -> str:
    """Return a slice (y, x) as a grey JPEG of square pixels, in an address that holds it."""
    from matplotlib.image import imsave
    from scipy.ndimage import zoom

    sides_mm = [n * mm for n, mm in zip(plane.shape, spacing_mm, strict=True)]
    factors = [
        longest_px * side / max(sides_mm) / n for side, n in zip(sides_mm, plane.shape, strict=True)
    ]
    clean = np.clip(np.nan_to_num(plane.astype(np.float32), nan=limits[0]), *limits)
    buffer = io.BytesIO()
    imsave(
        buffer, zoom(clean, factors, order=1 if min(factors) < 1 else 3, mode="nearest"),
        cmap="gray", vmin=limits[0], vmax=limits[1], format="jpg", pil_kwargs={"quality": 82},
    )  # fmt: skip
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def draw_outline(
    axes: Any, mask: Bools, spacing_mm: Pair, colour: str, dashes: Any = "-", width: float = 1.5,
    points: int = 900,
) -> None:  # fmt: skip
    """Draw the outline of a mask (y, x) along the voxels' edges, on axes as of `show_plane`.

    `points` is how finely the slice's longer side is traced.
    """
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    fine = max(1, points // max(mask.shape))
    dense = np.pad(np.kron(box, np.ones((fine, fine), np.uint8)), 1)
    y, x = (
        (np.arange(count) - 0.5 + fine * first) * step / fine
        for count, first, step in zip(dense.shape, (rows[0], columns[0]), spacing_mm, strict=True)
    )
    axes.contour(x, y, dense, [0.5], colors=[colour], linewidths=width, linestyles=[dashes])


def mark_directions(axes: Any, size_mm: Pair, fontsize: float = 12) -> None:
    """Write R, L, A and P at the edges of a slice."""
    height_mm, width_mm = size_mm
    style = {**_on_image(fontsize), "fontweight": "bold"}
    axes.text(width_mm * _EDGE, height_mm / 2, "R", ha="left", va="center", **style)
    axes.text(width_mm * (1 - _EDGE), height_mm / 2, "L", ha="right", va="center", **style)
    axes.text(width_mm / 2, height_mm * _EDGE, "A", ha="center", va="top", **style)
    axes.text(width_mm / 2, height_mm * (1 - _EDGE), "P", ha="center", va="bottom", **style)


def draw_scale_bar(
    axes: Any, size_mm: Pair, length_mm: float = 20, fontsize: float = 10, width: float = 3
) -> None:
    """Draw a bar of a known length in the lower left corner of a slice, and write the length."""
    height_mm, width_mm = size_mm
    left, y = width_mm * _EDGE, height_mm * (1 - 1.6 * _EDGE)
    style = _on_image(fontsize)
    axes.plot(
        [left, left + length_mm], [y, y], color="white", lw=width,
        path_effects=style["path_effects"],
    )  # fmt: skip
    text = f"{length_mm / 10:g} cm" if length_mm >= 10 else f"{length_mm:g} mm"
    axes.text(left, y - height_mm * 0.015, text, va="bottom", **style)


def write_in_corner(axes: Any, size_mm: Pair, text: str, fontsize: float = 10) -> None:
    """Write a text in the lower right corner of a slice."""
    x, y = (side * (1 - _EDGE) for side in size_mm[::-1])
    axes.text(x, y, text, ha="right", va="bottom", **_on_image(fontsize))


def _on_image(fontsize: float) -> dict[str, Any]:
    """Return how text is written on a slice: white, with a black rim."""
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=2.5, foreground="black")]
    return {"color": "white", "fontsize": fontsize, "path_effects": halo}
