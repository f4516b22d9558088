"""The review, without a screen: what is fused, edited, found and judged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_backsplit.backend.project import Project
from napari_backsplit.backend.structures.prompts import slices
from napari_backsplit.backend.volume import Volume, restore
from napari_backsplit.widgets._layers import shown
from napari_backsplit.widgets._tools import KEYS
from napari_backsplit.widgets.review import ReviewPanel
from tests.backend.structures.drawing import make_project
from tests.widgets.conftest import Window

KIDNEY = (slice(2, 6), slice(2, 7), slice(2, 6))
LIVER = (slice(2, 6), slice(5, 9), slice(2, 6))
LESION = (slice(3, 5), slice(3, 5), slice(3, 5))
SHARED = 4 * 2 * 4


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_cohort(tmp_path)


def make_cohort(folder: Path) -> Path:
    """Make three cases; kidney and liver of two overlap, the third has no mask at all."""
    with make_project(folder, cases=3) as project:
        for case in ("case_001", "case_002"):
            for name, where in (("lesion", LESION), ("kidney", KIDNEY), ("liver", LIVER)):
                draw(project, case, name, where)
        return project.folder


def draw(project: Project, case: str, name: str, where: tuple[slice, ...]) -> None:
    """Write a mask whose canonical box is `where`."""
    geometry = project.geometry(case)
    mask = np.zeros(geometry.canonical().shape, np.uint8)
    mask[where] = 1
    volume = Volume(restore(mask, geometry), geometry)
    project.set_mask(case, name, volume, {"engine": "test"}, replace=True)


@pytest.fixture
def review(window: Window) -> ReviewPanel:
    """The review of the first case, with what was found in it."""
    begin(window)
    return window.dock.review


def begin(window: Window) -> None:
    if window.work.case != "case_001":
        go_to(window, "case_001")
    window.dock.steps.button(1).click()
    looked(window)


def looked(window: Window) -> None:
    """Wait until the open case is fused, examined, and every state is known."""
    reviewing = window.dock.review.reviewing
    window.until(lambda: reviewing.fusion is not None and reviewing.searched and reviewing.states)
    window.kept()


def go_to(window: Window, case: str) -> None:
    window.desk.open_case(case)
    window.until(lambda: window.desk.annotation and window.work.case == case)


def fused(window: Window) -> Callable[[str], int]:
    """Return what counts the voxels that the window's layer shows of a structure."""
    reviewing = window.dock.review.reviewing

    def count(name: str) -> int:
        layer = window.viewer.layers["fused"]
        return int(np.count_nonzero(layer.data == reviewing.fusion.scheme.ids[name]))

    return count


def stroke(window: Window, name: str, bounds: tuple[tuple[int, int], ...], value: int) -> None:
    """Paint a box of a mask as napari's brush does: into the layer, then the event."""
    mask = window.work.mask(name)
    before = mask[slices(bounds)].copy()
    mask[slices(bounds)] = value
    window.desk.record(name, bounds, before != value)
    window.kept()
    done: list[bool] = []
    window.dock.review.reviewing.fuser.do(lambda: None, lambda _: done.append(True))
    window.until(lambda: done)


# ---------------------------------------------------------------- what is shown


def test_the_fused_map_is_shown_as_training_will_get_it(
    window: Window, review: ReviewPanel
) -> None:
    layer = window.viewer.layers["fused"]
    count = fused(window)
    assert (count("lesion"), count("kidney"), count("liver")) == (8, 80 - 8, 64 - SHARED)
    assert np.shares_memory(layer.data, review.reviewing.fusion.label_map)
    assert layer.data[shown(np.arange(9))[3] :][:1, 3, 3] == [1]
    visible = {n for n in ("lesion", "kidney", "liver") if window.viewer.layers[n].visible}
    assert visible == {window.desk.structure}
    assert not layer.editable


