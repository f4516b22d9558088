from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.json_export import recursive_fix_for_json_export

from napari_backsplit.backend.errors import InputError, UntrustedModelError
from napari_backsplit.backend.prediction.trust import check_plans
from napari_backsplit.backend.training import architectures, residual_plans
from napari_backsplit.backend.training.architectures import (
    LONGEST,
    STEPS,
    features,
    has_levels,
    nearest_patch,
    needs,
    patch_steps,
    require_architecture,
    with_architecture,
)
from napari_backsplit.backend.training.head_split import is_head, split_head
from napari_backsplit.backend.training.optimisers import make_optimiser
from napari_backsplit.backend.training.recipes import MONAI_COMMAND
from napari_backsplit.backend.training.spec import PlanSpec, RunSpec
from tests.backend.prediction import tiny_model

MONAI = ("segresnet", "swinunetr")
ALL = ("resenc-m", "resenc-l", *MONAI)
SMALL = {"resenc-m": 4, "resenc-l": 4, "segresnet": 8, "swinunetr": 12}
SIX_STAGES = {
    "n_stages": 6,
    "features_per_stage": [32, 64, 128, 256, 320, 320],
    "kernel_sizes": [[3] * 3] * 6,
    "strides": [[1] * 3] + [[2] * 3] * 5,
    "n_conv_per_stage": [2] * 6,
    "n_conv_per_stage_decoder": [2] * 5,
}


def plans_of(patch: list[int], channels: int = 1, **changes: Any) -> dict[str, Any]:
    """Return plans of a full-size U-Net on abdominal CTs."""
    plans = tiny_model.plans(channels)
    configuration = plans["configurations"]["3d_fullres"]
    configuration |= {
        "patch_size": patch,
        "spacing": [1.0, 0.8, 0.8],
        "median_image_size_in_voxels": [300.0, 500.0, 500.0],
    }
    configuration["architecture"]["arch_kwargs"] |= SIX_STAGES
    configuration |= changes
    return plans


def of_run(
    plans: dict[str, Any], chosen: PlanSpec | None = None, **run: Any
) -> tuple[dict[str, Any], list[str]]:
    """Return the configuration of a run, and what is said of it."""
    spec = RunSpec.model_validate(run)
    found, notes = with_architecture(plans, "3d_fullres", spec, chosen)
    return found["configurations"]["3d_fullres"], notes


def network_of(
    configuration: dict[str, Any], classes: int, channels: int = 1, levels: bool = False
) -> torch.nn.Module:
    """Build a network as nnU-Net builds it from plans."""
    built: torch.nn.Module = get_network_from_plans(
        configuration["architecture"]["network_class_name"],
        configuration["architecture"]["arch_kwargs"],
        configuration["architecture"]["_kw_requires_import"],
        channels,
        classes,
        allow_init=False,
        deep_supervision=levels,
    )
    return built


def small(name: str, patch: int = 16) -> dict[str, Any]:
    """Return the configuration of a small network for a small patch that somebody chose."""
    chosen = PlanSpec(features=(4, 8), patch_size=(patch,) * 3)
    plans = tiny_model.plans(patch_size=[patch] * 3)
    width = {} if name == "planned" else {"width": SMALL[name]}
    return of_run(plans, chosen, architecture=name, **width)[0]


# ---------------------------------------------------------------------- plans


@pytest.mark.parametrize("name", ["planned", *ALL])
def test_a_run_keeps_all_of_its_plan_set_but_network_and_patch(name: str) -> None:
    plans = plans_of([128, 128, 128])
    before = json.loads(json.dumps(plans))
    found, _ = with_architecture(
        plans, "3d_fullres", RunSpec.model_validate({"architecture": name})
    )
    assert plans == before, "the plan set's own are left as they are"
    assert json.loads(json.dumps(found)) == found, "as JSON keeps it"
    check_plans(found)

    ours, theirs = (p["configurations"]["3d_fullres"] for p in (found, before))
    changed = {key for key in theirs if ours[key] != theirs[key]}
    assert changed <= {"architecture", "patch_size"}
    assert bool(changed) is (name != "planned")
    assert ours["batch_size"] == 2


@pytest.mark.parametrize(
    ("name", "planned", "patch"),
    [
        ("segresnet", [48, 192, 224], [48, 192, 224]),
        ("segresnet", [28, 40, 3], [32, 40, 8]),
        ("swinunetr", [128, 128, 128], [128, 128, 128]),
        ("swinunetr", [48, 192, 224], [64, 192, 224]),
        ("swinunetr", [40, 160, 208], [32, 160, 224]),
        ("swinunetr", [16, 40, 24], [32, 64, 32]),
    ],
)
def test_a_patch_is_brought_to_what_the_network_takes_and_that_is_said(
    name: str, planned: list[int], patch: list[int]
) -> None:
    found, notes = of_run(plans_of(planned), architecture=name)
    assert found["patch_size"] == patch
    assert len(notes) == (planned != patch)
    for note in notes:
        assert " x ".join(map(str, patch)) in note
        assert " x ".join(map(str, planned)) in note
        assert f"multiples of {STEPS[name]}" in note


