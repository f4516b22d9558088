"""The review in a real napari window, by mouse and keys."""

from __future__ import annotations

import json
from math import prod
from typing import Any

import pytest

from napari_backsplit.backend.project import Project
from tests.widgets.display_support import on_a_virtual_display
from tests.widgets.review_support import KIDNEY, LESION, LIVER

Facts = dict[str, dict[str, Any]]


SHARED = 10 * 5 * 20


def size(where: tuple[slice, ...]) -> int:
    return prod(side.stop - side.start for side in where)


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BACKSPLIT_CONFIG_DIR", str(home / "settings"))
        patch.setenv("XDG_DATA_HOME", str(home / "data"))
        told = on_a_virtual_display("import tests.widgets.review_support as r\nr.review()\n", home)
    steps = [json.loads(line) for line in told.splitlines() if line.startswith("{")]
    return {"home": {"path": str(home)}, **{step["step"]: step for step in steps}}


def test_the_map_that_is_shown_is_the_fusion(facts: Facts) -> None:
    assert all(step["shown"] for step in facts.values() if "shown" in step)
    opened = facts["opened"]
    assert opened["counts"]["lesion"] == size(LESION)
    assert opened["counts"]["kidney"] == size(KIDNEY) - size(LESION)
    assert opened["counts"]["liver"] == size(LIVER) - SHARED
    assert opened["conflicts"] == SHARED


def test_the_brush_paints_the_chosen_mask_and_no_other(facts: Facts) -> None:
    brush = facts["brush"]
    assert brush["gained"] > 50
    assert brush["taken"] == 0
    assert brush["kidney"]
    assert not brush["moved"], "the image stays under the brush"
    assert brush["counts"]["liver"] == facts["opened"]["counts"]["liver"] + brush["gained"]
    assert facts["undo"]["back"]
    assert facts["undo"]["counts"] == facts["opened"]["counts"]


def test_a_row_that_is_dragged_up_wins(facts: Facts) -> None:
    assert facts["drag"]["supports"] == ["liver", "kidney"]
    assert facts["drag"]["counts"]["liver"] == size(LIVER)
    assert facts["drag"]["counts"]["kidney"] == size(KIDNEY) - size(LESION) - SHARED


def test_a_click_sets_the_point_that_every_plane_keeps(facts: Facts) -> None:
    assert facts["cross-hair"]["at"] == [10, 22, 12]


def test_a_key_jumps_to_what_was_found(facts: Facts) -> None:
    assert "as well" in facts["jump"]["found"]
    inside = zip(facts["jump"]["at"], KIDNEY, LIVER, strict=True)
    assert all(a.start <= at < a.stop and b.start <= at < b.stop for at, a, b in inside)


def test_verdicts_are_given_by_key_and_lead_on(facts: Facts) -> None:
    assert (facts["accept"]["said"], facts["accept"]["case"]) == ("accepted", "case_002")
    assert (facts["needs work"]["said"], facts["needs work"]["case"]) == ("needs_work", "case_003")
    with Project.open(f"{facts['home']['path']}/project", read_only=True) as project:
        assert project.verdict("case_002").comment == "the liver leaks"
        assert project.provenance("case_001", "liver").review == "accepted"
