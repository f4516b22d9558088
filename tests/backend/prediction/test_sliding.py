"""The streamed sliding window against nnU-Net's own predictor, number for number."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from napari_backsplit.backend.errors import JobError  # noqa: E402
from napari_backsplit.backend.prediction import sliding  # noqa: E402
from napari_backsplit.backend.prediction.model_folder import ModelFolder  # noqa: E402
from napari_backsplit.backend.prediction.predictor import Predictor, Settings  # noqa: E402
from napari_backsplit.backend.prediction.sliding import SlidingWindow, Sums  # noqa: E402
from napari_backsplit.backend.prediction.wanted import Wanted  # noqa: E402

CPU = torch.device("cpu")
FLAT = {
    "patch_size": [20, 16],
    "spacing": [1.0, 1.0],
    "architecture": {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": 2,
            "features_per_stage": [4, 8],
            "conv_op": "torch.nn.modules.conv.Conv2d",
            "kernel_sizes": [[3, 3]] * 2,
            "strides": [[1, 1], [2, 2]],
            "n_conv_per_stage": [1, 1],
            "n_conv_per_stage_decoder": [1],
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    },
}


@pytest.fixture(scope="module")
def flat(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flat") / "m"
    written: Path = tiny.write_model(
        folder, {"lesion": 1, "liver": 2}, folds=(0, 1), mirroring=(0, 1), plans_changes=FLAT
    )
    return written


def _image(shape: tuple[int, ...], seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(1, *shape)).astype(np.float32)


def _collect(run: Any, image: Any) -> tuple[Any, list[int]]:
    slabs: list[Any] = []
    firsts: list[int] = []

    def feed(slab: Any, first: int) -> None:
        assert first == sum(part.shape[1] for part in slabs)
        slabs.append(slab.copy())
        firsts.append(first)

    run(image, feed)
    return np.concatenate(slabs, 1), firsts


def _stock(model: Path, folds: Any, image: Any, mirroring: bool, step_size: float) -> Any:
    stock = _loaded(model, tuple(folds))
    stock.tile_step_size, stock.use_mirroring = step_size, mirroring
    return stock.predict_logits_from_preprocessed_data(torch.from_numpy(image)).numpy()


@cache
def _loaded(model: Path, folds: tuple[int, ...]) -> Any:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    stock = nnUNetPredictor(device=CPU, allow_tqdm=False)
    stock.initialize_from_trained_model_folder(str(model), folds)
    return stock


def _ours(model: Path, folds: Any, mirroring: bool, step_size: float) -> SlidingWindow:
    settings = Settings(mirroring=mirroring, step_size=step_size)
    return Predictor(ModelFolder.open(model, folds), settings)._window


@pytest.mark.parametrize(
    ("shape", "step_size", "folds", "mirroring", "slab_bytes"),
    [
        pytest.param((41, 17, 20), 0.5, [0], False, 1, id="plane by plane"),
        pytest.param((25, 17, 16), 0.5, [0, 1], True, 2**25, id="two folds, mirrored"),
        pytest.param((37, 17, 16), 0.9, [0, 1], False, 2**12, id="two folds, odd steps"),
        pytest.param((9, 24, 11), 0.5, [0], True, 2**12, id="smaller than the patch"),
        pytest.param((16, 16, 16), 1.0, [0], False, 1, id="one window"),
    ],
)
def test_the_logits_are_nnunets(
    model: Path,
    shape: tuple[int, ...],
    step_size: float,
    folds: list[int],
    mirroring: bool,
    slab_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sliding, "SLAB_BYTES", slab_bytes)
    image = _image(shape)
    found, firsts = _collect(_ours(model, folds, mirroring, step_size).run, image)
    expected = _stock(model, folds, image, mirroring, step_size)
    assert found.dtype == expected.dtype == np.float16
    np.testing.assert_array_equal(found, expected)
    assert len(firsts) == (shape[0] if slab_bytes == 1 else len(firsts))


@pytest.mark.parametrize(("folds", "mirroring"), [([0], True), ([0, 1], False)])
def test_a_2d_model(flat: Path, folds: list[int], mirroring: bool) -> None:
    image = _image((5, 33, 14))
    found, _ = _collect(_ours(flat, folds, mirroring, 0.5).run, image)
    np.testing.assert_array_equal(found, _stock(flat, folds, image, mirroring, 0.5))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_network_of_another_precision(model: Path, dtype: Any) -> None:
    """The sums are rounded where nnU-Net's are, whatever the network gives."""
    image, window = _image((25, 17, 16)), _ours(model, [0, 1], True, 0.5)
    stock = _loaded(model, (0, 1))
    hooks = [
        network.register_forward_hook(lambda module, given, logits: logits.to(dtype))
        for network in (*window.networks, stock.network)
    ]
    try:
        found, _ = _collect(window.run, image)
        np.testing.assert_array_equal(found, _stock(model, [0, 1], image, True, 0.5))
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("slab_bytes", [1, 2**12, 2**25])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_thick_slices_and_several_folds_come_out_as_nnunets(
    tiny: Any,
    tmp_path: Path,
    order: tuple[int, ...],
    slab_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From file to mask: separate z on either grid, on any axis, its slabs cut anywhere."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    monkeypatch.setattr(sliding, "SLAB_BYTES", slab_bytes)
    folder = tiny.write_model(
        tmp_path / "m",
        {"lesion": 1, "liver": 2},
        folds=(0, 1),
        plans_changes={"spacing": [5.0, 1.0, 1.0], "patch_size": [8, 16, 16]},
    )
    plans = json.loads((folder / "plans.json").read_text())
    plans["transpose_forward"] = list(order)
    plans["transpose_backward"] = [order.index(axis) for axis in range(3)]
    (folder / "plans.json").write_text(json.dumps(plans))
    stock = nnUNetPredictor(use_mirroring=False, device=CPU, allow_tqdm=False)
    stock.initialize_from_trained_model_folder(str(folder), None)
    predictor = Predictor(ModelFolder.open(folder), Settings(mirroring=False))
    for spacing in ((0.9, 1.1, 4.0), (0.9, 1.1, 1.7), (4.0, 0.9, 1.1)):
        image = tiny.write_image(tmp_path / "i_0000.nii.gz", (13, 21, 30), spacing=spacing)
        expected = stock.predict_from_files_sequential([[str(image)]], None)[0]
        assert 0 < (expected == 1).sum() < expected.size
        mask = predictor.predict([image], Wanted(("lesion",))).exported.mask
        np.testing.assert_array_equal(mask, expected == 1)


class _Places(torch.nn.Module):
    """A network that answers with what it is given: the mean is the image itself."""

    def forward(self, window: Any) -> Any:
        return torch.cat([window, -window], 1)


@budget(max_examples=25, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 21)] * 3),
    patch=st.tuples(*[st.integers(2, 8)] * 3),
    step_size=st.floats(0.1, 1.0),
    slab_bytes=st.sampled_from([1, 700, 2**25]),
)
def test_every_plane_is_fed_once_and_in_its_place(
    shape: tuple[int, ...], patch: tuple[int, ...], step_size: float, slab_bytes: int
) -> None:
    # Powers of two: the weights at a window's rim are too small to keep other factors exactly.
    image = 2.0 ** np.random.default_rng(0).integers(0, 5, (1, *shape)).astype(np.float32)
    window = SlidingWindow([_Places()], 2, patch, step_size, (), CPU)
    before, sliding.SLAB_BYTES = sliding.SLAB_BYTES, slab_bytes
    try:
        found, _ = _collect(window.run, image)
    finally:
        sliding.SLAB_BYTES = before
    assert found.shape == (2, *shape)
    np.testing.assert_allclose(found[0], image[0], rtol=0.05)
    np.testing.assert_array_equal(found[1], -found[0])


