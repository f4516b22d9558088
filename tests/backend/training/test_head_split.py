from __future__ import annotations

from collections.abc import Callable
from math import exp, log
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.files import read_json, write_json
from napari_backsplit.backend.training.head_split import is_head, split_head
from napari_backsplit.backend.training.spec import RunSpec
from napari_backsplit.backend.training.tasks import _load_baseline
from tests.backend.prediction import tiny_model


def _network(classes: int, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return PlainConvUNet(
        input_channels=1, n_stages=3, features_per_stage=(4, 8, 16), conv_op=nn.Conv3d,
        kernel_sizes=3, strides=(1, 2, 2), n_conv_per_stage=1, num_classes=classes,
        n_conv_per_stage_decoder=1, norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"affine": True}, nonlin=nn.LeakyReLU, deep_supervision=True,
    )  # fmt: skip


def _labels(supports: int) -> dict[str, int]:
    return {"background": 0, "lesion": 1, **{f"organ{i}": 2 + i for i in range(supports)}}


@pytest.mark.parametrize("supports", [1, 3, 9, 40])
def test_at_step_0_the_target_mask_is_the_baselines(supports: int) -> None:
    binary = _network(2)
    for layer in binary.decoder.seg_layers:  # logits as far apart as a trained network's
        nn.init.normal_(layer.weight, std=2.0)
    grown = _network(2 + supports, seed=1)
    grown.load_state_dict(split_head(binary.state_dict(), _labels(0), _labels(supports)))
    image = torch.randn(2, 1, 16, 16, 16)

    with torch.no_grad():
        for before, after in zip(binary(image), grown(image), strict=True):
            target = before.argmax(1) == 1
            assert 0.1 < target.float().mean() < 0.9
            # the only voxels that could flip are those where both classes are equal
            assert torch.equal(target, after.argmax(1) == 1)
            change = (before.softmax(1)[:, 1] - after.softmax(1)[:, 1]).abs().max()
            assert change < 5e-3


def test_rows_follow_the_labels_names() -> None:
    binary = _network(3)
    old = {"background": 0, "lesion": 2, "cyst": 1}
    new = {"background": 0, "cyst": 2, "lesion": 1, "kidney": 3}

    weights = split_head(binary.state_dict(), old, new, offset=-4.0)

    for key in ("decoder.seg_layers.0.weight", "decoder.seg_layers.1.bias"):
        before, after = binary.state_dict()[key], weights[key]
        shift = -4.0 if key.endswith("bias") else 0.0
        torch.testing.assert_close(after[:3], before[[0, 2, 1]])
        torch.testing.assert_close(after[3], before[0] + shift)


def test_all_supports_together_take_a_fixed_share() -> None:
    for supports in (1, 7):
        weights = split_head(_network(2).state_dict(), _labels(0), _labels(supports))
        bias = weights["decoder.seg_layers.0.bias"]
        share = (bias[2:] - bias[0]).exp().sum()
        assert log(float(share)) == pytest.approx(-5.0, abs=1e-4)
        assert exp(-5.0) < 7e-3


def test_a_label_that_the_project_lacks_is_named() -> None:
    with pytest.raises(InputError, match="tumour"):
        split_head(_network(2).state_dict(), {"background": 0, "tumour": 1}, _labels(1))


def test_a_head_that_does_not_fit_its_labels_is_refused() -> None:
    with pytest.raises(InputError, match="3 rows for 2 labels"):
        split_head(_network(3).state_dict(), _labels(0), _labels(1))


@pytest.mark.parametrize("order", [("lesion", "organ"), ("organ", "lesion")])
def test_shares_keep_the_rows_of_old_labels_and_new_ones_have_the_new_networks(
    order: tuple[str, str],
) -> None:
    before, fresh = _network(2).state_dict(), _network(3, seed=1).state_dict()
    new = {"background": 0, order[0]: 1, order[1]: 2}
    grown = split_head(before, _labels(0), new, fresh=fresh)
    for key in filter(is_head, before):
        assert torch.equal(grown[key][[0, new["lesion"]]], before[key])
        assert torch.equal(grown[key][new["organ"]], fresh[key][new["organ"]])
    untouched = split_head(before, _labels(0), _labels(0), fresh=before)
    assert all(torch.equal(untouched[key], value) for key, value in before.items())


# ---------------------------------------------------------------------- noise


def _noisy(weights: dict[str, torch.Tensor], noise: float, seed: int = 0) -> dict[str, Any]:
    torch.manual_seed(seed)
    return split_head(weights, _labels(0), _labels(3), noise=noise)


def test_without_noise_new_rows_are_the_backgrounds_to_the_bit() -> None:
    weights = _network(2).state_dict()
    torch.manual_seed(0)
    untouched = torch.get_rng_state()
    quiet = _noisy(weights, 0.0)
    assert torch.equal(torch.get_rng_state(), untouched), "nothing is drawn"
    for key, value in quiet.items():
        if is_head(key) and key.endswith("weight"):
            assert torch.equal(value, weights[key][[0, 1, 0, 0, 0]])
        elif not is_head(key):
            assert value is weights[key]


