from __future__ import annotations

import weakref
from dataclasses import replace

import numpy as np
import pytest

from napari_backsplit.backend.comparison.compare import CaseInput, compare
from napari_backsplit.backend.comparison.curves import (
    OperatingPoint,
    at_sensitivity,
    average_precision,
    froc,
    lesions_by_threshold,
)
from napari_backsplit.backend.comparison.lesions import LesionSettings
from napari_backsplit.backend.comparison.results import PRIMARY, ComparisonSettings
from napari_backsplit.backend.comparison.runs import encode
from napari_backsplit.backend.comparison.statistics import holm
from napari_backsplit.backend.comparison.verdicts import reading_of
from napari_backsplit.backend.errors import BackSplitError, InputError

SETTINGS = ComparisonSettings("baseline")


def line(*spans, length=40):
    mask = np.zeros((1, 1, length), bool)
    for start, stop in spans:
        mask[..., start:stop] = True
    return mask


def case(number, reference, baseline, backsplit, **options):
    return CaseInput(
        **{
            "case": f"case_{number:03}",
            "patient": f"patient_{number:03}",
            "spacing_mm": (10.0, 10.0, 10.0),
            "reference": {"lesion": reference},
            "predictions": {"baseline": {"lesion": baseline}, "backsplit": {"lesion": backsplit}},
            "seen": "verified",
            **options,
        }
    )


def verdict(cases, settings=SETTINGS):
    return compare(cases, settings).verdicts[0]


def test_a_clear_gain_is_said_with_its_interval():
    cases = [
        case(k, line((2, 6), (10, 14)), line((2, 6)), line((2, 6), (10, 14))) for k in range(8)
    ]
    said = verdict(cases)
    assert said.sentence == (
        "Probably finds more lesions (8 more of 16); Dice probably better: +0.33 "
        "[0.33, 0.33]; false positives not shown to differ."
    )
    assert said.reading == "better"
    assert "Lesion sensitivity 100 % against 50 %" in " ".join(said.details)


def test_a_network_that_finds_nothing_gains_nothing():
    """It loses every false positive with every lesion."""
    cases = [case(k, line((2, 6)), line((2, 6), (20, 22)), line()) for k in range(8)]
    comparison = compare(cases, SETTINGS)
    said = comparison.verdicts[0]
    assert said.reading == "worse"
    assert said.sentence.startswith("Probably finds fewer lesions (8 fewer of 8)")
    assert "probably fewer (−1.00 [−1.00, −1.00] per case), but not a gain" in said.sentence
    for name in ("false_positives", "false_positive_ml"):
        contrast = comparison.contrast("lesion", "backsplit", "baseline", "lesion", name)
        assert reading_of(comparison, contrast) == "fewer found: no gain"
    assert comparison.summary("lesion", "backsplit", "lesion").missed == 8


def test_silence_after_far_too_much_is_no_gain_in_volume():
    """Nothing is nearer to 4 ml than 34 ml are."""
    cases = [case(k, line((2, 6)), line((2, 36)), line()) for k in range(8)]
    comparison = compare(cases, SETTINGS)
    contrast = comparison.contrast(
        "lesion", "backsplit", "baseline", "lesion", "absolute_difference_ml"
    )
    assert contrast.difference.reading == "better"
    assert reading_of(comparison, contrast) == "fewer found: no gain"


def test_silence_on_lesion_free_cases_alone_is_no_gain():
    cases = [case(k, line(), line((2, 3)), line()) for k in range(8)]
    comparison = compare(cases, SETTINGS)
    (said,) = comparison.verdicts
    assert said.sentence.startswith("No lesion case to compare")
    assert "not a gain: without a lesion" in said.sentence
    assert "fewer lesions" not in said.sentence
    contrast = comparison.contrast(
        "lesion", "backsplit", "baseline", "lesion-free", "false_positives"
    )
    assert reading_of(comparison, contrast) == "no lesion: no gain"


