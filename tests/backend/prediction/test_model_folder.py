from __future__ import annotations

import json
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from napari_backsplit.backend.errors import InputError, UntrustedModelError
from napari_backsplit.backend.prediction.model_folder import (
    ModelFolder,
    check_complete,
    compatibility,
    unpack_zip,
)


@pytest.fixture
def copy(model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model, tmp_path / model.name))


def _edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_model_says_what_it_is(model: Path) -> None:
    opened = ModelFolder.open(model)
    assert opened.configuration == "3d_fullres"
    assert opened.trainer_name == "nnUNetTrainer"
    assert opened.channels == ("zscore0",)
    assert opened.targets == ("lesion",)
    assert opened.supports == ("liver", "spleen")
    assert opened.classes == 4
    assert opened.spacing_mm == (2.0, 1.0, 1.0)
    assert opened.patch_vox == (16, 16, 16)
    assert opened.normalisation == ("ZScoreNormalization",)
    assert list(opened.checkpoints) == ["0", "1"]
    assert set(opened.hashes()) == {
        "plans.json",
        "dataset.json",
        "fold_0/checkpoint_final.pth",
        "fold_1/checkpoint_final.pth",
    }


def test_the_same_model_by_other_paths(model: Path) -> None:
    assert list(ModelFolder.open(model / "fold_1").checkpoints) == ["1"]
    assert ModelFolder.open(model.parent).path == model
    assert list(ModelFolder.open(model, folds=[0]).checkpoints) == ["0"]


def test_spacing_is_in_the_files_axis_order(copy: Path) -> None:
    _edit(copy / "plans.json", transpose_forward=[1, 0, 2], transpose_backward=[1, 0, 2])
    assert ModelFolder.open(copy).spacing_mm == (1.0, 2.0, 1.0)


def test_a_run_folder_of_any_name_is_recognised_by_its_checkpoint(copy: Path) -> None:
    plans = json.loads((copy / "plans.json").read_text())
    plans["configurations"]["2d"] = {"patch_size": [16, 16]}
    (copy / "plans.json").write_text(json.dumps(plans))
    opened = ModelFolder.open(copy.rename(copy.with_name("model")))
    assert opened.configuration == "3d_fullres"


def test_inherited_settings(copy: Path) -> None:
    plans = json.loads((copy / "plans.json").read_text())
    full = plans["configurations"]["3d_fullres"]
    plans["configurations"] = {
        "base": full,
        "3d_fullres": {"inherits_from": "base", "patch_size": [8, 8, 8]},
    }
    (copy / "plans.json").write_text(json.dumps(plans))
    opened = ModelFolder.open(copy)
    assert opened.patch_vox == (8, 8, 8)
    assert opened.spacing_mm == (2.0, 1.0, 1.0)
    plans["configurations"]["base"] = {"inherits_from": "3d_fullres"}
    (copy / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(InputError, match="inherits"):
        ModelFolder.open(copy)


def test_a_foreign_models_targets_are_its_labels(tiny: Any, tmp_path: Path) -> None:
    folder = tiny.write_model(tmp_path / "m", {"kidney": 1, "tumor": 2, "ignore": 3})
    opened = ModelFolder.open(folder)
    assert opened.targets == ("kidney", "tumor")
    assert opened.card == {}
    assert opened.classes == 3


def test_values_and_heads_with_gaps(tiny: Any, tmp_path: Path) -> None:
    opened = ModelFolder.open(tiny.write_model(tmp_path / "m", {"b": 5, "a": 1}))
    assert (opened.values("a"), opened.values("b")) == ((1,), (2,))
    assert (opened.head("background"), opened.head("a"), opened.head("b")) == (0, 1, 2)
    with pytest.raises(InputError, match="no label 'c'"):
        opened.head("c")


def test_values_and_heads_of_regions(tiny: Any, tmp_path: Path) -> None:
    labels = {"whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}
    folder = tiny.write_model(tmp_path / "m", labels, regions_class_order=[1, 2, 3])
    opened = ModelFolder.open(folder)
    assert opened.classes == 3
    assert opened.head("core") == 1
    assert opened.values("core") == (2, 3)
    assert opened.value("core") == 2


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda f: (f / "plans.json").unlink(), r"no plans\.json"),
        (lambda f: (f / "dataset.json").unlink(), r"no dataset\.json"),
        (lambda f: (f / "plans.json").write_text("{"), "not readable JSON"),
        (lambda f: [shutil.rmtree(f / fold) for fold in ("fold_0", "fold_1")], "no fold_ folder"),
        (lambda f: (f / "fold_1/checkpoint_final.pth").unlink(), "has no checkpoint_final"),
        (lambda f: (f / "fold_1/checkpoint_final.pth").write_bytes(b""), "0 bytes"),
        (lambda f: (f / "fold_1/checkpoint_final.pth").write_bytes(b"PK" * 99), "no whole"),
    ],
)
def test_what_is_missing_is_said(copy: Path, break_it: Any, said: str) -> None:
    break_it(copy)
    with pytest.raises(InputError, match=said):
        ModelFolder.open(copy)


