from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_backsplit.backend.errors import GeometryError, InputError
from napari_backsplit.backend.fusion.advice_inputs import (
    ClassArray,
    ClassFile,
    read_baseline,
    read_run,
    seen_cases,
)
from napari_backsplit.backend.fusion.advisor import advise
from napari_backsplit.backend.fusion.information import gap_shares
from napari_backsplit.backend.volume import Geometry, Volume, write_volume
from tests.backend.fusion.placing import (
    AXES,
    BOTH,
    IN_KIDNEY,
    IN_LIVER,
    KIDNEY,
    NOTHING,
    OUTSIDE,
    SHAPE,
    SPACING_MM,
    Make,
    grid,
    maker,
    near,
)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    yield from maker(tmp_path)


# ---------------------------------------------------------------------- the gap of a run


CLASSES = ("background", "lesion", "kidney")


def softmax(classes: int = 3, seed: int = 0) -> NDArray[np.float32]:
    powers = np.random.default_rng(seed).random((classes, *SHAPE), np.float32) + 0.1
    return np.asarray(powers / powers.sum(axis=0), np.float32)


def test_the_gap_of_a_run_is_its_mean_in_and_around_the_lesions(make: Make) -> None:
    project = make({"lesion": IN_KIDNEY, **BOTH}, {"lesion": NOTHING, **BOTH})
    first, second = project.case_ids()
    eta = softmax()
    run = {case: ClassArray(CLASSES, eta) for case in (first, second)}
    advice = advise(project, None, None, run)
    expected = gap_shares(eta, 1)[2][near(IN_KIDNEY)].mean()
    assert advice.of("kidney").gap == pytest.approx(expected, rel=1e-5)
    assert advice.of("liver").gap is None, "the run does not know it"
    assert any("information gap" in reason for reason in advice.of("kidney").reasons)
    assert "The run's information gap is a mean over 1 of 2 cases." in advice.notes


def test_several_targets_of_a_run_are_one(make: Make) -> None:
    project = make({"lesion": IN_KIDNEY, "cyst": IN_LIVER, **BOTH}, targets=("lesion", "cyst"))
    eta = softmax(4)
    run = {project.case_ids()[0]: ClassArray(("background", "lesion", "cyst", "kidney"), eta)}
    merged = np.stack([eta[1] + eta[2], eta[0], eta[3]])
    expected = gap_shares(merged, 0)[2][near(IN_KIDNEY | IN_LIVER)].mean()
    assert advise(project, None, None, run).of("kidney").gap == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("classes", "words"),
    [(("background", "lesion"), "Proposition 1"), (("a", "b", "c"), "no class of the project")],
)
def test_a_run_that_cannot_tell_is_refused(
    make: Make, classes: tuple[str, ...], words: str
) -> None:
    project = make({"lesion": IN_KIDNEY, **BOTH})
    run = {project.case_ids()[0]: ClassArray(classes, softmax(len(classes)))}
    with pytest.raises(InputError, match=words):
        advise(project, None, None, run)


# ---------------------------------------------------------------------- files


def write_npz(folder: Path, case: str, eta: NDArray[Any]) -> None:
    folder.mkdir(exist_ok=True)
    np.savez_compressed(folder / f"{case}.npz", probabilities=eta)
    labels = {name: number for number, name in enumerate(CLASSES)}
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))


def test_class_probabilities_as_nnunet_writes_them(make: Make, tmp_path: Path) -> None:
    project = make({"lesion": IN_KIDNEY, **BOTH})
    case = project.case_ids()[0]
    eta = softmax()
    write_npz(tmp_path / "npz", case, eta)
    ids = eta.argmax(axis=0).astype(np.uint8)
    write_volume(Volume(ids, grid()), tmp_path / "npz" / f"{case}.nii.gz")
    run = read_run(project, tmp_path / "npz")
    assert list(run) == [case]
    assert run[case].classes == CLASSES
    assert np.array_equal(run[case].values(KIDNEY), eta[:, KIDNEY])
    memory = {case: ClassArray(CLASSES, eta)}
    assert advise(project, None, None, run) == advise(project, None, None, memory)


def test_turned_axes_are_found_out_by_the_label_map(tmp_path: Path) -> None:
    eta = softmax()
    write_npz(tmp_path, "case", eta[:, :, ::-1])
    ids = eta.argmax(axis=0).astype(np.uint8)
    write_volume(Volume(ids, grid()), tmp_path / "case.nii.gz")
    with pytest.raises(GeometryError, match="case do not fit the label map"):
        ClassFile(tmp_path, "case", CLASSES).values(KIDNEY)


