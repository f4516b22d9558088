from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import blosc2
import numpy as np
import pytest

from napari_backsplit.backend.errors import InputError, UntrustedModelError
from napari_backsplit.backend.files import read_json
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.training.arms import arm_scheme
from napari_backsplit.backend.training.nnunet import check_arrays, read_properties, vanished
from napari_backsplit.backend.training.prepare import (
    PlanSet,
    folds_of,
    make_plan_set,
    open_plan_set,
    prepare_arm,
)
from napari_backsplit.backend.training.spec import Arm
from napari_backsplit.backend.volume import Volume
from tests.backend.training.conftest import PLAN

ARMS: tuple[Arm, ...] = ("backsplit", "virtual", "virtual-set", "permuted", "blobs")


def _quiet(what: str, done: int, total: int) -> None:
    pass


def _labels(plan_set: PlanSet, arm: str, case: str) -> np.ndarray:
    return blosc2.open(str(plan_set.arrays(arm) / f"{case}_seg.b2nd"), mode="r")[:]


@pytest.fixture(scope="module")
def arms(planned: Path) -> tuple[PlanSet, dict[str, str]]:
    names = {"binary": "binary"}
    with Project.open(planned, read_only=True) as project:
        plan_set = open_plan_set(project, "own")
        for arm in ARMS:
            scheme = arm_scheme(project, arm, (), plan_set.cases)
            plan_set, names[arm] = prepare_arm(project, plan_set, scheme, _quiet)
    return plan_set, names


def test_image_arrays_of_all_arms_are_one_file(arms: tuple[PlanSet, dict[str, str]]) -> None:
    plan_set, names = arms
    for case in plan_set.cases:
        inodes = {(plan_set.arrays(a) / f"{case}.b2nd").stat().st_ino for a in names.values()}
        assert len(inodes) == 1


def test_arms_differ_in_their_labels_alone(arms: tuple[PlanSet, dict[str, str]]) -> None:
    plan_set, names = arms
    binary = plan_set.plans("binary")
    for name in names.values():
        plans = plan_set.plans(name)
        assert {**plans, "dataset_name": ""} == {**binary, "dataset_name": ""}
        splits = read_json(plan_set.preprocessed(name) / "splits_final.json")
        assert splits == read_json(plan_set.preprocessed("binary") / "splits_final.json")
        for case in plan_set.cases:
            target = _labels(plan_set, name, case) == 1
            np.testing.assert_array_equal(target, _labels(plan_set, "binary", case) == 1)


def test_patches_are_forced_on_the_target_alone(arms: tuple[PlanSet, dict[str, str]]) -> None:
    plan_set, names = arms
    for name in names.values():
        for case in plan_set.cases:
            locations = read_properties(plan_set.arrays(name) / case)["class_locations"]
            assert list(locations) == [1]
            found = np.asarray(locations[1], dtype=int).reshape(-1, 4)
            assert len(found) == (_labels(plan_set, "binary", case) == 1).sum()


def test_a_missing_support_leaves_no_false_background(
    arms: tuple[PlanSet, dict[str, str]],
) -> None:
    plan_set, names = arms
    backsplit = names["backsplit"]
    scheme = read_json(plan_set.preprocessed(backsplit) / "dataset.json")
    liver, code = scheme["labels"]["liver"], len(scheme["labels"])

    assert scheme["backsplit"]["label_sets"] == [[0, liver]]
    partial = _labels(plan_set, backsplit, "case_002")
    assert code in partial
    assert not np.isin(partial, [0, liver]).any()
    complete = _labels(plan_set, backsplit, "case_001")
    assert code not in complete
    assert (complete == 0).any()
    assert "or liver" in (plan_set.raw(backsplit) / "README.md").read_text()


def test_controls_keep_volumes_and_lose_meaning(arms: tuple[PlanSet, dict[str, str]]) -> None:
    plan_set, names = arms
    ours = _labels(plan_set, names["backsplit"], "case_001")
    blobs = _labels(plan_set, names["blobs"], "case_001")
    permuted = _labels(plan_set, names["permuted"], "case_001")
    kidney = ours == 2

    assert abs(int((blobs == 2).sum()) - int(kidney.sum())) < 0.05 * kidney.sum() + 60
    for control in (blobs, permuted):
        overlap = (kidney & (control == 2)).sum() / kidney.sum()
        assert overlap < 0.9
    assert set(np.unique(_labels(plan_set, names["virtual"], "case_001"))) == {0, 1}
    assert set(np.unique(_labels(plan_set, names["virtual-set"], "case_001"))) == {1, 3}