def test_other_refusals(model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Fold 4 is not in"):
        ModelFolder.open(model, folds=[4])
    with pytest.raises(InputError, match="No fold"):
        ModelFolder.open(model, folds=[])
    with pytest.raises(InputError, match=r"has no checkpoint_best\.pth in fold 0, 1"):
        ModelFolder.open(model, checkpoint="checkpoint_best.pth")
    with pytest.raises(InputError, match="does not exist"):
        ModelFolder.open(tmp_path / "nowhere")
    with pytest.raises(InputError, match="is a file"):
        ModelFolder.open(model / "plans.json")
    with pytest.raises(InputError, match="does not exist"):
        check_complete(tmp_path / "nothing.pth")


def test_a_folder_of_several_models_names_them(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "a")
    shutil.copytree(model, tmp_path / "b")
    with pytest.raises(InputError, match="2 models: a, b"):
        ModelFolder.open(tmp_path)


def test_planted_plans_are_refused(copy: Path) -> None:
    _edit(copy / "plans.json", label_manager="os")
    with pytest.raises(UntrustedModelError):
        ModelFolder.open(copy)


def test_compatibility(model: Path) -> None:
    opened = ModelFolder.open(model)
    assert compatibility(opened, channels=["MR"], spacing_mm=(2.5, 1.0, 0.8)) == []
    assert compatibility(opened, channels=["MR"]) == []
    (said,) = compatibility(opened, channels=["CT"])
    assert "ZScoreNormalization" in said
    (said,) = compatibility(opened, channels=["CT", "PET"])
    assert said.startswith("The model takes 1 channels (zscore0), the data have 2 (CT, PET).")
    (said,) = compatibility(opened, channels=["MR"], spacing_mm=(5.0, 1.0, 1.0))
    assert "5 x 1 x 1 mm" in said
    assert "2 x 1 x 1 mm" in said


def _zip(path: Path, *entries: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


def test_a_zip_unpacks_into_a_model(model: Path, tmp_path: Path) -> None:
    inner = f"Dataset777_Tiny/{model.name}"
    files = [p for p in model.rglob("*") if p.is_file()]
    entries = [(f"{inner}/{p.relative_to(model).as_posix()}", p.read_bytes()) for p in files]
    folder = unpack_zip(_zip(tmp_path / "m.zip", *entries), tmp_path / "out")
    assert ModelFolder.open(folder).path == folder / inner
    with pytest.raises(InputError, match="exists already"):
        unpack_zip(tmp_path / "m.zip", folder)


def _link(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


@pytest.mark.parametrize(
    "entry",
    ["../outside.txt", "/tmp/outside.txt", "a/../../outside", "C:/x", "a\\..\\b", _link("link")],
    ids=str,
)
def test_a_zip_stays_inside(tmp_path: Path, entry: str | zipfile.ZipInfo) -> None:
    path = _zip(tmp_path / "m.zip", ("fine.txt", b"1"), (entry, b"/etc/passwd"))
    with pytest.raises(InputError, match="points outside"):
        unpack_zip(path, tmp_path / "in" / "out")
    assert not (tmp_path / "in").exists()


def test_a_zip_bomb_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(2_000_000))
    with pytest.raises(InputError, match="more than"):
        unpack_zip(tmp_path / "m.zip", tmp_path / "out", max_bytes=1_000_000)


def test_no_zip_and_a_cut_zip(tmp_path: Path) -> None:
    path = _zip(tmp_path / "m.zip", ("plans.json", b"{}" * 1000))
    (tmp_path / "cut.zip").write_bytes(path.read_bytes()[:-30])
    for name in ("cut.zip", "nothing.zip"):
        with pytest.raises(InputError, match="no readable zip"):
            unpack_zip(tmp_path / name, tmp_path / "out")
    content = path.read_bytes().replace(b"{}{}", b"{}[]", 1)
    (tmp_path / "damaged.zip").write_bytes(content)
    with pytest.raises(InputError, match="no readable zip"):
        unpack_zip(tmp_path / "damaged.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_torch_is_imported() -> None:
    code = (
        "import sys, napari_backsplit.backend.prediction.model_folder, "
        "napari_backsplit.backend.prediction.tasks; "
        "print([m for m in ('torch', 'nnunetv2', 'napari') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_project_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "project.json").write_text("{}")
    with pytest.raises(InputError, match="is a project, not a model"):
        ModelFolder.open(tmp_path)
