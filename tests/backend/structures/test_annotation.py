from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from napari_backsplit.backend.errors import InputError, ProjectError
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.structures.annotation import Annotation
from napari_backsplit.backend.structures.engines import About, EngineCancelled, EngineError
from napari_backsplit.backend.structures.history import read_prompts
from napari_backsplit.backend.structures.prompts import Box, Point, slices
from napari_backsplit.backend.volume import Volume, read_mask, write_volume
from tests.backend.structures.drawing import ABOUT, RAS, SHAPE, Cubes, make_project

MIDDLE = Point(at=(4, 4, 4))
CORNER = Point(at=(0, 0, 0))


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with make_project(tmp_path) as project:
        yield project


@pytest.fixture
def work(project: Project) -> Annotation:
    return Annotation(project, "case_001")


def again(work: Annotation) -> Annotation:
    """Open the case again, as after a crash: nothing was saved or closed."""
    return Annotation(work.project, work.case)


def test_a_prompt_changes_the_mask_and_is_in_the_journal(work: Annotation) -> None:
    outcome = work.prompt("kidney", MIDDLE, Cubes(), ABOUT)
    assert (outcome.grown, outcome.warning) == (27, "")
    assert work.mask("kidney")[3:6, 3:6, 3:6].all()
    assert work.voxels("kidney") == work.mask("kidney").sum() == 27
    assert work.volume_ml("kidney") == pytest.approx(27 * 6 / 1000)
    assert read_prompts(work._journal.path, "kidney") == (MIDDLE,)


def test_the_file_has_the_orientation_of_the_image_and_left_stays_left(work: Annotation) -> None:
    work.prompt("kidney", Point(at=(1, 2, 9)), Cubes(), ABOUT)
    work.save("kidney")
    stored = work.project.mask("case_001", "kidney")
    # RAS: the file's x and y run against the canonical ones.
    assert stored[1, SHAPE[1] - 1 - 2, SHAPE[2] - 1 - 9]
    canonical = Volume(stored, work.geometry).canonical()
    assert np.array_equal(canonical.array, work.mask("kidney").view(bool))
    assert not np.array_equal(stored, canonical.array)


def test_the_provenance_names_engine_model_licence_and_prompts(work: Annotation) -> None:
    work.prompt("kidney", MIDDLE, Cubes(), ABOUT)
    work.edit("kidney", ((0, 1), (0, 1), (0, 2)), np.ones((1, 1, 2), bool))
    work.accept("kidney")
    record = work.project.provenance("case_001", "kidney")
    assert record is not None
    assert record.engine == "cubes + paint"
    assert (record.model, record.licence) == ("model of cubes", "CC0-1.0")
    assert record.prompts == [MIDDLE.model_dump(mode="json")]
    assert record.review == "accepted"
    assert record.who


def test_a_mask_that_was_there_is_the_start_and_its_origin_is_kept(work: Annotation) -> None:
    stored = np.zeros(SHAPE, bool)
    stored[0, 0, :4] = True
    origin = {"engine": "file", "model": "atlas", "licence": "CC BY"}
    work.project.set_mask("case_001", "kidney", Volume(stored, work.geometry), origin)
    work.prompt("kidney", MIDDLE, Cubes(), ABOUT)
    assert work.voxels("kidney") == 31
    work.save("kidney")
    record = work.project.provenance("case_001", "kidney")
    assert record is not None
    assert record.engine == "file + cubes"
    assert record.licence == "CC BY + CC0-1.0"
    assert record.model_dump()["based_on"]["model"] == "atlas"
    trash = work.project.folder / "cases" / "case_001" / "trash"
    assert len(list(trash.glob("kidney-*.nii.gz"))) == 1
    work.edit("kidney", ((8, 9), (0, 1), (0, 1)), np.ones((1, 1, 1), bool))
    work.save("kidney")
    assert len(list(trash.glob("kidney-*.nii.gz"))) == 1, "the journal has the rest"


def test_undo_and_redo_without_limit(work: Annotation) -> None:
    engine = Cubes()
    masks = [work.mask("kidney").copy()]
    for number in range(12):
        point = Point(at=(number % 9, number % 10, number % 11), positive=number % 4 != 3)
        work.prompt("kidney", point, engine, ABOUT)
        masks.append(work.mask("kidney").copy())
    for mask in masks[-2::-1]:
        assert work.undo("kidney")
        assert np.array_equal(work.mask("kidney"), mask)
    assert not work.undo("kidney")
    for mask in masks[1:]:
        assert work.redo("kidney")
        assert np.array_equal(work.mask("kidney"), mask)
        assert work.voxels("kidney") == mask.sum()
    assert not work.redo("kidney")