def test_fewer_false_positives_count_where_no_fewer_lesions_are_found():
    cases = [case(k, line((2, 6)), line((2, 6), (20, 22)), line((2, 6))) for k in range(8)]
    said = verdict(cases)
    assert "Dice better" not in said.sentence
    assert said.sentence.endswith("false positives probably fewer (−1.00 [−1.00, −1.00] per case).")


def test_lesion_and_lesion_free_cases_are_apart():
    found = [case(k, line((2, 6)), line((2, 6)), line((2, 6))) for k in range(8)]
    free = [case(k, line(), line(), line((1, 3), (9, 10))) for k in range(8, 16)]
    comparison = compare([*found, *free], SETTINGS)
    lesion = comparison.summary("lesion", "backsplit", "lesion")
    without = comparison.summary("lesion", "backsplit", "lesion-free")
    assert (lesion.cases, without.cases) == (8, 8)
    assert lesion.means["dice"] == 1
    assert without.means == {
        "any_false_positive": 1,
        "false_positives": 2,
        "false_positive_ml": pytest.approx(3.0),
    }
    sentence = comparison.verdicts[0].sentence
    assert "in lesion cases not shown to differ, in lesion-free cases probably more" in sentence


def test_a_small_difference_is_not_shown():
    rng = np.random.default_rng(0)
    cases = []
    for k in range(12):
        first, second = rng.integers(-1, 2, 2)
        cases.append(case(k, line((10, 20)), line((10 + first, 20)), line((10 + second, 20))))
    said = verdict(cases)
    assert said.reading == "not shown to differ"
    assert "Finds 12 of 12 lesions against 12, not shown to differ" in said.sentence
    assert "Dice not shown to differ (" in said.sentence


def test_few_patients_get_no_reading():
    said = verdict([case(k, line((2, 6)), line(), line((2, 6))) for k in range(5)])
    assert said.reading == "too few to judge"


def test_unknown_cases_get_no_verdict_but_numbers():
    cases = [case(k, line((2, 6)), line(), line((2, 6)), seen="unknown") for k in range(8)]
    comparison = compare(cases, SETTINGS)
    assert comparison.verdicts[0].reading == "no verdict"
    contrast = comparison.contrast("lesion", "backsplit", "baseline", "lesion", "dice")
    assert contrast.difference.value == 1
    assert reading_of(comparison, contrast) == "no verdict"


def test_cases_that_a_model_has_seen_are_not_counted():
    unseen = [case(k, line((2, 6)), line((2, 6)), line((2, 6))) for k in range(9)]
    seen = [
        case(k, line((2, 6)), line(), line((2, 6)), seen=s)
        for k, s in ((9, "seen"), (10, "unknown"))
    ]
    comparison = compare([*unseen, *seen], SETTINGS)
    assert comparison.summary("lesion", "backsplit", "lesion").cases == 9
    assert comparison.verdicts[0].reading == "not shown to differ"
    all_seen = compare([replace(c, seen="seen") for c in unseen], SETTINGS)
    assert all_seen.verdicts[0].sentence == "No verdict: a model had seen every case."
    assert all_seen.summary("lesion", "backsplit", "lesion").cases == 0


def test_no_common_unseen_case_is_said():
    """Some cases one model had seen; of the rest it is not known."""
    cases = [
        case(k, line((2, 6)), line(), line((2, 6)), seen="seen" if k < 3 else "unknown")
        for k in range(8)
    ]
    said = verdict(cases)
    assert said.reading == "no verdict"
    assert said.sentence == (
        "No verdict: no case is known to be unseen by every model. One had seen 3 of 8 cases, "
        "of the others it is not known."
    )


def test_one_case_has_figures_but_no_statistics_and_it_is_said_why():
    comparison = compare([case(1, line((2, 6)), line((20, 21)), line((2, 6)))], SETTINGS)
    said = comparison.verdicts[0]
    assert said.reading == "too few to judge"
    assert said.sentence == (
        "No statistics: there is one case, and of one case it cannot be said what holds for "
        "others. False positives 0 against 1; finds 1 of 1 lesion against 0; Dice 1.00 against "
        "0.00."
    )
    dice = comparison.contrast("lesion", "backsplit", "baseline", "lesion", "dice").difference
    assert (dice.value, dice.pairs) == (1, 1)
    assert np.isnan([dice.low, dice.high, dice.wilcoxon_p, dice.holm_p, dice.coverage]).all()


