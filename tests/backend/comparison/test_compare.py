from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_backsplit.backend.comparison.compare import CaseInput, compare
from napari_backsplit.backend.comparison.curves import (
    OperatingPoint,
    at_sensitivity,
    average_precision,
    lesions_by_threshold,
    pool,
)
from napari_backsplit.backend.comparison.results import ComparisonSettings
from napari_backsplit.backend.comparison.runs import encode
from napari_backsplit.backend.comparison.verdicts import reading_of
from napari_backsplit.backend.errors import InputError

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
        "Finds 8 more of 16 lesions; Dice +0.33 [0.33, 0.33]; false positives not shown to differ."
    )
    assert said.reading == "better"
    assert "Lesion sensitivity 100 % against 50 %" in " ".join(said.details)


def test_a_network_that_finds_nothing_gains_nothing():
    """It loses every false positive with every lesion."""
    cases = [case(k, line((2, 6)), line((2, 6), (20, 22)), line()) for k in range(8)]
    comparison = compare(cases, SETTINGS)
    said = comparison.verdicts[0]
    assert said.reading == "worse"
    assert said.sentence.startswith("Finds 8 fewer of 8 lesions")
    assert "fewer (−1.00 [−1.00, −1.00] per case), but not a gain" in said.sentence
    for name in ("false_positives", "false_positive_ml"):
        contrast = comparison.contrast("lesion", "backsplit", "baseline", "lesion", name)
        assert reading_of(comparison, contrast) == "fewer found: no gain"
    assert comparison.summary("lesion", "backsplit", "lesion").missed == 8


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
    assert said.sentence.endswith("false positives fewer (−1.00 [−1.00, −1.00] per case).")


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
    assert "in lesion cases not shown to differ, in lesion-free cases more" in sentence


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
    unseen = [case(k, line((2, 6)), line((2, 6)), line((2, 6))) for k in range(7)]
    seen = [
        case(k, line((2, 6)), line(), line((2, 6)), seen=s)
        for k, s in ((7, "seen"), (8, "unknown"))
    ]
    comparison = compare([*unseen, *seen], SETTINGS)
    assert comparison.summary("lesion", "backsplit", "lesion").cases == 7
    assert comparison.verdicts[0].reading == "not shown to differ"
    all_seen = compare([replace(c, seen="seen") for c in unseen], SETTINGS)
    assert all_seen.verdicts[0].sentence == "No verdict: a model had seen every case."
    assert all_seen.summary("lesion", "backsplit", "lesion").cases == 0


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
    points = pool([lesions_by_threshold(encode(line((2, 6), (10, 14))), probability)])
    assert at_sensitivity(points, 2) == OperatingPoint(0.5, 2, 2, 1)
    assert at_sensitivity(points, 1).false_positives == 0
    assert at_sensitivity(points, 3) is None


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
