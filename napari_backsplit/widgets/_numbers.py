"""Numbers as a person reads them: with a unit, and with no more digits than mean something."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Return a time span: "40 s", "12 min", "2 h 40 min", "3 d 4 h"."""
    whole = max(0, round(seconds))
    if whole < 90:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def gigabytes(value: float) -> str:
    """Return bytes as GB without the unit: "0.4", "6.2", "11"."""
    number = value / 1e9
    return f"{number:.0f}" if number >= 9.95 else f"{number:.1f}"


def of_bytes(used: float, total: float) -> str:
    """Return a part of some memory: "6.2 of 11 GB"."""
    return f"{gigabytes(used)} of {gigabytes(total)} GB"


def figure(value: float) -> str:
    """Return a value of a curve: three digits that mean something."""
    if value != value:
        return "not a number"
    return f"{value:.3g}"
