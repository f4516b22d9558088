"""Tables of texts, and how a figure over draws is written in a cell."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from napari_backsplit.backend.comparison.statistics import Draws

DASH = "–"


@dataclass(frozen=True)
class Table:
    """A table of texts."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """Return the title and the table in Markdown, all but the first column to the right."""
        head, *rows = ("| " + " | ".join(cells) + " |" for cells in (self.head, *self.rows))
        rule = "|---|" + "--:|" * (len(self.head) - 1)
        return "\n".join([f"**{self.title}**", "", head, rule, *rows])


def mean_text(draws: Draws | None, digits: int, brief: bool = False) -> str:
    """Return a mean with half of its interval; a dash where it is undefined."""
    return DASH if draws is None else with_half(draws, f"{draws.mean:.{digits}f}", digits, brief)


def with_half(draws: Draws, mean: str, digits: int, brief: bool = False) -> str:
    """Write a mean with half of its interval, where it has one."""
    half = (draws.high - draws.low) / 2
    return mean if brief or not isfinite(half) else f"{mean} ± {half:.{digits}f}"