@given(st.lists(st.integers(1, 400), min_size=3, max_size=3), st.sampled_from(MONAI))
def test_the_nearest_patch_fits_and_is_near(patch: list[int], name: str) -> None:
    step, least = STEPS[name], LONGEST[name]
    found = nearest_patch(patch, [step] * 3, least)
    assert all(size % step == 0 for size in found)
    assert max(found) >= least
    assert sum(abs(a - b) > step / 2 for a, b in zip(found, patch, strict=True)) <= sum(
        size < step for size in patch
    ) + (max(patch) < least)
    assert nearest_patch(found, [step] * 3, least) == found


@pytest.mark.parametrize(
    ("name", "patch", "remedy"),
    [
        ("planned", (48, 64, 64), "Use 3 multiples of 32, for example 64 x 64 x 64."),
        ("segresnet", (12, 64, 64), "Use 3 multiples of 8, for example 16 x 64 x 64."),
        ("swinunetr", (48, 96, 96), "32, one of them at least 64, for example 64 x 96 x 96."),
        ("swinunetr", (32, 32, 32), "one of them at least 64, for example 64 x 32 x 32."),
    ],
)
def test_a_patch_of_ones_own_that_does_not_fit_is_refused_with_one_that_does(
    name: str, patch: tuple[int, ...], remedy: str
) -> None:
    with pytest.raises(InputError, match=r"does not fit the network") as error:
        of_run(plans_of([128, 128, 128]), architecture=name, patch_size=patch)
    assert error.value.remedy.endswith(remedy)


def test_a_patch_and_a_batch_of_ones_own_are_taken_without_a_word() -> None:
    plans = plans_of([48, 128, 128])
    found, notes = of_run(plans, architecture="swinunetr", patch_size=(64, 96, 32), batch_size=4)
    assert (found["patch_size"], found["batch_size"], notes) == ([64, 96, 32], 4, [])


def test_networks_for_volumes_refuse_slices() -> None:
    for name in MONAI:
        with pytest.raises(InputError, match=f"{name} is for volumes; the plan set 'flat' is 2d"):
            require_architecture(RunSpec(architecture=name, plan_set="flat"), "2d")
        require_architecture(RunSpec(architecture=name), "3d_lowres")
    require_architecture(RunSpec(architecture="resenc-m"), "2d")


def test_a_patch_that_does_not_fit_is_refused_before_the_run_becomes_a_job() -> None:
    run = RunSpec(architecture="swinunetr", patch_size=(24, 24, 24))
    with pytest.raises(InputError, match=r"\[24, 24, 24\] does not fit") as caught:
        require_architecture(run, "3d_fullres")
    assert "for example 64 x 32 x 32" in caught.value.remedy
    fits = run.model_copy(update={"patch_size": (64, 32, 32)})
    require_architecture(fits, "3d_fullres")


# ---------------------------------------------------------------------- residual encoders