def test_undo_reaches_behind_a_crash_and_a_save(work: Annotation) -> None:
    work.prompt("kidney", MIDDLE, Cubes(), ABOUT)
    work.save("kidney")
    work.prompt("kidney", CORNER, Cubes(), ABOUT)
    reopened = again(work)
    assert np.array_equal(reopened.mask("kidney"), work.mask("kidney"))
    assert reopened.undo("kidney")
    assert reopened.undo("kidney")
    assert reopened.voxels("kidney") == 0
    assert again(reopened).redo("kidney")


def test_a_run_of_prompts_is_told_whole_and_an_edit_begins_a_new_one(work: Annotation) -> None:
    engine = Cubes()
    work.prompt("kidney", MIDDLE, engine, ABOUT)
    work.prompt("kidney", CORNER, engine, ABOUT)
    first, second = engine.requests
    assert first.run == second.run
    assert second.prompts == (MIDDLE, CORNER)
    assert second.start is None
    assert second.mask.sum() == 27
    work.edit("kidney", ((8, 9), (0, 1), (0, 1)), np.ones((1, 1, 1), bool))
    work.prompt("kidney", MIDDLE, engine, ABOUT)
    third = engine.requests[-1]
    assert third.run != second.run
    assert third.prompts == (MIDDLE,)
    assert third.start is not None
    assert third.start.sum() == 27 + 8 + 1
    work.undo("kidney")
    work.undo("kidney")
    work.prompt("kidney", Point(at=(7, 7, 7)), engine, ABOUT)
    assert engine.requests[-1].run == first.run
    assert engine.requests[-1].prompts == (MIDDLE, CORNER, Point(at=(7, 7, 7)))


def test_each_case_and_structure_has_runs_of_its_own(tmp_path: Path) -> None:
    engine = Cubes()
    with make_project(tmp_path, cases=2) as project:
        for case in project.case_ids():
            work = Annotation(project, case)
            for structure in ("kidney", "liver"):
                work.prompt(structure, MIDDLE, engine, ABOUT)
    assert len({request.run for request in engine.requests}) == 4
    assert len({request.scene.key for request in engine.requests}) == 2


def test_a_late_answer_is_filed_under_its_own_and_keeps_what_was_painted(work: Annotation) -> None:
    engine = Cubes()

    def meanwhile() -> None:
        work.edit("kidney", ((8, 9), (9, 10), (10, 11)), np.ones((1, 1, 1), bool))
        work.edit("kidney", ((4, 5), (4, 5), (4, 5)), np.ones((1, 1, 1), bool))
        work.edit("liver", ((0, 1), (0, 1), (0, 1)), np.ones((1, 1, 1), bool))

    engine.before_answer = meanwhile
    work.prompt("kidney", MIDDLE, engine, ABOUT)
    assert work.voxels("kidney") == 28
    assert work.voxels("liver") == 1
    assert np.array_equal(again(work).mask("kidney"), work.mask("kidney"))


def test_a_cancelled_prompt_changes_nothing(work: Annotation) -> None:
    with pytest.raises(EngineCancelled):
        work.prompt("kidney", MIDDLE, Cubes(), ABOUT, cancelled=lambda: True)
    assert work.voxels("kidney") == 0
    assert not work.can_undo("kidney")
    assert again(work).voxels("kidney") == 0


def test_an_engine_that_fails_changes_nothing(work: Annotation) -> None:
    engine = Cubes()

    def fail() -> None:
        raise EngineError("It died.", "Start it again.")

    engine.before_answer = fail
    with pytest.raises(EngineError):
        work.prompt("kidney", MIDDLE, engine, ABOUT)
    engine.before_answer = lambda: None
    work.prompt("kidney", CORNER, engine, ABOUT)
    assert engine.requests[-1].prompts == (CORNER,), "the lost click is in no run"