def test_the_sums_are_as_deep_as_a_patch_not_as_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []
    real = sliding._zeros
    monkeypatch.setattr(
        sliding, "_zeros", lambda shape, device: asked.append(shape) or real(shape, device)
    )
    window = SlidingWindow([_Places(), _Places()], 2, (4, 4, 4), 0.5, (), CPU)
    _collect(window.run, _image((50, 6, 5)))
    assert asked == [(2, 4, 6, 5), (2, 4, 6, 5), (4, 6, 5)]


def test_an_overflow_is_said_not_written() -> None:
    window = SlidingWindow([_Places()], 2, (4, 4, 4), 0.5, (), CPU)
    with pytest.raises(JobError, match="half precision"):
        _collect(window.run, _image((8, 8, 8)) + 1e5)


class _Full(Sums):
    """Sums on a device whose memory is full after a while."""

    left = 0
    moved: list[str] = []

    @property
    def device(self) -> Any:
        return CPU if self.moved else torch.device("meta")

    def to(self, device: Any) -> None:
        self.moved.append(device.type)

    def weighted(self, logits: Any) -> Any:
        type(self).left -= 1
        if self.left < 0 and not self.moved:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        moved = logits.clone()
        moved *= self._gaussian
        return moved


@pytest.mark.parametrize("left", [0, 3])
def test_a_full_device_goes_on_with_the_sums_on_the_machine(
    left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = _image((11, 9, 9))
    window = SlidingWindow([_Places(), _Places()], 2, (4, 4, 4), 0.5, (), CPU)
    expected, _ = _collect(window.run, image)
    monkeypatch.setattr(sliding, "Sums", _Full)
    monkeypatch.setattr(_Full, "left", left)
    monkeypatch.setattr(_Full, "moved", [])
    notes: list[str] = []
    found, _ = _collect(lambda data, feed: window.run(data, feed, note=notes.append), image)
    np.testing.assert_array_equal(found, expected)
    assert _Full.moved == ["cpu"]
    assert len(notes) == 1
    assert "no memory for the sums" in notes[0]