def test_class_probabilities_on_another_grid_or_cut_short_are_refused(tmp_path: Path) -> None:
    write_npz(tmp_path, "case", softmax()[:, :-1])
    with pytest.raises(GeometryError, match="case"):
        ClassFile(tmp_path, "case", CLASSES).values(KIDNEY)
    write_npz(tmp_path, "case", softmax())
    whole = (tmp_path / "case.npz").read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"nothing"):
        (tmp_path / "case.npz").write_bytes(damaged)
        with pytest.raises(InputError, match="case cannot be read"):
            ClassFile(tmp_path, "case", CLASSES).values(KIDNEY)
    np.savez(tmp_path / "case.npz", probabilities=np.array([{}], object))
    with pytest.raises(InputError, match="cannot be read"):
        ClassFile(tmp_path, "case", CLASSES).values(KIDNEY)


@pytest.mark.parametrize("labels", [None, {"background": 0, "whole": [1, 2]}, {"a": 0, "b": 2}])
def test_classes_without_an_id_each_are_refused(make: Make, tmp_path: Path, labels: Any) -> None:
    project = make({"lesion": IN_KIDNEY, **BOTH})
    write_npz(tmp_path / "npz", project.case_ids()[0], softmax())
    (tmp_path / "npz" / "dataset.json").write_text(json.dumps({"labels": labels}))
    with pytest.raises(InputError, match=r"dataset\.json"):
        read_run(project, tmp_path / "npz")


def test_folders_without_this_projects_cases_are_refused(make: Make, tmp_path: Path) -> None:
    project = make({"lesion": IN_KIDNEY, **BOTH})
    with pytest.raises(InputError, match="no prediction"):
        read_baseline(project, tmp_path)
    with pytest.raises(InputError, match="save_probabilities"):
        read_run(project, tmp_path)


def test_a_folder_of_predictions(make: Make, tmp_path: Path) -> None:
    """Of two targets and a support: the support's id is no target."""
    project = make({"lesion": IN_KIDNEY, "cyst": IN_LIVER, **BOTH}, targets=("lesion", "cyst"))
    case = project.case_ids()[0]
    ids = IN_KIDNEY + np.uint8(2) * IN_LIVER + np.uint8(3) * OUTSIDE
    write_volume(Volume(ids, grid()), tmp_path / f"{case}.nii.gz")
    prediction = read_baseline(project, tmp_path)[case]
    assert np.array_equal(prediction.mask(), IN_KIDNEY | IN_LIVER)
    assert prediction.probability() is None
    for name, share in (("lesion", 0.25), ("cyst", 0.5)):
        half = np.full(SHAPE, share, np.float32)
        write_volume(Volume(half, grid()), tmp_path / f"{case}_{name}_probability.nii.gz")
    eta = prediction.probability()
    assert eta is not None
    assert eta.dtype == np.float32
    assert eta == pytest.approx(0.75)


def test_strange_ids_and_another_grid_are_refused_with_the_case(make: Make, tmp_path: Path) -> None:
    project = make({"lesion": IN_KIDNEY, **BOTH})
    case = project.case_ids()[0]
    file = tmp_path / f"{case}.nii.gz"
    write_volume(Volume(IN_KIDNEY * np.uint8(255), grid()), file)
    with pytest.raises(InputError, match=f"{case} holds the id 255"):
        read_baseline(project, tmp_path)[case].mask()
    moved = Geometry(SHAPE, SPACING_MM, (5.0, 0.0, 0.0), AXES)
    write_volume(Volume(IN_KIDNEY.astype(np.uint8), moved), file)
    with pytest.raises(GeometryError, match=f"{case} is not on the grid") as error:
        advise(project, None, read_baseline(project, tmp_path))
    assert "Predict from the project's own images" in error.value.remedy


def test_what_a_model_has_seen_is_read_from_the_record(tmp_path: Path) -> None:
    assert seen_cases(tmp_path) == ()
    (tmp_path / "predictions.json").write_text(json.dumps({"of": "another program"}))
    assert seen_cases(tmp_path) == ()
    roles = {"a": {"role": "training"}, "b": {"role": "unseen"}, "c": {"role": "validation"}}
    record = {"cases": {**roles, "d": {"role": None}, "e": None}}
    (tmp_path / "predictions.json").write_text(json.dumps(record))
    assert seen_cases(tmp_path) == ("a", "c")
