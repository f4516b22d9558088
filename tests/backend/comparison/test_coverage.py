from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from napari_backsplit.backend.comparison.coverage import (
    ENOUGH_PATIENTS,
    Shape,
    coverage_table,
    measured_coverage,
    nearest_patients,
)
from napari_backsplit.backend.comparison.intervals import Bootstrap, Method, interval

DEFAULT = Bootstrap().method


def line(shape, patients, method=DEFAULT):
    (found,) = [
        each
        for each in coverage_table()
        if (each.shape, each.patients, each.method) == (shape, patients, method)
    ]
    return found


def test_the_table_is_whole():
    keys = {(x.shape, x.patients, x.method) for x in coverage_table()}
    shapes, methods = get_args(Shape), get_args(Method)
    assert keys == {(s, n, m) for s in shapes for n in (8, 15, 24, 50, 100) for m in methods}
    assert len(keys) == len(coverage_table())
    assert min(x.simulations for x in coverage_table()) >= 2000


@pytest.mark.parametrize("shape", get_args(Shape))
def test_from_fifty_patients_on_the_default_holds_what_it_promises(shape):
    for patients in (50, 100):
        assert 0.93 <= line(shape, patients).coverage <= 0.97


def test_no_other_interval_does_so_for_every_shape():
    """Why the default is the default."""
    for method in set(get_args(Method)) - {DEFAULT}:
        enough = [line(shape, n, method).coverage for shape in get_args(Shape) for n in (50, 100)]
        assert min(enough) < 0.93


@pytest.mark.parametrize(("shape", "patients"), [("normal", 24), ("zero-inflated", 50)])
def test_the_table_is_what_the_code_does(shape, patients):
    """The share in 500 new simulations is within four standard errors of the table's."""
    rng = np.random.default_rng(77)
    settings, count, inside = Bootstrap(resamples=1000), 500, 0
    for _ in range(count):
        values, truth = rng.normal(0.1, 1, patients), 0.1
        if shape == "zero-inflated":
            values, truth = (
                np.where(rng.random(patients) < 0.6, 0, rng.exponential(size=patients)),
                0.4,
            )
        low, high = interval(values, np.ones(patients), settings)
        inside += low <= truth <= high
    expected = line(shape, patients).coverage
    assert abs(inside / count - expected) < 4 * np.sqrt(expected * (1 - expected) / count)


def test_what_is_said_is_the_least_at_the_nearest_number_of_patients():
    spread = np.linspace(-1, 1, 23)
    assert measured_coverage(DEFAULT, spread) == min(
        line(shape, 24).coverage for shape in ("normal", "skewed")
    )
    many_zeros = np.where(np.arange(23) < 12, 0, spread)
    assert measured_coverage(DEFAULT, many_zeros) == min(
        line(shape, 24).coverage for shape in get_args(Shape) if shape.startswith("zero")
    )
    pooled = measured_coverage(DEFAULT, spread, pooled=True)
    assert pooled == min(line(s, 24).coverage for s in ("normal", "skewed", "pooled lesions"))
    assert np.isnan(measured_coverage(DEFAULT, np.array([])))


@pytest.mark.parametrize(
    ("patients", "nearest"), [(3, 8), (12, 15), (20, 24), (40, 50), (900, 100)]
)
def test_nearest_is_by_ratio(patients, nearest):
    assert nearest_patients(patients) == nearest


def test_enough_is_where_the_table_says_so():
    """The least number of patients from which on the default holds for every shape."""
    least = {
        n: min(line(shape, n).coverage for shape in get_args(Shape)) for n in (8, 15, 24, 50, 100)
    }
    assert min(n for n in least if all(least[k] >= 0.93 for k in least if k >= n)) == (
        ENOUGH_PATIENTS
    )
