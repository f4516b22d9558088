from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from napari_backsplit.backend.files import write_json
from napari_backsplit.backend.training.tasks import _warn_of_changed_masks


def test_a_resumed_training_says_which_masks_are_no_longer_those_it_began_with(
    tmp_path: Path,
) -> None:
    said: list[Any] = []
    context: Any = SimpleNamespace(folder=tmp_path, report=said.append)
    write_json(
        tmp_path / "model" / "dataset.json",
        {"backsplit": {"masks": {"case_001": "a", "case_002": "b"}}},
    )

    _warn_of_changed_masks(context, {"case_001": "a", "case_002": "b"})
    assert said == []
    _warn_of_changed_masks(context, {"case_001": "a", "case_002": "c"})
    assert said[0].level == "warning"
    assert "case_002" in said[0].text
    assert "case_001" not in said[0].text
