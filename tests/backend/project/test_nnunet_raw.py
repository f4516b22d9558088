from __future__ import annotations

import json

import numpy as np
import pytest

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.project import (
    Project,
    dataset_structures,
    import_nnunet_raw,
    scan_nnunet_raw,
)

LABELS = {"background": 0, "Tumour": 1, "Left Kidney": 2}


@pytest.fixture
def dataset(make):
    """Two cases to train on, the second free of lesions, one without labels, one to test."""

    def write(**changes):
        content = {
            "channel_names": {"0": "CT"},
            "labels": LABELS,
            "numTraining": 3,
            "file_ending": ".nii.gz",
            **changes,
        }
        make.write("x.nii.gz", np.zeros((2, 2, 2), np.uint8)).unlink()
        (make.folder / "dataset.json").write_text(json.dumps(content))
        return make.folder

    for name in ("a", "b", "c"):
        make.image(f"imagesTr/{name}_0000.nii.gz")
    make.mask("labelsTr/a.nii.gz", (1, 2))
    make.mask("labelsTr/b.nii.gz", (0, 2))
    make.image("imagesTs/t_0000.nii.gz")
    return write


@pytest.fixture
def organs(tmp_path):
    with Project.create(tmp_path / "p", "p", ["CT"], ["tumour"], ["left_kidney"]) as project:
        yield project


def test_a_project_for_a_dataset_has_its_names(dataset):
    assert dataset_structures(dataset()) == (("CT",), ("tumour",), ("left_kidney",))
    two = dataset_structures(dataset(), targets=["Left Kidney"], supports=[])
    assert two == (("CT",), ("left_kidney",), ())
    with pytest.raises(InputError, match=r"no label Heart.*Tumour, Left Kidney"):
        dataset_structures(dataset(), targets=["Heart"])


def test_a_dataset_is_imported_with_masks_and_test_cases(organs, dataset):
    report = import_nnunet_raw(organs, dataset())
    assert report.added == {name: f"case_00{i}" for i, name in enumerate("abct", 1)}
    assert report.errors == ()
    assert [problem.message for problem in report.problems] == [
        "The case has no label map: it can be used for prediction only."
    ]
    assert organs.training_cases() == ("case_001", "case_002")
    assert organs.test_cases() == ("case_004",)
    assert not organs.has_lesion("case_002")
    voxels = {name: mask.sum() for name, mask in organs.masks("case_001").items()}
    assert voxels == {"tumour": 1, "left_kidney": 1}


def test_label_1_goes_to_the_target_and_roles_change_that(project, dataset):
    with pytest.raises(InputError, match=r"2 \('left_kidney'\).*lesion, liver, kidney, spleen"):
        scan_nnunet_raw(project, dataset())
    plan = scan_nnunet_raw(project, dataset(), {"Left Kidney": "kidney"})
    assert plan.cases[0].masks[0].ids == {1: "lesion", 2: "kidney"}
    with pytest.raises(InputError, match=r"1 \('tumour'\)"):  # never two labels in one target
        scan_nnunet_raw(project, dataset(), {"Left Kidney": "lesion"})
    roles = {"Left Kidney": "lesion", "Tumour": ""}
    plan = scan_nnunet_raw(project, dataset(), roles)
    assert plan.cases[0].masks[0].ids == {1: "", 2: "lesion"}
    plan = scan_nnunet_raw(project, dataset(), {"Left Kidney": "kidney", "Tumour": ""})
    assert plan.cases[0].masks[0].ids == {1: "", 2: "kidney"}


def test_an_id_that_dataset_json_does_not_name_is_refused_by_number(organs, dataset, make):
    make.mask("labelsTr/a.nii.gz", (1, 2, 7))
    report = import_nnunet_raw(organs, dataset())
    assert "case_001: The label map has the ids 7," in report.errors[0].message
    assert organs.problems("case_001") == ("has no mask of tumour",)


def test_the_explicit_list_of_cases_is_followed(organs, dataset, make):
    folder = dataset(
        dataset={
            "first": {"images": ["imagesTr/c_0000.nii.gz"], "label": "labelsTr/a.nii.gz"},
            "second": {"images": [str(make.folder / "imagesTr/b_0000.nii.gz")]},
            "third": {"label": "labelsTr/a.nii.gz"},
            "fourth": {"images": ["imagesTr/a_0000.nii.gz", "imagesTr/b_0000.nii.gz"]},
            "fifth": {"images": ["imagesTr/gone.nii.gz"]},
        }
    )
    report = import_nnunet_raw(organs, folder)
    assert report.added == {"first": "case_001", "second": "case_002"}
    assert [problem.message for problem in report.problems] == [
        "The entry of a case in dataset.json lacks 'images'.",
        "A case has 2 images; the dataset has 1 channels.",
        report.problems[2].message,
    ]
    assert "does not exist" in report.problems[2].message


def test_channels_go_by_name_never_by_number(two_channels, dataset, make):
    make.image("imagesTr/a_0001.nii.gz")
    labels = {"background": 0, "lesion": 1}
    folder = dataset(channel_names={"0": "t1", "1": "FLAIR"}, labels=labels)
    plan = scan_nnunet_raw(two_channels, folder)
    assert {name: path.name for name, path in plan.cases[0].images.items()} == {
        "T1": "a_0000.nii.gz",
        "FLAIR": "a_0001.nii.gz",
    }
    folder = dataset(channel_names={"0": "MPRAGE", "1": "FLAIR"}, labels=labels)
    with pytest.raises(InputError, match="MPRAGE, FLAIR, the project FLAIR, T1"):
        scan_nnunet_raw(two_channels, folder)
    assert scan_nnunet_raw(two_channels, folder, channels={"MPRAGE": "T1"}).cases


def test_files_that_belong_to_nothing_are_said(organs, dataset, make):
    make.image("imagesTr/a.nii.gz")
    make.image("imagesTr/a_0003.nii.gz")
    make.mask("labelsTr/z.nii.gz")
    plan = scan_nnunet_raw(organs, dataset())
    said = {problem.source.name: problem.message for problem in plan.problems}
    assert said.keys() == {"a.nii.gz", "a_0003.nii.gz", "z.nii.gz", "c_0000.nii.gz"}
    assert said["z.nii.gz"] == "There is no image for it."


def test_a_second_import_adds_nothing(organs, dataset):
    import_nnunet_raw(organs, dataset())
    plan = scan_nnunet_raw(organs, dataset())
    assert plan.cases == ()
    assert sum("already, as case_" in problem.message for problem in plan.problems) == 4


def test_the_decathlons_dataset_json_is_read(organs, dataset):
    labels = {"0": "background", "1": "Tumour", "2": "Left Kidney"}
    folder = dataset(channel_names=None, modality={"0": "CT"}, labels=labels)
    assert dataset_structures(folder) == (("CT",), ("tumour",), ("left_kidney",))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": None}, "not nnU-Net's"),
        ({"channel_names": None}, "not nnU-Net's"),
        ({"labels": {"background": 0, "whole": [1, 2]}}, "labels whole are regions"),
    ],
)
def test_a_dataset_json_that_cannot_be_used_is_said(organs, dataset, changes, said):
    with pytest.raises(InputError, match=said):
        scan_nnunet_raw(organs, dataset(**changes))


def test_a_folder_without_dataset_json_is_said(organs, tmp_path):
    with pytest.raises(InputError, match=r"dataset\.json does not exist"):
        scan_nnunet_raw(organs, tmp_path)