def test_finished_structures_are_locked_and_can_be_protected(work: Annotation) -> None:
    work.prompt("liver", MIDDLE, Cubes(), ABOUT)
    work.accept("liver")
    assert work.locked("liver")
    with pytest.raises(ProjectError, match="liver of case_001 is locked"):
        work.prompt("liver", CORNER, Cubes(), ABOUT)
    with pytest.raises(ProjectError, match="locked"):
        work.undo("liver")
    work.protect = True
    work.prompt("kidney", Point(at=(4, 4, 6)), Cubes(), ABOUT)
    assert work.voxels("kidney") == 27 - 9
    assert not (work.mask("kidney") & work.mask("liver")).any()
    work.unlock("liver")
    work.prompt("liver", CORNER, Cubes(), ABOUT)
    work.save("liver")
    assert work.standing("liver") == "editing", "an accepted mask that was changed is not accepted"


def test_a_stroke_on_a_locked_mask_is_taken_back(work: Annotation) -> None:
    work.prompt("liver", MIDDLE, Cubes(), ABOUT)
    work.accept("liver")
    before = work.mask("liver").copy()
    work.mask("liver")[0, 0, 0] = 1  # as a brush did
    with pytest.raises(ProjectError, match="locked"):
        work.edit("liver", ((0, 1),) * 3, np.ones((1, 1, 1), bool), painted=True)
    assert np.array_equal(work.mask("liver"), before)


def test_a_painted_stroke_is_counted_once(work: Annotation) -> None:
    work.mask("kidney")[2, 2, 2:5] = 1
    work.edit("kidney", ((2, 3), (2, 3), (2, 5)), np.ones((1, 1, 3), bool), painted=True)
    assert work.voxels("kidney") == work.mask("kidney").sum() == 3
    work.undo("kidney")
    assert work.voxels("kidney") == work.mask("kidney").sum() == 0


def test_a_save_between_painting_and_keeping_loses_nothing(work: Annotation) -> None:
    work.mask("kidney")[2, 2, 2:5] = 1
    work.save("kidney")
    assert work.project.mask_path("case_001", "kidney") is None, "the stroke is not kept yet"
    work.edit("kidney", ((2, 3), (2, 3), (2, 5)), np.ones((1, 1, 3), bool), painted=True)
    assert again(work).voxels("kidney") == 3
    work.save("kidney")
    assert again(work).voxels("kidney") == 3
    assert work.project.mask("case_001", "kidney").sum() == 3


def test_a_stroke_and_an_answer_that_agree_make_no_hole(work: Annotation) -> None:
    engine = Cubes()

    def paint() -> None:
        work.mask("kidney")[4, 4, 4:9] = 1

    engine.before_answer = paint
    work.prompt("kidney", MIDDLE, engine, ABOUT)
    work.edit("kidney", ((4, 5), (4, 5), (4, 9)), np.ones((1, 1, 5), bool), painted=True)
    assert work.mask("kidney")[4, 4, 4:9].all()
    assert work.voxels("kidney") == work.mask("kidney").sum() == 27 + 3
    assert np.array_equal(again(work).mask("kidney"), work.mask("kidney"))
    work.undo("kidney")
    assert work.voxels("kidney") == work.mask("kidney").sum() == 27


def test_what_was_imported_again_or_removed_is_not_replaced_by_old_edits(
    work: Annotation,
) -> None:
    stored = np.zeros(SHAPE, bool)
    stored[:3, :3, :3] = True
    volume = Volume(stored, work.geometry)
    work.project.set_mask("case_001", "kidney", volume, {"engine": "file"})
    work.edit("kidney", ((8, 9),) * 3, np.ones((1, 1, 1), bool))
    work.clear("kidney")
    work.edit("kidney", ((8, 9),) * 3, np.ones((1, 1, 1), bool))
    work.save("kidney")
    assert again(work).voxels("kidney") == 1
    work.project.set_mask("case_001", "kidney", volume, {"engine": "file"}, replace=True)
    assert again(work).voxels("kidney") == 27
    reopened = again(work)
    reopened.edit("kidney", ((8, 9),) * 3, np.ones((1, 1, 1), bool))
    reopened.save("kidney")
    work.project.remove_mask("case_001", "kidney")
    assert again(work).voxels("kidney") == 0


