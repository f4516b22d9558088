"""Soft masks in a project: shares of voxels, from one rater or the mean of several."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_backsplit.backend.errors import GeometryError, InputError, ProjectError
from napari_backsplit.backend.files import sha256
from napari_backsplit.backend.geometry import Geometry, to_canonical
from napari_backsplit.backend.project import Project, import_soft
from napari_backsplit.backend.project.soft import as_shares, mean
from napari_backsplit.backend.volume import Volume, read_volume, write_volume
from tests.backend.project.conftest import SHAPE, grid
from tests.backend.project.test_privacy import _traces

SIGNED_PERMUTATIONS = [
    tuple(
        tuple(float(sign) * (axis == column) for column in range(3))
        for axis, sign in zip(axes, signs, strict=True)
    )
    for axes in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def shares(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(SHAPE).astype(np.float32)


@pytest.fixture
def case(project, make, labels):
    case = project.add_case({"CT": make.image("a.nii.gz")}, name="a").id
    project.set_mask(case, "lesion", labels((1,) * 30), {})
    return case


def lesion_shares() -> np.ndarray:
    """The shares of a rater who agrees with the lesion of `case`."""
    array = np.zeros(SHAPE, np.float32)
    array.flat[:30] = 0.75
    array.flat[30:34] = 0.25
    return array


# --- the project ----------------------------------------------------------------------------------


def test_shares_come_back_as_they_were_with_their_origin(project, case):
    path = project.set_soft_mask(case, "lesion", shares(), {"engine": "file", "soft": "float mask"})
    assert path == project.folder / "cases" / case / "soft" / "lesion.nii.gz"
    back = project.soft_mask(case, "lesion")
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, shares())
    stored = read_volume(path)
    assert stored.geometry.difference(project.geometry(case)) is None
    record = json.loads(path.with_name("lesion.json").read_text())
    assert record["sha256"] == sha256(path)
    assert (record["engine"], record["soft"]) == ("file", "float mask")


def test_the_hard_mask_and_what_is_said_of_it_stay(project, case):
    project.judge(case, "accepted", "lesion")
    before = project.contents(case), project.masks(case)["lesion"].tobytes()
    project.set_soft_mask(case, "lesion", shares(), {})
    assert (project.contents(case), project.masks(case)["lesion"].tobytes()) == before
    assert project.provenance(case, "lesion").review == "accepted"
    assert not project.edited_since(case, project.verdict(case, "lesion"))


def test_nothing_is_overwritten_unless_asked_and_the_old_one_is_kept(project, case):
    project.set_soft_mask(case, "lesion", shares(1), {})
    with pytest.raises(ProjectError, match=r"soft mask of lesion already.*--replace"):
        project.set_soft_mask(case, "lesion", shares(2), {})
    np.testing.assert_array_equal(project.soft_mask(case, "lesion"), shares(1))
    project.set_soft_mask(case, "lesion", shares(2), {}, replace=True)
    np.testing.assert_array_equal(project.soft_mask(case, "lesion"), shares(2))
    trash = project.folder / "cases" / case / "trash" / "soft"
    np.testing.assert_array_equal(read_volume(trash / "lesion-1.nii.gz").array, shares(1))
    project.remove_soft_mask(case, "lesion")
    project.remove_soft_mask(case, "lesion")
    assert project.soft_mask(case, "lesion") is None
    assert (trash / "lesion-2.nii.gz").exists()


@pytest.mark.parametrize("value", [1.5, -0.25, 50.0, 255.0])
def test_a_share_outside_of_0_to_1_is_refused_with_its_value(project, case, value):
    wrong = shares()
    wrong[2, 3, 4] = value
    with pytest.raises(InputError) as error:
        project.set_soft_mask(case, "lesion", wrong, {})
    assert f"(2, 3, 4): {value:g}" in error.value.problem
    assert "divide percentages by 100" in error.value.remedy
    assert project.soft_path(case, "lesion") is None


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_share_that_is_no_number_is_refused(project, case, value):
    wrong = shares()
    wrong[1, 0, 0] = value
    with pytest.raises(InputError, match=r"NaN or infinite.*\(1, 0, 0\)"):
        project.set_soft_mask(case, "lesion", wrong, {})


def test_what_integers_leave_when_they_are_scaled_is_clipped():
    scaled = np.full(SHAPE, 1.0000001)
    assert as_shares(Volume(scaled, grid()), "it").array.max() == 1


def test_a_file_put_there_by_hand_is_checked(project, case):
    path = project.set_soft_mask(case, "lesion", shares(), {})
    write_volume(Volume(100 * shares(), grid()), path)
    with pytest.raises(InputError, match=f"soft mask of lesion for {case} has"):
        project.soft_mask(case, "lesion")
    write_volume(Volume(shares(), grid(origin=9.0)), path)
    with pytest.raises(GeometryError, match="not on the grid"):
        project.soft_mask(case, "lesion")


def test_supports_and_strangers_have_no_soft_masks(project, case):
    for name in ("liver", "nothing"):
        with pytest.raises(ProjectError, match="Soft masks are for targets: lesion"):
            project.set_soft_mask(case, name, shares(), {})


def test_shares_on_another_grid_are_resampled_only_when_asked(project, case):
    coarse = Geometry((4, 5, 3), (3.0, 1.5, 2.0), (0.5, -20.0, 5.0), grid().direction)
    ramp = np.broadcast_to(np.array([0.0, 0.5, 1.0], np.float32), (4, 5, 3)).copy()
    with pytest.raises(GeometryError, match="--resample"):
        project.set_soft_mask(case, "lesion", Volume(ramp, coarse), {})
    project.set_soft_mask(case, "lesion", Volume(ramp, coarse), {}, resample=True)
    line = project.soft_mask(case, "lesion")[2, 2]
    np.testing.assert_allclose(line, [0, 0.125, 0.375, 0.625, 0.875, 1], atol=1e-5)
    record = project.soft_provenance(case, "lesion")
    assert record.resampled["method"] == "linear"
    assert record.resampled["from"]["shape"] == [4, 5, 3]


def test_outside_of_a_resampled_mask_nothing_is_target(project, case):
    near = Geometry(SHAPE, (3.0, 1.5, 1.0), (3.0, -20.0, 5.0), grid().direction)
    full = np.ones(SHAPE, np.float32)
    project.set_soft_mask(case, "lesion", Volume(full, near), {}, resample=True)
    assert project.soft_mask(case, "lesion")[:, :, :2].max() == 0
    far = Geometry(SHAPE, (3.0, 1.5, 1.0), (900.0, -20.0, 5.0), grid().direction)
    with pytest.raises(GeometryError, match="no voxel left"):
        project.set_soft_mask(case, "lesion", Volume(full, far), {}, resample=True, replace=True)


def _turned(volume: Volume, direction: tuple[tuple[float, ...], ...]) -> Volume:
    """Store a canonical volume along other axes: the same voxels at the same places."""
    axes = [int(np.flatnonzero(column)[0]) for column in np.transpose(direction)]  # x, y, z
    signs = [column[axis] for column, axis in zip(np.transpose(direction), axes, strict=True)]
    order = [2 - axes[2 - index] for index in range(3)]
    array = volume.array.transpose(order)
    spacing = tuple(volume.spacing_mm[axis] for axis in order)
    flips = tuple(slice(None, None, -1 if signs[2 - index] < 0 else 1) for index in range(3))
    corner = np.zeros(3)
    for index in range(3):
        if signs[2 - index] < 0:
            corner[order[index]] = volume.array.shape[order[index]] - 1
    step = np.asarray(volume.spacing_mm) * corner
    origin = np.asarray(volume.origin_mm) + step[::-1]
    return Volume(array[flips], Geometry(array.shape, spacing, tuple(origin), direction))


@pytest.mark.parametrize("direction", SIGNED_PERMUTATIONS)
def test_left_is_never_right_in_any_of_48_orientations(project, make, direction):
    """A soft mask stored along other axes than the image lands where it was drawn."""
    case = project.add_case({"CT": make.image("a.nii.gz")}, name="a").id
    drawn = Volume(shares(), grid())
    turned = _turned(drawn, direction)
    canonical = to_canonical(turned.array, turned.geometry)
    np.testing.assert_array_equal(canonical, drawn.array)
    project.set_soft_mask(case, "lesion", turned, {}, resample=True)
    np.testing.assert_allclose(project.soft_mask(case, "lesion"), drawn.array, atol=1e-5)


@pytest.mark.parametrize("direction", SIGNED_PERMUTATIONS[1::7])
def test_an_image_along_other_axes_keeps_them_in_its_soft_mask(project, make, direction):
    turned = _turned(Volume(shares(), grid()), direction)
    path = make.write("b.nii.gz", turned.array, turned.geometry)
    case = project.add_case({"CT": path}, name="b").id
    project.set_soft_mask(case, "lesion", turned, {})
    np.testing.assert_array_equal(project.soft_mask(case, "lesion"), turned.array)


def test_a_snapshot_has_them_as_they_were(project, case, tmp_path):
    project.set_soft_mask(case, "lesion", shares(1), {"soft": "float mask"})
    shot = Project.snapshot(project.folder, tmp_path / "job" / "masks-1")
    project.set_soft_mask(case, "lesion", shares(2), {}, replace=True)
    np.testing.assert_array_equal(shot.soft_mask(case, "lesion"), shares(1))
    assert shot.soft_provenance(case, "lesion").model_extra["soft"] == "float mask"


def test_a_project_of_an_older_version_opens_unchanged(project, case, tmp_path):
    project.close()
    before = (project.folder / "project.json").read_bytes()
    copy = shutil.copytree(project.folder, tmp_path / "copy")
    with Project.open(copy) as opened:
        assert opened.soft_path(case, "lesion") is None
        assert opened.soft_mask(case, "lesion") is None
    assert (copy / "project.json").read_bytes() == before


def test_several_targets_have_a_soft_mask_each(tmp_path, make):
    with Project.create(tmp_path / "p", "demo", ["CT"], ["cyst", "stone"]) as project:
        case = project.add_case({"CT": make.image("a.nii.gz")}).id
        project.set_soft_mask(case, "stone", shares(1), {})
        assert project.soft_mask(case, "cyst") is None
        with pytest.raises(InputError, match=r"2 targets.*--target"):
            import_soft(project, [tmp_path])


# --- several raters -------------------------------------------------------------------------------

_SHARES = hnp.arrays(np.float32, (2, 3, 4), elements=st.floats(0, 1, width=32))


@given(st.lists(_SHARES, min_size=1, max_size=5), st.randoms())
@settings(max_examples=40, deadline=None)
def test_a_mean_is_between_its_raters_whatever_their_order(arrays, random):
    volumes = [Volume(array, grid((2, 3, 4))) for array in arrays]
    mixed = mean(volumes).array
    random.shuffle(volumes)
    np.testing.assert_allclose(mean(volumes).array, mixed, atol=1e-7)
    assert (mixed >= np.min(arrays, axis=0) - 1e-7).all()
    assert (mixed <= np.max(arrays, axis=0) + 1e-7).all()


def _raters(make, arrays, name="a.nii.gz"):
    for number, array in enumerate(arrays, 1):
        make.write(f"r{number}/{name}", array)
    return [make.folder / f"r{number}" for number in range(1, len(arrays) + 1)]


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_raters_are_averaged_voxel_by_voxel(project, case, make, ending):
    agreed = (lesion_shares() >= 0.5).astype(np.uint8)
    bigger = (lesion_shares() > 0).astype(np.uint8)
    folders = _raters(make, [agreed, bigger, lesion_shares()], f"a{ending}")
    report = import_soft(project, folders, f"{{case}}{ending}")
    assert report.problems == ()
    assert report.masks == {case: ("soft lesion",)}
    expected = (agreed.astype(float) + bigger + lesion_shares()) / 3
    np.testing.assert_allclose(project.soft_mask(case, "lesion"), expected, atol=1e-6)
    record = project.soft_provenance(case, "lesion").model_extra
    assert record["soft"] == "mean of 3 raters"
    assert [rater["kind"] for rater in record["raters"]] == ["binary mask"] * 2 + ["float mask"]
    digests = [sha256(folder / f"a{ending}") for folder in folders]
    assert [rater["sha256"] for rater in record["raters"]] == digests


def test_a_rater_without_a_file_is_missed_unless_fewer_will_do(project, case, make):
    folders = _raters(make, [lesion_shares(), lesion_shares() * 0.9, lesion_shares() * 0.8])
    (folders[1] / "a.nii.gz").rename(folders[1] / "b.nii.gz")
    report = import_soft(project, folders)
    assert report.masks == {}
    assert any("Rater 2 of 3 has no file" in p.message and case in p.message for p in report.errors)
    report = import_soft(project, folders, fewer_raters=True)
    assert report.masks == {case: ("soft lesion",)}
    assert project.soft_provenance(case, "lesion").model_extra["soft"] == "mean of 2 raters"


def test_one_bad_file_loses_that_case_alone_and_is_named(project, case, make, labels):
    other = project.add_case({"CT": make.image("b.nii.gz")}, name="b").id
    project.set_mask(other, "lesion", labels((1,) * 30), {})
    make.write("r/a.nii.gz", 100 * lesion_shares())
    make.write("r/b.nii.gz", lesion_shares())
    report = import_soft(project, [make.folder / "r"])
    assert report.masks == {other: ("soft lesion",)}
    (problem,) = report.errors
    assert problem.source.name == "a.nii.gz"
    assert case in problem.message
    assert "75" in problem.message
    assert "divide percentages by 100" in problem.message


def test_a_label_map_of_several_ids_is_no_soft_mask(project, case, make):
    make.mask("r/a.nii.gz", (1, 2, 3))
    report = import_soft(project, [make.folder / "r"])
    assert "outside of 0 to 1" in report.errors[0].message


def test_a_second_import_overwrites_nothing(project, case, make):
    folders = _raters(make, [lesion_shares()])
    import_soft(project, folders)
    make.write("r1/a.nii.gz", lesion_shares() * 0.9)
    assert "already" in import_soft(project, folders).errors[0].message
    np.testing.assert_array_equal(project.soft_mask(case, "lesion"), lesion_shares())
    assert import_soft(project, folders, replace=True).errors == ()
    assert project.soft_mask(case, "lesion").max() == pytest.approx(0.675)


def test_the_same_folder_twice_is_refused(project, case, make):
    (folder,) = _raters(make, [lesion_shares()])
    with pytest.raises(InputError, match="named twice"):
        import_soft(project, [folder, folder / ".." / "r1"])


WARNINGS = {
    "elsewhere": (lambda: lesion_shares()[::-1].copy(), "Dice 0.00"),
    "empty": (lambda: lesion_shares() * 0, "is empty, but its mask of lesion is not"),
    "faint": (lambda: lesion_shares() * 0.5, "Dice 0.00"),
}


@pytest.mark.parametrize("name", WARNINGS)
def test_a_soft_mask_that_does_not_fit_the_lesion_is_warned_of(project, case, make, name):
    made, said = WARNINGS[name]
    report = import_soft(project, _raters(make, [made()]))
    assert report.masks == {case: ("soft lesion",)}
    (problem,) = report.problems
    assert (problem.severity, said in problem.message) == ("warning", True)


def test_the_same_file_from_two_raters_is_warned_of(project, case, make):
    report = import_soft(project, _raters(make, [lesion_shares()] * 2))
    assert [p.message for p in report.problems] == [
        f"Raters 1 and 2 of {case} gave the same file: they count twice."
    ]


def test_a_case_without_a_target_says_what_to_do_or_gets_one(project, make):
    case = project.add_case({"CT": make.image("a.nii.gz")}, name="a").id
    folders = _raters(make, [lesion_shares()])
    (problem,) = import_soft(project, folders).problems
    assert "--make-target" in problem.message
    assert project.problems(case) == ("has no mask of lesion",)
    report = import_soft(project, folders, replace=True, make_target=True)
    assert report.masks == {case: ("soft lesion", "lesion")}
    assert report.problems == ()
    np.testing.assert_array_equal(project.mask(case, "lesion"), lesion_shares() >= 0.5)
    assert project.provenance(case, "lesion").engine == "soft mask"


def test_a_target_that_is_there_is_never_made_again(project, case, make):
    before = project.contents(case)
    import_soft(project, _raters(make, [shares()]), make_target=True)
    assert project.contents(case) == before


def test_a_faint_soft_mask_does_not_declare_a_case_free_of_lesions(project, make):
    case = project.add_case({"CT": make.image("a.nii.gz")}, name="a").id
    report = import_soft(project, _raters(make, [lesion_shares() * 0.4]), make_target=True)
    assert "at most 0.30" in report.errors[0].message
    assert project.mask_path(case, "lesion") is None


def test_only_private_json_names_the_raters_and_the_patient(tmp_path, make):
    make.image("X_Y/X^Y.nii.gz")
    for rater in ("Dr_X_Y", "Dr_X^Y"):
        make.write(f"{rater}/X^Y.nii.gz", shares())
    make.write("Dr_X_Y/../wrong_X_Y/X^Y.nii.gz", 100 * shares())
    folders = [make.folder / "Dr_X_Y", make.folder / "Dr_X^Y"]
    with Project.create(tmp_path / "p", "demo", ["CT"], ["lesion"]) as project:
        case = project.add_case({"CT": make.folder / "X_Y/X^Y.nii.gz"}, name="X^Y").id
        report = import_soft(project, folders, make_target=True)
        wrong = import_soft(project, [make.folder / "wrong_X_Y"], replace=True)
    assert report.masks[case] == ("soft lesion", "lesion")
    assert _traces(tmp_path / "p") == ["private.json"]
    said = " ".join(problem.message for problem in (*report.problems, *wrong.problems))
    assert "X_Y" not in said
    assert "X^Y" not in said
    origins = json.loads((tmp_path / "p" / "private.json").read_text())["cases"][case]["masks"]
    assert [Path(origins[f"soft/lesion/{n}"]).parent.name for n in (1, 2)] == ["Dr_X_Y", "Dr_X^Y"]