def test_one_lesion_free_case():
    said = verdict([case(1, line(), line((2, 3)), line())])
    assert said.sentence.endswith("holds for others. False positives 0 against 1.")


def test_many_cases_of_one_patient_are_no_sample():
    cases = [case(k, line((2, 6)), line(), line((2, 6)), patient="p") for k in range(9)]
    said = verdict(cases)
    assert said.sentence.startswith("No statistics: all 9 cases are of one patient")
    assert said.reading == "too few to judge"


def test_the_four_empty_combinations():
    """Reference and prediction, each empty or not: what is defined, and where it counts."""
    full, empty = line((2, 6)), line()
    pairs = [(full, full), (full, empty), (empty, full), (empty, empty)]
    cases = [case(k, reference, full, ours) for k, (reference, ours) in enumerate(pairs)]
    comparison = compare(cases, SETTINGS)
    ours = {row.case: row for row in comparison.rows if row.arm == "backsplit"}
    assert [row.group for row in ours.values()] == [
        "lesion",
        "lesion",
        "lesion-free",
        "lesion-free",
    ]
    dice = [row.measures.dice for row in ours.values()]
    assert dice[:2] == [1, 0]
    assert np.isnan(dice[2:]).all()
    assert [row.measures.false_positives for row in ours.values()] == [0, 0, 1, 0]
    assert [row.missed for row in ours.values()] == [False, True, False, False]
    for name, pairs_left in (("dice", 2), ("hd95_mm", 1), ("precision", 1)):
        contrast = comparison.contrast("lesion", "backsplit", "baseline", "lesion", name)
        assert contrast.difference.pairs == pairs_left


# ---------------------------------------------------------------- strata, tests, hedging


def small_and_large(count=8):
    """Small-lesion cases in which the new arm is silent, large-lesion ones in which it finds more.

    Over all cases both find as many. A voxel is 1 ml.
    """
    small = [case(k, line((2, 6)), line((2, 6), (20, 22)), line()) for k in range(count)]
    lesions = line((2, 6), (10, 24))
    large = [case(k, lesions, line((2, 6)), lesions) for k in range(count, 2 * count)]
    return [*small, *large]


def test_strata_of_cases_by_the_volume_of_their_reference():
    comparison = compare(small_and_large(), SETTINGS)
    assert comparison.strata == ("all", "1 to 10 ml", ">= 10 ml")
    found = {
        stratum: comparison.contrast("lesion", "backsplit", "baseline", "lesion", "dice", stratum)
        for stratum in comparison.strata
    }
    assert {stratum: c.difference.pairs for stratum, c in found.items()} == {
        "all": 16,
        "1 to 10 ml": 8,
        ">= 10 ml": 8,
    }
    assert found["1 to 10 ml"].difference.value == pytest.approx(-2 * 4 / 10)
    assert found[">= 10 ml"].difference.value == pytest.approx(1 - 2 * 4 / 22)
    everything = [
        c.stratum for c in comparison.contrasts_of("lesion", "backsplit", "baseline", None)
    ]
    assert everything == sorted(everything, key=comparison.strata.index)


def test_other_limits_make_other_strata():
    settings = replace(SETTINGS, lesions=LesionSettings(strata_ml=(5.0,)))
    assert compare(small_and_large(), settings).strata == ("all", "< 5 ml", ">= 5 ml")


def test_silence_in_a_stratum_is_no_gain_there():
    comparison = compare(small_and_large(), SETTINGS)
    readings = {
        stratum: reading_of(
            comparison,
            comparison.contrast(
                "lesion", "backsplit", "baseline", "lesion", "false_positives", stratum
            ),
        )
        for stratum in comparison.strata
    }
    assert readings["1 to 10 ml"] == "fewer found: no gain"
    assert comparison.summary("lesion", "backsplit", "lesion").found_lesions == 16
    assert comparison.summary("lesion", "baseline", "lesion").found_lesions == 16


