"""Imports of published data, where BACKSPLIT_TEST_DATA names a folder that holds it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from napari_backsplit.backend.errors import GeometryError
from napari_backsplit.backend.project import (
    LabelMaps,
    Masks,
    Project,
    StructureFiles,
    dataset_structures,
    import_folder,
    import_masks,
    import_multilabel,
    import_nnunet_raw,
    import_structure_folder,
)
from napari_backsplit.backend.volume import read_label_map, read_volume

ORGANS = {1: "spleen", 2: "kidney", 3: "kidney", 5: "liver", 52: "aorta"}
FILES = {
    "spleen": "spleen",
    "kidney_left": "kidney",
    "kidney_right": "kidney",
    "liver": "liver",
    "aorta": "aorta",
}


@pytest.fixture
def organs(tmp_path, real_data):
    supports = tuple(dict.fromkeys(ORGANS.values()))
    with Project.create(tmp_path / "p", "organs", ["CT"], ["lesion"], supports) as project:
        image = real_data / "totalsegmentator/example_ct_sm.nii.gz"
        project.add_case({"CT": image}, name="example")
        yield project


def test_organs_from_one_label_map(organs, real_data):
    file = real_data / "totalsegmentator/example_seg.nii.gz"
    import_multilabel(organs, "case_001", file, ORGANS, others="ignore")
    ids = read_label_map(file).array
    masks = organs.masks("case_001")
    assert {name: mask.sum() for name, mask in masks.items()} == {
        "spleen": (ids == 1).sum(),
        "kidney": np.isin(ids, (2, 3)).sum(),
        "liver": (ids == 5).sum(),
        "aorta": (ids == 52).sum(),
    }
    assert masks["liver"].any()


def test_organs_from_a_folder_with_one_file_each(organs, real_data):
    folder = real_data / "totalsegmentator/example_seg_fast"
    import_structure_folder(organs, "case_001", folder, FILES)
    masks = organs.masks("case_001")
    assert set(masks) == set(FILES.values())
    for side in ("left", "right"):
        part = read_volume(folder / f"kidney_{side}.nii.gz").array > 0
        assert part.any()
        assert masks["kidney"][part].all()


def test_both_layouts_in_bulk(organs, real_data, tmp_path):
    source = real_data / "totalsegmentator"
    shutil.copytree(source / "example_seg_fast", tmp_path / "masks/example")
    report = import_masks(
        organs, [StructureFiles(tmp_path / "masks", "{case}/{structure}.nii.gz", FILES)]
    )
    assert report.problems == ()
    labels = LabelMaps(source, "{case}_seg.nii.gz", ORGANS, others="ignore")
    report = import_masks(organs, [labels], replace=True)
    assert report.errors == ()
    assert report.masks["case_001"] == ("spleen", "kidney", "liver", "aorta")
    assert len(list((organs.folder / "cases/case_001/trash").glob("*.nii.gz"))) == 4


def test_an_organ_of_another_scan_is_refused(organs, real_data):
    file = real_data / "totalsegmentator/example_seg_mr.nii.gz"
    with pytest.raises(GeometryError, match="not on the grid"):
        import_multilabel(organs, "case_001", file, {1: "spleen"}, others="ignore")


def test_two_channels_and_many_small_lesions(tmp_path, real_data):
    with Project.create(tmp_path / "p", "ms", ["FLAIR", "T1"], ["lesion"]) as project:
        masks = [Masks("lesion", real_data, "{case}/lesion.nii.gz")]
        report = import_folder(project, real_data, "{case}/{channel}.nii.gz", masks)
        assert report.added == {"ms-lesions": "case_001"}
        lesion = project.masks("case_001")["lesion"]
        source = read_volume(real_data / "ms-lesions/lesion.nii.gz")
        np.testing.assert_array_equal(lesion, source.array > 0)
        assert project.geometry("case_001").difference(source.geometry) is None
        assert [path.name for path in project.image_paths("case_001")] == [
            "case_001_0000.nii.gz",
            "case_001_0001.nii.gz",
        ]


def test_a_raw_dataset_with_the_second_label_as_the_target(tmp_path, real_data):
    raw = tmp_path / "Dataset004_Hippocampus"
    images = sorted((real_data / "hippocampus/images").glob("*.nii.gz"))[:8]
    for image in images:
        name = image.name.removesuffix(".nii.gz")
        _copy(image, raw / f"imagesTr/{name}_0000.nii.gz")
        _copy(real_data / "hippocampus/labels" / image.name, raw / f"labelsTr/{image.name}")
    labels = {"background": 0, "Anterior": 1, "Posterior": 2}
    content = {"channel_names": {"0": "MRI"}, "labels": labels, "file_ending": ".nii.gz"}
    (raw / "dataset.json").write_text(json.dumps(content))
    names = dataset_structures(raw, targets=["Posterior"])
    with Project.create(tmp_path / "p", "hippocampus", *names) as project:
        report = import_nnunet_raw(project, raw)
        assert report.problems == ()
        assert len(report.added) == 8
        masks = project.masks("case_001")
        ids = read_label_map(raw / f"labelsTr/{images[0].name}").array
        np.testing.assert_array_equal(masks["posterior"], ids == 2)
        np.testing.assert_array_equal(masks["anterior"], ids == 1)
        assert project.schema.target_names == ("posterior",)
        assert len(project.splits(4)) == 4


def test_a_dicom_series_is_converted_once_and_said(tmp_path, real_data):
    pytest.importorskip("napari_backsplit.backend.dicom")
    with Project.create(tmp_path / "p", "dicom", ["CT"], ["lesion"]) as project:
        report = import_folder(project, real_data / "dicom/ct-with-seg", "{case}age/")
        assert report.added == {"im": "case_001"}
        assert any("converted from a DICOM series" in note for note in report.notes)
        image = project.image_paths("case_001")[0]
        assert image.name == "case_001_0000.nii.gz"
        assert read_volume(image).array.shape[0] == 3
        again = import_folder(project, real_data / "dicom/ct-with-seg", "{case}mage/")
        assert "same file as one of case_001" in again.errors[0].message


def _copy(source: Path, destination: Path) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, destination)
