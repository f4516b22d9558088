"""How often an interval holds the truth, as measured in simulations: coverage.csv.

Made by ``python benchmarks/coverage.py``; shown in docs/statistics.md.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources
from math import log, nan
from typing import Literal

import numpy as np

from napari_backsplit.backend.comparison.intervals import Floats, Method

ENOUGH_PATIENTS = 50
"""From so many patients on the interval of choice held the truth in 93 to 97 % of the
simulations; below, what is read from it is hedged."""

MANY_ZEROS = 0.25
"""Share of patients without any difference from which differences count as zero-inflated."""

Shape = Literal[
    "normal",
    "skewed",
    "zero-inflated",
    "zero-inflated, long tail",
    "zero-inflated, both ways",
    "pooled lesions",
]


@dataclass(frozen=True)
class Coverage:
    """One line of the table.

    Parameters
    ----------
    shape : str
        Distribution of the patients' differences.
    patients : int
        Patients in each simulation.
    method : str
        The interval.
    coverage : float
        Share of the simulations in which the interval held the truth.
    width : float
        Median width of the intervals, in standard deviations of the difference.
    simulations : int
        How many there were.
    """

    shape: Shape
    patients: int
    method: Method
    coverage: float
    width: float
    simulations: int


@cache
def coverage_table() -> tuple[Coverage, ...]:
    """Return the table that the package holds."""
    text = resources.files(__package__).joinpath("coverage.csv").read_text(encoding="utf-8")
    return tuple(_line(cells) for cells in csv.DictReader(text.splitlines()))


def _line(cells: dict[str, str]) -> Coverage:
    shape: Shape = cells["shape"]  # type: ignore[assignment]
    method: Method = cells["method"]  # type: ignore[assignment]
    numbers = float(cells["coverage"]), float(cells["width"]), int(cells["simulations"])
    return Coverage(shape, int(cells["patients"]), method, *numbers)


def measured_coverage(method: Method, differences: Floats, pooled: bool = False) -> float:
    """Return the least measured coverage at the nearest number of patients.

    Parameters
    ----------
    method : str
        The interval.
    differences : ndarray, (patients,)
        Where at least `MANY_ZEROS` of them are zero, the zero-inflated simulations count,
        otherwise the normal and the skewed.
    pooled : bool
        It is a pooled share: the simulations of such a one count too.

    Returns
    -------
    float
        Not a number without patients.
    """
    if not len(differences):
        return nan
    inflated = float(np.mean(differences == 0)) >= MANY_ZEROS
    lines = [
        line
        for line in coverage_table()
        if line.method == method
        and (pooled if line.shape == "pooled lesions" else _inflated(line.shape) == inflated)
    ]
    nearest = min(_apart(line.patients, len(differences)) for line in lines)
    return min(x.coverage for x in lines if _apart(x.patients, len(differences)) == nearest)


def _inflated(shape: Shape) -> bool:
    return shape.startswith("zero-inflated")


def nearest_patients(patients: int) -> int:
    """Return the number of patients of the simulations that are nearest to `patients`."""
    simulated = sorted({line.patients for line in coverage_table()})
    return min(simulated, key=lambda count: _apart(count, patients))


def _apart(one: int, other: int) -> float:
    """Return how far apart two numbers of patients are, as a ratio: 20 is nearer to 24 than 15."""
    return abs(log(one / other))
