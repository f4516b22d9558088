from __future__ import annotations

import errno
import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from napari_backsplit.backend.errors import GeometryError, InputError, ProjectError
from napari_backsplit.backend.project import Project, masks, schema, store
from napari_backsplit.backend.volume import read_volume


def _tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


# ---------------------------------------------------------------- create and open


def test_a_new_project_can_be_opened_again(tmp_path):
    with Project.create(tmp_path / "p", "Liver", ["CT"], ["lesion"], ["liver"], seed=7) as made:
        pass
    with Project.open(tmp_path / "p") as project:
        assert project.schema == made.schema
    assert project.schema.target_names == ("lesion",)
    assert project.schema.support_names == ("liver",)
    assert project.schema.seed == 7


def test_a_folder_with_something_in_it_is_not_taken(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(ProjectError, match="not empty"):
        Project.create(tmp_path, "p", ["CT"], ["lesion"])


def test_a_project_needs_a_channel_and_a_target(tmp_path):
    with pytest.raises(InputError, match="targets"):
        Project.create(tmp_path / "p", "p", ["CT"], [])
    assert not (tmp_path / "p").exists()


def test_another_folder_is_no_project(tmp_path):
    with pytest.raises(ProjectError, match="is no project"):
        Project.open(tmp_path)


def test_a_torn_project_file_is_said(project):
    project.close()
    (project.folder / "project.json").write_text('{"format_version": 1, ')
    with pytest.raises(InputError, match=r"project\.json is not readable"):
        Project.open(project.folder)


def test_a_newer_project_is_refused_and_left_alone(project):
    project.close()
    path = project.folder / "project.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 99}))
    before = _tree(project.folder)
    with pytest.raises(ProjectError, match="format 99"):
        Project.open(project.folder)
    assert _tree(project.folder) == before


def test_an_older_project_is_migrated_and_a_copy_is_kept(project, monkeypatch):
    project.close()
    path = project.folder / "project.json"
    data = json.loads(path.read_text())
    old = json.dumps({**data, "format_version": 0, "name": None, "title": "demo"})
    path.write_text(old)

    def rename(data: dict) -> dict:
        return {**{k: v for k, v in data.items() if k != "title"}, "name": data["title"]}

    monkeypatch.setattr(schema, "MIGRATIONS", {**schema.MIGRATIONS, 0: rename})
    assert Project.open(project.folder, read_only=True).schema.name == "demo"
    assert path.read_text() == old
    with Project.open(project.folder) as again:
        assert again.schema.name == "demo"
    assert json.loads(path.read_text())["format_version"] == 2
    assert (project.folder / "project.v0.json").read_text() == old


# ---------------------------------------------------------------- cases


def test_a_case_gets_neutral_names_and_its_image_is_linked(project, make):
    source = make.image("Ann.nii.gz")
    case = project.add_case({"CT": source}, name="Ann 2020", patient="Ann")
    assert (case.id, case.patient, case.notes) == ("case_001", "patient_001", ())
    image = project.image_paths("case_001")[0]
    assert image == project.folder / "images/case_001_0000.nii.gz"
    assert image.samefile(source)
    assert case.shape == (4, 5, 6)
    assert case.spacing_mm == (3.0, 1.5, 1.0)


def test_the_kept_grid_is_that_of_the_file(project, make):
    source = make.image("a.nii.gz", origin=0.1)
    project.add_case({"CT": source})
    project.close()
    again = Project.open(project.folder, read_only=True)
    assert again.geometry("case_001").difference(read_volume(source).geometry) is None


def test_where_links_fail_the_image_is_copied_and_this_is_said(project, make, monkeypatch):
    source = make.image("a.nii.gz")
    monkeypatch.setattr(os, "link", _raise(errno.EXDEV))
    case = project.add_case({"CT": source})
    assert "copied" in case.notes[0]
    assert project.image_paths(case.id)[0].read_bytes() == source.read_bytes()


def test_two_examinations_of_a_patient_share_the_pseudonym(project, make):
    for name in ("a", "b"):
        project.add_case({"CT": make.image(f"{name}.nii.gz")}, name=name, patient="Ann")
    project.add_case({"CT": make.image("c.nii.gz")}, name="c", patient="Bob")
    patients = [case.patient for case in project.schema.cases.values()]
    assert patients == ["patient_001", "patient_001", "patient_002"]


def test_the_same_name_is_refused_with_the_case_that_has_it(project, make):
    project.add_case({"CT": make.image("a.nii.gz")}, name="Ann")
    with pytest.raises(ProjectError, match="already, as case_001") as caught:
        project.add_case({"CT": make.image("b.nii.gz")}, name="Ann")
    assert "Ann" not in str(caught.value)


def test_the_same_image_is_refused_with_the_case_that_has_it(project, make):
    project.add_case({"CT": make.image("a.nii.gz", seed=1)}, name="a")
    with pytest.raises(ProjectError, match="same file as one of case_001"):
        project.add_case({"CT": make.image("b.nii.gz", seed=1)}, name="b")
    assert project.case_ids() == ("case_001",)


def test_one_file_cannot_be_two_channels(two_channels, make):
    same = make.image("a.nii.gz")
    with pytest.raises(ProjectError, match="same file as one of this case"):
        two_channels.add_case({"FLAIR": same, "T1": same})


def test_a_missing_channel_is_said(two_channels, make):
    case = two_channels.add_case({"T1": make.image("a.nii.gz")})
    assert case.missing_channels == ("FLAIR",)
    assert case.images["T1"].file == "images/case_001_0001.nii.gz"
    with pytest.raises(ProjectError, match="case_001 lacks the channel FLAIR"):
        two_channels.image_paths("case_001")


@pytest.mark.parametrize("images", [{}, {"PET": Path("x.nii.gz")}])
def test_a_case_has_images_of_known_channels(project, images):
    with pytest.raises(InputError, match=r"channel|no image"):
        project.add_case(images)


def test_channels_on_different_grids_are_refused_unless_resampled(two_channels, make):
    images = {"T1": make.image("t1.nii.gz", shape=(8, 5, 6)), "FLAIR": make.image("f.nii.gz")}
    with pytest.raises(GeometryError, match="T1 is not on the grid of FLAIR"):
        two_channels.add_case(images)
    case = two_channels.add_case(images, resample=True)
    assert any("T1 was resampled to the grid of FLAIR" in note for note in case.notes)
    shapes = {read_volume(path).array.shape for path in two_channels.image_paths(case.id)}
    assert shapes == {(4, 5, 6)}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_voxels_that_are_no_numbers_are_refused(project, make, value):
    array = np.zeros((4, 5, 6), np.float32)
    array[1, 2, 3] = value
    with pytest.raises(InputError, match=r"1 voxels .*\(1, 2, 3\)"):
        project.add_case({"CT": make.write("a.nii.gz", array)})


def test_a_truncated_image_leaves_nothing_behind_and_no_path_in_the_error(project, make):
    source = make.image("Ann_Smith.nii.gz")
    source.write_bytes(source.read_bytes()[:200])
    before = _tree(project.folder)
    with pytest.raises(InputError) as caught:
        project.add_case({"CT": source}, name="x")
    assert "Ann_Smith" not in str(caught.value)
    assert "The image of CT" in str(caught.value)
    assert _tree(project.folder) == before


def test_another_file_ending_is_converted_to_the_projects(project, make):
    project.add_case({"CT": make.image("a.nrrd")}, name="a")
    source = make.image("b.nii.gz")
    case = project.add_case({"CT": source}, name="b")
    assert case.images["CT"].file == "images/case_002_0000.nrrd"
    assert "converted" in case.notes[-1]
    stored = read_volume(project.image_paths(case.id)[0])
    np.testing.assert_array_equal(stored.array, read_volume(source).array)
    assert case.images["CT"].sha256 != case.images["CT"].source_sha256


def test_the_source_of_a_converted_image_is_known_too(project, make):
    project.add_case({"CT": make.image("a.nii", seed=5)}, name="a")
    assert project.schema.file_ending == ".nii.gz"
    with pytest.raises(ProjectError, match="same file as one of case_001"):
        project.add_case({"CT": make.image("b.nii", seed=5)}, name="b")


def test_a_changed_image_is_noticed(filled, make):
    image = filled.image_paths("case_002")[0]
    data = bytearray(image.read_bytes())
    data[-9] ^= 1
    image.write_bytes(data)
    filled.image_paths("case_003")[0].unlink()
    assert filled.verify_images() == ("case_002", "case_003")
    assert filled.verify_images(["case_001"]) == ()


def test_paths_with_spaces_and_other_letters_work(tmp_path, make):
    source = make.image("Ärzte & Co/Bild – 1.nii.gz")
    with Project.create(tmp_path / "Übung 1", "Übung", ["CT"], ["lesion"]) as project:
        project.add_case({"CT": source}, patient="Jörg^Müller")
        assert project.verify_images() == ()
    assert Project.open(tmp_path / "Übung 1", read_only=True).case_ids() == ("case_001",)


def test_headers_that_are_alike_are_no_duplicates_where_their_voxels_differ(project, make):
    for name in ("a", "b"):
        image = make.folder / name / "image.mhd"
        image.parent.mkdir(parents=True)
        array = np.full((4, 5, 6), ord(name), np.int16)
        sitk.WriteImage(sitk.GetImageFromArray(array), str(image))
        assert "converted" in project.add_case({"CT": image}).notes[-1]
    assert project.case_ids() == ("case_001", "case_002")


def test_an_unknown_case_is_refused(project):
    with pytest.raises(ProjectError, match="no case 'case_009'"):
        project.geometry("case_009")


def test_a_file_left_by_a_killed_import_is_in_nobodys_way(project, make):
    left = project.folder / "images/case_001_0000.nii.gz"
    left.parent.mkdir()
    left.write_text("half")
    project.add_case({"CT": make.image("a.nii.gz")})
    assert project.verify_images() == ()


# ---------------------------------------------------------------- a disk that fails


def _raise(number: int):
    def fail(*_args, **_keywords):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_a_disk_that_fails_leaves_the_project_as_it_was(filled, make, labels, monkeypatch, number):
    before, known = _tree(filled.folder), filled.schema
    source = make.image("new.nii.gz")
    monkeypatch.setattr(store, "write_json", _raise(number))
    with pytest.raises(ProjectError, match=os.strerror(number)):
        filled.add_case({"CT": source}, name="new")
    with pytest.raises(ProjectError, match=os.strerror(number)):
        filled.set_supports(["liver"])
    after = _tree(filled.folder)
    assert {**after, "private.json": b""} == {**before, "private.json": b""}
    assert filled.schema == known
    monkeypatch.undo()
    assert filled.add_case({"CT": source}, name="new").id == "case_010"


def test_a_full_disk_never_harms_a_mask(filled, labels, monkeypatch):
    before = filled.masks("case_001")["lesion"]
    monkeypatch.setattr(os, "fsync", _raise(errno.ENOSPC))
    with pytest.raises(ProjectError, match="lesion of case_001 cannot be written: No space"):
        filled.set_mask("case_001", "lesion", labels(()), {}, replace=True)
    monkeypatch.undo()
    np.testing.assert_array_equal(filled.masks("case_001")["lesion"], before)


SMALL = """
import resource, sys
from napari_backsplit.backend.errors import ProjectError
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.volume import read_mask

project = Project.open(sys.argv[1])
mask = read_mask(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (12000, resource.RLIM_INFINITY))
for act in (
    lambda: project.set_mask("case_001", "lesion", mask, {}, replace=True),
    lambda: project.add_case({"CT": sys.argv[3]}, name="new"),
):
    try:
        act()
    except ProjectError as error:
        print(error)
"""


def test_files_cut_short_by_the_disk_are_noticed(filled, make):
    """SimpleITK itself does not notice, where the file is compressed."""
    pytest.importorskip("resource")
    shape = (40, 50, 60)
    big = filled.add_case({"CT": make.image("big.nii.gz", shape=shape)}, name="big").id
    noise = np.random.default_rng(0).random(shape) > 0.5
    mask, image = make.write("noise.nii.gz", noise), make.image("other.nrrd", shape=shape)
    before, known = _tree(filled.folder), filled.schema
    filled.close()
    code = SMALL.replace("case_001", big)
    command = [sys.executable, "-c", code, str(filled.folder), str(mask), str(image)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.count("cannot be written: ") == 2
    assert Project.open(filled.folder, read_only=True).schema == known
    assert _tree(filled.folder).items() >= before.items() - {
        item for item in before.items() if item[0].startswith(".lock")
    }
    assert not [path for path in filled.folder.rglob(".*") if "nii" in path.name]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_a_folder_that_cannot_be_written_is_opened_to_read_only(project):
    project.close()
    project.folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(ProjectError, match="Permission"):
        Project.open(project.folder)
    assert Project.open(project.folder, read_only=True).schema.name == "demo"
    project.folder.chmod(stat.S_IRWXU)


# ---------------------------------------------------------------- masks


def test_a_mask_comes_back_as_it_went_in(filled, labels):
    path = filled.set_mask("case_001", "liver", labels((1, 0, 1)), {"engine": "seeded"})
    assert path == filled.folder / "cases/case_001/supports/liver.nii.gz"
    mask = filled.masks("case_001")["liver"]
    assert mask.dtype == bool
    assert np.flatnonzero(mask).tolist() == [0, 2]
    assert read_volume(path).geometry.difference(filled.geometry("case_001")) is None


def test_one_target_has_a_plain_name_and_several_have_a_folder(tmp_path, make, labels):
    with Project.create(tmp_path / "p", "p", ["CT"], ["tumour", "node"]) as project:
        project.add_case({"CT": make.image("a.nii.gz")})
        path = project.set_mask("case_001", "node", labels(), {})
        assert project.problems("case_001") == ("has no mask of tumour",)
    assert path == project.folder / "cases/case_001/targets/node.nii.gz"


def test_the_provenance_says_who_when_and_that_nobody_looked_yet(filled, labels):
    given = {"engine": "nninteractive", "model": "v1", "licence": "CC BY-NC-SA 4.0"}
    path = filled.set_mask("case_001", "liver", labels(), {**given, "prompts": [{"point": [1]}]})
    record = json.loads(path.with_name("liver.json").read_text())
    assert record.items() >= given.items()
    assert record["review"] == "unreviewed"
    assert record["who"]
    assert re.match(r"\d{4}-\d\d-\d\dT", record["when"])
    assert record["prompts"] == [{"point": [1]}]


def test_a_provenance_with_a_path_is_refused_before_anything_is_written(filled, labels):
    with pytest.raises(InputError, match="is a path"):
        filled.set_mask("case_001", "liver", labels(), {"model": "/home/ann/model"})
    assert filled.mask_path("case_001", "liver") is None


def test_a_review_is_recorded(filled):
    filled.judge("case_001", "accepted", "lesion", who="Dr. B")
    record = filled.provenance("case_001", "lesion").model_dump()
    assert (record["review"], record["reviewed_by"]) == ("accepted", "Dr. B")
    with pytest.raises(ProjectError, match="no mask of liver"):
        filled.judge("case_001", "accepted", "liver")


def test_a_mask_on_another_grid_is_refused_unless_resampled(filled, labels):
    other = labels((1,) * 30, origin=2.0)
    with pytest.raises(GeometryError, match=r"liver for case_001 .*Image: .*mask: "):
        filled.set_mask("case_001", "liver", other, {})
    filled.set_mask("case_001", "liver", other, {}, resample=True)
    resampled = filled.provenance("case_001", "liver").resampled
    assert resampled["method"] == "nearest"
    assert resampled["from"]["origin_mm"][0] == 2.0
    expected = np.zeros((4, 5, 6), bool)
    expected[0, :, 2:] = True
    np.testing.assert_array_equal(filled.masks("case_001")["liver"], expected)


def test_a_mask_is_replaced_only_when_asked_and_the_old_one_is_kept(filled, labels):
    with pytest.raises(ProjectError, match="has a mask of lesion already"):
        filled.set_mask("case_001", "lesion", labels((0, 1)), {})
    for voxels in ((0, 1), (0, 0, 1)):
        filled.set_mask("case_001", "lesion", labels(voxels), {}, replace=True)
    trash = filled.folder / "cases/case_001/trash"
    kept = [np.flatnonzero(read_volume(trash / f"target-{n}.nii.gz").array) for n in (1, 2)]
    assert [voxels.tolist() for voxels in kept] == [[0], [1]]
    assert (trash / "target-2.json").exists()
    assert np.flatnonzero(filled.masks("case_001")["lesion"]).tolist() == [2]


def test_a_mask_whose_provenance_cannot_be_written_does_not_take_its_place(
    filled, labels, monkeypatch
):
    monkeypatch.setattr(masks, "write_json", _raise(errno.ENOSPC))
    with pytest.raises(ProjectError, match="No space left"):
        filled.set_mask("case_001", "lesion", labels((0, 1)), {}, replace=True)
    assert np.flatnonzero(filled.masks("case_001")["lesion"]).tolist() == [0]


def test_an_unknown_structure_is_refused(filled, labels):
    with pytest.raises(ProjectError, match=r"no structure 'heart'.*lesion, liver"):
        filled.set_mask("case_001", "heart", labels(), {})


def test_a_case_without_any_lesion_is_trained_on_and_one_without_a_mask_is_not(filled, make):
    filled.add_case({"CT": make.image("u.nii.gz")}, name="unlabelled")
    assert not filled.has_lesion("case_009")
    assert "case_009" in filled.training_cases()
    assert filled.problems("case_010") == ("has no mask of lesion",)
    assert "case_010" not in filled.training_cases()


def test_a_lesion_drawn_by_another_program_counts(filled, make):
    path = filled.mask_path("case_009", "lesion")
    path.write_bytes(make.mask("m.nii.gz").read_bytes())
    assert filled.has_lesion("case_009")


# ---------------------------------------------------------------- supports


def test_supports_are_ordered_added_and_keep_their_colours(project):
    before = {support.name: support.colour for support in project.schema.supports}
    project.set_supports(["spleen", "liver", "bone", "kidney"])
    supports = {support.name: support.colour for support in project.schema.supports}
    assert tuple(supports) == ("spleen", "liver", "bone", "kidney")
    assert supports.items() >= before.items()
    assert len(set(supports.values())) == 4


def test_a_support_with_masks_is_not_dropped(filled, labels):
    filled.set_mask("case_002", "liver", labels(), {})
    with pytest.raises(ProjectError, match="liver has masks in 1 cases, such as case_002"):
        filled.set_supports(["kidney", "spleen"])
    filled.set_supports(["liver"])
    assert filled.schema.support_names == ("liver",)


# ---------------------------------------------------------------- test set and splits


def test_a_test_set_holds_whole_patients(filled):
    assert filled.reserve_test(ids=["case_001"]) == ("case_001", "case_002")
    assert not set(filled.test_cases()) & set(filled.training_cases())
    assert filled.reserve_test(count=2) == filled.reserve_test(count=2)
    patients = {filled.case(case).patient for case in filled.test_cases()}
    assert len(patients) == 2


def test_a_fraction_reserves_at_least_one_patient(filled):
    filled.reserve_test(0.01)
    assert len({filled.case(case).patient for case in filled.test_cases()}) == 1


@pytest.mark.parametrize("options", [{}, {"fraction": 0.5, "count": 2}])
def test_the_test_set_is_described_in_one_way(filled, options):
    with pytest.raises(InputError, match="one of fraction, count and ids"):
        filled.reserve_test(**options)


def test_somebody_is_left_to_train_on(filled):
    with pytest.raises(ProjectError, match="No patient would be left"):
        filled.reserve_test(ids=filled.case_ids())


def test_a_used_test_set_is_changed_only_by_force(filled):
    filled.reserve_test(ids=["case_001"])
    filled.freeze_test()
    with pytest.raises(ProjectError, match="has been used by a training"):
        filled.reserve_test(ids=["case_003"])
    filled.reserve_test(ids=["case_001"])
    assert filled.reserve_test(ids=["case_003"], force=True) == ("case_003", "case_004")


def test_a_patients_later_case_joins_the_others(filled, make):
    filled.reserve_test(ids=["case_001"])
    case = filled.add_case({"CT": make.image("x.nii.gz")}, name="later", patient="a")
    assert case.test
    assert "Reserved for the test" in case.notes[-1]


def test_splits_leave_out_the_test_set_and_hold_everyone_else(filled):
    filled.reserve_test(ids=["case_001"])
    splits = filled.splits(5)
    assert sorted(case for split in splits for case in split["val"]) == sorted(
        filled.training_cases()
    )
    assert splits == filled.splits(5)


def test_kept_splits_stay_when_a_patient_is_added(filled, make, labels):
    filled.freeze_test(folds=3)
    before = filled.splits(3)
    case = filled.add_case({"CT": make.image("x.nii.gz")}, name="x").id
    filled.set_mask(case, "lesion", labels(), {})
    after = filled.splits(3)
    assert [[c for c in split["val"] if c != case] for split in after] == [
        split["val"] for split in before
    ]
    assert sum(case in split["val"] for split in after) == 1


def test_a_change_is_told(project, make, labels):
    told: list[str] = []
    project.changed.connect(told.append)
    project.add_case({"CT": make.image("a.nii.gz")})
    project.set_mask("case_001", "lesion", labels(), {})
    project.set_supports(["liver"])
    assert told == ["case_001", "case_001", ""]
