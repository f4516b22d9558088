"""Copies of a support: the same organ from another source, or from simulated clicks.

A name tells one: kidney-7-clicks and kidney-ts are copies of kidney where kidney is there too. A
training that names no supports learns each organ once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

SOURCES = ("ts", "vs")
"""Sources that the plans of the BackSplit paper name: TotalSegmentator and VIBESegmentator."""

_CLICKED = re.compile(r"(.+)-\d+-clicks$")


def clicked(count: int) -> str:
    """Return the source of supports that so many clicks made: kidney-7-clicks is of kidney."""
    return f"{count}-clicks"


def own_supports(known: Sequence[str], sources: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the supports that are no copy of another one.

    Parameters
    ----------
    known : sequence of str
        A project's supports.
    sources : sequence of str
        Sources of copies beside `SOURCES`.
    """

    def copied(name: str) -> bool:
        found = _CLICKED.match(name)
        originals = [found[1]] if found else []
        each = dict.fromkeys((*SOURCES, *sources))
        originals += [name.removesuffix(f"-{one}") for one in each if name.endswith(f"-{one}")]
        return any(original in known for original in originals)

    return tuple(name for name in known if not copied(name))
