"""The line over a verdict says no more than holds against every rival."""

from __future__ import annotations

from dataclasses import replace

import pytest

from napari_backsplit.backend.comparison.results import Verdict
from napari_backsplit.backend.headline import UNCONTROLLED, headline
from napari_backsplit.backend.shown import Shown

ARMS = ("baseline", "control", "new model")


def shown(*readings: str, hedged: bool = False, **changes: object) -> Shown:
    """Return a result in which the new model reads so against the baseline and the control."""
    said = "Dice probably {}: +0.1" if hedged else "Dice +0.1"
    verdicts = tuple(
        Verdict("lesion", "new model", against, said.format(reading), (), reading)
        for against, reading in zip(ARMS, readings, strict=False)
    )
    result = Shown("0001", "", ARMS, ("control",), ("lesion",), ("case_001",), (), (), (), verdicts)
    return replace(result, **changes)


@pytest.mark.parametrize(
    ("readings", "words"),
    [
        (
            ("better", "better"),
            "✓ Better than the baseline and than the same extra binary training",
        ),
        (("better", "not shown to differ"), "▲ Not shown to be better than the same extra"),
        (("better", "worse"), "▲ Worse than the same extra binary training"),
        (("not shown to differ", "better"), "▲ Not shown to be better than the baseline"),
        (("worse", "not shown to differ"), "▲ Not shown to be better than the baseline and than"),
        (("worse", "worse"), "▲ Worse than the baseline and than the same extra binary training"),
        (("better", "too few to judge"), "● Too few cases to judge"),
        (("no verdict", "better"), "● No verdict"),
    ],
)
def test_the_least_that_holds_counts(readings: tuple[str, str], words: str) -> None:
    assert headline(shown(*readings), "lesion", "new model").startswith(words)


def test_what_is_hedged_is_said_with_probably() -> None:
    result = shown("better", "better", hedged=True)
    assert headline(result, "lesion", "new model").startswith("✓ Probably better than the baseline")


def test_what_finds_fewer_lesions_is_not_better() -> None:
    fewer = frozenset({("lesion", "new model", "baseline")})
    result = shown("better", "better", fewer_found=fewer)
    assert headline(result, "lesion", "new model") == "▲ Worse than the baseline"


def test_a_fine_tune_without_its_control_is_not_called_better() -> None:
    result = shown("better", controls=(), arms=("baseline", "new model"))
    assert headline(result, "lesion", "new model") == UNCONTROLLED


def test_without_a_verdict_there_is_none() -> None:
    assert headline(shown(), "lesion", "new model") == "● No verdict"
    assert headline(shown(cases=()), "lesion", "new model").startswith("● Not measured")
