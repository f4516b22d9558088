"""What is found in a case that is open: in its masks as they are now, its files, its volumes."""

from dataclasses import replace

import numpy as np
import pytest

from napari_backsplit.backend.errors import GeometryError, ProjectError
from napari_backsplit.backend.fusion.open_case import findings_of
from napari_backsplit.backend.fusion.review import survey
from napari_backsplit.backend.structures.annotation import Annotation
from napari_backsplit.backend.volume import Volume, read_volume, restore, write_volume
from tests.backend.structures.drawing import make_project

KIDNEY = (slice(2, 6), slice(2, 7), slice(2, 6))


@pytest.fixture
def project(tmp_path):
    """Six cases, each with a kidney, none with a liver or a lesion."""
    with make_project(tmp_path, cases=6) as project:
        for case in project.case_ids():
            put(project, case, KIDNEY)
        yield project


def put(project, case, where):
    geometry = project.geometry(case)
    mask = np.zeros(geometry.canonical().shape, np.uint8)
    mask[where] = 1
    volume = Volume(restore(mask, geometry), geometry)
    project.set_mask(case, "kidney", volume, {"engine": "test"}, replace=True)


def found(work, states=None):
    states = survey(work.project) if states is None else states
    return {(f.structure, f.code): f for f in findings_of(work, states)}


def test_a_mask_that_is_being_edited_is_looked_at_as_it_is(project):
    work = Annotation(project, "case_001")
    assert ("kidney", "tiny_islands") not in found(work)
    work.edit("kidney", ((8, 9), (9, 10), (10, 11)), np.ones((1, 1, 1), bool))
    finding = found(work)["kidney", "tiny_islands"]
    assert finding.position_zyx == (8, 9, 10), "canonical, though the file runs the other way"
    work.undo("kidney")
    assert ("kidney", "tiny_islands") not in found(work)


def test_what_a_case_lacks_is_told(project):
    codes = found(Annotation(project, "case_001"))
    assert ("liver", "partial") in codes
    assert ("lesion", "unlabelled") in codes


def test_the_volume_is_compared_with_the_other_cases(project):
    work = Annotation(project, "case_001")
    assert ("kidney", "volume") not in found(work)
    work.edit("kidney", ((0, 9), (0, 10), (0, 11)), ~work.kept("kidney"))
    assert ("kidney", "volume") in found(work)


def test_an_image_that_changed_since_its_mask_was_made_is_an_error(project):
    work = Annotation(project, "case_001")
    work.scene()
    path = project.image_paths("case_001")[0]
    image = read_volume(path)
    path.unlink()
    write_volume(image.with_array(image.array + 1), path)
    finding = findings_of(work, survey(project))[0]
    assert (finding.code, finding.severity) == ("changed", "error")
    assert "changed since it was imported" in finding.message


def test_a_mask_on_another_grid_is_an_error_and_the_rest_is_looked_at(project):
    path = project.mask_path("case_001", "kidney")
    mask = read_volume(path)
    x, y, z = mask.geometry.origin_mm
    write_volume(Volume(mask.array, replace(mask.geometry, origin_mm=(x + 5.0, y, z))), path)
    work = Annotation(project, "case_001")
    codes = found(work)
    assert codes["kidney", "unreadable"].severity == "error"
    assert "another grid" in codes["kidney", "unreadable"].message
    assert ("kidney", "partial") not in codes
    assert ("liver", "partial") in codes
    with pytest.raises(GeometryError, match="--replace --resample"):
        work.unlock("kidney")
    before = path.read_bytes()
    work.save_all()
    assert path.read_bytes() == before


def test_a_mask_that_cannot_be_read_is_an_error(project):
    project.mask_path("case_001", "kidney").write_bytes(b"torn")
    work = Annotation(project, "case_001")
    assert ("kidney", "unreadable") in found(work)
    with pytest.raises(ProjectError, match="cannot be read"):
        work.accept("kidney")
