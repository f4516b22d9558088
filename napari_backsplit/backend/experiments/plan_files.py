"""Plans as files: those that come with the package, and a person's own."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.experiments.plan import ExperimentPlan, validated

_PLANS = resources.files("napari_backsplit.backend.experiments") / "plans"
_BASES = _PLANS / "base"


def built_in_plans() -> list[ExperimentPlan]:
    """Return the plans that come with the package."""
    return [_parse(text, name) for name, text in _built_in()]


def read_plan(name: str) -> ExperimentPlan:
    """Read a plan: the name of a built-in one, or the path of a TOML file.

    Raises
    ------
    InputError
        There is no such plan, or it says something that cannot be.
    """
    texts = dict(_built_in())
    if name in texts:
        return _parse(texts[name], name)
    path = Path(name)
    if not path.is_file():
        raise InputError(
            f"There is no plan {name!r}.",
            f"Name a TOML file, or one of {', '.join(texts)}.",
        )
    try:
        return _parse(path.read_text(encoding="utf-8"), path.name)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}.", "Give a TOML file.") from None


def _built_in() -> Iterator[tuple[str, str]]:
    """Yield the names and texts of the built-in plans, table-2 before table-10."""
    files = [file for file in _PLANS.iterdir() if file.name.endswith(".toml")]
    for file in sorted(files, key=lambda file: _order(file.name)):
        yield file.name.removesuffix(".toml"), file.read_text(encoding="utf-8")


def _order(name: str) -> list[str]:
    return [part.zfill(3) if part.isdigit() else part for part in name[:-5].split("-")]


def _parse(text: str, name: str) -> ExperimentPlan:
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{name} is not TOML: {error}.", "Mend the file.") from None
    base = values.pop("base", None)
    return validated(values if base is None else merged(_base(str(base), name), values), name)


def _base(base: str, name: str) -> dict[str, Any]:
    """Return what several plans share, by its name."""
    known = {file.name.removesuffix(".toml"): file for file in _BASES.iterdir()}
    if base not in known:
        raise InputError(f"{name}: there is no base {base!r}, only {', '.join(sorted(known))}.")
    return tomllib.loads(known[base].read_text(encoding="utf-8"))


def merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return a plan's tables on those of its base: what it says itself holds."""
    both = {
        key: merged(base[key], value) if isinstance(base.get(key), dict) else value
        for key, value in own.items()
    }
    return {**base, **both}
