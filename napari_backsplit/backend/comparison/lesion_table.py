"""The table of lesions: each lesion of a case, by whom it is found, and where it lies."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.comparison.matching import (
    LesionSettings,
    Pairs,
    match,
    pair_components,
)
from napari_backsplit.backend.comparison.places import Places, middle
from napari_backsplit.backend.comparison.runs import (
    Bools,
    Components,
    Ints,
    Runs,
    common_voxels,
    encode,
    split,
    union,
)
from napari_backsplit.backend.comparison.strata import stratum_of
from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.files import write_text

if TYPE_CHECKING:
    from napari_backsplit.backend.comparison.compare import CaseInput
    from napari_backsplit.backend.comparison.results import ComparisonSettings

Kind = Literal["reference", "false positive"]


@dataclass(frozen=True)
class LesionRow:
    """One lesion of one case.

    Parameters
    ----------
    case, target : str
        Neutral id of the case, and what the lesion is one of.
    lesion : int
        1 for the largest of its kind in the case.
    kind : {"reference", "false positive"}
        A lesion of the reference, or one that some arms predict where there is none.
    ml : float
        Volume in ml.
    stratum : str
        Size class.
    found_by : tuple of str
        The arms that find it; of a false positive: those that predict it.
    dice : mapping of str to float
        Arm -> Dice of the lesion with all predicted components that touch it; 0 if none does.
        Not a number for a false positive.
    organ : str
        The support it lies in mostly; empty if none.
    nearest : str
        The support nearest to it; empty if there are no supports.
    distance_mm : float
        Distance of its surface to that support, in mm; 0 where they touch or overlap, not a
        number if there are no supports.
    voxel : tuple of int
        A voxel (z, y, x) of the arrays as stored, inside, near its middle.
    """

    case: str
    target: str
    lesion: int
    kind: Kind
    ml: float
    stratum: str
    found_by: tuple[str, ...] = ()
    dice: Mapping[str, float] = field(default_factory=dict)
    organ: str = ""
    nearest: str = ""
    distance_mm: float = nan
    voxel: tuple[int, int, int] = (0, 0, 0)


def lesion_rows(case: CaseInput, target: str, settings: ComparisonSettings) -> list[LesionRow]:
    """List the lesions of one target in one case, and the false positives of all its arms.

    False positives of different arms that meet, or touch, are one: the components of what any
    arm predicts falsely.

    Parameters
    ----------
    case : CaseInput
        The case; `settings.lesions` say what a lesion is and when it is found.
    target : str
        One of its targets.

    Returns
    -------
    list of LesionRow
        The reference lesions, then the false positives, each from the largest to the smallest.
    """
    rules = settings.lesions
    reference = encode(case.reference[target])
    arms = {
        arm: _Found.of(reference, encode(masks[target]), rules)
        for arm, masks in case.predictions.items()
    }
    lesions = split(reference, rules.connectivity)
    false = split(union([arm.false for arm in arms.values()], reference.shape), rules.connectivity)
    places = Places.of(case.supports, case.spacing_mm)
    rows = [
        *_reference_rows(lesions, arms),
        *_false_rows(false, arms),
    ]
    voxel_ml = float(np.prod(case.spacing_mm)) / 1000
    return [
        LesionRow(
            case=case.case,
            target=target,
            ml=round(lesion.size * voxel_ml, 9),
            stratum=stratum_of(lesion.size * voxel_ml, rules.strata_ml),
            voxel=middle(lesion, case.spacing_mm),
            **places.find(lesion),
            **figures,
        )
        for lesion, figures in rows
    ]


@dataclass(frozen=True, eq=False)
class _Found:
    """What one arm makes of the reference lesions: found or not, Dice, and what is false."""

    found: Bools
    dice: NDArray[np.float64]
    false: Runs

    @classmethod
    def of(cls, reference: Runs, prediction: Runs, rules: LesionSettings) -> _Found:
        pairs = pair_components(reference, prediction, rules.connectivity)
        matched = match(pairs, rules)
        lesions = reference.components(rules.connectivity)
        predicted = prediction.components(rules.connectivity)
        false = ~np.isin(predicted.label, matched.prediction)
        found = np.isin(np.arange(lesions.count), matched.reference)
        return cls(found, _lesion_dice(pairs, lesions, predicted), prediction.select(false))


def _lesion_dice(pairs: Pairs, lesions: Components, predicted: Components) -> NDArray[np.float64]:
    """Return the Dice of each reference lesion with all predicted ones that meet it."""

    def add(voxels: Ints) -> NDArray[np.float64]:
        return np.bincount(pairs.reference, voxels, lesions.count).astype(np.float64)

    return 2 * add(pairs.common) / (lesions.voxels + add(predicted.voxels[pairs.prediction]))


_Drawn = tuple[Runs, dict[str, Any]]


def _reference_rows(lesions: Sequence[Runs], arms: Mapping[str, _Found]) -> Iterator[_Drawn]:
    for number, k in enumerate(_largest_first(lesions), 1):
        yield (
            lesions[k],
            {
                "lesion": number,
                "kind": "reference",
                "found_by": tuple(name for name, arm in arms.items() if arm.found[k]),
                "dice": {name: float(arm.dice[k]) for name, arm in arms.items()},
            },
        )


def _false_rows(lesions: Sequence[Runs], arms: Mapping[str, _Found]) -> Iterator[_Drawn]:
    for number, k in enumerate(_largest_first(lesions), 1):
        yield (
            lesions[k],
            {
                "lesion": number,
                "kind": "false positive",
                "found_by": tuple(
                    name for name, arm in arms.items() if common_voxels(lesions[k], arm.false)
                ),
                "dice": dict.fromkeys(arms, nan),
            },
        )


def _largest_first(lesions: Sequence[Runs]) -> list[int]:
    return sorted(range(len(lesions)), key=lambda k: -lesions[k].size)


_PLAIN: dict[str, Callable[[str], Any]] = {
    "case": str,
    "target": str,
    "lesion": int,
    "kind": str,
    "ml": float,
    "stratum": str,
    "organ": str,
    "nearest": str,
}
_VOXEL = ("voxel z", "voxel y", "voxel x")
_FOUND, _DICE = "found by ", "Dice "


def write_lesions(rows: Sequence[LesionRow], path: Path) -> None:
    """Write one line per lesion, with two columns per arm; an undefined number is an empty cell."""
    arms = tuple(dict.fromkeys(arm for row in rows for arm in row.dice))
    columns = [*_PLAIN, "distance_mm", *_VOXEL]
    columns += [f"{start}{arm}" for arm in arms for start in (_FOUND, _DICE)]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_cells(row) for row in rows)
    write_text(path, text.getvalue())


def _cells(row: LesionRow) -> dict[str, Any]:
    return {
        **{name: getattr(row, name) for name in _PLAIN},
        "distance_mm": _written(row.distance_mm),
        **dict(zip(_VOXEL, row.voxel, strict=True)),
        **{f"{_FOUND}{arm}": int(arm in row.found_by) for arm in row.dice},
        **{f"{_DICE}{arm}": _written(value) for arm, value in row.dice.items()},
    }


def _written(value: float) -> str:
    return repr(value) if isfinite(value) else ""


def read_lesions(path: Path) -> list[LesionRow]:
    """Read what `write_lesions` wrote.

    Raises
    ------
    InputError
        A column is missing or a cell is not a number.
    """
    with path.open(newline="", encoding="utf-8") as file:
        try:
            return [_row(cells) for cells in csv.DictReader(file)]
        except (KeyError, ValueError, TypeError) as error:
            raise InputError(
                f"{path.name} is not a table of lesions: {error}.", "Run the comparison again."
            ) from None


def _row(cells: dict[str, str]) -> LesionRow:
    arms = [name.removeprefix(_DICE) for name in cells if name.startswith(_DICE)]
    z, y, x = (int(cells[name]) for name in _VOXEL)
    return LesionRow(
        **{name: kind(cells[name]) for name, kind in _PLAIN.items()},
        found_by=tuple(arm for arm in arms if cells[f"{_FOUND}{arm}"] == "1"),
        dice={arm: float(cells[f"{_DICE}{arm}"] or "nan") for arm in arms},
        distance_mm=float(cells["distance_mm"] or "nan"),
        voxel=(z, y, x),
    )
