"""Pickles are looked through before anything is taken over, and never run."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from napari_backsplit.backend.errors import InputError, UntrustedModelError
from napari_backsplit.backend.prediction import pickles
from napari_backsplit.backend.prediction.model_folder import ModelFolder
from napari_backsplit.backend.prediction.pickles import check_pickle

INNER = "archive/data.pkl"


class Running:
    """Makes a folder when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = str(place)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.place,)


def written(path: Path, content: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(INNER, content)
    return path


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_would_run_code_is_refused_in_any_protocol(
    tmp_path: Path, protocol: int
) -> None:
    content = pickle.dumps({"network_weights": Running(tmp_path / "ran")}, protocol)
    with pytest.raises(UntrustedModelError, match="asks for"):
        check_pickle(written(tmp_path / "c.pth", content), INNER)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "name",
    ["builtins eval", "torch.hub load", "torch._inductor.x run", "numpy.f2py compile", "os system",
     "torch load", "torch.storage _load_from_bytes", "collections namedtuple",
     "torch.storage._x.y z", "numpy load"],
)  # fmt: skip
def test_names_that_are_no_data_are_refused(tmp_path: Path, name: str) -> None:
    content = f"\x80\x02c{name.replace(' ', chr(10))}\n.".encode("latin1")
    with pytest.raises(UntrustedModelError, match=re.escape(name.replace(" ", "."))):
        check_pickle(written(tmp_path / "c.pth", content), INNER)


def test_what_torch_writes_of_tensors_passes(tmp_path: Path) -> None:
    import torch

    values = {
        "dense": torch.ones(2, dtype=torch.bfloat16),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "names": (torch.float16, torch.Size([1]), torch.device("cpu")),
        "scaler": torch.amp.GradScaler("cpu").state_dict(),
    }
    file = tmp_path / "archive.pth"
    torch.save(values, file)
    with zipfile.ZipFile(file) as archive:
        (inner,) = [name for name in archive.namelist() if name.endswith("data.pkl")]
    check_pickle(file, inner)


def test_a_torn_pickle_is_damaged(tmp_path: Path) -> None:
    content = pickle.dumps({"a": "b" * 100}, 2)[:-20]
    with pytest.raises(InputError, match="damaged"):
        check_pickle(written(tmp_path / "c.pth", content), INNER)
    with pytest.raises(InputError, match="damaged"):
        check_pickle(written(tmp_path / "c.pth", b""), "archive/other.pkl")


def test_a_pickle_that_unpacks_to_much_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pickles, "MAX_BYTES", 1000)
    with pytest.raises(InputError, match="where a checkpoint has its names"):
        check_pickle(written(tmp_path / "c.pth", bytes(2000)), INNER)


def test_a_model_folder_with_code_is_not_opened(model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model, tmp_path / model.name))
    file = folder / "fold_1" / "checkpoint_final.pth"
    with zipfile.ZipFile(file) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    (inner,) = [name for name in entries if name.endswith("data.pkl")]
    entries[inner] = pickle.dumps(Running(tmp_path / "ran"), 2)
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    with pytest.raises(UntrustedModelError, match="asks for"):
        ModelFolder.open(folder)
    assert not (tmp_path / "ran").exists()
    ModelFolder.open(folder, folds=[0])


OLD: dict[str, Callable[[Path], Path]] = {
    "its folder": lambda root: root,
    "a zip's nesting": lambda root: root / "nnUNet" / "3d_fullres" / "Task029" / "trainer",
}


@pytest.mark.parametrize("where", OLD)
@pytest.mark.parametrize("name", ["plans.pkl", "fold_0/model_final_checkpoint.model"])
def test_a_model_of_nnunet_v1_is_called_that_and_not_read(
    tmp_path: Path, where: str, name: str
) -> None:
    file = OLD[where](tmp_path / "old") / name
    file.parent.mkdir(parents=True)
    file.write_bytes(pickle.dumps(Running(tmp_path / "ran")))
    with pytest.raises(InputError, match="nnU-Net v1") as error:
        ModelFolder.open(tmp_path / "old")
    assert "nnU-Net v2" in error.value.remedy
    assert not (tmp_path / "ran").exists()


def test_a_pickle_whose_packing_is_torn_is_damaged(tmp_path: Path) -> None:
    file = tmp_path / "c.pth"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(INNER, pickle.dumps({"a": "b" * 1000}, 2))
    content = bytearray(file.read_bytes())
    start = 30 + len(INNER)
    content[start : start + 4] = b"\xff" * 4
    file.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        check_pickle(file, INNER)


def test_a_bare_pickle_before_a_zip_is_no_checkpoint(model: Path, tmp_path: Path) -> None:
    """zipfile finds the zip at the end; torch would read the pickle at the beginning."""
    folder = Path(shutil.copytree(model, tmp_path / model.name))
    file = folder / "fold_0" / "checkpoint_final.pth"
    file.write_bytes(pickle.dumps(Running(tmp_path / "ran"), 2) + file.read_bytes())
    assert zipfile.is_zipfile(file)
    with pytest.raises(InputError, match="no whole checkpoint"):
        ModelFolder.open(folder, folds=[0])
