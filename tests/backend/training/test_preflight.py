"""What is looked at before a fine-tune begins: bad models, bad data, bad wishes."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_backsplit.backend.files import read_json, write_json
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.training import estimate as estimating
from napari_backsplit.backend.training.checks import Check, some
from napari_backsplit.backend.training.estimate import Estimate
from napari_backsplit.backend.training.machine_checks import machine_checks
from napari_backsplit.backend.training.mask_checks import lost_lesions
from napari_backsplit.backend.training.preflight import refusals
from napari_backsplit.backend.training.spec import PlanSpec, RunSpec
from napari_backsplit.backend.training.workload import workload
from napari_backsplit.backend.volume import Volume, write_volume
from tests.backend.training.preflight_support import (
    CPU,
    GPU,
    GRID,
    MASKS,
    Asked,
    add_case,
    box,
    contents,
    copy,
    look,
    make_model,
    make_project,
)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKSPLIT_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of four cases to train on and two held out. Never written to."""
    return make_project(tmp_path_factory.mktemp("good") / "project")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A foreign model that fits. Never written to."""
    return make_model(tmp_path_factory.mktemp("model") / "nnUNetTrainer__tinyPlans__3d_fullres")


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    return copy(good, tmp_path / "project")


@pytest.fixture
def foreign(model: Path, tmp_path: Path) -> Path:
    return copy(model, tmp_path / model.name)


def test_a_good_model_and_project_may_begin_and_nothing_is_written(good: Path, model: Path) -> None:
    before = contents(good)
    began = time.monotonic()
    checks = look(good, Asked(str(model)))
    assert time.monotonic() - began < 5
    assert refusals(list(checks.values())) == []
    assert contents(good) == before
    warned = {name for name, check in checks.items() if check.level == "warned"}
    assert warned == {"test set", "unseen", "memory"}, checks
    assert all(check.remedy for check in checks.values() if check.level != "passed")


def test_torch_is_not_needed_to_look() -> None:
    from subprocess import run

    code = (
        "import sys; import napari_backsplit.backend.training.preflight; "
        "sys.exit('torch' in sys.modules or 'nnunetv2' in sys.modules)"
    )
    assert run([sys.executable, "-c", code], check=False).returncode == 0


# ---------------------------------------------------------------------- bad models


def _edit(path: Path, change: Callable[[Any], None]) -> None:
    content = read_json(path)
    change(content)
    write_json(path, content)


def _cut(file: Path, kept: float) -> None:
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * kept)])


def _plant_class(folder: Path) -> None:
    def change(plans: Any) -> None:
        plans["configurations"]["3d_fullres"]["architecture"]["network_class_name"] = "os.system"

    _edit(folder / "plans.json", change)


class _Canary:
    """Runs code when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.file),)


def _plant_code(folder: Path) -> None:
    """Put a pickle into the checkpoint that makes a folder when it is loaded."""
    file = folder / "fold_0" / "checkpoint_final.pth"
    with zipfile.ZipFile(file) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    (inner,) = [name for name in entries if name.endswith("data.pkl")]
    for protocol in (2, 4):
        entries[inner] = pickle.dumps({"x": _Canary(folder.parent / "ran")}, protocol)
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def _as_v1(folder: Path) -> None:
    shutil.rmtree(folder)
    (folder / "fold_0").mkdir(parents=True)
    (folder / "plans.pkl").write_bytes(pickle.dumps(_Canary(folder.parent / "ran")))
    (folder / "fold_0" / "model_final_checkpoint.model").write_bytes(b"old")


