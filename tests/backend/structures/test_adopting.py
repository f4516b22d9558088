from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from napari_backsplit.backend.errors import GeometryError, InputError, ProjectError
from napari_backsplit.backend.jobs import Job, submit
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.structures.adopting import (
    adopt_prediction,
    adopt_predictions,
    adopt_segmented,
    predicted,
    predicted_mask,
    predictions_for,
    segmented,
)
from napari_backsplit.backend.structures.simulation import grown
from napari_backsplit.backend.volume import Volume, restore, write_volume
from tests.backend.structures.organ_project import (
    CORONAL,
    LABELS,
    SHAPE,
    STRAIGHT,
    make_project,
    organ,
    predict_job,
    write,
)

OLD = {"engine": "file", "who": "Dr. A"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_project(tmp_path / "project", organ(), None)


def segment_job(folder: Path, *pairs: tuple[str, str]) -> Job:
    """Leave what a segment job leaves."""
    structures = list(dict.fromkeys(structure for _, structure in pairs))
    job = submit(folder, "segment", {"structures": structures}, start=False)
    for case, structure in pairs:
        place = job.folder / "masks" / case
        write(organ(), place / f"{structure}.nii.gz")
        record = {"engine": "slices", "model": "1", "licence": "CC0", "prompts": [], "dice": 0.5}
        (place / f"{structure}.json").write_text(json.dumps(record))
    return job


# ---------------------------------------------------------------------- predictions


def test_the_predictions_of_a_case_are_listed_newest_first(folder: Path) -> None:
    old = predict_job(folder, "case_001", title="old")
    predict_job(folder, title="not begun")
    new = predict_job(folder, "case_001", "case_002", title="new")
    segment_job(folder, ("case_001", "kidney"))
    with Project.open(folder, read_only=True) as project:
        assert predictions_for(project, "case_001") == [(new.id, "new"), (old.id, "old")]
        assert predictions_for(project, "case_002") == [(new.id, "new")]
        with pytest.raises(ProjectError, match="case_003"):
            predictions_for(project, "case_003")


def test_a_prediction_becomes_the_reference_not_reviewed_and_says_so(folder: Path) -> None:
    job = predict_job(folder, "case_001")
    with Project.open(folder) as project:
        path = adopt_prediction(project, "case_001", job.id)
        assert path == project.mask_path("case_001", "lesion")
        np.testing.assert_array_equal(project.mask("case_001", "lesion"), LABELS == 1)
        origin = project.provenance("case_001", "lesion")
    assert origin is not None
    assert (origin.engine, origin.review) == ("prediction", "unreviewed")
    assert origin.model == "jobs/0001-train/model"
    assert origin.notes == (
        f"Adopted from the prediction {job.id}; it was made by a model, not by a person.",
    )
    assert origin.model_dump()["seen"] == {"seen": "verified", "role": "unseen"}


def test_a_reference_is_never_replaced_unless_that_is_asked_for(folder: Path) -> None:
    job = predict_job(folder, "case_001", "case_002")
    with Project.open(folder) as project:
        project.set_mask("case_001", "lesion", Volume(organ(), STRAIGHT), OLD)
        with pytest.raises(ProjectError, match="case_001 has a mask of lesion already"):
            adopt_prediction(project, "case_001", job.id)
        adoption = adopt_predictions(project, job.id)
        assert adoption.adopted == (("case_002", "lesion"),)
        assert adoption.left == (("case_001", "lesion"),)
        np.testing.assert_array_equal(project.mask("case_001", "lesion"), organ())
        assert adopt_predictions(project, job.id, ["case_001"], replace=True).left == ()
        np.testing.assert_array_equal(project.mask("case_001", "lesion"), LABELS == 1)
    assert (folder / "cases" / "case_001" / "trash" / "target-1.nii.gz").exists()


def test_each_of_several_targets_has_its_own_id(tmp_path: Path) -> None:
    folder = tmp_path / "two"
    file = write(np.arange(960, dtype=np.float32).reshape(SHAPE), tmp_path / "image.nii.gz")
    with Project.create(folder, "p", ["CT"], ["tumour", "cyst"]) as project:
        project.add_case({"CT": file})
        job = predict_job(folder, "case_001", targets=("tumour", "cyst"))
        assert predicted(project, job.id) == (("case_001",), ("tumour", "cyst"))
        with pytest.raises(InputError, match=r"several targets. Name one of tumour, cyst"):
            adopt_prediction(project, "case_001", job.id)
        adopt_prediction(project, "case_001", job.id, "cyst")
        assert project.mask("case_001", "cyst").sum() == 12
        assert project.mask_path("case_001", "tumour") is None
        assert adopt_predictions(project, job.id).adopted == (("case_001", "tumour"),)
        assert project.mask("case_001", "tumour").sum() == 8


def test_a_window_gets_the_mask_canonical_and_where_it_comes_from(tmp_path: Path) -> None:
    folder = make_project(tmp_path / "turned", None, geometry=CORONAL)
    job = predict_job(folder, "case_001")
    write(LABELS, job.folder / "predictions" / "case_001.nii.gz", CORONAL)
    with Project.open(folder, read_only=True) as project:
        mask, about = predicted_mask(project, "case_001", job.id)
        write(LABELS, job.folder / "predictions" / "case_001.nii.gz", STRAIGHT)
        with pytest.raises(GeometryError, match="not on the grid of the image"):
            predicted_mask(project, "case_001", job.id)
    np.testing.assert_array_equal(restore(mask, CORONAL), LABELS == 1)
    assert mask.shape != SHAPE
    assert (about.engine, about.model) == ("prediction", f"jobs/0001-train/model ({job.id})")


def test_a_job_without_that_prediction_is_refused(folder: Path) -> None:
    done, empty = predict_job(folder, "case_001"), predict_job(folder)
    with Project.open(folder) as project:
        with pytest.raises(InputError, match=f"{done.id} has no prediction of case_002"):
            adopt_prediction(project, "case_002", done.id)
        with pytest.raises(InputError, match=f"{done.id} has no prediction of kidney"):
            adopt_prediction(project, "case_001", done.id, "kidney")
        with pytest.raises(InputError, match=f"{empty.id} has no finished predictions"):
            adopt_predictions(project, empty.id)


# ---------------------------------------------------------------------- supports


def test_new_masks_are_adopted_with_their_support_and_present_ones_left(folder: Path) -> None:
    pairs = [("case_001", "kidney"), ("case_001", "spleen"), ("case_002", "kidney")]
    job = segment_job(folder, *pairs)
    with Project.open(folder) as project:
        project.set_mask("case_002", "lesion", Volume(organ(), STRAIGHT), OLD)
        assert segmented(project, job.id) == tuple(pairs)
        adoption = adopt_segmented(project, job.id)
        assert adoption.adopted == (("case_001", "spleen"), ("case_002", "kidney"))
        assert adoption.left == (("case_001", "kidney"),)
        assert project.schema.support_names == ("kidney", "liver", "spleen")
        assert project.schema.supports[-1].colour == "#32aa3c"  # TotalSegmentator's
        origin = project.provenance("case_002", "kidney")
        assert origin is not None
        assert (origin.engine, origin.model, origin.licence) == ("slices", "1", "CC0")


def test_some_cases_and_replacing(folder: Path) -> None:
    job = segment_job(folder, ("case_001", "kidney"), ("case_002", "kidney"))
    with Project.open(folder) as project:
        project.set_mask("case_002", "kidney", Volume(organ() * 0, STRAIGHT), OLD)
        adoption = adopt_segmented(project, job.id, ["case_002"], replace=True)
        assert adoption.adopted == (("case_002", "kidney"),)
        np.testing.assert_array_equal(project.mask("case_002", "kidney"), organ())
        origin = project.provenance("case_001", "kidney")
        assert origin is not None
        assert origin.engine == "file"


def test_nothing_is_added_where_there_is_nothing_to_adopt(folder: Path) -> None:
    job = segment_job(folder, ("case_001", "spleen"))
    with Project.open(folder) as project:
        with pytest.raises(InputError, match="no mask to adopt"):
            adopt_segmented(project, job.id, ["case_002"])
        assert project.schema.support_names == ("kidney", "liver")


def test_a_name_that_a_recipe_has_taken_is_refused_before_a_job_and_the_reason_named(
    folder: Path,
) -> None:
    with Project.open(folder) as project:
        project.add_recipe("merge", "organs", ["kidney", "liver"])
        with pytest.raises(InputError, match=r"organs = kidney \+ liver") as caught:
            grown(project, ["spleen", "organs"])
        assert "backsplit supports undo" in caught.value.remedy
        assert [support.name for support in grown(project, ["spleen"])][-1] == "spleen"


def test_a_mask_without_its_record_is_not_finished(folder: Path) -> None:
    job = segment_job(folder, ("case_001", "spleen"))
    write_volume(Volume(organ(), STRAIGHT), job.folder / "masks" / "case_001" / "liver.nii.gz")
    with Project.open(folder, read_only=True) as project:
        assert segmented(project, job.id) == (("case_001", "spleen"),)
