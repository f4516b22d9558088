import numpy as np

from napari_backsplit.backend.fusion import integrity
from napari_backsplit.backend.fusion.findings import Finding
from napari_backsplit.backend.geometry import Geometry

SHAPE = (6, 7, 8)
EYE = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def test_a_finding_reads_as_a_line():
    finding = Finding("case_001", "liver", "info", "partial", "There is no mask.")
    assert str(finding) == "info: case_001 liver: There is no mask."


def test_a_mask_on_another_grid():
    image = Geometry(SHAPE, (2.0, 1.0, 1.0), (0.0, 0.0, 0.0), EYE)
    moved = Geometry(SHAPE, (2.0, 1.0, 1.0), (0.5, 0.0, 0.0), EYE)
    (finding,) = integrity.check_grid("case_001", "liver", image, moved)
    assert finding.severity == "error"
    assert "origin" in finding.message
    assert integrity.check_grid("case_001", "liver", image, image) == []


def test_several_ids_in_a_mask():
    label_map = np.zeros(SHAPE, np.uint8)
    label_map[0] = 1
    assert integrity.check_ids("c", "liver", label_map) == []
    assert integrity.check_ids("c", "liver", label_map * 7) == []
    label_map[1] = 7
    (finding,) = integrity.check_ids("c", "liver", label_map)
    assert "2 ids (1, 7)" in finding.message
    assert integrity.check_ids("c", "liver", label_map * 0) == []


def test_large_ids_are_told_without_counting_up_to_them():
    for kind in (np.uint32, np.uint64):
        label_map = np.zeros(SHAPE, kind)
        label_map[:2] = [[[1]], [[4_000_000_000]]]
        (finding,) = integrity.check_ids("c", "liver", label_map)
        assert "2 ids (1, 4000000000)" in finding.message


def test_an_image_with_nan():
    array = np.zeros(SHAPE, np.float32)
    assert integrity.check_finite("c", "CT", array) == []
    array[2, 3, 4] = np.nan
    array[5, 0, 0] = np.inf
    (finding,) = integrity.check_finite("c", "CT", array)
    assert finding.position_zyx == (2, 3, 4)
    assert finding.message.startswith("2 voxels")


def test_duplicates_name_the_first_case():
    found = integrity.check_duplicates({"a": "1", "b": "2", "c": "1", "d": "1"})
    assert [f.case for f in found] == ["c", "d"]
    assert all("those of a" in f.message for f in found)


def test_a_case_with_other_axes_is_named():
    codes = {"case_001": "LPS", "case_002": "RAS", "case_003": "LPS"}
    (finding,) = integrity.check_orientations(codes)
    assert (finding.case, finding.severity, finding.code) == ("case_002", "warning", "orientation")
    assert "RAS" in finding.message
    assert "LPS" in finding.message
    assert integrity.check_orientations({}) == []
    assert integrity.check_orientations(dict.fromkeys(codes, "RAS")) == []