def test_noise_tells_new_rows_apart_and_leaves_all_else() -> None:
    weights = _network(2).state_dict()
    quiet, noisy = _noisy(weights, 0.0), _noisy(weights, 0.5)
    for key, value in noisy.items():
        if is_head(key) and key.endswith("weight"):
            assert torch.equal(value[:2], weights[key])
            rows = [value[0], *value[2:]]
            assert len(torch.unique(torch.stack(rows), dim=0)) == len(rows)
        else:
            assert torch.equal(value, quiet[key])


def test_noise_is_measured_in_the_backgrounds_deviations() -> None:
    wide = torch.randn(2, 4000, 1, 1, 1, generator=torch.Generator().manual_seed(1)) * 7
    key = "decoder.seg_layers.0.weight"
    change = _noisy({key: wide}, 0.5)[key][2:] - wide[0]
    assert float(change.std()) == pytest.approx(0.5 * 7, rel=0.05)


def test_noise_is_drawn_from_the_seed() -> None:
    weights = _network(2).state_dict()
    first, again, other = (_noisy(weights, 0.5, seed) for seed in (3, 3, 4))
    assert all(torch.equal(again[key], value) for key, value in first.items())
    assert any(not torch.equal(other[key], value) for key, value in first.items())


def test_noise_on_a_head_of_one_weight_is_none() -> None:
    key = "decoder.seg_layers.0.weight"
    assert _noisy({key: torch.ones(2, 1, 1, 1, 1)}, 0.5)[key].flatten().tolist() == [1.0] * 5


def test_noise_without_a_new_label_changes_nothing() -> None:
    weights = _network(2).state_dict()
    same = split_head(weights, _labels(0), _labels(0), noise=0.5)
    assert all(torch.equal(same[key], value) for key, value in weights.items())


# ---------------------------------------------------------------------- a head at random

Load = Callable[..., tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Start a run from a tiny binary baseline: its weights, the run's fresh and started ones."""
    tiny_model.write_model(tmp_path / "baselines" / "one")
    checkpoint = torch.load(
        tmp_path / "baselines" / "one" / "fold_0" / "checkpoint_final.pth", weights_only=False
    )
    before = checkpoint["network_weights"]

    def start(
        labels: dict[str, int], /, prefix: str = "", extra: str = "", **spec: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        torch.manual_seed(5)
        fresh = {
            key: torch.randn(len(labels), *value.shape[1:])
            if is_head(key)
            else torch.randn_like(value)
            for key, value in before.items()
        }
        if extra:
            fresh[extra] = torch.zeros(1)
        started: dict[str, Any] = {}
        network: Any = SimpleNamespace(state_dict=lambda: fresh)
        if prefix:
            wrapped = {prefix + key: value for key, value in fresh.items()}
            network = SimpleNamespace(state_dict=lambda: wrapped, **{prefix[:-1]: network})
        trainer: Any = SimpleNamespace(
            network=network,
            dataset_json={"backsplit": {"targets": ["lesion"]}, "labels": labels},
            start_from=started.update,
        )
        context: Any = SimpleNamespace(path=lambda path: tmp_path / path, report=lambda event: None)
        _load_baseline(context, trainer, RunSpec(baseline="baselines/one", **spec))
        return before, fresh, started

    return start


@pytest.mark.parametrize("supports", [0, 2], ids=["control", "supports"])
@pytest.mark.parametrize("prefix", ["", "_orig_mod."], ids=["plain", "compiled"])
def test_a_random_head_is_the_runs_own_and_all_else_the_baselines(
    load: Load, supports: int, prefix: str
) -> None:
    before, fresh, started = load(_labels(supports), prefix=prefix, head="random")
    assert started.keys() == before.keys()
    for key, value in started.items():
        assert torch.equal(value, (fresh if is_head(key) else before)[key])
    layers = [value for key, value in started.items() if is_head(key) and key.endswith("weight")]
    for rows in layers:
        assert len(torch.unique(rows, dim=0)) == len(rows) == 2 + supports


def test_a_random_head_of_another_depth_is_left_to_the_check_of_the_weights(load: Load) -> None:
    extra = "decoder.seg_layers.7.weight"
    assert extra in load(_labels(1), extra=extra, head="random")[2]


def test_a_split_head_is_the_baselines_with_its_noise(load: Load) -> None:
    before, _, quiet = load(_labels(2), head="split")
    _, _, noisy = load(_labels(2), head="split", split_noise=0.5)
    for key, value in before.items():
        if is_head(key):
            assert torch.equal(quiet[key][:2], value)
            assert torch.equal(noisy[key][:2], value)
            assert torch.equal(quiet[key], noisy[key]) is key.endswith("bias")
        else:
            assert quiet[key] is not None
            assert torch.equal(quiet[key], value)


SOFT = {"labels": "soft", "activation": "normalised-relu", "loss": "adaptive-wing"}


def test_a_fine_tune_of_soft_labels_starts_its_supports_anew(load: Load, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="target is not kept"):
        load(_labels(2), **SOFT)
    file = tmp_path / "baselines" / "one" / "dataset.json"
    write_json(file, read_json(file) | {"backsplit": {"run": SOFT}})
    before, fresh, started = load(_labels(2), **SOFT)
    for key in filter(is_head, before):
        assert torch.equal(started[key], torch.cat([before[key], fresh[key][2:]]))
