from __future__ import annotations

import json
import multiprocessing.dummy

import numpy as np
import pytest

from napari_backsplit.backend.errors import InputError, ProjectError
from napari_backsplit.backend.fusion import raw_dataset
from napari_backsplit.backend.fusion.raw_dataset import (
    channel_names,
    ignoring_background,
    write_dataset,
    write_label_maps,
)
from napari_backsplit.backend.project import Channel, Project
from napari_backsplit.backend.volume import Geometry, Volume, read_label_map, read_volume
from tests.backend.fusion.cohort import make_cohort, put

TILTED = Geometry(
    (6, 8, 10),
    (3.0, 1.5, 2.0),
    (12.0, -7.0, 30.0),
    ((0.0, -0.6, 0.8), (-1.0, 0.0, 0.0), (0.0, -0.8, -0.6)),
)
"""An oblique grid whose axes run to the right, to the feet and to the head."""

NAME = "042_Cysts"


def fill(project, geometry):
    """Three cases to train on, the second without a kidney; one reserved, one without reference."""
    for case in project.case_ids():
        put(project, case, "liver", (slice(3, 5),) * 3, geometry)
        put(project, case, "kidney", (1, 1, slice(0, 3)), geometry)
        if case != "case_005":
            put(project, case, "lesion", (3, 3, slice(3, 7)), geometry)
        for structure in ("liver", "kidney"):
            project.judge(case, "accepted", structure)
    project.judge("case_002", "needs_work", "kidney")
    project.reserve_test(ids=["case_004"])


@pytest.fixture(params=[".nii.gz", ".nrrd", ".mha"])
def project(request, tmp_path):
    with make_cohort(tmp_path, cases=5, geometry=TILTED, ending=request.param) as project:
        fill(project, TILTED)
        yield project


@pytest.fixture
def nifti(tmp_path):
    with make_cohort(tmp_path, cases=5, geometry=TILTED) as project:
        fill(project, TILTED)
        yield project


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


# --- label maps ---------------------------------------------------------------------------------


def test_label_maps_lie_on_the_grid_of_their_images(nifti, tmp_path):
    told = write_label_maps(nifti, tmp_path / "maps")
    assert names_in(tmp_path / "maps") == [
        *(f"case_00{n}.nii.gz" for n in range(1, 6)), "labels.json",
    ]  # fmt: skip
    for case in nifti.case_ids():
        image = read_volume(nifti.image_paths(case)[0])
        label_map = read_label_map(tmp_path / "maps" / f"{case}.nii.gz")
        assert image.geometry.difference(label_map.geometry) is None
        for name, voxels in told["cases"][case]["voxels"].items():
            assert np.count_nonzero(label_map.array == told["labels"][name]) == voxels


def test_what_the_ids_mean_lies_beside_them(nifti, tmp_path):
    nifti.add_recipe("merge", "organs", ["liver", "kidney"])
    told = write_label_maps(nifti, tmp_path / "maps")
    kept = json.loads((tmp_path / "maps" / "labels.json").read_text())
    assert kept == told
    assert kept["labels"] == {"background": 0, "lesion": 1, "organs": 2}
    colours = {s.name: s.colour for s in (*nifti.schema.targets, *nifti.schema.fused_supports)}
    assert kept["colours"] == colours
    assert kept["recipes"] == ["organs = liver + kidney"]
    assert (kept["targets"], kept["masks"]) == (["lesion"], "unreviewed")
    assert kept["cases"]["case_001"]["voxels"] == {"lesion": 4, "organs": 9}
    assert kept["cases"]["case_001"]["missing"] == []
    assert kept["cases"]["case_005"]["missing"] == ["lesion"]


def test_overlaps_and_what_is_missing_are_told(nifti, tmp_path):
    told = write_label_maps(nifti, tmp_path / "maps", "accepted")
    assert told["cases"]["case_001"]["overlaps"] == {"lesion, liver": 2}
    assert told["cases"]["case_002"]["missing"] == ["kidney"]
    unreviewed = write_label_maps(nifti, tmp_path / "all", "unreviewed")
    assert unreviewed["cases"]["case_002"]["missing"] == []


