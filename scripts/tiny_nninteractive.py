r"""Train the tiny nnInteractive model of the tests, and save it as nnInteractive saves one.

    python scripts/tiny_nninteractive.py first
    python scripts/tiny_nninteractive.py tests/models/nninteractive-tiny --after first \
        --side 64 --batch 1 --steps 700 --rate 0.0015 --padded 0.3 --seed 1

It learns on synthetic ellipsoids only, takes a quarter of an hour on one core, and gives the same
weights for the same seeds and the same torch. It is for tests: it knows nothing about patients.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn.functional import cross_entropy

PREVIOUS, AREAS, POINTS, SCRIBBLES = 0, (1, 2), (3, 4), (5, 6)
Array = NDArray[np.float32]
Mask = NDArray[np.bool_]

INFERENCE = {
    "inference_class": "nnInteractiveInferenceSession",
    "inference_class_min_version": "2.0.0",
    "point_radius": 4,
    "preferred_scribble_thickness": [2, 2, 2],
    "interaction_decay": 0.98,
    "pad_mode_image": "constant",
    "supported_interactions": {
        "points": True,
        "bbox2d": True,
        "bbox3d": False,
        "scribble": True,
        "lasso": True,
    },
    "supports_initial_label": True,
    "supports_zero_shot_label_refinement": True,
    "interaction_channels": 6,
    "channel_mapping": {
        "prev_seg": PREVIOUS,
        "bbox2d": AREAS,
        "lasso": AREAS,
        "points": POINTS,
        "scribble": SCRIBBLES,
    },
}
NETWORK = {
    "n_stages": 4,
    "features_per_stage": [8, 16, 24, 32],
    "conv_op": "torch.nn.modules.conv.Conv3d",
    "kernel_sizes": [[3, 3, 3]] * 4,
    "strides": [[1, 1, 1], *[[2, 2, 2]] * 3],
    "n_conv_per_stage": [1, 2, 2, 2],
    "n_conv_per_stage_decoder": [1, 1, 1],
    "conv_bias": True,
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "dropout_op": None,
    "dropout_op_kwargs": None,
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}
PLANS = {
    "dataset_name": "Dataset999_Tiny",
    "plans_name": "tinyPlans",
    "configurations": {
        "3d_fullres": {
            "patch_size": [64, 64, 64],  # nnInteractive refines with a margin of 24 on each side.
            "architecture": {
                "network_class_name": "dynamic_network_architectures.architectures.unet"
                ".PlainConvUNet",
                "arch_kwargs": NETWORK,
                "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
            },
        }
    },
}
DATASET = {"channel_names": {"0": "image"}, "labels": {"background": 0, "target": 1}}
LICENCE = "CC0 1.0\nTrained by scripts/tiny_nninteractive.py on synthetic ellipsoids.\n"


class Scene:
    """A patch with a few ellipsoids, one of them wanted, and the prompts on it."""

    def __init__(self, rng: np.random.Generator, side: int, padded: float) -> None:
        self.rng = rng
        self.side = side
        self.image: Array = np.zeros((side,) * 3, np.float32)
        self.labels = np.zeros((side,) * 3, np.uint8)
        self.channels: Array = np.zeros((7, side, side, side), np.float32)
        self._draw()
        self._shade()
        if padded and rng.random() < padded:
            self._pad()
        self._prompt()

    def _draw(self) -> None:
        grid = np.stack(np.meshgrid(*[np.arange(self.side)] * 3, indexing="ij")).astype(np.float32)
        for label in range(self.rng.integers(1, 7), 0, -1):  # The wanted one is last: whole.
            largest = 5 * self.side / 8 if label == 1 and self.rng.random() < 0.4 else 13
            radii = self.rng.uniform(3, largest, 3)
            centre = self.rng.uniform(4, self.side - 4, 3)
            turn = np.linalg.qr(self.rng.normal(size=(3, 3)))[0]
            local = np.tensordot(turn, grid - centre[:, None, None, None], 1)
            inside = (local**2 / radii[:, None, None, None] ** 2).sum(0) <= 1
            self.labels[inside] = label
            self.image[inside] = self.rng.choice([-1, 1]) * self.rng.uniform(0.7, 2)
        self.target: Mask = self.labels == 1

    def _shade(self) -> None:
        """Add air, blur, noise, and the offset and scale that a whole image's statistics give."""
        if self.rng.random() < 0.3:
            axis, depth = self.rng.integers(3), self.rng.integers(2, 12)
            air = np.moveaxis(self.labels == 0, axis, 0)
            np.moveaxis(self.image, axis, 0)[:depth][air[:depth]] = -6
        self.image = ndimage.gaussian_filter(self.image, self.rng.uniform(0, 0.7))
        noise = self.rng.normal(size=self.image.shape).astype(np.float32)
        self.image += noise * np.float32(self.rng.uniform(0.01, 0.3))
        self.image *= np.float32(np.exp(self.rng.uniform(np.log(0.15), np.log(6))))
        self.image += np.float32(self.rng.uniform(-1.5, 1.5))

    def _pad(self) -> None:
        """Let the image end within the patch, as it does near its edges."""
        for axis in range(3):
            low, high = self.rng.integers(0, self.side // 4, 2)
            for array in (self.image, self.target):
                sides = np.moveaxis(array, axis, 0)
                sides[:low] = 0
                sides[self.side - high :] = 0

    def _prompt(self) -> None:
        if not self.target.any():
            return
        if self.rng.random() < 0.5:
            self._add(self.target)
            return
        previous = self._wrong_mask()
        self.channels[PREVIOUS] = previous
        if self.rng.random() < 0.7:
            self._add(self.target, intensity=self.rng.uniform(0.6, 1))
        if self.rng.random() < 0.2:  # A patch of the refinement may hold no new prompt.
            return
        missing, extra = self.target & ~previous, previous & ~self.target
        if extra.sum() > missing.sum() and self.rng.random() < 0.7:
            self._add(extra, sign=1)
        else:
            self._add(missing if missing.any() and self.rng.random() < 0.7 else self.target)

    def _wrong_mask(self) -> Mask:
        kind = self.rng.integers(6)
        if kind == 0:  # A neighbour, or a blob beside it, was taken for a part of it.
            blob = ndimage.binary_dilation(self._somewhere(~self.target), iterations=5)
            return np.asarray(self.target | (self.labels == 2) | blob)
        if kind == 1:  # A part is missing.
            axis, cut = self.rng.integers(3), self.rng.integers(8, self.side - 8)
            kept = self.target.copy()
            np.moveaxis(kept, axis, 0)[cut:] = False
            return kept
        if kind == 2:  # Coarse, as it comes back from a zoomed prediction.
            factor = self.rng.uniform(0.25, 0.6)
            small = ndimage.zoom(self.target.astype(np.float32), factor, order=1)
            return np.asarray(ndimage.zoom(small, self.side / np.array(small.shape), order=1) > 0.5)
        if kind == 3:
            return np.asarray(ndimage.binary_erosion(self.target, iterations=2))
        if kind == 4:
            turns = int(self.rng.integers(1, 4))
            return np.asarray(ndimage.binary_dilation(self.target, iterations=turns))
        return self.target

    def _add(self, region: Mask, sign: int = 0, intensity: float = 1) -> None:
        """Add a prompt on a region: a positive one (sign 0), or a negative one (1)."""
        if not region.any():
            return
        kind = self.rng.choice(["point", "area", "scribble"], p=[0.6, 0.25, 0.15])
        if kind == "point":
            self._point(region, POINTS[sign], intensity)
            return
        axis = int(self.rng.integers(3))
        index = int(self._voxel(region)[axis])
        channel = (AREAS if kind == "area" else SCRIBBLES)[sign]
        plane = np.moveaxis(self.channels[channel], axis, 0)[index]
        shape = np.moveaxis(region if sign else self.target, axis, 0)[index]
        drawn = self._area(shape) if kind == "area" else self._scribble(shape)
        plane[drawn] = intensity

    def _area(self, shape: Mask) -> Mask:
        if self.rng.random() < 0.5:
            return np.asarray(ndimage.binary_dilation(shape, iterations=int(self.rng.integers(3))))
        (y, x), slack = np.nonzero(shape), self.rng.integers(0, 3, 4)
        box = np.zeros_like(shape)
        box[
            max(0, y.min() - slack[0]) : y.max() + 1 + slack[1],
            max(0, x.min() - slack[2]) : x.max() + 1 + slack[3],
        ] = True
        return box

    def _scribble(self, shape: Mask) -> Mask:
        core = ndimage.binary_erosion(shape, iterations=2)
        core = core if core.any() else shape
        (y, x), line = np.nonzero(core), np.zeros_like(shape)
        a, b = self.rng.integers(len(y), size=2)
        for t in np.linspace(0, 1, self.side):
            line[round(y[a] + t * (y[b] - y[a])), round(x[a] + t * (x[b] - x[a]))] = True
        return np.asarray(ndimage.binary_dilation(line) & shape)

    def _point(self, region: Mask, channel: int, intensity: float) -> None:
        from nnInteractive.interaction.point import PointInteraction_stub

        stub = PointInteraction_stub(int(self.rng.choice([4, 4, 4, 2])), True)
        stub.place_point(
            tuple(int(i) for i in self._voxel(region)),
            torch.from_numpy(self.channels[channel]),
            intensity_scale=intensity,
        )

    def _voxel(self, region: Mask) -> NDArray[np.int64]:
        """Choose a voxel: mostly well inside, sometimes anywhere."""
        core = ndimage.binary_erosion(region, iterations=int(self.rng.integers(0, 4)))
        voxels = np.argwhere(core if core.any() else region)
        return np.asarray(voxels[self.rng.integers(len(voxels))])

    def _somewhere(self, region: Mask) -> Mask:
        seed = np.zeros_like(region)
        if region.any():
            seed[tuple(self._voxel(region))] = True
        return seed


def network() -> torch.nn.Module:
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    architecture: dict[str, Any] = PLANS["configurations"]["3d_fullres"]["architecture"]  # type: ignore[index]
    net: torch.nn.Module = get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        8,
        2,
        deep_supervision=False,
    )
    return net