def test_a_dataset_never_changes_under_a_training(sample: Path) -> None:
    with Project.open(sample) as project:
        make_plan_set(project, PLAN, _quiet)
        scheme = arm_scheme(project, "backsplit", ("kidney",), project.training_cases())
        plan_set, first = prepare_arm(project, open_plan_set(project, "own"), scheme, _quiet)
        before = {case: _labels(plan_set, first, case) for case in plan_set.cases}
        assert prepare_arm(project, plan_set, scheme, _quiet)[1] == first
        kidney = project.masks("case_003")["kidney"].copy()
        kidney[: kidney.shape[0] // 2] = False
        volume = Volume(kidney, project.geometry("case_003"))
        project.set_mask("case_003", "kidney", volume, {"engine": "test"}, replace=True)

        plan_set, second = prepare_arm(project, plan_set, scheme, _quiet)

    assert second == f"{first}-v2"
    for case, labels in before.items():
        np.testing.assert_array_equal(_labels(plan_set, first, case), labels)
        same = np.array_equal(_labels(plan_set, second, case), labels)
        assert same == (case != "case_003")


def test_an_edit_of_an_accepted_mask_makes_a_dataset_of_its_own(sample: Path) -> None:
    """Accepted, then edited: its voxels leave, and background may be the kidney from then on."""
    with Project.open(sample) as project:
        make_plan_set(project, PLAN, _quiet)
        scheme = arm_scheme(project, "backsplit", ("kidney",), project.training_cases())
        plan_set, first = prepare_arm(project, open_plan_set(project, "own"), scheme, _quiet)
        before = _labels(plan_set, first, "case_003")
        fewer = project.mask("case_003", "kidney").copy()
        fewer[: fewer.shape[0] // 2] = False
        volume = Volume(fewer, project.geometry("case_003"))
        project.set_mask("case_003", "kidney", volume, {"engine": "test"}, replace=True)
        plan_set, edited = prepare_arm(project, plan_set, scheme, _quiet)
        project.judge("case_003", "accepted", "kidney")
        plan_set, accepted = prepare_arm(project, plan_set, scheme, _quiet)
        assert prepare_arm(project, plan_set, scheme, _quiet)[1] == accepted

    assert (edited, accepted) == (f"{first}-v2", f"{first}-v3")
    np.testing.assert_array_equal(_labels(plan_set, first, "case_003"), before)
    kidney, code = 2, 3
    partial = _labels(plan_set, edited, "case_003")
    assert not np.isin(partial, [0, kidney]).any()
    assert (partial == code).any()
    whole = _labels(plan_set, accepted, "case_003")
    assert not (whole == code).any()
    assert 0 < (whole == kidney).sum() < (before == kidney).sum()


def test_a_recipe_makes_a_dataset_of_its_own_for_supports_alone(sample: Path) -> None:
    with Project.open(sample) as project:
        cases = project.training_cases()
        make_plan_set(project, PLAN, _quiet)
        project.remove_mask("case_001", "bowel")
        plan_set = open_plan_set(project, "own")
        binary = arm_scheme(project, "binary", (), cases)
        for _ in range(2):
            plan_set, name = prepare_arm(project, plan_set, binary, _quiet)
            assert name == "binary"
            project.add_recipe("subtract", "kidney", ["lesion"])
        project.remove_recipe(1)
        project.add_recipe("merge", "bowels", ["bowel"])
        scheme = arm_scheme(project, "backsplit", ("kidney", "bowels"), cases)
        plan_set, name = prepare_arm(project, plan_set, scheme, _quiet)
    dataset = read_json(plan_set.preprocessed(name) / "dataset.json")
    assert dataset["labels"] == {"background": 0, "lesion": 1, "kidney": 2, "bowels": 3}
    assert dataset["backsplit"]["label_sets"] == [[0, 3]]
    assert not (_labels(plan_set, name, "case_001") == 0).any()


def test_a_preprocessed_case_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Planted:
        def __reduce__(self) -> tuple[object, ...]:
            return (os.system, (f"touch {tmp_path / 'ran'}",))

    (tmp_path / "case_001.pkl").write_bytes(pickle.dumps({"spacing": Planted()}))
    with pytest.raises(UntrustedModelError, match="system"):
        check_arrays(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_plan_set_keeps_its_settings_and_its_cases(planned: Path) -> None:
    with Project.open(planned, read_only=True) as project:
        with pytest.raises(InputError, match="exists with other settings"):
            make_plan_set(project, PLAN.model_copy(update={"batch_size": 4}), _quiet)
        with pytest.raises(InputError, match="no plan set 'other'"):
            open_plan_set(project, "other")
        with pytest.raises(InputError, match="no fold 7"):
            folds_of(open_plan_set(project, "own"), 7)


def test_a_rejected_mask_has_no_say_in_the_normalisation(
    sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: dict[str, set[str]] = {}

    def fingerprint(cases: dict[str, tuple[list[Path], list[Path]]], *how: object) -> None:
        measured.update({case: {mask.name for mask in masks} for case, (_, masks) in cases.items()})
        raise InputError("Seen enough.")

    monkeypatch.setattr("napari_backsplit.backend.training.nnunet.fingerprint", fingerprint)
    with Project.open(sample) as project:
        project.judge("case_001", "rejected", "liver")
        spec = PLAN.model_copy(update={"intensities": "structures"})
        with pytest.raises(InputError, match="Seen enough"):
            make_plan_set(project, spec, _quiet)
    assert "liver.nii.gz" not in measured["case_001"]
    assert "target.nii.gz" in measured["case_001"]
    assert "liver.nii.gz" in measured["case_003"]


def test_lesions_that_vanish_are_counted() -> None:
    lesions = np.zeros((12, 12, 12), int)
    lesions[1:4, 1:4, 1:4] = 1
    lesions[8, 8, 8] = 1
    lesions[8, 8, 4] = 1
    kept = np.zeros((6, 6, 6), int)  # half the resolution; the single voxels are gone
    kept[0:2, 0:2, 0:2] = 1
    properties = {"bbox_used_for_cropping": [[0, 12]] * 3}

    assert vanished(lesions, kept, properties, (0, 1, 2)) == 2
    assert vanished(lesions, kept * 0, properties, (0, 1, 2)) == 3
    assert vanished(lesions * 0, kept * 0, properties, (0, 1, 2)) == 0


@pytest.mark.parametrize("supports", [("spleen",), ("kidney", "nothing")])
def test_an_unknown_support_is_named(planned: Path, supports: tuple[str, ...]) -> None:
    with Project.open(planned, read_only=True) as project, pytest.raises(InputError) as error:
        arm_scheme(project, "backsplit", supports, project.training_cases())
    assert supports[-1] in str(error.value)


def test_raw_datasets_are_plain_nnunet_without_copies(planned: Path) -> None:
    raw = next((planned / "nnunet" / "raw").glob("Dataset*_own-binary"))
    dataset = read_json(raw / "dataset.json")
    assert dataset["labels"] == {"background": 0, "lesion": 1}
    for case, files in dataset["dataset"].items():
        (image,) = files["images"]
        assert (raw / image).resolve() == (planned / "images" / f"{case}_0000.nii.gz").resolve()
        assert (raw / files["label"]).exists()
    assert not (raw / "imagesTr").exists()


def test_codes_follow_the_missing_sets_of_the_other_cases(planned: Path, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    shutil.copytree(planned, folder)
    with Project.open(folder, read_only=True) as project:
        kidney = project.mask_path("case_003", "kidney")
        assert kidney is not None
        hidden = kidney.rename(tmp_path / "kidney.nii.gz")
        plan_set = open_plan_set(project, "own")
        scheme = arm_scheme(project, "backsplit", (), plan_set.cases)
        plan_set, _ = prepare_arm(project, plan_set, scheme, _quiet)
        hidden.rename(kidney)
        plan_set, name = prepare_arm(project, plan_set, scheme, _quiet)
    labels = _labels(plan_set, name, "case_002")
    assert labels.max() == scheme.classes.count  # the only set code that is left
