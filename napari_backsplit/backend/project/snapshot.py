"""A project's schema and masks as they are at one moment, for a job that reads them for hours."""

from __future__ import annotations

import shutil
from pathlib import Path

from napari_backsplit.backend.files import link_or_copy

SCHEMA = "project.json"
KEPT = ("*.nii.gz", "*.json", "verdicts.jsonl")
APPENDED = ".jsonl"
PART = ".snapshot-part"


def keep_snapshot(folder: Path, into: Path) -> None:
    """Keep a project's schema and its cases' masks, soft ones too, their provenance and verdicts.

    Parameters
    ----------
    folder : Path
        The project.
    into : Path
        Must not exist; it appears when the snapshot is whole. One at a time is made in a folder:
        what a kill left of the last one is removed.
    """
    place = into.with_name(PART)
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for file in _files(folder / "cases"):
        _keep(file, place / "cases" / file.relative_to(folder / "cases"))
    shutil.copyfile(folder / SCHEMA, place / SCHEMA)
    place.rename(into)


def _files(cases: Path) -> list[Path]:
    places = ("*", "*/supports", "*/targets", "*/soft")
    found = (file for place in places for kept in KEPT for file in cases.glob(f"{place}/{kept}"))
    return [file for file in found if not file.name.startswith(".")]  # a writer is at work there


def _keep(file: Path, place: Path) -> None:
    """Link a file that is only ever replaced; copy one that grows. One that is gone is left out."""
    try:
        if file.suffix == APPENDED:
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)
        else:
            link_or_copy(file, place)
    except FileNotFoundError:
        return