def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return cross-entropy plus soft Dice of the foreground."""
    share = output.softmax(1)[:, 1]
    axes = (1, 2, 3)
    overlap = 2 * (share * target).sum(axes) + 1
    dice = overlap / (share.sum(axes) + target.sum(axes) + 1)
    return cross_entropy(output, target) + (1 - dice).mean()


def train(chosen: argparse.Namespace) -> torch.nn.Module:
    torch.manual_seed(chosen.seed)
    torch.use_deterministic_algorithms(True)
    rng = np.random.default_rng(chosen.seed)
    net, steps = network().train(), chosen.steps
    if chosen.after:
        before = torch.load(chosen.after / "fold_0" / "checkpoint_final.pth", weights_only=True)
        net.load_state_dict(before["network_weights"])
    optimiser = torch.optim.AdamW(net.parameters(), chosen.rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimiser, steps, 0.9)
    mean = 1.0
    for step in range(steps):
        scenes = [Scene(rng, chosen.side, chosen.padded) for _ in range(chosen.batch)]
        inputs = np.stack([np.concatenate([s.image[None], s.channels]) for s in scenes])
        target = torch.from_numpy(np.stack([s.target for s in scenes]).astype(np.int64))
        optimiser.zero_grad()
        value = loss(net(torch.from_numpy(inputs)), target)
        value.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        mean = 0.98 * mean + 0.02 * value.item()
        if step % 50 == 49:
            print(f"step {step + 1}: loss {mean:.3f}", flush=True)
    return net.eval()


def halves(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the weights in half precision; those that are the same tensor stay one."""
    made: dict[int, torch.Tensor] = {}
    state = net.state_dict()
    return {k: made.setdefault(v.data_ptr(), v.half()) for k, v in state.items()}


def save(net: torch.nn.Module, folder: Path) -> None:
    (folder / "fold_0").mkdir(parents=True, exist_ok=True)
    checkpoint = {
        "network_weights": halves(net),
        "trainer_name": "nnInteractiveTrainer_stub",
        "init_args": {"configuration": "3d_fullres"},
    }
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")
    for name, content in [
        ("inference_info.json", INFERENCE),
        ("plans.json", PLANS),
        ("dataset.json", DATASET),
    ]:
        (folder / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (folder / "LICENSE").write_text(LICENCE, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--side", type=int, default=48)
    parser.add_argument("--padded", type=float, default=0.0, help="share of patches at an edge")
    parser.add_argument("--rate", type=float, default=4e-3)
    parser.add_argument("--after", type=Path, help="go on from this model")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    save(train(chosen), chosen.folder)


if __name__ == "__main__":
    main()
