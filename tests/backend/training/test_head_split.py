from __future__ import annotations

from math import exp, log

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.training.head_split import split_head


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
