from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import blosc2
import numpy as np
import pytest
import torch
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from scipy import ndimage

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.files import read_json
from napari_backsplit.backend.prediction.checkpoint import load_checkpoint
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.training import loading
from napari_backsplit.backend.training.arms import arm_scheme
from napari_backsplit.backend.training.loading import (
    Extra,
    PatchLoader,
    SoftShares,
    VoxelWeights,
    to_device,
)
from napari_backsplit.backend.training.losses import make_loss, membership_table
from napari_backsplit.backend.training.prepare import open_plan_set, prepare_arm
from napari_backsplit.backend.training.probe import RandomCases
from napari_backsplit.backend.training.run import Run
from napari_backsplit.backend.training.seeds import seed_everything
from napari_backsplit.backend.training.spec import RunSpec
from napari_backsplit.backend.training.trainer import LATEST, BackSplitTrainer, trainer_for
from tests.backend.training.conftest import RUN
from tests.backend.training.interrupting import Stopped, stop_after

pytestmark = pytest.mark.training

CLASSES = 4
SHAPE = (14, 22, 20)


def _case(number: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return codes (1, z, y, x) with lesions of two sizes, and shares (K - 1, ...)."""
    codes = np.zeros((1, *SHAPE), np.int16)
    codes[0, 2:12, 1:20, 1:19] = 2
    codes[0, 4 + number : 9 + number, 4:12, 3:10] = 1
    codes[0, 9:11, 15:17, 14:16] = 1
    codes[0, 4:6, 14:18, 5:9] = 3
    codes[0, :2] = -1  # outside the body
    shares = np.stack([codes[0] == label for label in range(1, CLASSES)]).astype(np.float16)
    return codes, shares * np.float16(0.75)


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of three preprocessed cases with soft labels."""
    folder = tmp_path_factory.mktemp("cases")
    for number in range(3):
        codes, shares = _case(number)
        image = np.random.default_rng(number).normal(size=(1, *SHAPE)).astype(np.float32)
        targets = {1: np.argwhere(codes == 1)}
        stem, blocks = str(folder / f"case_{number}"), (1, *SHAPE)
        nnUNetDatasetBlosc2.save_case(
            image, codes, {"class_locations": targets}, stem, blocks, blocks, blocks, blocks
        )
        blosc2.asarray(shares, urlpath=f"{stem}_soft.b2nd", mode="w")
    return folder


def _loader(
    folder: Path, extra: Extra | None, patch: tuple[int, ...] = (12, 16, 16), augment: bool = True
) -> Any:
    """Return a loader of patches with two levels; nnU-Net's own where there is no extra."""
    axes = tuple(range(len(patch)))
    levels = [[1.0] * len(patch), [0.5] * len(patch)]
    transforms = BackSplitTrainer.get_validation_transforms(levels)
    if augment:
        transforms = BackSplitTrainer.get_training_transforms(
            patch, (-0.5, 0.5), levels, axes, False, [True]
        )
    start = tuple(size + 4 for size in patch) if augment else patch
    dataset = nnUNetDatasetBlosc2(str(folder), [f"case_{number}" for number in range(3)])
    labels = SimpleNamespace(all_labels=list(range(CLASSES)), has_ignore_label=False)
    given = (dataset, 2, start, patch, labels, 0.5)
    if extra is None:
        return nnUNetDataLoader(*given, transforms=transforms)
    return PatchLoader(extra, *given, transforms=transforms)


def _batches(loader: Any, seed: int = 0, count: int = 4) -> list[dict[str, Any]]:
    seed_everything(seed, 0)
    return [next(loader) for _ in range(count)]


EXTRAS = pytest.mark.parametrize(
    "extra", [VoxelWeights((1,)), SoftShares(CLASSES)], ids=["weights", "soft"]
)
PATCHES = pytest.mark.parametrize("patch", [(12, 16, 16), (16, 18)], ids=["volume", "slice"])


@EXTRAS
@PATCHES
@pytest.mark.parametrize("augment", [True, False], ids=["training", "validation"])
def test_images_and_codes_are_nnunets(
    cases: Path, extra: Extra, patch: tuple[int, ...], augment: bool
) -> None:
    """To the last bit, for the same random numbers."""
    theirs = _batches(_loader(cases, None, patch, augment))
    ours = _batches(_loader(cases, extra, patch, augment))
    for their, our in zip(theirs, ours, strict=True):
        assert torch.equal(their["data"], our["data"])
        assert their["data"].dtype == our["data"].dtype
        assert (their["keys"] == our["keys"]).all()
        for their_level, our_level, made in zip(
            their["target"], our["target"], our["extra"], strict=True
        ):
            assert torch.equal(their_level, our_level)
            assert their_level.dtype == our_level.dtype
            channels = 1 if isinstance(extra, VoxelWeights) else CLASSES - 1
            assert made.shape == (2, channels, *our_level.shape[2:])
            assert made.dtype == torch.float32


def test_the_random_cases_of_a_probe_are_weighted_too() -> None:
    load: Any = SimpleNamespace(channels=1, classes=CLASSES, targets=("lesion",))
    labels = SimpleNamespace(all_labels=list(range(CLASSES)), has_ignore_label=False)
    given = (RandomCases(load, (12, 24, 24)), 2, (8, 16, 16), (8, 16, 16), labels, 0.5)
    loader = PatchLoader(VoxelWeights((1,)), *given, transforms=lambda **sample: sample)
    batch = next(loader)
    assert batch["extra"].shape == batch["target"].shape == (2, 1, 8, 16, 16)
    assert batch["extra"].max() > 1


@EXTRAS
def test_the_same_seed_draws_the_same_batches(cases: Path, extra: Extra) -> None:
    one, same, other = (_batches(_loader(cases, extra), seed, 2) for seed in (3, 3, 4))
    for first, second in zip(one, same, strict=True):
        for level, again in zip(first["extra"], second["extra"], strict=True):
            assert torch.equal(level, again)
    assert not torch.equal(one[0]["extra"][0], other[0]["extra"][0])


@EXTRAS
def test_a_loader_goes_to_a_worker_of_another_start_method(cases: Path, extra: Extra) -> None:
    """A worker on Windows and macOS gets it pickled."""
    loader = _loader(cases, extra)
    again = pickle.loads(pickle.dumps(loader))
    for ours, theirs in zip(_batches(loader, count=2), _batches(again, count=2), strict=True):
        assert torch.equal(ours["data"], theirs["data"])
        assert torch.equal(ours["extra"][1], theirs["extra"][1])


@EXTRAS
def test_a_single_output_has_a_single_level(cases: Path, extra: Extra) -> None:
    loader = _loader(cases, extra)
    loader.transforms.transforms.pop()  # the coarser levels
    batch = next(loader)
    assert batch["target"].shape == (2, 1, 12, 16, 16)
    assert batch["extra"].shape[2:] == (12, 16, 16)


# ---------------------------------------------------------------------- weights


@PATCHES
def test_a_levels_weights_belong_to_its_labels(
    cases: Path, patch: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With weights that say which label they are of: 1 + 5 for a target, at each level."""
    monkeypatch.setattr(loading, "inverse_weights", lambda mask: np.float32(1) + 5 * mask)
    seen = 0
    for batch in _batches(_loader(cases, VoxelWeights((1,)), patch), count=8):
        for codes, weights in zip(batch["target"], batch["extra"], strict=True):
            assert torch.equal(weights, 1 + 5 * (codes == 1).float())
            seen += int((codes == 1).any())
    assert seen > 8


def test_weights_are_those_of_the_augmented_patch(cases: Path) -> None:
    """N / ((K + 1) |component|), counted anew in the patch that the network sees."""
    lesions = 0
    for batch in _batches(_loader(cases, VoxelWeights((1, 3))), count=6):
        for codes, weights in zip(batch["target"][0], batch["extra"][0], strict=True):
            target = ((codes[0] == 1) | (codes[0] == 3)).numpy()
            parts, count = ndimage.label(target, np.ones((3, 3, 3)))
            sizes = np.bincount(parts.ravel(), minlength=count + 1)
            expected = np.clip(target.size / ((count + 1) * sizes), 1, 2e5)[parts]
            np.testing.assert_allclose(weights[0], expected, rtol=1e-6)
            lesions += count
    assert lesions > 6


def test_a_small_lesion_weighs_more(cases: Path) -> None:
    whole = (14, 22, 20)
    batch = _batches(_loader(cases, VoxelWeights((1,)), whole, augment=False), count=1)[0]
    codes, weights = batch["target"][0][1, 0], batch["extra"][0][1, 0]
    values = weights[codes == 1].unique()
    large, small = 5 * 8 * 7, 2 * 2 * 2
    np.testing.assert_allclose(
        values, [codes.numel() / (3 * large), codes.numel() / (3 * small)], rtol=1e-6
    )
    assert (weights[codes != 1] == 1).all()


# ---------------------------------------------------------------------- soft labels


@PATCHES
def test_shares_are_cut_with_the_image(cases: Path, patch: tuple[int, ...]) -> None:
    """Three quarters of each voxel of a class, by the case's making; nothing beyond the edge."""
    for batch in _batches(_loader(cases, SoftShares(CLASSES), patch, augment=False)):
        codes, shares = batch["target"][0][:, 0], batch["extra"][0]
        for label in range(1, CLASSES):
            assert torch.equal(shares[:, label - 1], 0.75 * (codes == label).float())


def test_beyond_the_image_is_background(cases: Path) -> None:
    wide = (20, 30, 28)
    batch = _batches(_loader(cases, SoftShares(CLASSES), wide, augment=False), count=1)[0]
    _, shares = _case(int(batch["keys"][0][-1]))
    assert float(batch["extra"][0][0].sum()) == float(shares.astype(np.float32).sum())


def test_missing_soft_labels_are_said(cases: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="case_0 has no soft labels") as said:
        SoftShares(CLASSES).soft(tmp_path / "case_0")
    assert str(tmp_path) not in str(said.value)
    with pytest.raises(InputError, match=r"case_1 has soft labels of 3 classes.* learns 2"):
        SoftShares(3).soft(cases / "case_1")


# ---------------------------------------------------------------------- in a training


def _spec(**changes: Any) -> RunSpec:
    few = {"iterations": 2, "validation_iterations": 1}
    return RunSpec.model_validate(RUN.model_dump() | few | changes)


WEIGHTED = {"inverse_weighting": True, "missing": "background"}
SOFT = {
    "labels": "soft", "activation": "normalised-relu", "loss": "adaptive-wing",
    "missing": "background",
}  # fmt: skip


@pytest.fixture
def start(
    planned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., BackSplitTrainer]:
    """Make a trainer of an arm on the small project."""
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    torch.set_num_threads(1)
    for kind in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{kind}", str(planned / "nnunet" / kind))

    def make(spec: RunSpec, folder: str = "model", soft: bool | None = None, **run: Any) -> Any:
        soft = spec.labels == "soft" if soft is None else soft
        with Project.open(planned, read_only=True) as project:
            plan_set = open_plan_set(project, "own")
            scheme = arm_scheme(
                project, spec.arm, spec.supports, plan_set.cases, missing=spec.missing
            )
            plan_set, name = prepare_arm(project, plan_set, scheme, lambda *step: None, soft=soft)
        dataset_json = read_json(plan_set.preprocessed(name) / "dataset.json")
        made = Run(spec, tmp_path / folder, **run)
        return trainer_for(made, plan_set.plans(name), "3d_fullres", dataset_json)

    return make


def _weights(trainer: BackSplitTrainer) -> dict[str, torch.Tensor]:
    path = Path(trainer.output_folder) / "checkpoint_final.pth"
    return load_checkpoint(path)["network_weights"]


@pytest.mark.parametrize("changes", [WEIGHTED, SOFT], ids=["weights", "soft"])
def test_a_resumed_run_ends_with_the_same_weights(
    start: Callable[..., BackSplitTrainer], changes: dict[str, Any]
) -> None:
    spec = _spec(**changes, epochs=2)
    whole = start(spec, "whole")
    whole.run_training()
    broken = start(spec, "broken", check=stop_after(4))  # in the second epoch
    with pytest.raises(Stopped):
        broken.run_training()
    again = start(spec, "broken")
    again.resume(load_checkpoint(Path(again.output_folder) / LATEST))
    again.run_training()
    for key, value in _weights(whole).items():
        torch.testing.assert_close(_weights(again)[key], value, rtol=0, atol=0)


@pytest.mark.parametrize("changes", [WEIGHTED, SOFT], ids=["weights", "soft"])
def test_each_level_is_judged_with_its_own_extra(cases: Path, changes: dict[str, Any]) -> None:
    spec = _spec(**changes)
    extra = SoftShares(CLASSES) if spec.labels == "soft" else VoxelWeights((1,))
    _, *answers = to_device(next(_loader(cases, extra)), torch.device("cpu"))
    outputs = [torch.randn(2, CLASSES, *level.shape[2:]) for level in answers[0]]
    loss = make_loss(spec, membership_table(CLASSES, []), True, 1)
    alone = [loss(*level) for level in zip(outputs, *answers, strict=True)]
    whole = DeepSupervisionWrapper(loss, (0.75, 0.25))(outputs, *answers)
    assert float(whole) == pytest.approx(0.75 * float(alone[0]) + 0.25 * float(alone[1]))


def test_a_weighted_run_is_not_a_plain_one(start: Callable[..., BackSplitTrainer]) -> None:
    """Same images, same codes, another loss; nnU-Net's own loader where nothing is weighted."""
    losses = []
    for spec in (_spec(**WEIGHTED), _spec(missing="background")):
        run = start(spec, str(len(losses)))
        run.on_train_start()
        weighted = isinstance(run.dataloader_train.data_loader, PatchLoader)
        assert weighted is spec.inverse_weighting
        run.on_train_epoch_start()
        losses.append(run.train_step(next(run.dataloader_train))["loss"])
    assert losses[0] != losses[1]


def test_a_soft_run_decides_by_its_shares(
    start: Callable[..., BackSplitTrainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference is the stored codes; a class needs more than half of a voxel."""
    pictures: list[int] = []
    run = start(
        _spec(**SOFT, epochs=1, picture_every=1),
        picture=lambda png, epoch, text: pictures.append(epoch),
        note=lambda level, text: pytest.fail(text),
    )
    run.run_training()
    assert pictures == [0]
    batch = next(run.dataloader_val)
    codes = batch["target"][0] if isinstance(batch["target"], list) else batch["target"]
    found = torch.full((2, run.label_manager.num_segmentation_heads, *codes.shape[2:]), 0.2)
    found[:, 0] = 9.0  # the background's channel decides nothing
    found[:, 1][codes[:, 0] == 1] = 1.0
    found[:, 2, 0, 0, 0] = 1.0  # the greatest of its channel, so a whole voxel
    levels = isinstance(batch["target"], list)
    monkeypatch.setattr(run, "network", lambda data: [found] if levels else found)
    counts = run.validation_step(batch)
    assert counts["tp"][0] == (codes == 1).sum() > 0
    assert (counts["fp"][0], counts["fn"][0]) == (0, 0)
    assert counts["tp"][1] + counts["fp"][1] == 2


def test_a_soft_run_on_hard_labels_is_refused(start: Callable[..., BackSplitTrainer]) -> None:
    run = start(_spec(**SOFT, epochs=1), soft=False)
    with pytest.raises(InputError, match=r"case_\d+ has no soft labels on the network's grid"):
        run.run_training()


def test_a_worker_process_makes_the_batches(
    start: Callable[..., BackSplitTrainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    run = start(_spec(**SOFT, epochs=1))
    run.run_training()
    assert np.isfinite(run.logger.get_value("train_losses", step=-1))
    assert (Path(run.output_folder) / "checkpoint_final.pth").exists()
