"""nnU-Net's fingerprint, planner and preprocessor, without its process pools (worker only).

Plans and image arrays are made once per plan set; an arm's label map is then brought to the same
grid with the same crop and the same resampling, so all arms share one image array.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import blosc2
import cc3d
import numpy as np
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import (
    DatasetFingerprintExtractor,
)
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
    ExperimentPlanner,
)
from nnunetv2.experiment_planning.experiment_planners.residual_unets import (
    residual_encoder_unet_planners as residual,
)
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from numpy.typing import NDArray

from napari_backsplit.backend.errors import InputError, UntrustedModelError
from napari_backsplit.backend.files import atomic_path, write_json
from napari_backsplit.backend.project.soft import is_hard
from napari_backsplit.backend.training import soft_labels
from napari_backsplit.backend.training.architectures import require_patch
from napari_backsplit.backend.training.spec import PLANS_NAME, PlanSpec

PLANNERS = {
    "default": ExperimentPlanner,
    "resenc-m": residual.nnUNetPlannerResEncM,
    "resenc-l": residual.nnUNetPlannerResEncL,
}
FOREGROUND_VOXELS = int(10e7)
"""How many foreground voxels of a dataset nnU-Net samples for its intensity statistics."""

PLAIN = {("numpy", name) for name in ("_reconstruct", "scalar", "ndarray", "dtype")}
"""What a pickle of properties may name: the parts of NumPy arrays."""

OUTSIDE = -1
"""nnU-Net's label for voxels outside the image's non-zero region, where a mask norm needs it."""

Check = Callable[[int, int], None]
"""Called after each case with (done, total); may raise to stop."""


def set_folders(nnunet: Path) -> None:
    """Point nnU-Net at a project's folders, in this process only."""
    for kind in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{kind}"] = str(nnunet / kind)


def fingerprint(
    cases: Mapping[str, tuple[Sequence[Path], Sequence[Path]]], workers: int, check: Check
) -> dict[str, Any]:
    """Return nnU-Net's dataset fingerprint, as its DatasetFingerprintExtractor measures it.

    Parameters
    ----------
    cases : mapping
        Case id -> (image files, mask files); intensities are measured where any mask is set.
    workers : int
        Processes; with one, all is done in this process.
    check : callable

    Raises
    ------
    InputError
        No mask has a voxel: there is nothing to measure intensities on.
    """
    samples = FOREGROUND_VOXELS // len(cases)
    jobs = [(images, masks, samples) for images, masks in cases.values()]
    shapes, spacings, intensities, sizes = zip(*_each(_analyse, jobs, workers, check), strict=True)
    channels = [np.concatenate(channel) for channel in zip(*intensities, strict=True)]
    if any(not len(channel) for channel in channels):
        raise InputError(
            "No training case has a target voxel.", "Add cases with a lesion to train on."
        )
    return {
        "spacings": spacings,
        "shapes_after_crop": shapes,
        "foreground_intensity_properties_per_channel": {
            str(index): _intensity(values) for index, values in enumerate(channels)
        },
        "median_relative_size_after_cropping": float(np.median(sizes)),
    }


def _analyse(
    image_files: Sequence[Path], mask_files: Sequence[Path], samples: int
) -> tuple[list[int], list[float], list[Any], float]:
    reader = SimpleITKIO()
    images, properties = reader.read_images([str(path) for path in image_files])
    masks = [reader.read_seg(str(path))[0] > 0 for path in mask_files]
    foreground = np.logical_or.reduce(masks).astype(np.int8)
    cropped, labels, _ = crop_to_nonzero(images, foreground)
    values, _ = DatasetFingerprintExtractor.collect_foreground_intensities(
        labels, cropped, num_samples=samples
    )
    shape, spacing = list(cropped.shape[1:]), [float(mm) for mm in properties["spacing"]]
    return shape, spacing, values, cropped.size / images.size


def _intensity(values: NDArray[Any]) -> dict[str, float]:
    low, median, high = np.percentile(values, (0.5, 50.0, 99.5))
    figures = {
        "mean": values.mean(),
        "median": median,
        "std": values.std(),
        "min": values.min(),
        "max": values.max(),
        "percentile_99_5": high,
        "percentile_00_5": low,
    }
    return {name: float(value) for name, value in figures.items()}


