from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner, Result

from napari_backsplit.backend.errors import GeometryError
from napari_backsplit.backend.volume import Geometry, Volume, write_volume
from napari_backsplit.cli import app, evaluating

runner = CliRunner()
AXES = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
SHAPE = (20, 20, 20)


def write(path: Path, mask: np.ndarray, spacing: tuple[float, ...] = (2.0, 1.0, 1.0)) -> Path:
    write_volume(Volume(mask.astype(np.uint8), Geometry(SHAPE, spacing, (0, 0, 0), AXES)), path)
    return path


def cube(first: int, value: int = 1) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[first : first + 8, 4:12, 4:12] = value
    return mask


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two cubes of 8 voxels, shifted by 2 slices of 2 mm."""
    return write(tmp_path / "reference.nii.gz", cube(4)), write(tmp_path / "p.nii.gz", cube(6))


def evaluate(*arguments: object) -> Result:
    return runner.invoke(app, ["evaluate", *map(str, arguments)])


def figures(*arguments: object) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(evaluate(*arguments, "--json").stdout)
    return answer


def test_shifted_cubes(pair: tuple[Path, Path]) -> None:
    found = figures(*pair)
    assert found["dice"] == pytest.approx(0.75)
    assert found["iou"] == pytest.approx(0.6)
    assert found["hd95_mm"] == pytest.approx(4.0)
    assert found["reference_ml"] == pytest.approx(1.024)
    assert (found["found_lesions"], found["false_positives"]) == (1, 0)


def test_a_person_reads_units_and_rules(pair: tuple[Path, Path]) -> None:
    said = evaluate(*pair).stdout
    (line,) = (line for line in said.splitlines() if line.startswith("HD-95 "))
    assert line.split() == ["HD-95", "4", "mm"]
    assert "NSD counts surfaces within 2 mm" in said
    assert "Dice: Twice the voxels in common" in said
    assert "Twice the voxels" not in evaluate(*pair, "--brief").stdout


def test_settings_decide_what_a_lesion_is(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    corners = np.zeros(SHAPE, np.uint8)
    corners[2, 2, 2] = corners[3, 3, 3] = 1
    path = write(tmp_path / "corners.nii.gz", corners)
    assert figures(path, path)["reference_lesions"] == 1
    assert figures(path, path, "--connectivity", "18")["reference_lesions"] == 2
    assert figures(*pair, "--matching", "IoU", "--iou-threshold", "0.7")["found_lesions"] == 0


def test_one_label_of_several(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    several = write(tmp_path / "labels.nii.gz", np.maximum(cube(4), cube(12, value=2)))
    assert figures(several, pair[0])["dice"] < 1
    assert figures(several, pair[0], "--label", "1")["dice"] == 1


def test_an_empty_prediction_and_an_empty_reference(
    tmp_path: Path, pair: tuple[Path, Path]
) -> None:
    empty = write(tmp_path / "empty.nii.gz", np.zeros(SHAPE))
    missed = figures(pair[0], empty)
    assert (missed["dice"], missed["hd95_mm"]) == (0, None)
    diagonal = figures(pair[0], empty, "--missed-hd95", "image diagonal")["hd95_mm"]
    assert diagonal == pytest.approx(np.hypot(40, np.hypot(20, 20)))
    free = figures(empty, pair[1])
    assert (free["dice"], free["false_positives"]) == (None, 1)
    assert "not defined" in evaluate(empty, pair[1]).stdout


def test_another_grid_is_refused(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    other = write(tmp_path / "other.nii.gz", cube(4), spacing=(1.0, 1.0, 1.0))
    result = evaluate(pair[0], other)
    assert isinstance(result.exception, GeometryError)
    assert "spacings" in str(result.exception)


def test_the_same_grid_that_lies_otherwise_is_turned(
    tmp_path: Path, pair: tuple[Path, Path]
) -> None:
    turned = tmp_path / "turned.nii.gz"
    sitk.WriteImage(sitk.DICOMOrient(sitk.ReadImage(str(pair[1])), "RIA"), str(turned))
    straight, other = figures(*pair), figures(pair[0], turned)
    assert "axes LPS and the prediction along RIA" in other["rules"][0]
    assert other | {"rules": other["rules"][1:]} == straight


@pytest.mark.parametrize(
    ("label", "words"), [("7", "Neither mask has the id 7. They have: 1."), ("0", "no lesion")]
)
def test_an_id_that_marks_nothing_is_refused(
    pair: tuple[Path, Path], label: str, words: str
) -> None:
    assert words in str(evaluate(*pair, "--label", label).exception)


def test_no_two_figures_have_one_name_and_each_has_its_definition() -> None:
    names = [name for name, _ in evaluating.FIGURES.values()]
    assert len(set(names)) == len(names)
    assert {"Lesions found", "Volume difference"} <= set(evaluating._definitions())


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--matching", "foo", "'IoU'"),
        ("--strata-ml", "10,1", "volumes above zero that rise, such as 1, 10. See"),
    ],
)
def test_a_wrong_setting_is_said_as_the_help_has_it(
    pair: tuple[Path, Path], option: str, value: str, words: str
) -> None:
    said = str(evaluate(*pair, option, value).exception)
    assert words in said
    assert "value error" not in said