def test_conflicts_are_shown_where_two_supports_claim_a_voxel(
    window: Window, review: ReviewPanel
) -> None:
    layer = window.viewer.layers["conflicts"]
    assert np.count_nonzero(layer.data > 1) == SHARED
    assert review.said.text().startswith("0.19 ml in conflict")
    review.conflicts.setChecked(False)
    assert not layer.visible


def test_what_is_unlabelled_can_be_shown(window: Window, review: ReviewPanel) -> None:
    assert "unlabelled" not in window.viewer.layers
    review.unlabelled.setChecked(True)
    layer = window.viewer.layers["unlabelled"]
    assert layer.visible
    assert layer.colormap.map(np.array([0]))[0, 3] > 0
    assert layer.colormap.map(np.array([1]))[0, 3] == 0


def test_leaving_the_review_shows_the_masks_again(window: Window, review: ReviewPanel) -> None:
    window.dock.steps.button(0).click()
    assert not window.viewer.layers["fused"].visible
    assert all(window.viewer.layers[name].visible for name in ("lesion", "kidney", "liver"))
    assert not window.work.keep_others
    assert window.dock.tools.tool == "point"


def test_a_case_without_any_mask_is_shown_and_named(window: Window, review: ReviewPanel) -> None:
    go_to(window, "case_003")
    looked(window)
    assert not review.reviewing.fusion.label_map.any()
    assert "Not known: kidney, liver" in review.said.text()
    assert {f.code for f in review.reviewing.findings} >= {"unlabelled", "partial"}
    assert review.verdict.accept.isEnabled()


def test_only_accepted_masks_are_fused_where_that_is_asked(
    window: Window, review: ReviewPanel
) -> None:
    review.reviewing.judge("accepted", ["kidney"])
    window.kept()
    review.strict.setChecked(True)
    window.until(lambda: review.reviewing.fusion.missing == ("liver",))
    window.kept()
    assert fused(window)("kidney") == 72
    assert fused(window)("lesion") == 8
    assert "Not known: liver" in review.said.text()


# ---------------------------------------------------------------- priorities and recipes


def test_a_row_that_moves_up_wins(window: Window, review: ReviewPanel) -> None:
    assert review.legend.supports() == ["kidney", "liver"]
    review.legend.setCurrentItem(review.legend.topLevelItem(2))
    review.legend.move(-1)
    window.until(lambda: fused(window)("liver") == 64)
    assert fused(window)("kidney") == 80 - 8 - SHARED
    assert review.legend.supports() == ["liver", "kidney"]
    assert review.legend.current() == "liver"
    assert window.desk.project.schema.support_names == ("liver", "kidney")


def test_volumes_stay_under_their_structures(window: Window, review: ReviewPanel) -> None:
    review.reviewing.set_priorities(["liver", "kidney"])
    window.until(lambda: review.legend.supports() == ["liver", "kidney"])
    review.reviewing.judge("needs_work", [])
    window.until(lambda: review.reviewing.states["case_001"].state == "needs_work")
    window.kept()
    table = review.cohort.table
    heads = [table.headerItem().text(column) for column in range(table.columnCount())]
    rows = [table.topLevelItem(row) for row in range(2)]
    for row in rows:
        shown = {head: row.text(column) for column, head in enumerate(heads)}
        assert shown["kidney"].startswith("0.48"), "80 voxels of 6 mm3"
        assert shown["liver"].startswith("0.38")


def test_targets_are_not_dragged(review: ReviewPanel) -> None:
    flags = review.legend.topLevelItem(0).flags()
    assert not flags & Qt.ItemFlag.ItemIsDragEnabled