def plan(dataset: str, spec: PlanSpec) -> dict[str, Any]:
    """Run nnU-Net's planner on a fingerprinted dataset and apply the spec's overrides.

    `set_folders` comes first; preprocessed/<dataset>/dataset_fingerprint.json must be there.

    Returns
    -------
    dict
        nnU-Net's plans with the one configuration of the spec, named `PLANS_NAME`.
    """
    options: dict[str, Any] = {"plans_name": PLANS_NAME}
    if spec.gpu_memory_gb is not None:
        options["gpu_memory_target_in_gb"] = spec.gpu_memory_gb
    if spec.spacing_mm is not None:
        options["overwrite_target_spacing"] = list(spec.spacing_mm)
    os.environ["nnUNet_n_proc_DA"] = "1"  # the planner asks torch for as many threads, so not 0
    plans: dict[str, Any] = PLANNERS[spec.preset](dataset, **options).plan_experiment()
    if spec.configuration not in plans["configurations"]:
        raise InputError(
            f"nnU-Net plans no {spec.configuration} for these images.",
            f"Choose one of {', '.join(sorted(plans['configurations']))}.",
        )
    configuration = plans["configurations"][spec.configuration]
    for key in ("previous_stage", "next_stage"):
        configuration.pop(key, None)
    _override(configuration, spec)
    plans["configurations"] = {spec.configuration: configuration}
    return plans


def _override(configuration: dict[str, Any], spec: PlanSpec) -> None:
    if spec.patch_size is not None:
        configuration["patch_size"] = list(spec.patch_size)
    if spec.batch_size is not None:
        configuration["batch_size"] = spec.batch_size
    if spec.batch_dice is not None:
        configuration["batch_dice"] = spec.batch_dice
    if spec.features is not None:
        configuration["architecture"] = _small_unet(configuration, spec.features)
    check_patch(configuration)


def check_patch(configuration: Mapping[str, Any]) -> None:
    """Refuse a patch that the network's strides do not divide.

    Raises
    ------
    InputError
        The patch has another number of axes, or is no multiple of the strides.
    """
    require_patch(configuration)


def _small_unet(configuration: Mapping[str, Any], features: Sequence[int]) -> dict[str, Any]:
    architecture = dict(configuration["architecture"])
    keep = ("conv_op", "conv_bias", "norm_op", "norm_op_kwargs", "dropout_op", "dropout_op_kwargs")
    planned = architecture["arch_kwargs"]
    dimensions, stages = len(configuration["patch_size"]), len(features)
    architecture["network_class_name"] = (
        "dynamic_network_architectures.architectures.unet.PlainConvUNet"
    )
    architecture["arch_kwargs"] = {
        **{name: planned[name] for name in (*keep, "nonlin", "nonlin_kwargs")},
        "n_stages": stages,
        "features_per_stage": list(features),
        "kernel_sizes": [[3] * dimensions] * stages,
        "strides": [[1] * dimensions] + [[2] * dimensions] * (stages - 1),
        "n_conv_per_stage": [2] * stages,
        "n_conv_per_stage_decoder": [2] * (stages - 1),
    }
    return architecture


