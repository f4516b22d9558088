from __future__ import annotations

import numpy as np
import pytest

from napari_backsplit.backend.errors import GeometryError, InputError, ProjectError
from napari_backsplit.backend.project import (
    LabelMaps,
    Masks,
    StructureFiles,
    apply_plan,
    import_folder,
    import_masks,
    import_multilabel,
    import_structure_folder,
    scan_folder,
)


def _voxels(project, case):
    return {name: np.flatnonzero(mask).tolist() for name, mask in project.masks(case).items()}


def _messages(report):
    return [problem.message for problem in report.problems]


# ---------------------------------------------------------------- folders


def test_a_scan_finds_cases_with_channels_and_masks_and_changes_nothing(two_channels, make):
    for name in ("a_flair", "a_0001", "b_FLAIR", "b_t1"):
        make.image(f"images/{name}.nii.gz")
    make.mask("masks/a.nii.gz")
    masks = Masks("lesion", make.folder / "masks", "{case}.nii.gz")
    plan = scan_folder(two_channels, make.folder / "images", "{case}_{channel}.nii.gz", [masks])
    assert [case.name for case in plan.cases] == ["a", "b"]
    assert {name: path.name for name, path in plan.cases[0].images.items()} == {
        "FLAIR": "a_flair.nii.gz",
        "T1": "a_0001.nii.gz",
    }
    assert [len(case.masks) for case in plan.cases] == [1, 0]
    assert [p.severity for p in plan.problems] == ["warning"]
    assert "No mask of lesion" in plan.problems[0].message
    assert two_channels.case_ids() == ()