def test_a_mask_that_another_program_changed_is_kept_in_the_trash(work: Annotation) -> None:
    work.prompt("kidney", MIDDLE, Cubes(), ABOUT)
    work.save("kidney")
    path = work.project.mask_path("case_001", "kidney")
    assert path is not None
    write_volume(Volume(np.ones(SHAPE, np.uint8), work.geometry), path)
    work.prompt("kidney", CORNER, Cubes(), ABOUT)
    work.save("kidney")
    trash = work.project.folder / "cases" / "case_001" / "trash"
    kept = [read_mask(file).array.sum() for file in trash.glob("kidney-*.nii.gz")]
    assert kept == [np.prod(SHAPE)]


def test_a_closed_project_and_a_reader_write_nothing(work: Annotation, project: Project) -> None:
    work.prompt("kidney", MIDDLE, Cubes(), ABOUT)
    work.prompt("liver", MIDDLE, Cubes(), ABOUT)
    reader = Annotation(Project.open(project.folder, fall_back=True), "case_001")
    assert reader.voxels("kidney") == 27
    journal = work._journal.path.read_bytes()
    reader.save_all()
    project.close()
    work.save_all()
    with pytest.raises(ProjectError, match="closed"):
        work.unlock("liver")
    assert work._journal.path.read_bytes() == journal


def test_the_lesion_can_be_drawn_and_its_reference_is_locked(work: Annotation) -> None:
    work.prompt("lesion", MIDDLE, Cubes(), ABOUT)
    work.save("lesion")
    assert not work.locked("lesion"), "it is being drawn"
    assert again(work).locked("lesion"), "a reference that is there is locked"
    reopened = again(work)
    reopened.unlock("lesion")
    reopened.prompt("lesion", CORNER, Cubes(), ABOUT)
    assert reopened.voxels("lesion") == 35


def test_a_file_that_was_put_in_place_of_what_is_seen_gets_no_verdict(work: Annotation) -> None:
    work.prompt("kidney", MIDDLE, Cubes(), ABOUT)
    work.judge("kidney", "needs_work")
    path = work.project.mask_path("case_001", "kidney")
    assert path is not None
    write_volume(read_mask(path).with_array(~read_mask(path).array), path)
    with pytest.raises(ProjectError, match="kidney for case_001 was replaced since it was opened"):
        work.accept("kidney")
    assert work.standing("kidney") == "needs_work"
    reopened = again(work)
    reopened.accept("kidney")
    assert reopened.voxels("kidney") == np.count_nonzero(work.project.mask("case_001", "kidney"))


def test_an_empty_mask_is_absent_only_when_accepted(work: Annotation) -> None:
    work.prompt("kidney", MIDDLE, Cubes(), ABOUT)
    work.save("kidney")
    work.clear("kidney")
    work.save("kidney")
    assert work.project.mask_path("case_001", "kidney") is None
    assert work.standing("kidney") == "none"
    work.accept("kidney")
    assert work.project.mask_path("case_001", "kidney") is not None
    assert not work.project.mask("case_001", "kidney").any()
    assert work.standing("kidney") == "accepted"


def test_a_mask_that_was_imported_anew_begins_a_new_history(work: Annotation) -> None:
    work.prompt("kidney", MIDDLE, Cubes(), ABOUT)
    work.save("kidney")
    other = np.zeros(SHAPE, bool)
    other[8, 8, 8] = True
    volume = Volume(other, work.geometry)
    work.project.set_mask("case_001", "kidney", volume, {"engine": "file"}, replace=True)
    reopened = again(work)
    assert reopened.voxels("kidney") == 1
    assert not reopened.can_undo("kidney")
    reopened.prompt("kidney", CORNER, Cubes(), ABOUT)
    assert np.array_equal(again(reopened).mask("kidney"), reopened.mask("kidney"))


def test_what_to_try_is_said(work: Annotation) -> None:
    engine = Cubes()
    first = work.prompt("kidney", Point(at=(4, 4, 4), positive=False), engine, ABOUT)
    assert "kidney is empty" in first.warning
    everything = Box(low=(0, 0, 0), high=SHAPE)
    assert "fills the whole image" in work.prompt("kidney", everything, engine, ABOUT).warning
    work.undo("kidney")
    work.prompt("kidney", MIDDLE, engine, ABOUT)
    assert "changed nothing" in work.prompt("kidney", MIDDLE, engine, ABOUT).warning