class Preprocessing:
    """Brings cases of one plan set to the network's grid.

    Parameters
    ----------
    plans : dict
        nnU-Net's plans; names in them must have passed the trust check.
    configuration : str
    dataset_json : dict
        Of the binary arm: only target voxels are kept for forced sampling.
    """

    def __init__(
        self, plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any]
    ) -> None:
        self.plans = PlansManager(plans)
        self.configuration: ConfigurationManager = self.plans.get_configuration(configuration)
        self.dataset_json = dataset_json
        self.targets = [
            dataset_json["labels"][name] for name in dataset_json["backsplit"]["targets"]
        ]

    def save_case(self, stem: Path, images: Sequence[Path], label: Path) -> None:
        """Write <stem>.b2nd, <stem>_seg.b2nd and <stem>.pkl of a case, as nnU-Net does."""
        files = [str(path) for path in images]
        DefaultPreprocessor(verbose=False).run_case_save(
            str(stem), files, str(label), self.plans, self.configuration, self.dataset_json
        )

    def save_labels(self, stem: Path, label_map: NDArray[Any], base: Path, unknown: int) -> int:
        """Write another label map for a case whose image array and crop are known.

        Parameters
        ----------
        stem : Path
            Where <stem>_seg.b2nd and <stem>.pkl go.
        label_map : ndarray
            (z, y, x) integer codes on the image's grid.
        base : Path
            Stem of the binary arm's arrays of this case.
        unknown : int
            Code of an unlabelled voxel: 0, or the case's set code.

        Returns
        -------
        int
            Number of 26-connected target components that have no voxel on the network's grid.
        """
        properties = read_properties(base)
        only_targets = np.where(np.isin(label_map, self.targets), label_map, 0)
        targets = self.resample(only_targets, properties)
        codes = self.resample(label_map, properties)
        codes[np.isin(codes, [0, *self.targets])] = unknown
        codes = np.where(targets > 0, targets, codes)
        if any(self.configuration.use_mask_for_norm):
            outside = _read_array(base, "_seg") < 0
            codes[outside & (codes == unknown)] = OUTSIDE
        properties["class_locations"] = DefaultPreprocessor._sample_foreground_locations(
            targets, self.targets
        )
        self._write_labels(stem, codes.astype(np.int16), properties)
        return vanished(only_targets, targets[0], properties, self.plans.transpose_forward)

    def _write_labels(
        self, stem: Path, codes: NDArray[np.int16], properties: dict[str, Any]
    ) -> None:
        patch = tuple(self.configuration.patch_size)
        blocks, chunks = comp_blosc2_params(codes.shape, patch, codes.itemsize)
        nnUNetDatasetBlosc2.save_seg(codes, f"{stem}_seg", chunks, blocks)
        with atomic_path(stem.with_name(f"{stem.name}.pkl")) as temporary:
            temporary.write_bytes(pickle.dumps(properties))

    def resample(self, label_map: NDArray[Any], properties: Mapping[str, Any]) -> NDArray[Any]:
        """Return a label map (z, y, x) on the network's grid, (1, ...), as nnU-Net resamples it."""
        how = self.configuration.resampling_fn_seg
        return self._brought(label_map.astype(np.int16), properties, how)

    def save_soft(self, stem: Path, soft: Iterable[NDArray[np.float32]], base: Path) -> None:
        """Write the shares of classes as <stem>_soft.b2nd, on the network's grid.

        Parameters
        ----------
        stem : Path
        soft : iterable of ndarray
            Shares of classes 1..K-1, each (z, y, x), on the image's grid; or all in one array.
        base : Path
            Stem of the binary arm's arrays of this case, whose crop and grid they get.

        Notes
        -----
        The file has (K-1, z, y, x), float16, see `soft_labels.stored`. They are resampled as
        nnU-Net resamples labels, up to its choice of one: a hard mask's share is above 0.5 exactly
        where nnU-Net's resampled mask is. That does not hold for plans that resample labels with
        another order than 1 or interpolate along a separate z, nor, within 1e-3 of one half, for
        nnU-Net's torch resampling, which works in half precision. Where three classes meet,
        nnU-Net's winner may have less than half.
        """
        properties = read_properties(base)
        stack = np.stack([self._share(channel, properties) for channel in soft])
        patch = tuple(self.configuration.patch_size)
        blocks, chunks = comp_blosc2_params(stack.shape, patch, stack.itemsize)
        with atomic_path(stem.with_name(f"{stem.name}{soft_labels.ENDING}.b2nd")) as temporary:
            blosc2.asarray(stack, urlpath=str(temporary), chunks=chunks, blocks=blocks)

    def _share(
        self, share: NDArray[np.float32], properties: Mapping[str, Any]
    ) -> NDArray[np.float16]:
        how = soft_labels.linear_of(self.configuration.resampling_fn_seg)
        linear = self._brought(share.astype(np.float32, copy=False), properties, how)[0]
        hard = is_hard(share)
        label = self.resample(share > 0, properties)[0] > 0 if hard else None
        return soft_labels.stored(linear, label)

    def _brought(
        self, array: NDArray[Any], properties: Mapping[str, Any], resampling: Callable[..., Any]
    ) -> NDArray[Any]:
        """Return an array (z, y, x) cropped and resampled to the network's grid, (1, ...)."""
        order = self.plans.transpose_forward
        box = tuple(slice(*edges) for edges in properties["bbox_used_for_cropping"])
        cropped = array.transpose(order)[box][None]
        spacing = [properties["spacing"][axis] for axis in order]
        wanted = list(self.configuration.spacing)
        wanted = [spacing[0], *wanted] if len(wanted) < len(spacing) else wanted
        shape = compute_new_shape(cropped.shape[1:], spacing, wanted)
        resampled: NDArray[Any] = resampling(cropped, shape, spacing, wanted)
        return resampled


