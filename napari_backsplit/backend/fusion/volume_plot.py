"""The volumes of a structure over the cohort: each case a dot, outliers by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from napari_backsplit.backend.pictures import LIGHT, Theme, new_figure, png, shorten, style_axes

LOG_FACTOR = 10.0
"""Volumes that span more than this are drawn on a logarithmic axis."""

_ROWS = (-0.6, 0.6, -0.9, 0.9)
"""Heights of the names of outliers."""


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
    figure = new_figure(8.6, 2.2)
    axes = figure.subplots()
    if given:
        _draw(axes, given, colour, theme, set(outliers) & given.keys())
    else:
        axes.text(0.5, 0.5, "no volume", ha="center", color=theme.ink, transform=axes.transAxes)
        axes.set_xticks([])
    axes.set_ylim(-1.1, 1.1)
    axes.set_yticks([])
    axes.set_title(shorten(structure, 60), loc="left")
    axes.set_xlabel(_label(given, len(ml) - len(given)))
    style_axes(axes, theme, grid="x")
    axes.tick_params(which="minor", length=0)
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
    axes.vlines(middle, -0.4, 0.4, colors=theme.ink, lw=2)
    for kind, size, edge in ((False, 5, 0.4), (True, 7, 1.3)):
        cases = [case for case in ml if (case in far) == kind]
        at = [ml[case] for case in cases], [heights[case] for case in cases]
        axes.plot(*at, "o", ms=size, color=colour, mec=theme.ink, mew=edge, alpha=0.85, ls="")
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
    """Write the names of outliers below and above the dots, where they have room."""
    middle = float(np.median(list(ml.values())))
    ordered = sorted(far, key=lambda case: -abs(np.log(ml[case] / middle)))
    to_share = axes.transData + axes.transAxes.inverted()
    shares = {case: float(to_share.transform((ml[case], 0))[0]) for case in ordered}
    rows = place_names(shares)
    for case, row in rows.items():
        share = min(max(shares[case], _width(case) / 2), 1 - _width(case) / 2)
        axes.annotate(
            case, (ml[case], heights[case]), (share, row),
            textcoords=axes.get_yaxis_transform(), ha="center", va="center", fontsize=8,
            color=theme.ink, arrowprops={"arrowstyle": "-", "color": theme.faint, "lw": 0.8},
        )  # fmt: skip
    if len(far) > len(rows):
        text = f"and {len(far) - len(rows)} outliers more"
        axes.text(1, 1, text, ha="right", va="bottom", fontsize=8, color=theme.ink,
                  transform=axes.transAxes)  # fmt: skip


def place_names(shares: Mapping[str, float]) -> dict[str, float]:
    """Give names a height each so that none is written on another; some find no room.

    Parameters
    ----------
    shares : mapping of str to float
        Name -> where on the axis it belongs, 0 to 1; those that matter most first.
    """
    rows: dict[str, float] = {}
    for name, share in shares.items():
        for row in _ROWS:
            beside = ((o, taken) for o, taken in rows.items() if taken * row > 0)
            if all(abs(share - shares[o]) > _room(name, o, taken == row) for o, taken in beside):
                rows[name] = row
                break
    return rows


def _room(one: str, other: str, same_row: bool) -> float:
    """Return how far apart two names on one side must be; a line must pass beside the other's."""
    return (_width(one) + _width(other)) / (2 if same_row else 4)


def _width(name: str) -> float:
    """Return about how much of the axis a name takes."""
    return 0.0085 * len(name) + 0.01
