"""Values as a person types them: sizes, times of day, names and pairs of names."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime, time, timedelta
from typing import Any, get_args, get_origin

PLAIN = re.compile(r"[^=,\s\"{}](?:[^=,\"{}\n]*[^=,\s\"{}])?")


def ways(kind: Any, optional: bool) -> tuple[Callable[[str], Any], Callable[[Any], str]]:
    """Return how a text is read, and how a value is written, for an annotation."""
    read, write = _reader(kind)
    if not optional:
        return read, write
    return (
        lambda text: read(text) if text.strip() else None,
        lambda value: "" if value is None else write(value),
    )


def _reader(kind: Any) -> tuple[Callable[[str], Any], Callable[[Any], str]]:
    origin = get_origin(kind)
    if origin is tuple:
        read = _read_names if get_args(kind)[0] is str else _read_items
        return read, lambda value: ", ".join(str(item) for item in value)
    if origin is dict:
        return _read_pairs, _write_pairs
    if kind is str:
        return str, str
    if kind is datetime or "datetime" in str(kind).lower():
        return lambda text: next_time(text, datetime.now().astimezone()), _write_time
    return str.strip, lambda value: repr(value) if isinstance(value, float) else str(value)


def _read_items(text: str) -> list[str]:
    """Split "40 x 160 x 160" or "40, 160, 160"."""
    return [item for item in re.split(r"\s*[,;×x]\s*|\s+", text.strip()) if item]


def _read_names(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _read_pairs(text: str) -> Any:
    text = text.strip()
    if text.startswith("{"):
        return json.loads(text)
    pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
    if any(not sign for _, sign, _ in pairs):
        raise ValueError("Write it as: name = other name, and so on.")
    return {key.strip(): value.strip() for key, _, value in pairs}


def _write_pairs(value: Mapping[str, str]) -> str:
    plain = all(PLAIN.fullmatch(word) for pair in value.items() for word in pair)
    if plain:
        return ", ".join(f"{key} = {word}" for key, word in value.items())
    return json.dumps(dict(value))


def _write_time(value: datetime) -> str:
    """Write 18:00 where that means the same, or date and time."""
    local = value.astimezone()
    short = f"{local:%H:%M}"
    if next_time(short, datetime.now().astimezone()) == value:
        return short
    whole = not (local.second or local.microsecond)
    plain = f"{local:%Y-%m-%d %H:%M}"
    return plain if whole and next_time(plain, local) == value else value.isoformat()


def next_time(text: str, now: datetime) -> datetime:
    """Return the next time that is meant by 18:00, or by a date with a time.

    Raises
    ------
    ValueError
        It is neither.
    """
    words = text.strip().replace(".", ":") if re.fullmatch(r"\s*\d{1,2}[.:]\d{2}\s*", text) else ""
    try:
        if not words:
            meant = datetime.fromisoformat(text.strip())
            return meant if meant.tzinfo else meant.astimezone()
        hours, _, minutes = words.partition(":")
        at = time(int(hours), int(minutes))
    except ValueError:
        raise ValueError("Write a time as 18:00, or with its day: 2026-11-23 08:00.") from None
    # As the clock on the wall reads, also where the clocks are changed meanwhile.
    local = now.astimezone().replace(tzinfo=None)
    meant = datetime.combine(local.date(), at)
    return (meant if meant > local else meant + timedelta(days=1)).astimezone()