def _no_fold(folder: Path) -> None:
    shutil.rmtree(folder / "fold_0")


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no dataset.json": (lambda f: (f / "dataset.json").unlink(), "no dataset.json"),
    "no plans.json": (lambda f: (f / "plans.json").unlink(), "no plans.json"),
    "torn plans.json": (lambda f: (f / "plans.json").write_text('{"plans'), "not readable JSON"),
    "0 bytes": (lambda f: (f / "fold_0/checkpoint_final.pth").write_bytes(b""), "0 bytes"),
    "cut": (lambda f: _cut(f / "fold_0/checkpoint_final.pth", 0.6), "no whole checkpoint"),
    "no fold": (_no_fold, "no fold_ folder"),
    "foreign class": (_plant_class, "os.system"),
    "code": (_plant_code, "asks for posix.mkdir" if os.name == "posix" else "asks for"),
    "v1": (_as_v1, "nnU-Net v1"),
}


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("zipped", [False, True], ids=["folder", "zip"])
def test_a_bad_model_is_refused_in_a_sentence_and_leaves_nothing(
    good: Path, foreign: Path, broken: str, zipped: bool
) -> None:
    break_it, said = BROKEN[broken]
    break_it(foreign)
    named = foreign
    if zipped:
        named = Path(shutil.make_archive(str(foreign), "zip", foreign.parent, foreign.name))
    before = contents(good)
    check = look(good, Asked(str(named)))["model"]
    assert check.level == "refused"
    assert said in check.text or (broken == "code" and "asks for" in check.text)
    assert check.remedy
    assert contents(good) == before
    assert not (foreign.parent / "ran").exists()