@pytest.mark.parametrize("write", [write_label_maps, lambda p, f: write_dataset(p, f, NAME)])
def test_a_failure_half_way_leaves_nothing(nifti, tmp_path, write, monkeypatch):
    calls = []

    def failing(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return fuse(*arguments, **options)

    fuse = raw_dataset.fuse_case
    monkeypatch.setattr(raw_dataset, "fuse_case", failing)
    with pytest.raises(ProjectError, match="No space"):
        write(nifti, tmp_path / "out")
    assert not (tmp_path / "out").exists() or names_in(tmp_path / "out") == []
    assert [name for name in names_in(tmp_path) if name.startswith(".tmp")] == []


def test_a_folder_that_holds_something_is_left_alone(nifti, tmp_path):
    (tmp_path / "maps").mkdir()
    write_label_maps(nifti, tmp_path / "maps")
    before = (tmp_path / "maps" / "labels.json").stat().st_mtime_ns
    with pytest.raises(InputError, match="is not empty"):
        write_label_maps(nifti, tmp_path / "maps")
    assert (tmp_path / "maps" / "labels.json").stat().st_mtime_ns == before


# --- a raw dataset ------------------------------------------------------------------------------


def test_stock_nnunet_takes_the_dataset(project, tmp_path, capsys, monkeypatch):
    from nnunetv2.experiment_planning import verify_dataset_integrity as nnunet

    # its checks in threads: a process each would load torch again
    monkeypatch.setattr(nnunet.multiprocessing, "get_context", lambda kind: multiprocessing.dummy)
    told = write_dataset(project, tmp_path / "raw", NAME)
    assert told["labels"] == {"background": 0, "lesion": 1, "liver": 2, "kidney": 3, "ignore": 4}
    nnunet.verify_dataset_integrity(str(tmp_path / "raw" / "Dataset042_Cysts"), 1)
    said = capsys.readouterr().out
    assert "verify_dataset_integrity Done" in said
    assert "Warning" not in said
    assert "Error" not in said


def test_nnunet_reads_image_and_label_on_one_grid(project, tmp_path):
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    ending = project.schema.file_ending
    write_dataset(project, tmp_path, NAME)
    folder = tmp_path / "Dataset042_Cysts"
    image, seen = SimpleITKIO().read_images((str(folder / f"imagesTr/case_001_0000{ending}"),))
    label, told = SimpleITKIO().read_seg(str(folder / f"labelsTr/case_001{ending}"))
    assert image.shape == label.shape == (1, 6, 8, 10)
    for key in ("spacing", "origin", "direction"):
        values = (p["sitk_stuff"][key] for p in (seen, told))
        assert np.allclose(*values)
    assert np.argwhere(label[0] == 1).tolist() == [[3, 3, x] for x in range(3, 7)]


def test_what_goes_where(nifti, tmp_path):
    told = write_dataset(nifti, tmp_path, NAME)
    folder = tmp_path / "Dataset042_Cysts"
    assert names_in(folder) == ["README.md", "dataset.json", "imagesTr", "imagesTs", "labelsTr"]
    assert names_in(folder / "imagesTr") == [f"case_00{n}_0000.nii.gz" for n in (1, 2, 3)]
    assert names_in(folder / "labelsTr") == [f"case_00{n}.nii.gz" for n in (1, 2, 3)]
    assert names_in(folder / "imagesTs") == ["case_004_0000.nii.gz"]
    assert (told["train"], told["test"]) == (["case_001", "case_002", "case_003"], ["case_004"])
    assert told["left_out"] == {"case_005": "has no mask of lesion"}
    content = json.loads((folder / "dataset.json").read_text())
    assert (content["numTraining"], content["file_ending"]) == (3, ".nii.gz")
    assert content["channel_names"] == {"0": "CT"}
    original = nifti.image_paths("case_001")[0]
    assert (folder / "imagesTr" / "case_001_0000.nii.gz").read_bytes() == original.read_bytes()


def labels_of(folder, case):
    array = read_label_map(folder / f"Dataset042_Cysts/labelsTr/{case}.nii.gz").array
    return {int(i): int(n) for i, n in zip(*np.unique(array, return_counts=True), strict=True)}


def test_background_that_may_be_a_missing_support_is_ignored(nifti, tmp_path):
    told = write_dataset(nifti, tmp_path, NAME)
    assert told["missing"] == {"case_002": ["kidney"]}
    assert labels_of(tmp_path, "case_001") == {0: 480 - 4 - 6 - 3, 1: 4, 2: 6, 3: 3}
    assert labels_of(tmp_path, "case_002") == {4: 480 - 4 - 6, 1: 4, 2: 6}
    readme = (tmp_path / "Dataset042_Cysts" / "README.md").read_text()
    assert "- case_002: kidney" in readme
    assert "background *or* a support" in readme


def test_without_a_missing_support_nothing_is_ignored(nifti, tmp_path):
    told = write_dataset(nifti, tmp_path, NAME, "unreviewed")
    assert told["labels"] == {"background": 0, "lesion": 1, "liver": 2, "kidney": 3}
    assert labels_of(tmp_path, "case_002") == {0: 480 - 4 - 6 - 3, 1: 4, 2: 6, 3: 3}
    assert "ignore" not in (tmp_path / "Dataset042_Cysts" / "README.md").read_text()


def test_the_project_can_read_its_own_dataset(nifti, tmp_path):
    from napari_backsplit.backend.project import import_nnunet_raw

    write_dataset(nifti, tmp_path, NAME, "unreviewed")
    with Project.create(tmp_path / "again", "again", ["CT"], ["lesion"], ["liver", "kidney"]) as p:
        report = import_nnunet_raw(p, tmp_path / "Dataset042_Cysts")
        assert not report.errors
        assert np.array_equal(p.mask("case_003", "lesion"), nifti.mask("case_003", "lesion"))
        assert p.test_cases() == ("case_004",)


@pytest.mark.parametrize("name", ["42_Cysts", "042", "042_", "042_a/b", "Dataset042_x", "042_a b"])
def test_a_name_that_nnunet_would_not_take_is_refused(nifti, tmp_path, name):
    with pytest.raises(InputError, match="is no name of a dataset"):
        write_dataset(nifti, tmp_path / "raw", name)
    assert not (tmp_path / "raw").exists()


def test_a_number_that_is_taken_is_refused(nifti, tmp_path):
    (tmp_path / "raw" / "Dataset042_Other").mkdir(parents=True)
    with pytest.raises(InputError, match="number 042 already: Dataset042_Other"):
        write_dataset(nifti, tmp_path / "raw", NAME)
    assert names_in(tmp_path / "raw") == ["Dataset042_Other"]


def test_a_project_without_a_case_to_train_on_is_refused(tmp_path):
    with (
        make_cohort(tmp_path, cases=1) as project,
        pytest.raises(InputError, match="no case to train on"),
    ):
        write_dataset(project, tmp_path, NAME)


def test_a_structure_called_ignore_is_refused(tmp_path):
    with make_cohort(tmp_path, cases=1) as project:
        project.set_supports(["liver", "kidney", "ignore"])
        put(project, "case_001", "lesion", ())
        with pytest.raises(InputError, match="its own label"):
            write_dataset(project, tmp_path, NAME)
    assert not (tmp_path / "Dataset042_Cysts").exists()


def test_an_image_that_is_gone_leaves_no_dataset(nifti, tmp_path):
    nifti.image_paths("case_003")[0].unlink()
    with pytest.raises(ProjectError, match="An image of case_003 is gone"):
        write_dataset(nifti, tmp_path / "raw", NAME)
    assert names_in(tmp_path / "raw") == []


def test_the_ignored_background_has_room_for_its_id():
    label_map = np.array([[[0, 255]]], np.uint8)
    result = ignoring_background(label_map, 256)
    assert result.tolist() == [[[256, 255]]]
    assert result.dtype == np.uint16


def test_channels_are_named_so_that_nnunet_normalises_them_as_the_project_does(tmp_path):
    channels = [Channel(name="abdomen", modality="CT"), Channel(name="T1", modality="MR")]
    with Project.create(tmp_path / "p", "p", channels, ["lesion"]) as project:
        assert channel_names(project.schema) == {"0": "CT", "1": "T1"}


def test_several_channels(tmp_path):
    with Project.create(tmp_path / "p", "p", ["FLAIR", "T1"], ["lesion"]) as project:
        files = {}
        for seed, channel in enumerate(("FLAIR", "T1")):
            array = np.random.default_rng(seed).normal(size=TILTED.shape).astype(np.float32)
            files[channel] = tmp_path / f"{channel}.nii.gz"
            raw_dataset.write_volume(Volume(array, TILTED), files[channel])
        project.add_case(files)
        project.add_case({"FLAIR": _other(tmp_path)})
        put(project, "case_001", "lesion", (0, 0, 0), TILTED)
        put(project, "case_002", "lesion", (0, 0, 0), TILTED)
        told = write_dataset(project, tmp_path, NAME)
    folder = tmp_path / "Dataset042_Cysts" / "imagesTr"
    assert names_in(folder) == ["case_001_0000.nii.gz", "case_001_0001.nii.gz"]
    second = read_volume(folder / "case_001_0001.nii.gz").array
    assert np.allclose(second, read_volume(files["T1"]).array)
    assert told["left_out"] == {"case_002": "lacks the channel T1"}


def _other(folder):
    file = folder / "other.nii.gz"
    raw_dataset.write_volume(Volume(np.ones(TILTED.shape, np.float32), TILTED), file)
    return file