def test_a_merge_is_shown_and_undone(window: Window, review: ReviewPanel) -> None:
    before = review.reviewing.fusion.label_map.copy()
    masks = files(window)
    review.reviewing.add_recipe("merge", "both", ["kidney", "liver"])
    window.until(lambda: "both" in review.reviewing.fusion.scheme.ids)
    window.until(lambda: review.legend.supports() == ["both"])
    assert fused(window)("both") == 80 + 64 - SHARED - 8
    row = review.legend.topLevelItem(1)
    assert [row.child(n).text(0) for n in range(row.childCount())] == ["kidney", "liver"]
    assert review.reviewing.fusion.conflicts == 0
    review.reviewing.remove_recipe(0)
    window.until(lambda: review.legend.supports() == ["kidney", "liver"])
    np.testing.assert_array_equal(review.reviewing.fusion.label_map, before)
    assert files(window) == masks


def test_a_recipe_that_cannot_be_is_refused_with_its_reason(
    window: Window, review: ReviewPanel
) -> None:
    review.reviewing.add_recipe("merge", "kidney", ["liver"])
    window.until(lambda: "there is a kidney already" in window.dock.said.text())
    assert window.desk.project.schema.recipes == ()


def files(window: Window) -> dict[str, bytes]:
    folder = window.desk.project.folder / "cases"
    return {str(f): f.read_bytes() for f in sorted(folder.rglob("*.nii.gz"))}


# ---------------------------------------------------------------- editing


def test_a_stroke_changes_the_map_and_undo_takes_it_back(
    window: Window, review: ReviewPanel
) -> None:
    window.desk.select("liver")
    stroke(window, "liver", ((7, 8), (5, 9), (7, 9)), 1)
    assert fused(window)("liver") == 64 - SHARED + 8
    window.desk.turn("undo")
    window.until(lambda: fused(window)("liver") == 64 - SHARED)


def test_a_stroke_takes_no_voxel_of_another_support(window: Window, review: ReviewPanel) -> None:
    window.desk.select("liver")
    everything = ((2, 3), (0, 10), (0, 11))
    stroke(window, "liver", everything, 1)
    kidney = window.work.kept("kidney")
    assert not (window.work.kept("liver") & kidney)[2, :5].any()
    assert int(window.work.kept("liver")[2].sum()) == 110 - 3 * 4
    np.testing.assert_array_equal(window.work.mask("liver"), window.work.kept("liver"))
    window.dock.steps.button(0).click()
    stroke(window, "liver", everything, 1)
    assert window.work.kept("liver")[2].all(), "in the first step nothing is locked"


def test_a_lesion_may_be_drawn_over_supports(window: Window, review: ReviewPanel) -> None:
    window.work.unlock("lesion")
    window.desk.select("lesion")
    stroke(window, "lesion", ((2, 3), (2, 4), (2, 4)), 1)
    assert fused(window)("lesion") == 8 + 4
    assert int(window.work.kept("kidney").sum()) == 80


def test_a_first_stroke_makes_a_support_known(window: Window, review: ReviewPanel) -> None:
    go_to(window, "case_003")
    looked(window)
    window.desk.select("kidney")
    stroke(window, "kidney", ((1, 2), (1, 3), (1, 3)), 1)
    window.until(lambda: review.reviewing.fusion.missing == ("liver",))
    window.until(lambda: fused(window)("kidney") == 4)


@pytest.mark.parametrize(
    ("tool", "amount", "left"),
    [("keep_largest", 0, 64), ("remove_islands", 0.02, 64), ("remove_islands", 0.001, 65)],
)
def test_tidying_is_a_step_that_can_be_undone(
    window: Window, review: ReviewPanel, tool: str, amount: float, left: int
) -> None:
    window.desk.select("liver")
    stroke(window, "liver", ((0, 1), (0, 1), (0, 1)), 1)
    review.reviewing.tidy(tool, amount)
    window.until(lambda: window.work.voxels("liver") == left)
    window.kept()
    if left == 64:
        window.desk.turn("undo")
        window.until(lambda: window.work.voxels("liver") == 65)
    else:
        assert "nothing to change: remove islands" in window.dock.said.text()


# ---------------------------------------------------------------- findings


