"""The button in a real napari window: pressed, left alone, come back to, answered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from napari_backsplit.backend.jobs import State, chains, list_jobs
from tests.widgets.display_support import on_a_virtual_display

MODULE = "tests.widgets.training_window_support"


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_one_press_trains_while_napari_is_closed_and_ends_with_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, folder in (
        ("BACKSPLIT_CONFIG_DIR", "settings"),
        ("BACKSPLIT_CACHE_DIR", "cache"),
        ("XDG_DATA_HOME", "data"),
    ):
        monkeypatch.setenv(name, str(tmp_path / folder))
    project = tmp_path / "project"
    steps = {}
    for deed in ("press", "come_back"):
        guarded = (
            f"import {MODULE} as m\nif __name__ == '__main__':\n    m.{deed}({str(project)!r})"
        )
        told = on_a_virtual_display(guarded, tmp_path, timeout_s=850)
        lines = [json.loads(line) for line in told.splitlines() if line.startswith("{")]
        steps |= {line["step"]: line for line in lines}
    assert "kidney, 3 epochs" in steps["proposed"]["said"]
    assert steps["proposed"]["reason"] == ""
    dock, window = steps["proposed"]["width"]
    assert (360 <= dock <= 460, window) == (True, 1280), "napari is not made to grow"
    assert steps["begun"]["reason"] == "Begun: it goes on below."
    assert steps["found"]["chain"] == steps["begun"]["chain"]
    assert steps["answered"]["said"]
    assert len(chains(project)) == 3, "pressed twice, begun once"
    assert {job.status().state for job in list_jobs(project)} == {State.SUCCEEDED}
