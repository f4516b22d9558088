from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_backsplit.backend.answer import CONTROL_WORDS, Answer, _plain, answer
from napari_backsplit.backend.comparison.verdicts import MINUS
from napari_backsplit.backend.files import read_json, write_json
from napari_backsplit.backend.jobs import submit
from napari_backsplit.backend.training.spec import RunSpec
from tests.backend.improvement_support import compared

MANY = 12
LOW = [0.5 + 0.01 * (k % 3) for k in range(MANY)]
HIGH = [value + 0.2 for value in LOW]
SAME = [value + 0.01 * (-1) ** k for k, value in enumerate(LOW)]
NONE = [0.0] * MANY


def answered(folder: Path, seen: str = "verified", **dice: list[float]) -> Answer:
    """Return the answer of a comparison; `new` is the new model's Dice."""
    arms = {"new model" if name == "new" else name: values for name, values in dice.items()}
    job = compared(folder, arms, seen)
    found = answer(folder, job.id)
    assert found is not None
    return found


def test_better_than_both_is_better_and_says_by_how_much(tmp_path: Path) -> None:
    found = answered(tmp_path, baseline=LOW, control=SAME, new=HIGH)
    assert found.better is True
    words = f"The new model is probably better than the baseline and than {CONTROL_WORDS}. "
    assert found.text.startswith(words)
    assert "Dice +0.20 [0.20, 0.20], finds 12 of 12 lesions against 12" in found.text
    assert f"on {MANY} cases that no model had seen" in found.text
    assert found.gained == tuple(f"case_{k:03}" for k in range(1, MANY + 1))
    assert found.lost == ()
    assert found.report == tmp_path / "comparisons" / "0001-compare" / "report.html"
    assert len(found.verdicts) == 3


def test_what_longer_training_gives_too_is_no_gain(tmp_path: Path) -> None:
    found = answered(tmp_path, baseline=LOW, control=HIGH, new=[value + 0.2 for value in SAME])
    assert found.better is False
    assert found.text.startswith(f"The new model is not shown to be better than {CONTROL_WORDS}.")
    assert "Probably better than the baseline (Dice +0.20" in found.text


def test_worse_is_called_worse_and_names_the_cases(tmp_path: Path) -> None:
    found = answered(tmp_path, baseline=HIGH, control=HIGH, new=[*HIGH[:2], *LOW[2:]])
    assert found.better is False
    assert found.text.startswith(
        "The new model is probably worse than the baseline and than the same"
    )
    assert found.lost == tuple(f"case_{k:03}" for k in range(3, MANY + 1))
    assert "Worse by more than 0.05 Dice in case_003" in found.text


def test_without_a_control_a_gain_may_be_the_longer_training_alone(tmp_path: Path) -> None:
    found = answered(tmp_path, baseline=LOW, new=HIGH)
    assert found.better is None
    assert "longer training may explain it" in found.text
    assert answered(tmp_path, baseline=LOW, new=SAME).better is False


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        ("unknown", "it is not known whether the models had seen these cases. Declare"),
        ("seen", "No verdict: a model had seen every case."),
    ],
)
def test_cases_that_may_have_been_seen_give_no_verdict(
    tmp_path: Path, seen: str, words: str
) -> None:
    found = answered(tmp_path, seen, baseline=LOW, control=LOW, new=HIGH)
    assert (found.better, found.cases, found.gained) == (None, 0, ())
    assert words in found.text
    assert "Declare" not in found.text or seen == "unknown"


def test_a_declaration_is_told_with_the_answer(tmp_path: Path) -> None:
    found = answered(tmp_path, "declared", baseline=LOW, control=LOW, new=HIGH)
    assert found.better is True
    assert "12 of them by your word alone" in found.text


def test_few_cases_are_too_few(tmp_path: Path) -> None:
    found = answered(tmp_path, baseline=LOW[:3], control=LOW[:3], new=HIGH[:3])
    assert found.better is None
    assert found.text.startswith("It cannot be said whether the new model is better.")


def test_arms_of_a_cross_validation_are_called_by_their_names(tmp_path: Path) -> None:
    found = answered(tmp_path, binary=LOW, backsplit=HIGH)
    assert found.better is True
    assert found.text.startswith("Backsplit is probably better than binary.")


