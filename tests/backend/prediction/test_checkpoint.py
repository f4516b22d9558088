from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_backsplit.backend.errors import InputError, UntrustedModelError

torch = pytest.importorskip("torch")

from napari_backsplit.backend.prediction.checkpoint import check_model, load_checkpoint  # noqa: E402


class Planted:
    """Runs a command when unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


def _checkpoint(**more: Any) -> dict[str, Any]:
    return {
        "network_weights": {"weight": torch.ones(3)},
        "trainer_name": "nnUNetTrainer",
        "init_args": {"configuration": "3d_fullres"},
        **more,
    }


def _respelled(path: Path, old: bytes, new: bytes) -> Path:
    """Rewrite the pickle inside a checkpoint, as another NumPy would have spelt it."""
    out = path.with_name(f"respelled-{path.name}")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(out, "w") as sink:
        for entry in source.infolist():
            content = source.read(entry)
            if entry.filename.endswith("data.pkl"):
                assert old in content
                content = content.replace(old, new)
            sink.writestr(entry.filename, content)
    return out


@pytest.mark.parametrize("where", ["logging", "optimizer_state", "network_weights", "trainer_name"])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(
    tmp_path: Path, where: str
) -> None:
    mark = tmp_path / "ran"
    path = tmp_path / "checkpoint_final.pth"
    torch.save(_checkpoint(**{where: Planted(mark)}), path)
    with pytest.raises(UntrustedModelError, match=r"(posix|nt)\.system"):
        load_checkpoint(path)
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists(), "the planted file is harmless, so the test proves nothing"


def test_a_bare_pickle_is_refused(tmp_path: Path) -> None:
    mark, path = tmp_path / "ran", tmp_path / "checkpoint_final.pth"
    path.write_bytes(pickle.dumps(Planted(mark)))
    with pytest.raises(InputError):
        load_checkpoint(path)
    assert not mark.exists()


@pytest.mark.parametrize("value", [np.float32(0.25), np.float64(0.1), np.int64(-7), np.bool_(True)])
@pytest.mark.parametrize("spelling", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_both_spellings_of_numpy_load(tmp_path: Path, value: Any, spelling: bytes) -> None:
    path = tmp_path / "checkpoint_final.pth"
    torch.save(_checkpoint(_best_ema=value), path)
    ours = b"numpy._core.multiarray" if np.__version__ >= "2" else b"numpy.core.multiarray"
    loaded = load_checkpoint(_respelled(path, ours, spelling))["_best_ema"]
    assert loaded == value
    assert loaded.dtype == value.dtype


@pytest.mark.parametrize(
    "value",
    [np.array([{"a": 1}], dtype=object), np.zeros(1, dtype=[("a", "O")])[0], np.str_("text")],
    ids=["object array", "structured", "text"],
)
def test_numpy_beyond_numbers_is_refused(tmp_path: Path, value: object) -> None:
    path = tmp_path / "checkpoint_final.pth"
    torch.save(_checkpoint(logging=value), path)
    with pytest.raises(UntrustedModelError):
        load_checkpoint(path)


def test_nnunets_own_checkpoint_loads(model: Path) -> None:
    path = model / "fold_0" / "checkpoint_final.pth"
    whole, slim = load_checkpoint(path), load_checkpoint(path, state=False)
    assert whole["_best_ema"] == 0.25
    assert "optimizer_state" in whole
    assert set(slim) == {
        "network_weights",
        "init_args",
        "trainer_name",
        "inference_allowed_mirroring_axes",
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"network_weights": {}},
        {"network_weights": {"weight": 3}},
        {"network_weights": [1]},
        {"init_args": {}},
        {"init_args": None},
    ],
    ids=str,
)
def test_no_checkpoint_of_nnunet(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = tmp_path / "checkpoint_final.pth"
    torch.save(_checkpoint() | changes, path)
    with pytest.raises(InputError, match="no checkpoint of nnU-Net"):
        load_checkpoint(path)


def test_a_planted_trainer_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint_final.pth"
    torch.save(_checkpoint(trainer_name="shutil"), path)
    with pytest.raises(UntrustedModelError, match="trainer"):
        load_checkpoint(path)


@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, -1])
def test_a_cut_file_is_said_to_be_cut(model: Path, tmp_path: Path, kept: float) -> None:
    content = (model / "fold_0" / "checkpoint_final.pth").read_bytes()
    size = int(len(content) * kept) if isinstance(kept, float) else kept
    path = tmp_path / "checkpoint_final.pth"
    path.write_bytes(content[:size])
    with pytest.raises(InputError, match="cut short"):
        load_checkpoint(path)


def test_a_damaged_file_is_refused(model: Path, tmp_path: Path) -> None:
    content = bytearray((model / "fold_0" / "checkpoint_final.pth").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(byte ^ 255 for byte in content[middle : middle + 64])
    path = tmp_path / "checkpoint_final.pth"
    path.write_bytes(content)
    with pytest.raises((InputError, UntrustedModelError)):
        load_checkpoint(path)


def test_a_whole_folder_is_checked(tiny: Any, tmp_path: Path) -> None:
    folder = tiny.write_model(tmp_path / "model")
    assert check_model(folder).trainer_name == "nnUNetTrainer"
    mark = tmp_path / "ran"
    (folder / "fold_1").mkdir()
    torch.save(_checkpoint(x=Planted(mark)), folder / "fold_1" / "checkpoint_best.pth")
    with pytest.raises(UntrustedModelError):
        check_model(folder)
    assert not mark.exists()