def test_findings_lead_to_their_place(window: Window, review: ReviewPanel) -> None:
    assert review.findings.list.count() == len(review.reviewing.findings)
    codes = [f.code for f in review.reviewing.findings]
    assert "overlap" in codes
    review.findings.chosen.emit(review.reviewing.findings[codes.index("overlap")])
    at = window.dock.layers.place.to_voxel(window.viewer.dims.point)
    assert window.work.kept("kidney")[tuple(at)]
    assert window.work.kept("liver")[tuple(at)]


def test_a_fault_that_is_mended_is_no_finding_any_more(window: Window, review: ReviewPanel) -> None:
    window.desk.select("liver")
    stroke(window, "liver", ((0, 1), (0, 1), (0, 1)), 1)
    assert ("liver", "tiny_islands") not in kinds(review)
    window.until(lambda: ("liver", "tiny_islands") in kinds(review))
    window.desk.turn("undo")
    window.until(lambda: ("liver", "tiny_islands") not in kinds(review))


def kinds(review: ReviewPanel) -> set[tuple[str, str]]:
    return {(finding.structure, finding.code) for finding in review.reviewing.findings}


# ---------------------------------------------------------------- verdicts


def test_accepting_a_case_accepts_its_masks_and_goes_on(
    window: Window, review: ReviewPanel
) -> None:
    review.verdict.comment.setText("fine")
    window.dock.tools.actions["accept"]()
    window.until(lambda: window.desk.annotation and window.work.case == "case_002")
    looked(window)
    with Project.open(window.desk.project.folder, read_only=True) as project:
        verdict = project.verdict("case_001")
        assert (verdict.verdict, verdict.comment) == ("accepted", "fine")
        assert not project.edited_since("case_001", verdict)
        reviews = [project.provenance("case_001", n).review for n in ("lesion", "kidney", "liver")]
    assert reviews == ["accepted"] * 3
    assert review.verdict.comment.text() == ""
    window.until(lambda: review.reviewing.states["case_001"].state == "accepted")


def test_a_rejected_mask_leaves_the_map(window: Window, review: ReviewPanel) -> None:
    review.verdict.on.setCurrentIndex(review.verdict.on.findData("liver"))
    review.verdict.reject.click()
    window.until(lambda: review.reviewing.fusion.missing == ("liver",))
    window.until(lambda: fused(window)("liver") == 0)
    assert window.work.case == "case_001", "a verdict on a structure stays"
    window.until(lambda: "rejected" in review.legend.topLevelItem(2).text(2))


def test_a_case_that_is_edited_after_its_verdict_says_so(
    window: Window, review: ReviewPanel
) -> None:
    review.reviewing.judge("accepted", [])
    window.until(lambda: review.reviewing.states["case_001"].state == "accepted")
    window.work.unlock("liver")
    window.desk.select("liver")
    stroke(window, "liver", ((0, 1), (0, 1), (0, 1)), 1)
    window.desk.save()
    window.until(lambda: review.reviewing.states["case_001"].edited)
    window.until(lambda: "edited since" in review.verdict.last.text())
    assert review.reviewing.states["case_001"].of("liver").edited
    assert not review.reviewing.states["case_001"].of("kidney").edited


def test_the_list_is_filtered_by_verdict_and_words(window: Window, review: ReviewPanel) -> None:
    review.reviewing.judge("needs_work", [], "leaks into the colon")
    window.until(lambda: review.reviewing.states["case_001"].state == "needs_work")
    assert review.cohort.cases() == ["case_001", "case_002", "case_003"]
    review.cohort.shown.setCurrentText("Needs work")
    assert review.cohort.cases() == ["case_001"]
    review.cohort.shown.setCurrentText("All")
    review.cohort.filter.setText("COLON")
    assert review.cohort.cases() == ["case_001"]