def test_the_sizes_of_lesions_are_summed():
    summary = compare(small_and_large(), SETTINGS).summary("lesion", "baseline", "lesion")
    counts = {size.name: (size.reference, size.found) for size in summary.by_stratum}
    assert counts == {"< 1 ml": (0, 0), "1 to 10 ml": (16, 16), ">= 10 ml": (8, 0)}


def test_holm_runs_over_the_primary_metrics_of_lesion_cases():
    comparison = compare(small_and_large(), SETTINGS)
    for stratum in comparison.strata:
        family = {
            c.metric.name: c.difference
            for c in comparison.contrasts_of("lesion", "backsplit", "baseline", stratum)
            if c.group == "lesion" and c.metric.name in PRIMARY
        }
        assert set(family) == set(PRIMARY)
        expected = holm({name: each.wilcoxon_p for name, each in family.items()})
        assert {name: each.holm_p for name, each in family.items()} == expected
    others = [c for c in comparison.contrasts if c.metric.name not in PRIMARY]
    assert np.isnan([c.difference.holm_p for c in others]).all()


def test_what_does_not_survive_holm_is_not_claimed_and_that_is_said():
    """Six of twelve cases gain: p is 2/2^6 alone, and 4 times that among four metrics."""
    cases = [
        case(k, line((2, 12)), line((3, 12)), line((2, 12) if k % 2 else (3, 12)))
        for k in range(12)
    ]
    comparison = compare(cases, SETTINGS)
    dice = comparison.contrast("lesion", "backsplit", "baseline", "lesion", "dice").difference
    assert dice.low > 0
    assert dice.wilcoxon_p == pytest.approx(2 / 2**6)
    assert dice.holm_p == pytest.approx(4 * 2 / 2**6)
    said = comparison.verdicts[0]
    assert said.reading == "not shown to differ"
    assert "Dice not shown to differ (" in said.sentence
    taken_back = next(text for text in said.details if "excludes zero" in text)
    assert taken_back.startswith("Dice")
    assert "after Holm's correction p is not below 0.05" in taken_back


def test_below_fifty_patients_the_measured_coverage_is_said():
    def said(patients):
        cases = [case(k, line((2, 6)), line((3, 6)), line((2, 6))) for k in range(patients)]
        return verdict(cases)

    few, many = said(24), said(50)
    assert "Dice probably better:" in few.sentence
    told = next(text for text in few.details if "simulations" in text)
    assert "With 24 patients" in told
    assert "95 % are aimed at" in told
    assert "robably" not in many.sentence
    assert not any("simulations" in text for text in many.details)


def test_the_lesions_are_listed(cases):
    comparison = compare(cases[:3], SETTINGS)
    reference = [row for row in comparison.lesions if row.kind == "reference"]
    counted = sum(
        row.measures.reference_lesions for row in comparison.rows if row.arm == "baseline"
    )
    assert len(reference) == counted > 0


def test_one_case_is_in_memory_at_a_time():
    read = []

    def make(number):
        assert not any(earlier() for earlier in read)
        one = case(number, line((2, 6)), line(), line((2, 6)))
        read.append(weakref.ref(one))
        return one

    compare((make(k) for k in range(3)), SETTINGS)
    assert len(read) == 3


def test_a_control_is_measured_too():
    cases = []
    for k in range(8):
        one = case(k, line((2, 6)), line(), line((2, 6)))
        arms = {**one.predictions, "more binary": {"lesion": line((2, 6))}}
        cases.append(replace(one, predictions=arms))
    comparison = compare(cases, ComparisonSettings("baseline", controls=("more binary",)))
    assert comparison.pairs == (
        ("backsplit", "baseline"),
        ("more binary", "baseline"),
        ("backsplit", "more binary"),
    )
    assert [v.reading for v in comparison.verdicts] == ["better", "better", "not shown to differ"]


