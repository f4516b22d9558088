"""How often the intervals of a comparison hold the truth, on differences whose mean is known.

Writes the table that the package holds (coverage.csv) where asked to, and prints it as in
docs/statistics.md. Takes two to three minutes of one core.

    python benchmarks/coverage.py [--simulations 3000] [--write]
"""

from __future__ import annotations

import argparse
import csv
import time
import zlib
from dataclasses import astuple, fields
from math import exp, sqrt
from pathlib import Path
from typing import get_args

import numpy as np

from napari_backsplit.backend.comparison import coverage as package
from napari_backsplit.backend.comparison.coverage import Coverage, Shape
from napari_backsplit.backend.comparison.intervals import Bootstrap, Method, interval

PATIENTS = (8, 15, 24, 50, 100)
ZEROS = 0.6
RESAMPLES = 2000  # a fifth of what a comparison draws


def normal(rng, size):
    return rng.normal(0.1, 1, size), 0.1, 1.0


def skewed(rng, size):
    """Log-normal, skewness 3.7: many small gains, a few large ones."""
    return rng.lognormal(0, 0.8, size), exp(0.32), sqrt((exp(0.64) - 1) * exp(0.64))


def zero_inflated(rng, size):
    """Exactly zero in 60 %, exponential in the rest."""
    values = np.where(rng.random(size) < ZEROS, 0, rng.exponential(1, size))
    share = 1 - ZEROS
    return values, share, sqrt(2 * share - share**2)


def long_tail(rng, size):
    """Exactly zero in 60 %, log-normal in the rest."""
    share = 1 - ZEROS
    mean = share * exp(0.32)
    values = np.where(rng.random(size) < ZEROS, 0, rng.lognormal(0, 0.8, size))
    return values, mean, sqrt(share * exp(1.28) - mean**2)


def both_ways(rng, size):
    """Exactly zero in 60 %, a gain in 30 %, a loss in 10 %, each of a gamma's size."""
    drawn, amount = rng.random(size), rng.gamma(2, 1, size)
    values = np.where(drawn < ZEROS, 0, np.where(drawn < 0.9, amount, -amount))
    return values, 0.4, sqrt(0.4 * 6 - 0.4**2)


def pooled(rng, size):
    """Lesions found of some, pooled: one lesion or more a patient, found by chance, twice.

    A patient's lesions share their luck: the chance varies between patients.
    """
    lesions = 1 + rng.poisson(1.5, size)
    chance = rng.beta(2, 2, size)
    ours, theirs = rng.binomial(lesions, (chance + 1) / 2), rng.binomial(lesions, chance)
    # E[(ours - theirs)] / E[lesions] = E[(1 - chance) / 2]
    return (ours - theirs).astype(float), 0.25, 1.0, lesions.astype(float)


SHAPES: dict[Shape, object] = {
    "normal": normal,
    "skewed": skewed,
    "zero-inflated": zero_inflated,
    "zero-inflated, long tail": long_tail,
    "zero-inflated, both ways": both_ways,
    "pooled lesions": pooled,
}


def simulate(shape, patients, simulations):
    """Return a line of the table for each method, all on the same draws."""
    rng = np.random.default_rng([zlib.crc32(shape.encode()), patients])
    drawn = [SHAPES[shape](rng, patients) for _ in range(simulations)]
    return [measure(shape, patients, method, drawn) for method in get_args(Method)]


def measure(shape, patients, method, drawn):
    settings = Bootstrap(resamples=RESAMPLES, method=method)
    inside, widths = 0, []
    for change, truth, spread, *weight in drawn:
        low, high = interval(change, weight[0] if weight else np.ones(patients), settings)
        inside += low <= truth <= high
        widths.append((high - low) / spread)
    share = round(inside / len(drawn), 4)
    return Coverage(shape, patients, method, share, round(float(np.median(widths)), 3), len(drawn))


def show(lines):
    """Print a Markdown table: a line for each shape and method, a column for each n."""
    print("| differences | interval | " + " | ".join(f"n = {n}" for n in PATIENTS) + " |")
    print("|---|---|" + "---|" * len(PATIENTS))
    for shape in SHAPES:
        for method in get_args(Method):
            own = [x for x in lines if (x.shape, x.method) == (shape, method)]
            cells = " | ".join(f"{100 * x.coverage:.1f}" for x in own)
            print(f"| {shape} | {method} | {cells} |")


def write(lines, path):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(each.name for each in fields(Coverage))
        writer.writerows(astuple(line) for line in lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=3000)
    parser.add_argument("--write", action="store_true", help="replace the table of the package")
    asked = parser.parse_args()
    began = time.monotonic()
    lines = [
        line
        for shape in SHAPES
        for patients in PATIENTS
        for line in simulate(shape, patients, asked.simulations)
    ]
    show(lines)
    chosen = [x for x in lines if x.method == Bootstrap().method and x.patients >= 50]
    shares = [x.coverage for x in chosen]
    print(
        f"\nOf the default from 50 patients on: {100 * min(shares):.1f} to "
        f"{100 * max(shares):.1f} %; {asked.simulations} simulations each, "
        f"{time.monotonic() - began:.0f} s"
    )
    if asked.write:
        write(lines, Path(package.__file__).with_name("coverage.csv"))


if __name__ == "__main__":
    main()