def test_the_list_sorts_by_volume(window: Window, review: ReviewPanel) -> None:
    window.desk.select("liver")
    window.work.unlock("liver")
    stroke(window, "liver", ((0, 1), (0, 10), (0, 11)), 1)
    window.desk.save()
    window.until(lambda: review.reviewing.states["case_001"].of("liver").ml > 0.4)
    window.kept()
    liver = 4
    review.cohort.table.sortByColumn(liver, Qt.SortOrder.DescendingOrder)
    assert review.cohort.cases() == ["case_001", "case_002", "case_003"]
    review.cohort.table.sortByColumn(liver, Qt.SortOrder.AscendingOrder)
    assert review.cohort.cases() == ["case_003", "case_002", "case_001"]


def test_next_goes_to_the_next_case_without_a_verdict(window: Window, review: ReviewPanel) -> None:
    review.reviewing.judge("accepted", [])
    window.until(lambda: review.reviewing.states["case_001"].state == "accepted")
    for case in ("case_002", "case_003", "case_002"):
        window.dock.tools.actions["next"]()
        window.until(lambda case=case: window.desk.annotation and window.work.case == case)


# ---------------------------------------------------------------- two windows


def test_a_window_that_reads_follows_the_one_that_writes(
    window: Window, make_window: Callable[[], Window], folder: Path
) -> None:
    begin(window)
    reader = make_window()
    reader.open(folder)
    assert "is open for writing in process" in reader.dock.said.text()
    begin(reader)
    reader.until(lambda: reader.dock.following._stamps is not None)
    assert not reader.dock.review.verdict.accept.isEnabled()
    assert not reader.desk.can_change("liver")
    window.desk.select("liver")
    stroke(window, "liver", ((7, 8), (5, 9), (7, 9)), 1)
    reader.dock.following.look()
    reader.until(lambda: reader.desk.annotation and reader.work.voxels("liver") == 72)
    reader.until(lambda: reader.dock.review.reviewing.fusion and fused(reader)("liver") == 40)
    window.dock.review.reviewing.judge("needs_work", [], "look again")
    window.kept()
    reader.dock.following.look()
    states = reader.dock.review.reviewing
    reader.until(lambda: states.states and states.states["case_001"].state == "needs_work")
    window.dock.review.reviewing.set_priorities(["liver", "kidney"])
    window.kept()
    reader.dock.following.look()
    reader.until(lambda: reader.dock.review.legend.supports() == ["liver", "kidney"])


def test_a_window_that_reads_is_told_when_it_may_write(
    window: Window, make_window: Callable[[], Window], folder: Path
) -> None:
    reader = make_window()
    reader.open(folder)
    window.desk.close_project()
    window.kept()
    reader.dock.following.look()
    reader.until(lambda: "No other window writes" in reader.dock.said.text())
    reader.dock.remedy.click()
    reader.until(lambda: reader.desk.project is not None and not reader.desk.project.read_only)


def test_tidying_takes_no_voxel_of_another_support(window: Window, review: ReviewPanel) -> None:
    window.desk.select("liver")
    kidney = window.work.kept("kidney").copy()
    hole = ((3, 5), (6, 8), (3, 5))
    stroke(window, "liver", hole, 0)
    review.reviewing.tidy("fill_holes", 0)
    window.kept()
    liver = window.work.kept("liver")
    assert not liver[3:5, 6, 3:5].any(), "it is the kidney's"
    assert liver[3:5, 7, 3:5].all()
    np.testing.assert_array_equal(window.work.kept("kidney"), kidney)


def test_keys_judge_nothing_in_the_later_steps(window: Window, review: ReviewPanel) -> None:
    window.dock.steps.button(2).click()
    for action in ("accept", "needs_work", "reject"):
        window.dock.tools._press(KEYS[action][0])
    window.kept()
    assert window.desk.project.verdicts("case_001") == ()
    window.dock.steps.button(1).click()
    window.dock.tools._press(KEYS["needs_work"][0])
    window.until(lambda: window.desk.project.verdict("case_001") is not None)
