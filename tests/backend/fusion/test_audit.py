import numpy as np
import pytest

from napari_backsplit.backend.fusion.audit import Audit, audit, examine
from napari_backsplit.backend.phantom import PhantomSpec, sample_project
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.volume import Geometry, Volume, read_volume, write_volume

SPEC = PhantomSpec(shape=(24, 36, 36))
EYE = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
SHAPE = (8, 8, 8)
GRID = Geometry(SHAPE, (10.0, 10.0, 10.0), (0.0, 0.0, 0.0), EYE)


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    with sample_project(
        tmp_path_factory.mktemp("sample") / "project", 2, train=4, test=2, spec=SPEC
    ) as project:
        yield project


@pytest.fixture
def project(tmp_path):
    """Three cases of noise; each has a liver of 8 voxels, the first two a lesion in it."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "p"
    with Project.create(folder, "p", ["CT"], ["lesion"], ["liver", "kidney"]) as project:
        for index in range(3):
            file = tmp_path / f"DOE_JOHN_{index}.nii.gz"
            array = rng.integers(0, 99, SHAPE).astype(np.int16)
            write_volume(Volume(array, GRID), file)
            case = project.add_case({"CT": file}).id
            put(project, case, "liver", (slice(2, 4),) * 3)
            if index < 2:
                put(project, case, "lesion", (2, 2, slice(2, 4)))
        yield project


def put(project, case, structure, where):
    mask = np.zeros(SHAPE, bool)
    mask[where] = True
    project.set_mask(case, structure, Volume(mask, GRID), {"engine": "test"}, replace=True)


def found(project, code):
    return [(f.case, f.structure, f.severity) for f in audit(project) if f.code == code]


def test_a_clean_sample_has_no_error(sample):
    result = examine(sample)
    assert result.passed
    codes = {f.code for f in result.findings}
    assert "lesion_free" in codes
    assert not codes & {"grid", "duplicate", "changed", "partial", "outside_supports", "ids"}


def test_the_summary_counts_cases_and_volumes(sample):
    rows = {row.structure: row for row in examine(sample).summary}
    assert list(rows) == ["lesion", "kidney", "liver", "bowel"]
    assert (rows["lesion"].cases, rows["lesion"].empty, rows["lesion"].missing) == (4, 2, 0)
    assert (rows["kidney"].cases, rows["kidney"].missing) == (6, 0)
    assert rows["kidney"].islands >= 12
    assert 100 < rows["kidney"].median_ml < 600
    assert rows["liver"].least_ml <= rows["liver"].median_ml <= rows["liver"].most_ml


def test_volumes_are_in_ml(project):
    rows = {row.structure: row for row in examine(project).summary}
    assert rows["liver"].median_ml == pytest.approx(8.0)
    assert rows["kidney"].cases == 0
    assert rows["kidney"].missing == 3
    assert rows["kidney"].median_ml == 0.0


def test_a_soft_mask_that_does_not_fit_its_target_is_told(project):
    agreed = project.mask("case_001", "lesion").astype(np.float32) * 0.75
    project.set_soft_mask("case_001", "lesion", agreed, {})
    assert found(project, "soft") == []
    project.set_soft_mask("case_001", "lesion", agreed[::-1].copy(), {}, replace=True)
    path = project.set_soft_mask("case_002", "lesion", agreed, {})
    write_volume(Volume(100 * agreed, GRID), path)
    assert found(project, "soft") == [
        ("case_002", "lesion", "error"),
        ("case_001", "lesion", "warning"),
    ]


def test_missing_masks_are_told(project):
    assert found(project, "unlabelled") == [("case_003", "lesion", "warning")]
    assert found(project, "partial") == [(f"case_00{i}", "kidney", "info") for i in (1, 2, 3)]


def test_a_lesion_elsewhere_and_at_the_edge(project):
    put(project, "case_002", "lesion", (7, slice(5, 7), 5))
    assert found(project, "outside_supports") == [("case_002", "lesion", "info")]
    put(project, "case_002", "kidney", (5, 0, slice(0, 2)))
    assert found(project, "outside_supports") == [("case_002", "lesion", "warning")]
    assert found(project, "border")[0] == ("case_002", "lesion", "warning")
    assert ("case_002", "kidney", "info") in found(project, "border")


def test_supports_that_overlap(project):
    put(project, "case_001", "kidney", (slice(3, 5), slice(2, 4), slice(2, 4)))
    assert found(project, "overlap") == [("case_001", "liver", "warning")]


def test_a_mask_that_was_put_there_by_hand(project):
    path = project.mask_path("case_001", "liver")
    moved = Geometry(SHAPE, (10.0, 10.0, 10.0), (4.0, 0.0, 0.0), EYE)
    write_volume(Volume(np.ones(SHAPE, np.uint8), moved), path)
    assert found(project, "grid") == [("case_001", "liver", "error")]
    labels = np.ones(SHAPE, np.uint8)
    labels[0] = 5
    write_volume(Volume(labels, GRID), path)
    assert found(project, "ids") == [("case_001", "liver", "warning")]
    path.write_bytes(b"torn")
    assert found(project, "unreadable") == [("case_001", "liver", "error")]


def test_an_image_that_changed(project):
    path = project.image_paths("case_002")[0]
    image = read_volume(path)
    path.unlink()
    write_volume(image.with_array(image.array + 1), path)
    assert found(project, "changed") == [("case_002", "", "error")]
    path.unlink()
    assert found(project, "changed") == [("case_002", "", "error")]
    assert found(project, "unreadable") == [("case_002", "", "error")]


def test_the_same_voxels_in_another_file(project, tmp_path):
    image = read_volume(project.image_paths("case_001")[0])
    path = project.image_paths("case_003")[0]
    path.unlink()
    write_volume(image.with_array(image.array.astype(np.float32)), path)
    assert found(project, "duplicate") == [("case_003", "", "error")]


def test_an_image_with_nan(project):
    path = project.image_paths("case_001")[0]
    path.unlink()
    array = np.zeros(SHAPE, np.float32)
    array[1, 2, 3] = np.nan
    write_volume(Volume(array, GRID), path)
    (finding,) = [f for f in audit(project) if f.code == "not_finite"]
    assert finding.position_zyx == (1, 2, 3)


def test_a_volume_that_stands_out(sample):
    case = sample.case_ids()[0]
    mask = np.zeros(SPEC.shape, bool)
    mask[10:12, 10:12, 10:12] = True
    sample.set_mask(case, "liver", Volume(mask, SPEC.geometry), {"engine": "test"}, replace=True)
    assert (case, "liver", "warning") in found(sample, "volume")


def test_the_gravest_come_first_and_no_message_holds_a_path(project, tmp_path):
    project.mask_path("case_001", "liver").write_bytes(b"torn")
    project.image_paths("case_002")[0].unlink()
    result = examine(project)
    severities = [f.severity for f in result.findings]
    assert severities == sorted(severities, key=("error", "warning", "info").index)
    assert not result.passed
    text = "\n".join(str(f) for f in result.findings)
    assert not any(word in text for word in ("/", "DOE", "JOHN", ".nii", tmp_path.name))


def test_progress_is_told_and_may_stop_it(project):
    told = []
    result = examine(project, cases=["case_001"], progress=lambda *done: told.append(done))
    assert isinstance(result, Audit)
    assert told == [(1, 1)]
    assert {f.case for f in result.findings} == {"case_001"}

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        examine(project, progress=stop)
