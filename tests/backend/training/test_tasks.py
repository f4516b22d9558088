from __future__ import annotations

from math import nan
from types import SimpleNamespace
from typing import Any

import pytest

from napari_backsplit.backend.training.tasks import LEARNT, _name_unlearnt

LABELS = {"background": 0, "lesion": 1, "kidney": 2, "liver": 3}


@pytest.mark.parametrize(
    ("kidney", "liver", "named"),
    [
        (LEARNT, 0.9, []),
        (0.04, 0.9, ["kidney 0.04"]),
        (0.04, 0.0, ["kidney 0.04, liver 0.00"]),
        (nan, 0.9, []),  # in no validation patch
    ],
)
def test_supports_that_were_not_learnt_are_named(
    kidney: float, liver: float, named: list[str]
) -> None:
    notes: list[Any] = []
    trainer = SimpleNamespace(
        logger=SimpleNamespace(get_value=lambda key, step: [0.1, kidney, liver]),
        dataset_json={"labels": LABELS, "backsplit": {"supports": ["kidney", "liver"]}},
    )
    _name_unlearnt(SimpleNamespace(report=notes.append), trainer)  # type: ignore[arg-type]
    assert [note.level for note in notes] == ["warning"] * len(named)
    assert all(f": {text}." in note.text for note, text in zip(notes, named, strict=True))