def test_a_zip_that_points_outside_and_a_bomb_are_refused(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_backsplit.backend.prediction import archive
    from napari_backsplit.backend.training import workload

    outside = tmp_path / "outside.zip"
    with zipfile.ZipFile(outside, "w") as made:
        made.writestr("../planted.txt", b"x")
    assert "points outside" in look(good, Asked(str(outside)))["model"].text
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("plans.json", bytes(2_000_000))
    monkeypatch.setattr(
        workload, "unpack_zip", lambda path, to: archive.unpack_zip(path, to, max_bytes=1_000_000)
    )
    assert "would unpack to" in look(good, Asked(str(bomb)))["model"].text
    assert not (tmp_path / "planted.txt").exists()


def test_a_model_that_is_not_there_is_named(good: Path) -> None:
    check = look(good, Asked("99"))["model"]
    assert (check.level, "'99'" in check.text) == ("refused", True)


def test_a_model_of_other_channels_is_refused(good: Path, tmp_path: Path) -> None:
    names = {"0": "CT", "1": "PET"}
    other = make_model(tmp_path / "two", channels=2, channel_names=names)
    check = look(good, Asked(str(other)))["channels"]
    assert check.level == "refused"
    assert "takes 2 channels (CT, PET), the project has 1 (CT)" in check.text


def test_channels_in_another_order_are_refused(tmp_path: Path) -> None:
    folder = make_project(tmp_path / "project", 3, 1, channels=("CT", "PET"))
    model = make_model(tmp_path / "m", channels=2, channel_names={"0": "PET", "1": "CT"})
    check = look(folder, Asked(str(model)))["channels"]
    assert check.level == "refused"
    assert "PET, CT in this order" in check.text


def test_a_model_of_another_kind_of_image_must_be_accepted(good: Path, tmp_path: Path) -> None:
    model = make_model(tmp_path / "mr", channel_names={"0": "MR"})
    _edit(
        model / "plans.json",
        lambda plans: plans["configurations"]["3d_fullres"].update(
            normalization_schemes=["ZScoreNormalization"]
        ),
    )
    asked = Asked(str(model))
    check = look(good, asked)["channels"]
    assert (check.level, check.action) == ("refused", "accept unfit")
    assert "ZScoreNormalization" in check.text
    accepted = replace(asked, plan=PlanSpec(folds=3, accept_unfit=True))
    assert look(good, accepted)["channels"].level == "warned"


def test_two_targets_in_the_models_own_order_are_mapped_by_name(tmp_path: Path) -> None:
    masks = {**MASKS, "cyst": box(12, 13)}
    folder = make_project(tmp_path / "project", 3, 1, masks, targets=("lesion", "cyst"))
    model = make_model(tmp_path / "m", {"cyst": 1, "lesion": 2})
    check = look(folder, Asked(str(model)))["labels"]
    assert check.level == "passed"
    assert check.text.startswith("Mapped by name")
    other = make_model(tmp_path / "other", {"cyst": 1, "tumour": 2})
    refused = look(folder, Asked(str(other)))["labels"]
    assert (refused.level, "cyst, tumour" in refused.text) == ("refused", True)
    named = Asked(str(other)).but(label_mapping={"tumour": "lesion"})
    assert look(folder, named)["labels"].level == "passed"


def test_a_model_with_regions_is_refused(good: Path, tmp_path: Path) -> None:
    labels = {"whole": [1, 2], "core": [2]}
    model = make_model(tmp_path / "m", labels, regions_class_order=[1, 2])
    check = look(good, Asked(str(model)))["labels"]
    assert (check.level, "regions" in check.text) == ("refused", True)


def test_a_patch_that_the_strides_do_not_divide_is_refused(good: Path, model: Path) -> None:
    check = look(good, Asked(str(model)).but(patch_size=(16, 16, 17)))["plans"]
    assert check.level == "refused"
    assert "multiples of 2," in check.remedy


def test_a_plan_set_that_is_not_there_is_refused(good: Path, model: Path) -> None:
    asked = replace(Asked(str(model)), plan=None)
    assert look(good, asked)["plans"].level == "refused"


# ---------------------------------------------------------------------- bad data


def _small(tmp_path: Path, *given: Any, **options: Any) -> Path:
    return make_project(tmp_path / "project", *given, **options)


def test_one_case_is_refused(model: Path, tmp_path: Path) -> None:
    check = look(_small(tmp_path, 1, 0), Asked(str(model)))["cases"]
    assert (check.level, check.text[:19]) == ("refused", "1 case to train on.")


def test_five_folds_for_three_cases_are_refused(model: Path, tmp_path: Path) -> None:
    folder = _small(tmp_path, 4, 1)
    asked = replace(Asked(str(model)), plan=PlanSpec())
    check = look(folder, asked)["cases"]
    assert (check.level, check.action) == ("refused", "fewer folds")
    assert "5 folds for 3 patients" in check.text
    assert look(folder, Asked(str(model)))["cases"].level == "passed"


def test_zero_accepted_masks_are_refused_unless_unreviewed_ones_may_enter(
    model: Path, tmp_path: Path
) -> None:
    folder, asked = _small(tmp_path, 3, 1, accepted=()), Asked(str(model))
    check = look(folder, asked)["verdicts"]
    assert (check.level, check.action) == ("refused", "include unreviewed")
    assert "2 unreviewed" in check.text
    checks = look(folder, asked.but(masks="unreviewed"))
    assert checks["verdicts"].level == "warned"
    assert checks["support masks"].level == "passed"


def test_the_first_supports_alone_are_looked_at(good: Path, model: Path) -> None:
    both = Asked(str(model)).but(supports=("liver", "kidney"), support_count=1)
    checks = look(good, both)
    assert checks["supports"].text == "liver."
    assert checks["support masks"].text == "Known of 4 cases: liver in 4."
    with Project.open(good, read_only=True) as project:
        load = workload(project, both)
        assert load is not None
        assert load.supports == ("liver",)
    check = look(good, both.but(support_count=3))["supports"]
    assert (check.level, "at most 2" in check.remedy) == ("refused", True)


def test_soft_labels_and_label_sets_are_refused_together(folder: Path, model: Path) -> None:
    soft = Asked(str(model)).but(labels="soft", activation="sigmoid", loss="adaptive-wing")
    checks = look(folder, soft)
    assert checks["soft labels"].level == "passed"
    with Project.open(folder) as project:
        project.judge(project.training_cases()[0], "rejected", "kidney")
    check = look(folder, soft)["soft labels"]
    assert check.level == "refused"
    assert "kidney in 1" in check.text
    assert look(folder, soft.but(missing="background"))["soft labels"].level == "passed"


def test_another_network_than_the_models_is_refused(good: Path, model: Path) -> None:
    check = look(good, Asked(str(model)).but(architecture="resenc-m"))["network"]
    assert check.level == "refused"
    assert "that of its baseline planned" in check.text


def test_soft_labels_on_a_model_of_classes_are_refused_with_its_output_layer(
    good: Path, model: Path
) -> None:
    soft = Asked(str(model)).but(labels="soft", activation="sigmoid", loss="adaptive-wing")
    check = look(good, soft)["network"]
    assert (check.level, "--head random" in check.remedy) == ("refused", True)
    assert "network" not in look(good, soft.but(head="random"))


def test_a_support_in_one_case_only_is_warned_of(folder: Path, model: Path) -> None:
    with Project.open(folder) as project:
        for case in project.training_cases()[1:]:
            project.judge(case, "rejected", "kidney")
    checks = look(folder, Asked(str(model)))
    assert checks["support masks"].level == "warned"
    assert "kidney: known in one case only" in checks["support masks"].text
    assert checks["verdicts"].text == "1 accepted, 3 rejected of 4 cases."


def test_a_case_that_needs_work_is_named(folder: Path, model: Path) -> None:
    with Project.open(folder) as project:
        case = project.training_cases()[0]
        project.judge(case, "needs_work")
    check = look(folder, Asked(str(model)))["verdicts"]
    assert (check.level, check.action) == ("warned", "review")
    assert f"{case} as a case needs work" in check.text


def test_a_support_that_no_case_has_is_refused(folder: Path, model: Path) -> None:
    with Project.open(folder) as project:
        for case in project.training_cases():
            project.judge(case, "needs_work", "liver")
    asked = Asked(str(model)).but(supports=("kidney", "liver"))
    check = look(folder, asked)["support masks"]
    assert (check.level, check.action) == ("refused", "include unreviewed")
    assert "No mask of liver" in check.text


def test_without_a_test_set_there_is_no_answer(model: Path, tmp_path: Path) -> None:
    folder, asked = _small(tmp_path, 3, 0), Asked(str(model))
    check = look(folder, asked)["test set"]
    assert (check.level, check.action) == ("refused", "reserve")
    assert look(folder, replace(asked, folds=(0, 1, 2)))["test set"].level == "passed"


def test_what_a_model_has_seen_is_checked_declared_or_said_to_be_unknown(
    good: Path, model: Path, foreign: Path
) -> None:
    asked = Asked(str(model))
    unknown = look(good, asked)["unseen"]
    assert (unknown.level, unknown.action) == ("warned", "declare unseen")
    declared = look(good, replace(asked, declare_unseen=True))["unseen"]
    assert (declared.level, "You declare" in declared.text) == ("passed", True)
    with Project.open(good, read_only=True) as project:
        cases = project.test_cases()
        hashes = {c: next(iter(project.case(c).images.values())).sha256 for c in cases}

    def with_record(**data: Any) -> Check:
        card = {"data": {"training": {}, "validation": {}, **data}, "targets": ["lesion"]}
        _edit(foreign / "dataset.json", lambda dataset: dataset.update(backsplit=card))
        return look(good, Asked(str(foreign)))["unseen"]

    assert with_record().text == "Checked: the model has not seen 2 test cases."
    some_seen = with_record(training={"a": hashes[cases[0]]})
    assert (some_seen.level, "1 of 2" in some_seen.text) == ("warned", True)
    assert with_record(training=hashes).level == "refused"


def test_a_cross_validation_of_a_foreign_model_needs_its_folds_and_a_word(
    good: Path, model: Path
) -> None:
    """As `cross_validate` will, which would refuse it."""
    asked = replace(Asked(str(model)), folds=(0,))
    unknown = look(good, asked)["unseen"]
    assert (unknown.level, unknown.action) == ("refused", "declare unseen")
    assert look(good, replace(asked, declare_unseen=True))["unseen"].level == "passed"
    missing = look(good, replace(asked, folds=(0, 7), declare_unseen=True))["unseen"]
    assert (missing.level, "no fold 7" in missing.text) == ("refused", True)


def test_a_rejected_case_of_the_test_set_is_not_measured(folder: Path, model: Path) -> None:
    with Project.open(folder) as project:
        first, second = project.test_cases()
        project.judge(first, "rejected")
    left_out = look(folder, Asked(str(model)))["test set"]
    assert (left_out.level, first in left_out.text) == ("warned", True)
    with Project.open(folder) as project:
        project.judge(second, "rejected")
    assert look(folder, Asked(str(model)))["test set"].level == "refused"


def test_a_patient_on_both_sides_is_a_leak(folder: Path, model: Path) -> None:
    def share(content: Any) -> None:
        first, *_, last = content["cases"].values()
        first["patient"] = last["patient"]

    _edit(folder / "project.json", share)
    check = look(folder, Asked(str(model)))["splits"]
    assert (check.level, check.action) == ("refused", "reserve")
    assert "case_006" in check.text


def test_an_image_on_both_sides_is_a_leak(folder: Path, model: Path) -> None:
    def share(content: Any) -> None:
        first, *_, last = content["cases"].values()
        last["images"]["CT"]["source_sha256"] = first["images"]["CT"]["sha256"]

    _edit(folder / "project.json", share)
    check = look(folder, Asked(str(model)))["splits"]
    assert (check.level, "case_001 and case_006" in check.text) == ("refused", True)


def test_an_image_of_another_size_is_refused(folder: Path, model: Path) -> None:
    with Project.open(folder, read_only=True) as project:
        image = project.image_paths("case_002")[0]
    content = image.read_bytes()
    image.unlink()  # a link to the original
    image.write_bytes(content + b"more")
    check = look(folder, Asked(str(model)))["images"]
    assert (check.level, "case_002" in check.text) == ("refused", True)


def test_a_mask_on_another_grid_or_of_no_volume_is_refused(folder: Path, model: Path) -> None:
    with Project.open(folder, read_only=True) as project:
        kidney, liver = (project.mask_path("case_001", name) for name in ("kidney", "liver"))
    assert kidney
    assert liver
    shifted = replace(GRID, origin_mm=(5.0, 0.0, 0.0))
    write_volume(Volume(MASKS["kidney"], shifted), kidney)
    check = look(folder, Asked(str(model)))["masks"]
    assert (check.level, "not on the grid" in check.text) == ("refused", True)
    liver.write_bytes(b"torn")
    assert "cannot be read" in look(folder, Asked(str(model)))["masks"].text


def test_a_target_without_a_voxel_anywhere_is_refused(model: Path, tmp_path: Path) -> None:
    empty = {**MASKS, "lesion": np.zeros_like(MASKS["lesion"])}
    check = look(_small(tmp_path, 3, 1, empty), Asked(str(model)))["lesions"]
    assert (check.level, "in any of 2 cases" in check.text) == ("refused", True)


def test_several_ids_in_a_targets_mask_are_told(folder: Path, model: Path) -> None:
    with Project.open(folder, read_only=True) as project:
        path = project.mask_path("case_001", "lesion")
    assert path
    write_volume(Volume((box(8, 9) + 2 * box(9, 11)).astype(np.uint8), GRID), path)
    check = look(folder, Asked(str(model)))["lesions"]
    assert (check.level, "several ids" in check.text) == ("warned", True)


def test_lesions_that_vanish_at_the_models_spacing_are_counted(folder: Path, foreign: Path) -> None:
    lesion = np.zeros_like(MASKS["lesion"])
    lesion[4, 4, 4] = lesion[3:9, 10:18, 10:18] = 1
    with Project.open(folder) as project:
        project.set_mask("case_001", "lesion", Volume(lesion, GRID), {}, replace=True)
    _edit(
        foreign / "plans.json",
        lambda plans: plans["configurations"]["3d_fullres"].update(spacing=[4.0, 2.0, 2.0]),
    )
    check = look(folder, Asked(str(foreign)))["small lesions"]
    assert check.level == "warned"
    assert check.text.startswith("About 1 of 5 lesions in 4 cases")
    assert "case_001: 1" in check.text


@given(
    st.lists(st.tuples(*[st.integers(0, 7)] * 3), max_size=12),
    st.tuples(*[st.sampled_from([0.5, 1.0, 1.5, 2.0, 4.0])] * 3),
)
def test_lost_lesions_agrees_with_looking_at_each_centre(
    voxels: list[tuple[int, int, int]], target_mm: tuple[float, ...]
) -> None:
    from scipy import ndimage

    mask = np.zeros((8, 8, 8), bool)
    for voxel in voxels:
        mask[voxel] = True
    labels, count = ndimage.label(mask, np.ones((3, 3, 3)))
    news = [max(1, round(8 / mm)) for mm in target_mm]
    index = [[int((i + 0.5) * 8 / n) for i in range(n)] for n in news]
    left = len(set(labels[np.ix_(*index)].ravel().tolist()) - {0})
    assert lost_lesions(mask, (1.0, 1.0, 1.0), target_mm) == (count, count - left)
    assert lost_lesions(mask, (1.0, 1.0, 1.0), (1.0, 1.0, 1.0))[1] == 0


def test_a_two_dimensional_model_leaves_the_slices_alone() -> None:
    mask = np.zeros((3, 8, 8), bool)
    mask[1, 1, 1] = mask[2, 5:7, 5:7] = True
    assert lost_lesions(mask, (5.0, 1.0, 1.0), (1.0, 1.0)) == (2, 0)
    assert lost_lesions(mask, (5.0, 1.0, 1.0), (4.0, 4.0)) == (2, 1)


# ---------------------------------------------------------------------- bad wishes


def test_many_supports_are_warned_of(good: Path, model: Path, monkeypatch: Any) -> None:
    from napari_backsplit.backend.training import model_checks

    monkeypatch.setattr(model_checks, "MANY_SUPPORTS", 1)
    check = look(good, Asked(str(model)).but(supports=("kidney", "liver")))["supports"]
    assert (check.level, check.action) == ("warned", "fewer supports")


def test_an_unknown_support_is_refused(good: Path, model: Path) -> None:
    checks = look(good, Asked(str(model)).but(supports=("spleen",)))
    assert checks["supports"].level == "refused"
    assert "spleen" in checks["supports"].text


def test_a_budget_that_teaches_nothing(good: Path, model: Path) -> None:
    asked = Asked(str(model))
    short = look(good, asked.but(epochs=1))["budget"]
    assert (short.level, short.action) == ("warned", "more epochs")
    assert short.remedy.startswith("Take --epochs 50 or more")
    past = datetime.now(UTC) - timedelta(minutes=1)
    assert look(good, asked.but(until=past))["budget"].level == "refused"
    soon = datetime.now(UTC) + timedelta(minutes=5)
    assert look(good, asked.but(until=soon))["budget"].level == "warned"
    assert look(good, asked.but(hours=3.0))["budget"].level == "passed"
    folds = replace(asked, folds=(0,))
    assert look(good, folds.but(hours=3.0))["budget"].level == "refused"
    assert look(good, folds.but(patience=5))["budget"].level == "refused"


def test_a_model_trained_by_the_clock_counts_as_long_as_it_was(good: Path, foreign: Path) -> None:
    card = {"run": {"epochs": 1000, "iterations": 250}, "trained": {"epochs": 20}}
    _edit(foreign / "dataset.json", lambda dataset: dataset.update(backsplit=card))
    short = look(good, Asked(str(foreign)).but(epochs=10, iterations=250))["budget"]
    assert short.level == "passed"


def test_a_tracker_that_is_not_installed_is_refused(
    good: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_backsplit.backend.training import model_checks

    asked = Asked(str(model)).but(tracker="wandb")
    monkeypatch.setattr(model_checks, "find_spec", lambda name: None)
    check = look(good, asked)["tracker"]
    assert (check.level, check.action) == ("refused", "no tracker")
    monkeypatch.setattr(model_checks, "find_spec", lambda name: object())
    assert "tracker" not in look(good, asked)


def test_a_device_that_is_not_there_is_refused_and_a_cpu_beside_a_gpu_told(
    good: Path, model: Path
) -> None:
    asked = Asked(str(model))
    missing = look(good, asked.but(device="cuda:1"), (GPU, CPU))
    assert (missing["device"].level, missing["device"].action) == ("refused", "other device")
    assert "cuda:0, cpu" in missing["device"].remedy
    assert "GPU memory" not in missing
    assert look(good, asked, (GPU, CPU))["device"].level == "warned"
    there = look(good, asked.but(device="cuda"), (GPU, CPU))
    assert there["device"].text == "a GPU."
    assert there["GPU memory"].level == "warned"


TAKES = Estimate(
    seconds=60.0,
    device_title="a GPU",
    gpu_bytes=6 * 10**9,
    gpu_total_bytes=11 * 10**9,
    ram_bytes=10**6,
    disk_bytes=10**9,
    free_bytes=18 * 10**9,
    source="probe",
)


@pytest.mark.parametrize(
    ("change", "line", "level"),
    [
        ({}, "GPU memory", "passed"),
        ({"gpu_bytes": 10.5e9}, "GPU memory", "warned"),
        ({"gpu_bytes": None, "problem": "gpu memory"}, "GPU memory", "refused"),
        ({"ram_bytes": None, "problem": "memory"}, "memory", "refused"),
        ({"ram_bytes": 10**16}, "memory", "warned"),
        ({"disk_bytes": 17 * 10**9}, "space", "warned"),
        ({"disk_bytes": 19 * 10**9}, "space", "refused"),
    ],
)
def test_what_does_not_fit_the_machine(change: dict[str, Any], line: str, level: str) -> None:
    asked = Asked("1", run=RunSpec(device="cuda"))
    checks = machine_checks(asked, replace(TAKES, **change), (GPU, CPU))
    assert {check.name: check.level for check in checks}[line] == level


def test_more_workers_than_cores_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_backsplit.backend.training import machine_checks as machine

    monkeypatch.setattr(machine, "cores", lambda: 4)
    levels = [
        {c.name: c.level for c in machine_checks(Asked("1", RunSpec(workers=n)), TAKES, (CPU,))}
        for n in (3, 12)
    ]
    assert [level["cores"] for level in levels] == ["passed", "warned"]


def test_of_another_machine_only_the_disk_is_looked_at() -> None:
    asked = Asked("1", run=RunSpec(device="cuda"), where="tls://gpu:8786")
    checks = {c.name: c for c in machine_checks(asked, TAKES, (CPU,))}
    assert set(checks) == {"device", "space"}
    assert (checks["device"].level, "tls://gpu:8786" in checks["device"].text) == ("warned", True)


def test_names_are_shortened() -> None:
    assert some(["a", "b"]) == "a, b"
    assert some(list("abcdefg")) == "a, b, c, d, e and 2 more"


def test_a_project_of_the_training_room_may_go_on_with_its_plan_set(
    planned: Path, tmp_path: Path, foreign: Path
) -> None:
    """With a plan set its own figures count, and a case that came later is told."""
    folder = copy(planned, tmp_path / "project")
    asked = replace(Asked(str(foreign)), plan=None)
    checks = look(folder, asked)
    assert checks["plans"].text == "Patch 16 x 16 x 16, 2 in a batch."
    assert "3 folds" in checks["cases"].text
    assert "plan set" not in checks
    assert checks["small lesions"].text.startswith("All lesions of 6 cases")
    with Project.open(folder) as project:
        project.judge("case_001", "rejected")
    assert look(folder, asked)["plan set"].level == "refused"
    assert look(folder, asked.but(fold=9))["plan set"].level == "refused"


def test_an_estimate_of_what_is_not_known_says_so(good: Path) -> None:
    with Project.open(good, read_only=True) as project:
        found = estimating.estimate(project, Asked("nowhere"), available=(CPU,))
    assert found.seconds is None
    assert found.note
    assert json.dumps(found.parts) == "[]"


def test_adding_cases_of_one_patient_keeps_folds_by_patient(
    folder: Path, model: Path, tmp_path: Path
) -> None:
    with Project.open(folder) as project:
        add_case(project, tmp_path, 90, patient="p")
        add_case(project, tmp_path, 91, patient="p")
    text = look(folder, Asked(str(model)))["cases"].text
    assert text.startswith("6 cases of 5 patients to train on, 2 held out")
