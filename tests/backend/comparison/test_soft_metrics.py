"""Metrics of shares against values worked out by hand, and their place in a comparison."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from math import isnan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_backsplit.backend.comparison.compare import CaseInput, compare
from napari_backsplit.backend.comparison.definitions import definitions
from napari_backsplit.backend.comparison.intervals import Bootstrap
from napari_backsplit.backend.comparison.report import ReportInfo, write_report
from napari_backsplit.backend.comparison.results import ComparisonSettings
from napari_backsplit.backend.comparison.soft_agreement import SOFT_METRICS
from napari_backsplit.backend.comparison.soft_metrics import SoftReference, extent, union
from napari_backsplit.backend.comparison.tables import read_cases, write_tables
from napari_backsplit.backend.errors import InputError

SHAPE = (2, 3, 4)
SETTINGS = ComparisonSettings(baseline="hard", bootstrap=Bootstrap(resamples=200))


def line(*values: float) -> np.ndarray:
    """A volume with these values along x, from its first voxel, and 0 elsewhere."""
    volume = np.zeros(SHAPE, np.float32)
    volume[0, 0, : len(values)] = values
    return volume


def soft_case(
    reference: np.ndarray | None,
    shares: np.ndarray | None = None,
    probability: np.ndarray | None = None,
    number: int = 1,
    mask: np.ndarray | None = None,
) -> CaseInput:
    """One case: an arm that wrote shares, one that wrote probabilities, where they are given."""
    maps = {"hard": probability, "soft": shares}
    mask = (reference if reference is not None else line()) > 0.5 if mask is None else mask
    return CaseInput(
        case=f"case_{number:03}",
        patient=f"patient_{number:03}",
        spacing_mm=(5.0, 2.0, 10.0),
        reference={"lesion": mask},
        predictions={
            arm: {"lesion": (line() if one is None else one) > 0.5} for arm, one in maps.items()
        },
        probabilities={arm: {"lesion": one} for arm, one in maps.items() if one is not None},
        seen="verified",
        soft={} if reference is None else {"lesion": reference},
        shares=frozenset({"soft"}),
    )


def of(case: CaseInput) -> dict:
    return {row.arm: row for row in compare([case], SETTINGS).rows}


def test_by_hand() -> None:
    """g = 1, 0.5, 0, 0 and p = 0.5, 0.5, 0.25, 0 in voxels of 0.1 ml; the box is 3 voxels.

    sum g = 1.5, sum p = 1.25, sum p g = 0.75; |p - g| = 0.5, 0, 0.25.
    """
    soft = of(soft_case(line(1, 0.5), shares=line(0.5, 0.5, 0.25)))["soft"].soft
    assert soft.soft_dice == pytest.approx(2 * 0.75 / 2.75)
    assert soft.soft_dice_squares == pytest.approx(1.5 / (1.25 + 0.5625))
    assert soft.soft_absolute_error == pytest.approx(0.75 / 3)
    assert soft.soft_squared_error == pytest.approx((0.25 + 0.0625) / 3)
    assert soft.soft_reference_ml == pytest.approx(0.15)
    assert soft.soft_predicted_ml == pytest.approx(0.125)
    assert soft.soft_difference_ml == pytest.approx(-0.025)
    assert soft.soft_difference_percent == pytest.approx(-100 / 6)
    assert soft.soft_absolute_difference_ml == pytest.approx(0.025)
    assert soft.soft_absolute_difference_percent == pytest.approx(100 / 6)
    assert (soft.soft_reference, soft.soft_prediction) == ("soft", "share")


def test_a_fraction_met_exactly_has_no_error_though_plain_dice_rewards_rounding_it_up() -> None:
    case = soft_case(line(0.5, 0.5), shares=line(0.5, 0.5), probability=line(1, 1))
    soft, rounded = (of(case)[arm].soft for arm in ("soft", "hard"))
    assert soft.soft_dice == pytest.approx(0.5)
    assert rounded.soft_dice == pytest.approx(2 / 3)
    assert soft.soft_dice_squares == pytest.approx(1)
    assert rounded.soft_dice_squares == pytest.approx(2 / 2.5)
    assert (soft.soft_absolute_error, soft.soft_squared_error) == (0, 0)
    assert soft.soft_difference_ml == 0


def test_a_hard_model_is_measured_by_its_probability_against_the_same_reference() -> None:
    rows = of(soft_case(line(1, 0.5), shares=line(1, 0.5), probability=line(1, 1)))
    assert rows["soft"].soft.soft_absolute_error == 0
    hard = rows["hard"].soft
    assert hard.soft_prediction == "probability"
    assert hard.soft_absolute_error == pytest.approx(0.25)
    assert hard.soft_squared_error == pytest.approx(0.125)
    assert hard.soft_difference_ml == pytest.approx(0.05)


def test_without_a_soft_mask_the_mask_is_the_reference() -> None:
    soft = of(soft_case(None, shares=line(1, 0.5), mask=line(1, 1) > 0))["soft"].soft
    assert soft.soft_reference == "mask"
    assert soft.soft_dice == pytest.approx(2 * 1.5 / 3.5)
    assert soft.soft_absolute_error == pytest.approx(0.25)
    assert soft.soft_reference_ml == pytest.approx(0.2)


def test_nothing_is_measured_where_nothing_is_soft() -> None:
    case = soft_case(None, probability=line(1, 0.5), mask=line(1, 1) > 0)
    for row in compare([replace(case, shares=frozenset())], SETTINGS).rows:
        assert row.soft.soft_prediction == ""
        assert isnan(row.soft.soft_dice)


def test_what_an_arm_predicts_far_off_does_not_make_its_error_smaller() -> None:
    """The box holds what either arm predicts: 1 of 24 voxels wrong, in the box of both."""
    far = line(1)
    far[1, 2, 3] = 1
    rows = of(soft_case(line(1), shares=far, probability=line(0)))
    assert rows["soft"].soft.soft_absolute_error == pytest.approx(1 / 24)
    assert rows["hard"].soft.soft_absolute_error == pytest.approx(1 / 24)


def test_the_tail_of_a_softmax_is_not_in_the_box() -> None:
    tail = np.full(SHAPE, 0.009, np.float32)
    tail[0, 0, 0] = 1
    rows = of(soft_case(line(1), shares=line(1), probability=tail))
    assert rows["hard"].soft.soft_absolute_error == 0
    assert rows["hard"].soft.soft_difference_ml == pytest.approx(0.1 * 23 * 0.009, rel=1e-5)


def test_empty_masks() -> None:
    """As elsewhere: without a lesion no overlap is defined; one that is missed has Dice 0."""
    free = of(soft_case(line(), shares=line(0.5)))["soft"].soft
    assert isnan(free.soft_dice)
    assert isnan(free.soft_difference_percent)
    assert free.soft_difference_ml == pytest.approx(0.05)
    assert free.soft_absolute_error == pytest.approx(0.5)
    assert isnan(free.soft_dice_squares)
    missed = of(soft_case(line(1, 0.5), shares=line()))["soft"].soft
    assert (missed.soft_dice, missed.soft_dice_squares) == (0, 0)
    assert missed.soft_difference_percent == -100
    both = of(soft_case(line(), shares=line()))["soft"].soft
    assert isnan(both.soft_absolute_error)
    assert isnan(both.soft_squared_error)
    assert both.soft_difference_ml == 0


def test_a_map_that_holds_no_shares_is_refused() -> None:
    with pytest.raises(InputError, match="The share of lesion in case_001 by soft"):
        of(soft_case(line(1), shares=line(7)))
    with pytest.raises(InputError, match="The probability of lesion in case_001 by hard"):
        of(soft_case(line(1), shares=line(1), probability=line(float("nan"))))


SHARES = arrays(np.float32, SHAPE, elements=st.floats(0, 1, width=32))


@given(SHARES, SHARES)
def test_it_is_the_plain_formula_whatever_the_arrays(g: np.ndarray, p: np.ndarray) -> None:
    """In float64 over whole arrays; swapping both leaves errors and Dice as they are."""
    box = union([extent(g > 0), extent(p >= 0.01)])
    ours = SoftReference(g, "soft", box, 0.1).measure(p, "share")
    turned = SoftReference(p, "soft", box, 0.1).measure(g, "share")
    wide, other = g.astype(float), p.astype(float)
    if box is not None:
        difference = (other - wide)[box]
        assert ours.soft_absolute_error == pytest.approx(np.abs(difference).mean(), abs=1e-12)
        assert ours.soft_squared_error == pytest.approx((difference**2).mean(), abs=1e-12)
        assert ours.soft_squared_error <= ours.soft_absolute_error + 1e-12
        assert turned.soft_absolute_error == pytest.approx(ours.soft_absolute_error)
    if wide.sum() and other.sum():
        dice = 2 * (wide * other).sum() / (wide.sum() + other.sum())
        assert ours.soft_dice == pytest.approx(dice)
        assert turned.soft_dice == pytest.approx(dice)


@given(arrays(np.bool_, SHAPE))
def test_the_box_is_the_smallest(where: np.ndarray) -> None:
    box = extent(where)
    if not where.any():
        assert box is None
        return
    assert box is not None
    inside = np.zeros(SHAPE, bool)
    inside[box] = True
    assert not where[~inside].any()
    for axis in range(3):
        kept = np.moveaxis(where[box], axis, 0)
        assert kept[0].any()
        assert kept[-1].any()


# --- in a comparison ----------------------------------------------------------------------------


def cohort() -> list[CaseInput]:
    """Twelve cases of which the soft arm is nearer to the soft reference in each; two are free."""
    rng = np.random.default_rng(0)
    cases = []
    for number in range(1, 13):
        free = number > 10
        reference = line() if free else line(1, *rng.uniform(0.2, 0.9, 2))
        near = np.clip(reference + rng.normal(0, 0.02, SHAPE), 0, 1).astype(np.float32)
        hard = (reference > 0.5).astype(np.float32)
        cases.append(soft_case(reference, near, hard, number))
    return cases


def test_differences_are_paired_and_masks_stay_as_they_are() -> None:
    cases = cohort()
    comparison = compare(cases, SETTINGS)
    by_name = {
        (contrast.metric.name, contrast.group): contrast.difference for contrast in comparison.soft
    }
    error = by_name["soft_absolute_error", "lesion"]
    assert error.pairs == 10
    assert error.reading == "better"
    assert error.value < 0
    assert by_name["soft_absolute_difference_ml", "lesion-free"].pairs == 2
    bare = [replace(case, soft={}, shares=frozenset()) for case in cases]
    plain = compare(bare, SETTINGS)
    assert plain.soft == ()
    assert repr(plain.contrasts) == repr(comparison.contrasts)
    assert plain.verdicts == comparison.verdicts


def test_only_cases_with_maps_of_both_are_paired() -> None:
    cases = cohort()
    cases[0] = replace(cases[0], probabilities={"soft": cases[0].probabilities["soft"]})
    comparison = compare(cases, SETTINGS)
    dice = next(c for c in comparison.soft if c.metric.name == "soft_dice")
    assert dice.difference.pairs == 9


def test_the_tables_hold_them_and_are_read_back(tmp_path) -> None:
    comparison = compare(cohort(), SETTINGS)
    write_tables(comparison, tmp_path)
    with (tmp_path / "cases.csv").open(newline="") as file:
        first = next(csv.DictReader(file))
    assert (first["soft_reference"], first["soft_prediction"]) == ("soft", "probability")
    for row, read in zip(comparison.rows, read_cases(tmp_path / "cases.csv"), strict=True):
        assert repr(read.soft) == repr(row.soft)
    soft = json.loads((tmp_path / "summary.json").read_text())["soft"]
    notes = " ".join(soft["targets"]["lesion"]["notes"])
    assert "soft mask in 12 of 12 cases" in notes
    assert "hard predicts classes: its probability of lesion is taken for a share" in notes
    assert "soft predicts shares" in notes
    means = {(each["arm"], each["group"]): each for each in soft["targets"]["lesion"]["means"]}
    assert means["soft", "lesion"]["cases"] == 10
    assert means["soft", "lesion"]["means"]["soft_dice"] > 0.6
    assert {each["metric"] for each in soft["differences"]} == {
        metric.name for metrics in SOFT_METRICS.values() for metric in metrics
    }


def test_a_comparison_without_shares_has_no_such_columns(tmp_path) -> None:
    bare = [replace(case, soft={}, shares=frozenset()) for case in cohort()]
    write_tables(compare(bare, SETTINGS), tmp_path)
    assert "soft" not in (tmp_path / "cases.csv").read_text().splitlines()[0]
    assert "soft" not in json.loads((tmp_path / "summary.json").read_text())


def test_the_report_has_a_section_only_where_there_is_anything(tmp_path) -> None:
    info = ReportInfo(title="Shares")
    soft = write_report(compare(cohort(), SETTINGS), tmp_path / "a", None, info).read_text()
    assert "<h2>soft agreement</h2>" in soft
    assert "<h3>Lesion cases: soft against hard</h3>" in soft
    assert "Mean absolute error ↓" in soft
    assert "its probability of lesion is taken for a share" in soft
    assert all(each.text in soft.replace("&gt;", ">") for each in definitions(soft=True)[-5:])
    bare = [replace(case, soft={}, shares=frozenset()) for case in cohort()]
    plain = write_report(compare(bare, SETTINGS), tmp_path / "b", None, info).read_text()
    assert "soft agreement" not in plain
    assert "Soft Dice" not in plain


def test_every_metric_of_shares_is_defined() -> None:
    told = {definition.name for definition in definitions(soft=True)}
    labels = {m.label.split(",")[0] for metrics in SOFT_METRICS.values() for m in metrics}
    assert labels <= told
    assert not labels & {definition.name for definition in definitions()}