class _PlainUnpickler(pickle.Unpickler):
    """Reads arrays and plain values, and no code: a project may come from somebody else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module.partition(".")[0], name) not in PLAIN:
            raise UntrustedModelError(
                f"A preprocessed case asks for {module}.{name}, so it was not read.",
                "Delete the project's nnunet folder and plan again.",
            )
        return super().find_class(module, name)


def read_properties(stem: Path) -> dict[str, Any]:
    """Return the properties that nnU-Net wrote beside a preprocessed case.

    Raises
    ------
    UntrustedModelError
        Reading them would run code.
    """
    with stem.with_name(f"{stem.name}.pkl").open("rb") as file:
        properties: dict[str, Any] = _PlainUnpickler(file).load()
    return properties


def check_arrays(folder: Path) -> None:
    """Refuse a folder of preprocessed cases that would run code in nnU-Net's own loader."""
    for file in sorted(folder.glob("*.pkl")):
        read_properties(file.with_suffix(""))


def _read_array(stem: Path, kind: str) -> NDArray[Any]:
    array: NDArray[Any] = blosc2.open(urlpath=f"{stem}{kind}.b2nd", mode="r")[:]
    return array


def vanished(
    label_map: NDArray[Any],
    resampled: NDArray[Any],
    properties: Mapping[str, Any],
    transpose: Sequence[int],
) -> int:
    """Count 26-connected components of a map (z, y, x) that have no voxel left in `resampled`."""
    padded = np.pad(label_map.transpose(transpose), 1)  # cc3d 4.1.1 fails on thin arrays
    components, count = cc3d.connected_components(padded, connectivity=26, return_N=True)
    components = components[1:-1, 1:-1, 1:-1]
    low, high = np.array(properties["bbox_used_for_cropping"]).T
    centres = (np.argwhere(resampled > 0) + 0.5) * (high - low) / resampled.shape - 0.5 + low
    found: set[int] = set()
    for offset in product((-1, 0, 1), repeat=3):  # a voxel is interpolated from these
        neighbours = np.clip(np.rint(centres).astype(int) + offset, 0, high - 1)
        found.update(np.unique(components[tuple(neighbours.T)]).tolist())
    return int(count) - len(found - {0})


def preprocess(
    cases: Mapping[str, tuple[Sequence[Path], Path]],
    folder: Path,
    preprocessing: tuple[dict[str, Any], str, dict[str, Any]],
    workers: int,
    check: Check,
) -> None:
    """Write the image and label arrays of cases (id -> images, label file) into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [
        (*preprocessing, folder / case, images, label) for case, (images, label) in cases.items()
    ]
    _each(_preprocess_one, jobs, workers, check)


def _preprocess_one(
    plans: dict[str, Any],
    configuration: str,
    dataset_json: dict[str, Any],
    stem: Path,
    images: Sequence[Path],
    label: Path,
) -> None:
    Preprocessing(plans, configuration, dataset_json).save_case(stem, images, label)


def _each(
    function: Callable[..., Any], jobs: Sequence[tuple[Any, ...]], workers: int, check: Check
) -> list[Any]:
    if min(workers, len(jobs)) == 1:
        results = []
        for done, job in enumerate(jobs, 1):
            results.append(function(*job))
            check(done, len(jobs))
        return results
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        futures = [pool.submit(function, *job) for job in jobs]
        try:
            for done, _ in enumerate(as_completed(futures), 1):
                check(done, len(jobs))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        return [future.result() for future in futures]


def write_plan_files(
    folder: Path,
    plans: Mapping[str, Any],
    dataset_json: Mapping[str, Any],
    fingerprint_json: Mapping[str, Any],
    splits: Sequence[Mapping[str, Sequence[str]]],
) -> None:
    """Write the four files by which nnU-Net knows a preprocessed dataset."""
    write_json(folder / f"{PLANS_NAME}.json", dict(plans) | {"dataset_name": folder.name})
    write_json(folder / "dataset.json", dict(dataset_json))
    write_json(folder / "dataset_fingerprint.json", dict(fingerprint_json))
    write_json(folder / "splits_final.json", [dict(split) for split in splits])
