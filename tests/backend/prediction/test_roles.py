from __future__ import annotations

from typing import Any

import pytest

from napari_backsplit.backend.prediction.roles import held_out, role_of

OWN = {"a"}
RUN: dict[str, Any] = {"patience": None, "same_epochs_as": None, "baseline_checkpoint": "x"}


def card(**changes: Any) -> dict[str, Any]:
    """Return what a model says that was trained on the image b and held out the image a."""
    data = {"training": {"case_002": "b"}, "validation": {"case_001": "a"}}
    return {"data": data, "run": RUN, "baseline": None, **changes}


def tuned(checkpoint: str = "checkpoint_final.pth", **start: Any) -> dict[str, Any]:
    """Return the card of a fine-tune of the same fold."""
    return card(run={**RUN, "baseline_checkpoint": checkpoint}, baseline=card(**start))


@pytest.mark.parametrize(
    ("model", "checkpoint", "expected"),
    [
        (card(), "checkpoint_final.pth", True),
        (card(), "checkpoint_best.pth", False),
        (card(run={**RUN, "patience": 5}), "checkpoint_final.pth", False),
        (card(run={**RUN, "same_epochs_as": "jobs/x/model"}), "checkpoint_final.pth", False),
        (card(run=None), "checkpoint_final.pth", False),
        (card(exported_checkpoint="checkpoint_best.pth"), "checkpoint_final.pth", False),
        (card(run={}), "checkpoint_final.pth", True),
        (tuned(), "checkpoint_final.pth", True),
        (tuned("checkpoint_best.pth"), "checkpoint_final.pth", False),
        (tuned(run={**RUN, "patience": 5}), "checkpoint_final.pth", False),
        (tuned(run=None), "checkpoint_final.pth", False),
    ],
)
def test_a_validation_case_is_held_out_where_it_had_no_say(
    model: dict[str, Any], checkpoint: str, expected: bool
) -> None:
    assert role_of(model, OWN) == "validation"
    assert held_out(model, OWN, checkpoint) is expected


def test_a_start_that_did_not_look_at_the_case_may_have_been_any_checkpoint() -> None:
    other = {"training": {"case_002": "b"}, "validation": {"case_003": "c"}}
    assert held_out(tuned("checkpoint_best.pth", data=other), OWN)


def test_what_the_start_was_taught_is_no_validation_case() -> None:
    taught = {"training": {"case_001": "a"}, "validation": {}}
    assert role_of(tuned(data=taught), OWN) == "training"
