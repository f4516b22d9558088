"""What is to be seen of a comparison: from the ways to look that are on, for each of two views."""

from __future__ import annotations

from dataclasses import dataclass

from napari_backsplit.backend.comparison.agreement import CLASSES, Who, classes
from napari_backsplit.backend.comparison.overlays import Loaded

PARTS = frozenset(part.number for part in CLASSES)


@dataclass(frozen=True)
class Look:
    """What is to be seen.

    Attributes
    ----------
    parts : frozenset of int
        The parts of the agreement; none hides it.
    outlines : frozenset of Who
    share : float, optional
        Where the line of the swipe is; None for no swipe.
    alone : Who, optional
        The prediction that is filled instead of the agreement.
    caption : str
        Words on the canvas.
    """

    parts: frozenset[int] = PARTS
    outlines: frozenset[Who] = frozenset(("reference", "baseline", "new"))
    share: float | None = None
    alone: Who | None = None
    caption: str = ""


@dataclass(frozen=True)
class Ways:
    """The ways to look that are on.

    Of the ways to tell the two predictions apart, side by side goes before swipe, and swipe before
    blink.

    Attributes
    ----------
    parts : frozenset of int
    outlines, both : bool
        `both` is side by side.
    share : float, optional
        Of the swipe.
    blinked : Who, optional
        The prediction whose turn it is.
    """

    parts: frozenset[int] = PARTS
    outlines: bool = True
    both: bool = False
    share: float | None = None
    blinked: Who | None = None

    def look(self, loaded: Loaded | None, view: int) -> Look:
        """Return what the first view (0) or the second (1) shows of a case."""
        who: set[Who] = {"reference", "baseline", "new"}
        caption, alone = "", None
        if loaded is not None and self.both:
            who -= {"baseline" if view else "new"}
            caption = loaded.overlay.arms[view]
        elif loaded is not None and self.share is not None:
            caption = " | ".join(loaded.overlay.arms)
        elif loaded is not None and self.blinked is not None:
            who -= {"new" if self.blinked == "baseline" else "baseline"}
            alone = self.blinked
            caption = loaded.overlay.arms[alone == "new"]
        there = {part.number for part in classes(bool(loaded and loaded.has_reference))}
        return Look(
            parts=frozenset(self.parts & there),
            outlines=frozenset(who if self.outlines else ()),
            share=None if self.both else self.share,
            alone=alone,
            caption=caption,
        )