def test_several_targets_each_have_their_verdict():
    one = case(1, line((2, 6)), line((2, 6)), line((2, 6)))
    arms = {arm: {"cyst": line(), "tumour": line((1, 2))} for arm in one.predictions}
    two = replace(one, reference={"cyst": line(), "tumour": line((1, 2))}, predictions=arms)
    comparison = compare([two], SETTINGS)
    assert comparison.targets == ("cyst", "tumour")
    assert {row.target: row.group for row in comparison.rows} == {
        "cyst": "lesion-free",
        "tumour": "lesion",
    }


def test_the_order_of_cases_does_not_matter(cases):
    there, back = compare(cases, SETTINGS), compare(cases[::-1], SETTINGS)
    assert there.verdicts == back.verdicts
    for one, other in zip(there.contrasts, back.contrasts, strict=True):
        for name in ("value", "low", "high"):
            values = [getattr(item.difference, name) for item in (one, other)]
            assert values[0] == pytest.approx(values[1], nan_ok=True)


@pytest.mark.parametrize(
    "wrong", ["none", "twice", "arm", "target", "baseline", "alone", "control"]
)
def test_what_cannot_be_compared_is_refused(wrong):
    one, two = (case(k, line((2, 6)), line(), line()) for k in (1, 2))
    only = {"baseline": one.predictions["baseline"]}
    given = {
        "none": [],
        "twice": [one, one],
        "arm": [one, replace(two, predictions=only)],
        "target": [one, replace(two, predictions={**two.predictions, "backsplit": {}})],
        "alone": [replace(one, predictions=only)],
    }
    settings = {
        "baseline": ComparisonSettings("binary"),
        "control": ComparisonSettings("baseline", controls=("virtual",)),
    }
    with pytest.raises(InputError):
        compare(given.get(wrong, [one]), settings.get(wrong, SETTINGS))


def test_average_precision_worked_by_hand():
    """Ranked: hit, miss, hit: (1/2) * 1 + (1/2) * 2/3."""
    mask = np.array([[[1, 0, 1, 0]]], bool)
    probability = np.array([[[0.9, 0.8, 0.7, 0.1]]])
    assert average_precision(mask, probability) == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert average_precision(mask, np.full(mask.shape, 0.3)) == pytest.approx(0.5)
    assert np.isnan(average_precision(mask & False, probability))


def test_false_positives_at_equal_sensitivity():
    """At 0.5 both lesions and one false positive; at 0.3 two false positives."""
    probability = line().astype(float)
    probability[..., 2:6], probability[..., 10:14] = 0.9, 0.55
    probability[..., 20:22], probability[..., 30:31] = 0.6, 0.35
    points = froc([lesions_by_threshold(encode(line((2, 6), (10, 14))), probability)])
    assert at_sensitivity(points, 2) == OperatingPoint(0.5, 2, 2, 1, cases=1)
    assert at_sensitivity(points, 1).false_positives == 0
    assert at_sensitivity(points, 3) is None


@pytest.mark.parametrize("wrong", [line((2, 6)) * 255, line((2, 6)) * np.nan, line(length=9)])
def test_what_is_no_probability_is_refused_with_its_case_and_arm(wrong):
    given = {"backsplit": {"lesion": wrong}}
    one = case(3, line((2, 6)), line(), line((2, 6)), probabilities=given)
    with pytest.raises(BackSplitError, match=r"lesion in case_003 by backsplit"):
        compare([one], SETTINGS)


def test_probabilities_give_matched_sensitivity():
    probability = line((2, 6)) * 0.8 + line((20, 22)) * 0.6
    cases = [
        case(
            *(k, line((2, 6)), line((2, 6), (30, 31)), line((2, 6), (20, 22))),
            probabilities={"backsplit": {"lesion": probability}},
        )
        for k in range(8)
    ]
    comparison = compare(cases, SETTINGS)
    match = comparison.matched[0]
    assert (match.found, match.false_positives, match.point.false_positives) == (8, 8, 0)
    assert "0 false positives against 8" in comparison.verdicts[0].details[-1]
    assert comparison.summary("lesion", "backsplit", "lesion").means["average_precision"] == 1