@pytest.mark.parametrize("preset", ["resenc-m", "resenc-l"])
@pytest.mark.parametrize("flat", [False, True], ids=["3d", "2d"])
def test_a_residual_encoder_is_nnunets_own_for_these_images(
    preset: str, flat: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against nnU-Net's whole planning of a dataset, as its command does it."""
    folder = tmp_path / "Dataset001_any"
    folder.mkdir()
    dataset = tiny_model.dataset({"lesion": 1}, 2) | {
        "dataset": {"a": {"images": ["a_0000.nii.gz"], "label": "a.nii.gz"}},
        "overwrite_image_reader_writer": "SimpleITKIO",
    }
    figures = {
        "spacings": [[3.0, 0.9, 0.8]] * 5,
        "shapes_after_crop": [[60 + 5 * i, 300, 320] for i in range(5)],
        "median_relative_size_after_cropping": 1.0,
        "foreground_intensity_properties_per_channel": {},
    }
    (folder / "dataset.json").write_text(json.dumps(dataset))
    (folder / "dataset_fingerprint.json").write_text(json.dumps(figures))
    for kind in ("nnUNet_raw", "nnUNet_preprocessed"):
        monkeypatch.setenv(kind, str(tmp_path))
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    monkeypatch.setattr(
        f"{_PLANNER}.determine_reader_writer", lambda self: type("SimpleITKIO", (), {})
    )
    monkeypatch.setattr(
        f"{_PLANNER}.save_plans", lambda self, plans: recursive_fix_for_json_export(plans)
    )
    monkeypatch.setattr("shutil.copy", lambda source, target: None)
    with torch.device("meta"):
        theirs = residual_plans.PLANNERS[preset]("Dataset001_any").plan_experiment()
    configuration = theirs["configurations"]["2d" if flat else "3d_fullres"]
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")

    ours = residual_plans.planned(configuration, preset)

    assert os.environ["nnUNet_n_proc_DA"] == "0"
    assert os.environ["nnUNet_raw"] == str(tmp_path)
    plain = json.loads(json.dumps(configuration))
    assert ours == {key: plain[key] for key in ("patch_size", "architecture")}


_PLANNER = (
    "nnunetv2.experiment_planning.experiment_planners.default_experiment_planner.ExperimentPlanner"
)


def test_a_residual_encoder_fits_a_patch_that_somebody_chose() -> None:
    plans = tiny_model.plans(patch_size=[18, 32, 32], spacing=[3.0, 1.0, 1.0])
    chosen = PlanSpec(features=(4, 8), patch_size=(18, 32, 32))
    found, notes = of_run(plans, chosen, architecture="resenc-m", width=4)
    steps = patch_steps(found)
    assert not any(size % step for size, step in zip(found["patch_size"], steps, strict=True))
    assert found["architecture"]["arch_kwargs"]["features_per_stage"][:3] == [4, 8, 16]
    assert found["patch_size"][1:] == [32, 32]
    assert bool(notes) is (found["patch_size"] != [18, 32, 32])
    image = torch.zeros(1, 1, *found["patch_size"])
    assert network_of(found, 3)(image).shape == (1, 3, *found["patch_size"])


def test_the_memory_that_a_person_named_bounds_the_patch() -> None:
    plans = plans_of([128, 128, 128])
    small, large = (
        of_run(plans, PlanSpec(gpu_memory_gb=gb), architecture="resenc-m")[0]["patch_size"]
        for gb in (4, 16)
    )
    assert torch.tensor(small).prod() < torch.tensor(large).prod()


def test_without_the_images_size_a_residual_encoder_is_refused() -> None:
    plans = plans_of([128, 128, 128], median_image_size_in_voxels=None)
    with pytest.raises(InputError, match="does not say how large") as error:
        of_run(plans, architecture="resenc-l")
    assert "--preset" in error.value.remedy


# ---------------------------------------------------------------------- networks

PAPER = {"planned": 31.2e6, "resenc-m": 102e6, "segresnet": 18.8e6, "swinunetr": 62.2e6}


@pytest.mark.parametrize("name", PAPER)
def test_arms_of_full_size_differ_by_hardly_a_parameter(name: str) -> None:
    configuration, _ = of_run(plans_of([128, 128, 128]), architecture=name)

    def parameters(classes: int) -> int:
        return sum(value.numel() for value in _described(configuration, classes).parameters())

    binary, split = parameters(2), parameters(10)
    assert binary == pytest.approx(PAPER[name], rel=2e-3)
    assert 0 < split / binary - 1 < 2.1e-4, "0.02 % as the paper rounds it"


def _described(configuration: dict[str, Any], classes: int) -> torch.nn.Module:
    if configuration["architecture"]["network_class_name"].endswith("SwinUNETR"):
        return network_of(configuration, classes)  # MONAI reads numbers back, which meta has not
    with torch.device("meta"):
        return network_of(configuration, classes)


@pytest.mark.parametrize("name", ["planned", *ALL])
def test_a_split_leaves_the_targets_probability(name: str) -> None:
    configuration = small(name)
    torch.manual_seed(0)
    binary = network_of(configuration, 2).eval()
    heads = [value for key, value in binary.named_parameters() if is_head(key)]
    assert len(heads) == 2 * (configuration["architecture"]["arch_kwargs"].get("n_stages", 2) - 1)
    for value in heads:
        torch.nn.init.normal_(value, std=2.0) if value.dim() > 1 else torch.nn.init.zeros_(value)
    image = torch.randn(1, 1, *configuration["patch_size"])
    labels = {"background": 0, "lesion": 1}
    more = {**labels, **{f"organ{i}": 2 + i for i in range(4)}}
    grown = network_of(configuration, 6).eval()
    grown.load_state_dict(split_head(binary.state_dict(), labels, more))
    with torch.no_grad():
        before, after = binary(image), grown(image)
    target = before.argmax(1) == 1
    assert 0.05 < target.float().mean() < 0.95
    assert torch.equal(target, after.argmax(1) == 1)
    assert (before.softmax(1)[:, 1] - after.softmax(1)[:, 1]).abs().max() < 2e-3


@pytest.mark.parametrize("name", ["planned", *ALL])
def test_the_output_layers_learn_at_a_rate_of_their_own(name: str) -> None:
    network = network_of(small(name), 7)
    body, heads = make_optimiser(network, RunSpec(head_lr_factor=3.0)).param_groups
    assert {value.shape[0] for value in heads["params"]} == {7}
    assert len(body["params"]) + len(heads["params"]) == len(list(network.parameters()))


@pytest.mark.parametrize("name", MONAI)
def test_an_encoder_can_be_frozen_and_leaves_the_rest(name: str) -> None:
    network: Any = network_of(small(name), 2)
    names = set(network.state_dict())
    network.encoder.requires_grad_(False)
    assert set(network.state_dict()) == names
    free = {key for key, value in network.named_parameters() if value.requires_grad}
    assert any(is_head(key) for key in free)
    assert not any(key.startswith(("convInit", "down_", "swinViT", "encoder")) for key in free)
    assert len(free) < len(list(network.parameters()))


def test_networks_of_one_output_refuse_deep_supervision() -> None:
    for name in MONAI:
        assert not has_levels(small(name))
        with pytest.raises(ValueError, match="one output"):
            network_of(small(name), 2, levels=True)
    assert has_levels(small("planned"))
    assert has_levels(small("resenc-m"))


def test_features_are_the_networks() -> None:
    found = {name: features(small(name))[0] for name in ("planned", *ALL)}
    assert found == {"planned": 8, **SMALL}
    assert features(small("planned")) == [8, 16]
    assert features({"patch_size": [16]}) == [32]


# ---------------------------------------------------------------------- trust


@pytest.mark.parametrize("name", MONAI)
@pytest.mark.parametrize(
    "change",
    [
        {"arch_kwargs": {"in_channels": 3}},
        {"arch_kwargs": {"norm": "os.system"}},
        {"arch_kwargs": {"init_filters": 2**20, "feature_size": 2**20}},
        {"arch_kwargs": {"init_filters": True}},
        {"arch_kwargs": {"init_filters": "8", "feature_size": "12"}},
        {"arch_kwargs": {"init_filters": 7}},
        {"_kw_requires_import": ["feature_size"]},
        {"network_class_name": "napari_backsplit.backend.training.monai_networks.SegResNet"},
        {"network_class_name": "monai.networks.nets.segresnet.SegResNet"},
    ],
)
def test_plans_that_ask_more_of_an_adapter_are_not_trusted(
    name: str, change: dict[str, Any]
) -> None:
    plans = plans_of([64, 64, 64])
    found, _ = with_architecture(
        plans, "3d_fullres", RunSpec.model_validate({"architecture": name})
    )
    check_plans(found)
    found["configurations"]["3d_fullres"]["architecture"] |= change
    with pytest.raises(UntrustedModelError):
        check_plans(found)


def test_only_networks_of_monai_need_more_than_nnunet() -> None:
    assert [bool(needs(small(name))) for name in ("planned", *ALL)] == [False, False, False, 1, 1]
    assert MONAI_COMMAND in needs(small("segresnet"))


# ---------------------------------------------------------------------- without the packages


def _child(text: str, hidden: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process that does not find a package."""
    code = f"import sys\nsys.modules[{hidden!r}] = None\n{text}"
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )


def test_without_monai_the_command_that_installs_it_is_said() -> None:
    run = _child(
        "from napari_backsplit.backend.errors import InputError\n"
        "from napari_backsplit.backend.training.architectures import *\n"
        "from napari_backsplit.backend.training.spec import RunSpec\n"
        "plan = {'architecture': {'network_class_name': CLASSES['segresnet']}}\n"
        "for ask in (lambda: require_architecture(RunSpec(architecture='swinunetr'), '3d_fullres'),"
        " lambda: require_installed(plan)):\n"
        "    try: ask()\n"
        "    except InputError as error: print(error)\n"
        "assert 'torch' not in sys.modules\n",
        "monai",
    )
    assert run.returncode == 0, run.stderr
    first, second = run.stdout.splitlines()
    assert first.startswith("swinunetr needs the package monai")
    assert second.startswith("segresnet needs the package monai")
    assert MONAI_COMMAND in first
    assert MONAI_COMMAND in second


def test_the_size_of_a_checkpoint_before_it_is_measured() -> None:
    """Weights, and one moment of each (SGD) or two (Adam), of four bytes."""
    for name, count in PAPER.items():
        if name != "planned":
            for optimiser, kept in (("sgd", 2), ("adam", 3)):
                spec = RunSpec.model_validate({"architecture": name, "optimiser": optimiser})
                size = architectures.about_checkpoint_bytes(spec)
                assert size == pytest.approx(4 * kept * count, rel=2e-2)
    assert architectures.about_checkpoint_bytes(RunSpec()) == 0
