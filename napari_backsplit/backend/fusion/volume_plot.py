"""The volumes of a structure over the cohort: each case a dot, outliers by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from napari_backsplit.backend.pictures import LIGHT, Theme, new_figure, png, shorten, style_axes

LOG_FACTOR = 10.0
"""Volumes that span more than this are drawn on a logarithmic axis."""

NAMED = 8
"""At most so many outliers are named, the farthest from the median first."""


def is_wide(values: Sequence[float]) -> bool:
    """Whether positive volumes span so much that only a logarithmic axis shows them."""
    return bool(values) and max(values) > LOG_FACTOR * min(values)


def plot_volumes(
    structure: str, ml: Mapping[str, float], colour: str, theme: Theme = LIGHT,
    outliers: Collection[str] = (),
) -> bytes:  # fmt: skip
    """Draw the volumes of a structure in the cases that have voxels of it; return a PNG file.

    Parameters
    ----------
    structure, colour : str
    ml : mapping of str to float
        Case -> volume; empty masks are counted in words.
    theme : Theme
    outliers : collection of str
        Cases to be named, as an audit found them.
    """
    given = {case: value for case, value in ml.items() if value > 0}
    figure = new_figure(8.6, 2.0)
    axes = figure.subplots()
    if given:
        _draw(axes, given, colour, theme, set(outliers) & given.keys())
    else:
        axes.text(0.5, 0.5, "no volume", ha="center", color=theme.ink, transform=axes.transAxes)
        axes.set_xticks([])
    axes.set_ylim(-1, 1)
    axes.set_yticks([])
    axes.set_title(shorten(structure, 60), loc="left")
    axes.set_xlabel(_label(given, len(ml) - len(given)))
    style_axes(axes, theme, grid="x")
    return png(figure)


def _label(given: Mapping[str, float], empty: int) -> str:
    cases = f"{len(given)} case{'' if len(given) == 1 else 's'}"
    middle = f"; median {np.median(list(given.values())):.3g} ml" if given else ""
    also = f"; {empty} more with an empty mask" if empty else ""
    scale = ", logarithmic" if is_wide(list(given.values())) else ""
    return f"volume (ml{scale}){middle}; {cases}{also}"


def _draw(
    axes: Any, ml: Mapping[str, float], colour: str, theme: Theme, far: Collection[str]
) -> None:
    spread = np.random.default_rng(0).uniform(-0.28, 0.28, len(ml))
    heights = dict(zip(ml, spread.tolist(), strict=True))
    _scale(axes, list(ml.values()))
    middle = float(np.median(list(ml.values())))
    axes.vlines(middle, -0.5, 0.5, colors=theme.ink, lw=2)
    for kind, size, edge in ((False, 5, "none"), (True, 7, theme.ink)):
        cases = [case for case in ml if (case in far) == kind]
        at = [ml[case] for case in cases], [heights[case] for case in cases]
        axes.plot(*at, "o", ms=size, color=colour, mec=edge, mew=1.2, alpha=0.85, ls="")
    _name(axes, far, ml, heights, theme)


def _scale(axes: Any, values: Sequence[float]) -> None:
    """Choose a linear axis from 0, or a logarithmic one with whole numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = min(values), max(values)
    if not is_wide(values):
        axes.set_xlim(0, high * 1.12)
        return
    axes.set_xscale("log")
    axes.set_xlim(low / 1.6, high * 1.6)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 500 * low else (1.0,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _name(
    axes: Any, far: Collection[str], ml: Mapping[str, float], heights: Mapping[str, float],
    theme: Theme,
) -> None:  # fmt: skip
    """Write the names of the outliers farthest off, below and above the dots in turn."""
    middle = float(np.median(list(ml.values())))
    chosen = sorted(far, key=lambda case: -abs(np.log(ml[case] / middle)))[:NAMED]
    for number, case in enumerate(sorted(chosen, key=lambda case: ml[case])):
        axes.annotate(
            case, (ml[case], heights[case]), (ml[case], -0.7 if number % 2 == 0 else 0.84),
            ha="center", va="center", fontsize=8, color=theme.ink,
            arrowprops={"arrowstyle": "-", "color": theme.faint, "lw": 0.8},
        )  # fmt: skip
    if len(far) > NAMED:
        text = f"and {len(far) - NAMED} outliers more"
        axes.text(1, 1, text, ha="right", va="bottom", fontsize=8, color=theme.ink,
                  transform=axes.transAxes)  # fmt: skip
