"""Colours of what napari does not draw for us: its theme's, and those that mean something."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from napari.components import ViewerModel
from napari.utils.theme import get_theme

# Okabe and Ito's colours: those that stand out on a dark ground, and on a light one.
_ON_DARK = ("#56B4E9", "#E69F00", "#CC79A7", "#2EC08F", "#F0E442", "#F07C3C")
_ON_LIGHT = ("#0072B2", "#D55E00", "#A3457F", "#00805D", "#8A6D00", "#2A7CA8")


@dataclass(frozen=True)
class Colours:
    """What is drawn with which colour; "#rrggbb"."""

    ground: str
    text: str
    faint: str
    lines: tuple[str, ...]


def colours_of(theme: str) -> Colours:
    """Return the colours that belong to a theme of napari."""
    values = get_theme(theme)
    dark = values.type == "dark"
    return Colours(
        values.background.as_hex(format="long"),
        values.text.as_hex(format="long"),
        values.secondary.as_hex(format="long"),
        _ON_DARK if dark else _ON_LIGHT,
    )


def follow_theme(viewer: ViewerModel, told: Callable[[Colours], None]) -> Callable[[], None]:
    """Tell the colours now and whenever the viewer's theme changes; returns what ends that."""

    def tell(event: Any = None) -> None:
        told(colours_of(viewer.theme))

    viewer.events.theme.connect(tell)
    tell()

    def forget(*_: object) -> None:
        if tell in viewer.events.theme.callbacks:
            viewer.events.theme.disconnect(tell)

    return forget