def test_a_folder_is_imported_with_its_masks(project, make):
    for name in ("a", "b"):
        make.image(f"{name}/ct.nii.gz")
        make.mask(f"{name}/lesion.nii.gz", (0, 1) if name == "b" else (1,))
    masks = [Masks("lesion", make.folder, "{case}/lesion.nii.gz", provenance={"licence": "CC0"})]
    seen = []
    report = import_folder(
        project,
        make.folder,
        "{case}/ct.nii.gz",
        masks,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert report.added == {"a": "case_001", "b": "case_002"}
    assert report.problems == ()
    assert report.masks == {"case_001": ("lesion",), "case_002": ("lesion",)}
    assert _voxels(project, "case_002") == {"lesion": [1]}
    assert project.provenance("case_001", "lesion").licence == "CC0"
    assert seen == [(1, 2), (2, 2)]


def test_one_bad_file_never_loses_the_others(project, make):
    for name in ("a", "b", "c", "d"):
        make.image(f"images/{name}.nii.gz", shape=(3, 3, 3) if name == "d" else (4, 5, 6))
        make.mask(f"masks/{name}.nii.gz")
    (make.folder / "images/a.nii.gz").write_bytes(b"no image")
    broken = make.folder / "masks/b.nii.gz"
    broken.write_bytes(broken.read_bytes()[:40])
    masks = [Masks("lesion", make.folder / "masks", "{case}.nii.gz")]
    report = import_folder(project, make.folder / "images", "{case}.nii.gz", masks)
    assert list(report.added) == ["b", "c", "d"]
    assert [problem.source.relative_to(make.folder).as_posix() for problem in report.errors] == [
        "images/a.nii.gz",
        "masks/b.nii.gz",
        "masks/d.nii.gz",
    ]
    assert report.problems[2].message.startswith("The mask of lesion for case_003 is not on")
    assert report.masks == {"case_002": ("lesion",)}


def test_a_second_import_refuses_what_is_there_and_takes_what_is_new(project, make):
    make.image("a.nii.gz")
    import_folder(project, make.folder, "{case}.nii.gz")
    make.image("b.nii.gz")
    report = import_folder(project, make.folder, "{case}.nii.gz")
    assert report.added == {"b": "case_002"}
    assert _messages(report) == [
        "A case of this name is in the project already, as case_001. Leave it out, or tell the "
        "two apart with {patient} in the pattern."
    ]


def test_a_copy_of_an_image_is_refused(project, make):
    make.image("a.nii.gz", seed=1)
    make.image("b.nii.gz", seed=1)
    report = import_folder(project, make.folder, "{case}.nii.gz")
    assert report.added == {"a": "case_001"}
    assert "same file as one of case_001" in report.errors[0].message


def test_a_missing_channel_is_said_and_the_case_is_kept(two_channels, make):
    make.image("a_t1.nii.gz")
    report = import_folder(two_channels, make.folder, "{case}_{channel}.nii.gz")
    assert report.added == {"a": "case_001"}
    assert _messages(report) == ["case_001 lacks the channel FLAIR; it cannot be trained on."]
    assert report.errors == ()


def test_files_without_a_channel_of_the_project_are_said(two_channels, make):
    make.image("a_pet.nii.gz")
    make.image("a_t1.nii.gz")
    make.image("a_0001.nii.gz")
    plan = scan_folder(two_channels, make.folder, "{case}_{channel}.nii.gz")
    assert {problem.message for problem in plan.problems} == {
        "'pet' is none of the channels FLAIR, T1.",
        "The case has an image of T1 already.",
    }
    plan = scan_folder(two_channels, make.folder, "{case}.nii.gz")
    assert "add {channel}" in plan.problems[0].message


def test_a_file_beside_the_images_of_a_case_is_no_error(two_channels, make):
    for name in ("a/flair", "a/t1", "a/lesion", "b/other"):
        make.image(f"{name}.nii.gz")
    plan = scan_folder(two_channels, make.folder, "{case}/{channel}.nii.gz")
    assert [(p.source.name, p.severity) for p in plan.problems] == [
        ("lesion.nii.gz", "warning"),
        ("other.nii.gz", "error"),
    ]


def test_channels_may_have_other_words(two_channels, make):
    make.image("a_mprage.nii.gz")
    words = {"MPRAGE": "T1"}
    plan = scan_folder(two_channels, make.folder, "{case}_{channel}.nii.gz", channels=words)
    assert list(plan.cases[0].images) == ["T1"]
    with pytest.raises(InputError, match="no channel T9"):
        scan_folder(two_channels, make.folder, "{case}.nii.gz", channels={"x": "T9"})


def test_nothing_found_is_said(project, make):
    make.image("a.nrrd")
    plan = scan_folder(project, make.folder, "{case}.nii.gz")
    message = "Nothing fits the pattern '{case}.nii.gz'. Its files end with .nrrd."
    assert [problem.message for problem in plan.problems] == [message]


@pytest.mark.parametrize(
    ("folder", "pattern", "hint"),
    [
        ("", "{case}.nii.gz", "For DICOM series, write their folders, as in '{case}/'."),
        (
            "a",
            "{case}/",
            "It looks in folders below this one, which has none: give the folder above.",
        ),
        ("empty", "{case}.nii.gz", "Its files end with nothing."),
    ],
)
def test_nothing_found_says_why_it_may_be(project, tmp_path, folder, pattern, hint):
    for name in ("in/a", "in/empty"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "in/a/1.DCM").touch()
    plan = scan_folder(project, tmp_path / "in" / folder, pattern)
    assert plan.problems[0].message.endswith(hint)


def test_no_mask_at_all_is_an_error_said_once(project, make):
    for name in ("a", "b"):
        make.image(f"images/{name}.nii.gz")
        make.mask(f"masks/{name}/liver.nii.gz")
    masks = [
        StructureFiles(make.folder / "masks/a", "{case}/{structure}.nii.gz", {"liver": "liver"})
    ]
    report = import_folder(project, make.folder / "images", "{case}.nii.gz", masks)
    assert len(report.added) == 2
    assert [(p.source.name, p.severity) for p in report.problems] == [("a", "error")]


def test_patients_keep_their_cases_together(project, make):
    for name in ("p/1", "p/2", "q/1"):
        make.image(f"{name}.nii.gz")
    report = import_folder(project, make.folder, "{patient}/{case}.nii.gz", test=True)
    assert list(report.added) == ["p/1", "p/2", "q/1"]
    patients = [case.patient for case in project.schema.cases.values()]
    assert patients == ["patient_001", "patient_001", "patient_002"]
    assert project.test_cases() == project.case_ids()


def test_a_case_without_a_file_is_free_of_lesions_only_if_that_is_said(project, make):
    make.image("images/a.nii.gz")
    make.folder.joinpath("masks").mkdir()
    masks = Masks("lesion", make.folder / "masks", "{case}.nii.gz", absent_is_empty=True)
    report = import_folder(project, make.folder / "images", "{case}.nii.gz", [masks])
    assert report.problems == ()
    assert project.training_cases() == ("case_001",)
    assert not project.has_lesion("case_001")
    assert project.provenance("case_001", "lesion").engine == "declared"


def test_a_mask_without_a_case_is_said(project, make):
    make.image("images/a.nii.gz")
    make.mask("masks/a.nii.gz")
    make.mask("masks/z.nii.gz")
    masks = Masks("lesion", make.folder / "masks", "{case}.nii.gz")
    plan = scan_folder(project, make.folder / "images", "{case}.nii.gz", [masks])
    assert [(p.source.name, p.message) for p in plan.problems] == [
        ("z.nii.gz", "There is no case for it.")
    ]


def test_channels_and_masks_on_another_grid_are_resampled_when_asked(two_channels, make):
    make.image("i/a_flair.nii.gz")
    make.image("i/a_t1.nii.gz", origin=0.5)
    make.mask("m/a.nii.gz", origin=0.5)
    masks = [Masks("lesion", make.folder / "m", "{case}.nii.gz")]
    plan = scan_folder(two_channels, make.folder / "i", "{case}_{channel}.nii.gz", masks)
    assert apply_plan(two_channels, plan).added == {}
    report = apply_plan(two_channels, plan, resample=True)
    assert report.added == {"a": "case_001"}
    assert any("resampled" in note for note in report.notes)


# ---------------------------------------------------------------- masks for cases that are there


@pytest.fixture
def cases(project, make):
    for name in ("Ann", "Bob"):
        project.add_case({"CT": make.image(f"images/{name}.nii.gz")}, name=name)
    return project


def test_masks_find_their_case_by_its_first_name_or_its_id(cases, make):
    make.mask("m/Ann.nii.gz")
    make.mask("m/case_002.nii.gz")
    report = import_masks(cases, [Masks("liver", make.folder / "m", "{case}.nii.gz")])
    assert report.problems == ()
    assert report.masks == {"case_001": ("liver",), "case_002": ("liver",)}
    assert report.added == {}


def test_a_name_that_looks_like_an_id_never_lands_on_another_case(project, make):
    for name in ("case_000", "case_001"):  # they become case_001 and case_002
        project.add_case({"CT": make.image(f"images/{name}.nii.gz")}, name=name)
    for name in ("case_000", "case_001", "case_002"):  # the last one has no image
        make.mask(f"m/{name}.nii.gz")
    report = import_masks(project, [Masks("liver", make.folder / "m", "{case}.nii.gz")])
    assert report.masks == {"case_001": ("liver",), "case_002": ("liver",)}
    (problem,) = report.problems
    assert problem.source.name == "case_002.nii.gz"


def test_a_label_map_with_several_ids_is_no_mask(cases, make):
    make.mask("m/Ann.nii.gz", (1, 2))
    report = import_masks(cases, [Masks("liver", make.folder / "m", "{case}.nii.gz")])
    (problem,) = report.errors
    assert "the ids 1, 2" in problem.message
    assert cases.mask_path("case_001", "liver") is None


def test_label_maps_for_all_cases(cases, make):
    make.mask("m/Ann.nii.gz", (2, 3, 5))
    make.mask("m/Bob.nii.gz", (2, 9))
    ids = {2: "kidney", 3: "kidney", 5: "liver"}
    report = import_masks(cases, [LabelMaps(make.folder / "m", "{case}.nii.gz", ids)])
    assert report.masks == {"case_001": ("kidney", "liver")}
    assert len(report.errors) == 1
    assert report.errors[0].message.startswith("case_002: The label map has the ids 9,")


def test_structure_files_for_all_cases(cases, make):
    for name in ("kidney_left", "kidney_right", "Liver", "brain"):
        make.mask(f"m/Ann/{name}.nii.gz")
    for name in ("kidney_left", "liver"):
        make.mask(f"m/Bob/{name}.nii.gz")
    names = {"kidney_left": "kidney", "kidney_right": "kidney", "liver": "liver"}
    structures = StructureFiles(make.folder / "m", "{case}/{structure}.nii.gz", names)
    report = import_masks(cases, [structures])
    assert report.masks == {"case_001": ("kidney", "liver"), "case_002": ("liver",)}
    assert _messages(report) == ["There is no file for kidney_right: kidney is left out."]


def test_a_mask_that_is_there_is_replaced_only_when_asked(cases, make):
    make.mask("m/Ann.nii.gz")
    make.mask("m/Bob.nii.gz")
    masks = [Masks("liver", make.folder / "m", "{case}.nii.gz")]
    import_masks(cases, masks)
    report = import_masks(cases, masks)
    assert [message.partition(".")[0] for message in _messages(report)] == [
        "case_001 has a mask of liver already",
        "case_002 has a mask of liver already",
    ]
    assert import_masks(cases, masks, replace=True).problems == ()
    assert (cases.folder / "cases/case_001/trash/liver-1.nii.gz").exists()


def test_a_mask_that_lies_elsewhere_does_not_become_an_empty_one(cases, make):
    make.mask("m/Ann.nii.gz", origin=500.0)
    masks = [Masks("liver", make.folder / "m", "{case}.nii.gz")]
    report = import_masks(cases, masks, resample=True)
    assert "has no voxel left on the grid of the image" in report.errors[0].message
    assert report.masks == {}
    make.mask("m/Ann.nii.gz", (), origin=500.0)
    assert import_masks(cases, masks, resample=True).masks == {"case_001": ("liver",)}


# ---------------------------------------------------------------- one case


def test_several_ids_make_one_structure(cases, make):
    file = make.mask("organs.nii.gz", (2, 3, 5))
    ids = {2: "kidney", 3: "kidney", 5: "liver", 7: "spleen"}
    assert import_multilabel(cases, "case_001", file, ids) == ("kidney", "liver", "spleen")
    assert _voxels(cases, "case_001") == {"kidney": [0, 1], "liver": [2], "spleen": []}
    record = cases.provenance("case_001", "kidney")
    assert record.model_dump()["labels"] == [2, 3]
    assert len(record.source_sha256) == 64


def test_ids_without_a_name_are_refused_and_listed(cases, make):
    file = make.mask("organs.nii.gz", (1, 7, 9, 9))
    with pytest.raises(InputError, match="has the ids 7, 9, which have no name"):
        import_multilabel(cases, "case_001", file, {1: "liver"})
    assert cases.masks("case_001") == {}
    import_multilabel(cases, "case_001", file, {1: "liver", 7: "", 9: ""})
    import_multilabel(cases, "case_002", file, {1: "liver"}, others="ignore")
    assert _voxels(cases, "case_001") == _voxels(cases, "case_002") == {"liver": [0]}


def test_ids_that_are_not_whole_are_refused(cases, make):
    array = np.zeros((4, 5, 6), np.float32)
    array[0, 0, 0] = 1.5
    file = make.write("organs.nii.gz", array)
    with pytest.raises(InputError, match=r"1\.5"):
        import_multilabel(cases, "case_001", file, {1: "liver"})


def test_a_label_map_on_another_grid_writes_nothing(cases, make):
    file = make.mask("organs.nii.gz", (1, 2), shape=(8, 5, 6))
    with pytest.raises(GeometryError, match="not on the grid"):
        import_multilabel(cases, "case_001", file, {1: "liver", 2: "kidney"})
    assert cases.masks("case_001") == {}
    import_multilabel(cases, "case_001", file, {1: "liver", 2: "kidney"}, resample=True)
    assert cases.provenance("case_001", "kidney").resampled["method"] == "nearest"


def test_when_one_mask_is_there_none_is_written(cases, make):
    file = make.mask("organs.nii.gz", (1, 2))
    import_multilabel(cases, "case_001", file, {2: "kidney"}, others="ignore")
    with pytest.raises(ProjectError, match="has a mask of kidney already"):
        import_multilabel(cases, "case_001", file, {1: "liver", 2: "kidney"})
    assert list(cases.masks("case_001")) == ["kidney"]


def test_a_structure_that_the_project_lacks_is_refused(cases, make):
    with pytest.raises(ProjectError, match="no structure 'heart'"):
        import_multilabel(cases, "case_001", make.mask("organs.nii.gz"), {1: "heart"})


def test_a_folder_with_one_file_a_structure(cases, make):
    make.mask("o/kidney_left.nii.gz", (1,))
    make.mask("o/kidney_right.nii.gz", (0, 1))
    make.mask("o/liver.nii.gz", (0, 0, 1))
    make.mask("o/liver_vessels.nii.gz", (1,))
    names = {"kidney_left": "kidney", "kidney_right": "kidney", "liver": "liver"}
    written = import_structure_folder(cases, "case_001", make.folder / "o", names)
    assert written == ("kidney", "liver")
    assert _voxels(cases, "case_001") == {"liver": [2], "kidney": [0, 1]}


def test_a_structure_without_a_file_is_said_before_anything_is_written(cases, make):
    make.mask("o/liver.nii.gz")
    names = {"liver": "liver", "spleen": "spleen"}
    with pytest.raises(InputError, match="0 files for spleen"):
        import_structure_folder(cases, "case_001", make.folder / "o", names)
    assert cases.masks("case_001") == {}


def test_parts_on_different_grids_are_refused(cases, make):
    make.mask("o/left.nii.gz")
    make.mask("o/right.nii.gz", origin=1.0)
    names = {"left": "kidney", "right": "kidney"}
    with pytest.raises(GeometryError, match="files on different grids"):
        import_structure_folder(cases, "case_001", make.folder / "o", names)
