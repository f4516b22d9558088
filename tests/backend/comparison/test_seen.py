from __future__ import annotations

import pytest

from napari_backsplit.backend.comparison.seen import case_status, weakest

COMPLETE = {"training": ["a"], "validation": ["b"]}


@pytest.mark.parametrize(
    ("hashes", "model", "status"),
    [
        (["a"], COMPLETE, "seen"),
        (["b"], COMPLETE, "seen"),
        (["x", "b"], COMPLETE, "seen"),
        (["x"], COMPLETE, "verified"),
        (["x"], {"training": ["a"], "validation": None}, "unknown"),
        (["x"], {"training": ["a"], "declared_unseen": True}, "declared"),
        (["a"], {"training": ["a"], "declared_unseen": True}, "seen"),
        (["x"], {}, "unknown"),
        (["x"], {"declared_unseen": True}, "declared"),
        ([], COMPLETE, "unknown"),
        (["x"], {"training": [], "validation": []}, "verified"),
    ],
)
def test_one_model(hashes, model, status):
    assert case_status(hashes, model) == status


def test_the_weakest_model_decides():
    assert weakest(["verified", "declared"]) == "declared"
    assert weakest(["verified", "unknown", "declared"]) == "unknown"
    assert weakest(["verified", "unknown", "seen"]) == "seen"
    assert weakest(["verified", "verified"]) == "verified"
    assert weakest([]) == "unknown"


def test_cases_over_models():
    cases = {"case_001": ["a"], "case_002": ["x"], "case_003": ["c"]}
    other = {"training": ["c"], "validation": []}
    status = {
        case: weakest(case_status(hashes, model) for model in (COMPLETE, other))
        for case, hashes in cases.items()
    }
    assert status == {"case_001": "seen", "case_002": "verified", "case_003": "seen"}