DICE = st.lists(st.floats(0, 1), min_size=8, max_size=8)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(baseline=DICE, control=DICE, new=DICE)
def test_a_gain_is_one_against_both_and_silence_never_wins(
    tmp_path: Path, baseline: list[float], control: list[float], new: list[float]
) -> None:
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    found = answered(tmp_path, baseline=baseline, control=control, new=new)
    if found.better:
        assert sum(new) > max(sum(baseline), sum(control))
        assert found.text.startswith("The new model is probably better than")
    silent = answered(tmp_path, baseline=baseline, control=control, new=[0.0] * 8)
    assert silent.better is not True
    assert set(found.gained).isdisjoint(found.lost)


def test_before_the_comparison_is_over_there_is_no_answer(tmp_path: Path) -> None:
    first = submit(tmp_path, "train", {}, start=False)
    params = {"arms": {"baseline": "jobs/1", "new model": "jobs/2"}}
    submit(tmp_path, "compare", params, chain=first.id, start=False)
    assert answer(tmp_path, first.id) is None
    later = compared(tmp_path, {"baseline": LOW, "new model": SAME}, chain=first.id)
    found = answer(tmp_path, first.id)
    assert found is not None
    assert later.id in str(found.report)
    assert answer(tmp_path, "0099-train") is None


def trained(folder: Path, name: str, arm: str, epochs: int = 5, **run: Any) -> str:
    """Leave a prediction by a model that was trained so; return its place."""
    model = folder / "jobs" / f"{name}-train" / "model"
    spec = RunSpec(arm=arm, **run).model_dump(mode="json")
    write_json(model / "dataset.json", {"backsplit": {"run": spec, "trained": {"epochs": epochs}}})
    params = {"model": f"jobs/{name}-train/model"}
    write_json(folder / "jobs" / name / "job.json", {"params": params})
    return f"jobs/{name}"


def against(folder: Path, ours: list[str], control: list[str]) -> Answer:
    """Return the answer where Dice rose against both."""
    dice = {"baseline": LOW, "control": SAME, "new model": HIGH}
    job = compared(folder, dice, arms={"baseline": "b", "control": control, "new model": ours})
    found = answer(folder, job.id)
    assert found is not None
    return found


def test_a_control_of_other_settings_is_none(tmp_path: Path) -> None:
    """One of the two may have been repeated, with a smaller batch for one."""
    one = [trained(tmp_path, "ours", "backsplit", supports=("kidney",), hours=1.0, threads=2)]
    same = [trained(tmp_path, "same", "binary", same_epochs_as="jobs/x/model")]
    assert against(tmp_path, one, same).better is True
    for change, words in (({"batch_size": 1}, "batch size"), ({"epochs": 4}, "epochs")):
        other = [trained(tmp_path, f"other-{words}", "binary", **change)]
        found = against(tmp_path, one, other)
        assert found.better is None
        assert f"not the same: it differs in {words}." in found.text
        assert against(tmp_path, [*one, *one], [*same, *other]).better is None, "of any fold"
    assert against(tmp_path, one, ["jobs/deleted"]).better is True


def test_more_false_positives_are_told_with_a_gain_in_dice(tmp_path: Path) -> None:
    found = answered(tmp_path, baseline=LOW, control=SAME, new=HIGH)
    assert "false positives" not in found.text
    summary = next(tmp_path.glob("comparisons/*/summary.json"))
    content = read_json(summary)
    for each in content["differences"]:
        if (each["arm"], each["metric"]) == ("new model", "false_positives"):
            each["reading"] = "worse" if each["group"] == "lesion-free" else each["reading"]
    write_json(summary, content)
    told = answer(tmp_path, "0001-compare")
    assert told is not None
    assert "more false positives in lesion-free cases than the baseline." in told.text


def test_what_holds_in_a_stratum_alone_is_not_the_answer(tmp_path: Path) -> None:
    answered(tmp_path, baseline=LOW, control=SAME, new=HIGH)
    summary = next(tmp_path.glob("comparisons/*/summary.json"))
    content = read_json(summary)
    worse = [{**each, "stratum": "< 1 ml", "reading": "worse"} for each in content["differences"]]
    write_json(summary, {**content, "differences": worse + content["differences"]})
    told = answer(tmp_path, "0001-compare")
    assert told is not None
    assert told.better is True
    assert "worse" not in told.text


def test_an_interval_that_excludes_zero_does_not_seem_to_hold_it() -> None:
    assert [_plain(v) for v in (0.004, -0.004, 0.0, 0.0001, 0.034)] == [
        "0.004",
        f"{MINUS}0.004",
        "0.00",
        "0.00",
        "0.03",
    ]
