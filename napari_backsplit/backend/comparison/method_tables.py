"""The tables of how a comparison was made: coverage, models, versions, licences, unseen cases."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, nan

from napari_backsplit.backend.comparison.contents import DASH, Cell, Column, Table, plural, words
from napari_backsplit.backend.comparison.coverage import coverage_table
from napari_backsplit.backend.comparison.results import Comparison
from napari_backsplit.backend.comparison.seen import SeenStatus
from napari_backsplit.backend.comparison.sources import Sources


def coverage(comparison: Comparison, name: str) -> Table:
    """Return how often intervals of the chosen kind held the truth, by number of patients."""
    method = comparison.settings.bootstrap.method
    lines = [line for line in coverage_table() if line.method == method]
    held = {(line.shape, line.patients): line.coverage for line in lines}
    counts = sorted({line.patients for line in lines})
    shapes = dict.fromkeys(line.shape for line in lines)
    columns = (
        Column("Differences between patients", words=True),
        *(Column(plural(count, "patient")) for count in counts),
    )
    rows = tuple(
        (words(shape), *(_held(held.get((shape, count), nan)) for count in counts))
        for shape in shapes
    )
    return Table(name, "How often such intervals held the truth in simulations", columns, rows)


def _held(coverage: float) -> Cell:
    return Cell(f"{100 * coverage:.1f} %", coverage) if isfinite(coverage) else Cell(DASH, "")


def models(sources: Sources, arms: Sequence[str], name: str) -> Table | None:
    """Return what is known of each model, an arm a column; None where nothing is."""
    facts = dict.fromkeys(fact for arm in arms for fact in sources.models.get(arm, {}))
    if not facts:
        return None
    rows = tuple(
        (words(fact), *(words(sources.models.get(arm, {}).get(fact, DASH)) for arm in arms))
        for fact in facts
    )
    columns = (Column("Model", words=True), *(Column(arm, words=True) for arm in arms))
    return Table(name, "The models", columns, rows)


def versions(sources: Sources, name: str) -> Table | None:
    """Return which versions ran; None where none is known."""
    packages = dict.fromkeys(package for each in sources.versions.values() for package in each)
    if not packages:
        return None
    rows = tuple(
        (words(what), *(words(each.get(package, DASH)) for package in packages))
        for what, each in sources.versions.items()
    )
    columns = (Column("Step", words=True), *(Column(p, words=True) for p in packages))
    return Table(name, "Versions", columns, rows)


def licences(sources: Sources, name: str) -> Table | None:
    """Return the licences of models and masks; None where there is neither."""
    if not sources.licences:
        return None
    rows = tuple(
        (words(line.what), words(line.made_with), words(line.licences)) for line in sources.licences
    )
    columns = tuple(Column(label, words=True) for label in ("What", "Made with", "Licence"))
    return Table(name, "Licences", columns, rows)


_UNSEEN: dict[SeenStatus, str] = {
    "verified": "known to be unseen by every model: checked against their own records of training",
    "declared": "declared unseen by the user, not checked",
    "unknown": "of which it is not known whether a model had seen them: they enter no verdict",
    "seen": "that a model had seen, in training or in the choice of its checkpoint: not counted",
}


def unseen(comparison: Comparison) -> list[str]:
    """Return how many cases are known to be unseen, declared so, not known, or seen."""
    status = list({row.case: row.seen for row in comparison.rows}.values())
    counts = ((status.count(name), text) for name, text in _UNSEEN.items())
    return [f"{plural(count, 'case')} {text}" for count, text in counts if count]