def test_a_click_outside_of_the_image_is_refused_and_not_kept(work: Annotation) -> None:
    with pytest.raises(InputError, match="outside of the image"):
        work.prompt("kidney", Point(at=(0, 0, 11)), Cubes(), ABOUT)
    assert read_prompts(work._journal.path, "kidney") == ()


def test_a_project_open_to_read_refuses_with_the_reason(work: Annotation) -> None:
    reader = Annotation(Project.open(work.project.folder, fall_back=True), "case_001")
    with pytest.raises(ProjectError, match="open here to read only"):
        reader.prompt("kidney", MIDDLE, Cubes(), ABOUT)


def test_a_constant_image_is_refused(tmp_path: Path, project: Project) -> None:
    from napari_backsplit.backend.geometry import Geometry

    file = tmp_path / "flat.nii.gz"
    geometry = Geometry(SHAPE, (3.0, 2.0, 1.0), (5.0, 6.0, 7.0), RAS)
    write_volume(Volume(np.full(SHAPE, 7.0, np.float32), geometry), file)
    case = project.add_case({"CT": file}, name="flat").id
    with pytest.raises(InputError, match="is 7 in every voxel"):
        Annotation(project, case).scene()


def test_adopting_a_mask_is_one_step(work: Annotation) -> None:
    mask = np.zeros(SHAPE, bool)
    mask[1:3, 1:3, 1:3] = True
    work.prompt("lesion", MIDDLE, Cubes(), ABOUT)
    work.replace("lesion", mask, About("prediction", "job 7"))
    assert np.array_equal(work.mask("lesion"), mask)
    work.undo("lesion")
    assert work.voxels("lesion") == 27


class AnyOrder(RuleBasedStateMachine):
    """Whatever is done in whatever order, the case opened again is the case that was left."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.project = make_project(Path(self.folder.name))
        self.work = Annotation(self.project, "case_001")
        self.past = [np.zeros(SHAPE, np.uint8)]
        self.future: list[np.ndarray] = []

    def teardown(self) -> None:
        self.project.close()
        self.folder.cleanup()

    def _did(self) -> None:
        self.past.append(self.work.mask("kidney").copy())
        self.future.clear()

    @rule(
        at=st.tuples(*(st.integers(0, n - 1) for n in SHAPE)),
        positive=st.booleans(),
        name=st.sampled_from(["cubes", "others"]),
    )
    def prompt(self, at: tuple[int, int, int], positive: bool, name: str) -> None:
        engine = Cubes()
        self.work.prompt("kidney", Point(at=at, positive=positive), engine, About(name))
        request = engine.requests[0]
        replayed = np.zeros(SHAPE, bool) if request.start is None else request.start.copy()
        for prompt in request.prompts[:-1]:
            z, y, x = ((max(0, a - 1), b + 1) for a, b in prompt.bounds())
            replayed[slices((z, y, x))] = prompt.positive
        assert np.array_equal(replayed, self.past[-1]), "a run replayed gives the mask"
        self._did()

    @rule(
        corner=st.tuples(*(st.integers(0, n - 2) for n in SHAPE)),
        value=st.integers(0, 1),
        meanwhile=st.booleans(),
    )
    def paint(self, corner: tuple[int, int, int], value: int, meanwhile: bool) -> None:
        z, y, x = ((a, a + 2) for a in corner)
        crop = self.work.mask("kidney")[slices((z, y, x))]
        difference = crop != value
        crop[:] = value
        if meanwhile:
            self.work.save("kidney")
        self.work.edit("kidney", (z, y, x), difference, painted=True)
        self._did()

    @precondition(lambda self: len(self.past) > 1)
    @rule()
    def undo(self) -> None:
        assert self.work.undo("kidney")
        self.future.append(self.past.pop())

    @precondition(lambda self: self.future)
    @rule()
    def redo(self) -> None:
        assert self.work.redo("kidney")
        self.past.append(self.future.pop())

    @rule()
    def save(self) -> None:
        self.work.save("kidney")

    @rule()
    def crash(self) -> None:
        self.work = again(self.work)

    @invariant()
    def same(self) -> None:
        assert np.array_equal(self.work.mask("kidney"), self.past[-1])
        assert self.work.voxels("kidney") == self.past[-1].sum()
        assert self.work.can_undo("kidney") == (len(self.past) > 1)
        assert self.work.can_redo("kidney") == bool(self.future)


AnyOrder.TestCase.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)
TestAnyOrder = AnyOrder.TestCase
