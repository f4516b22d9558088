"""What soft labels tell a network: the share of each voxel that belongs to each class (SoftSeg).

Targets come from their soft masks or, where there is none, from their hard ones, which resampling
alone makes soft (Gros et al. 2021, Sec. 2.1). What they leave of a voxel goes to the support that
is there, also below the lesion; the rest is background.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.files import sha256
from napari_backsplit.backend.fusion.fuse import PartialCodes
from napari_backsplit.backend.geometry import Geometry
from napari_backsplit.backend.project import ProjectReader
from napari_backsplit.backend.training.arms import ArmScheme, arm_support_map
from napari_backsplit.backend.volume import Volume, write_volume

Shares = NDArray[np.float32]
Mask = NDArray[np.bool_]

ENDING = "_soft"
"""What follows the stem of a case in the name of its array of shares."""

SUFFIX = "-soft"
"""How the names of datasets with shares end."""

HALF = np.float16(0.5)
ABOVE = np.nextafter(HALF, np.float16(1))
BELOW = np.nextafter(HALF, np.float16(0))
TIE = 2e-4
"""How near to one half a hard mask's share may be for nnU-Net's label to decide its side."""


# --- the shares of a case, on its image's grid ----------------------------------------------------


def refuse_label_sets(codes: PartialCodes) -> None:
    """Refuse an arm in which background may be a support.

    Raises
    ------
    InputError
        It names the supports that some case lacks.
    """
    if codes.missing_sets:
        lacking = sorted({name for missing in codes.missing_sets for name in missing})
        raise InputError(
            f"Some cases lack {', '.join(lacking)}, so their background is a label set, and soft "
            "labels do not combine with label sets: the share of a voxel that is one of several "
            "classes is not defined.",
            "Complete or accept the masks, leave the support out, or tell a missing support as "
            "background (recipe plain-partial).",
        )


def share_channels(project: ProjectReader, scheme: ArmScheme, case: str) -> Iterator[Shares]:
    """Give the shares of classes 1..K-1 of a case, one after another.

    Yields
    ------
    ndarray of float32
        In [0, 1], (z, y, x), on the image's grid. All of them sum to at most 1: the first target
        takes first. A support has what the targets leave of its voxels.
    """
    shape = project.geometry(case).shape
    left: Shares = np.ones(shape, np.float32)
    for target in scheme.targets:
        share = np.minimum(_target(project, case, target), left)
        left -= share
        yield share
    below = arm_support_map(project, scheme, case)
    for name in scheme.classes.supports:
        yield np.where(below == scheme.classes.ids[name], left, np.float32(0))


def _target(project: ProjectReader, case: str, target: str) -> Shares:
    soft = project.soft_mask(case, target)
    return project.mask(case, target).astype(np.float32) if soft is None else soft


def soft_sources(
    project: ProjectReader, scheme: ArmScheme, cases: Sequence[str]
) -> dict[str, dict[str, str]]:
    """Return case -> target -> where its shares come from.

    That is "float mask", "binary mask" or "mean of N raters" of a soft mask, "resampled" where
    there is none.
    """
    return {
        case: {target: _source(project, case, target) for target in scheme.targets}
        for case in cases
    }


def _source(project: ProjectReader, case: str, target: str) -> str:
    record = project.soft_provenance(case, target)
    return "resampled" if record is None else str((record.model_extra or {}).get("soft", "file"))


def with_soft_masks(
    project: ProjectReader, scheme: ArmScheme, digests: Mapping[str, str]
) -> dict[str, str]:
    """Return the hashes of what cases are made from with their soft masks among it."""
    return {case: _digest(project, scheme, case, digest) for case, digest in digests.items()}


def _digest(project: ProjectReader, scheme: ArmScheme, case: str, digest: str) -> str:
    paths = {target: project.soft_path(case, target) for target in scheme.targets}
    soft = {target: sha256(path) if path else None for target, path in paths.items()}
    return hashlib.sha256(json.dumps([digest, soft], sort_keys=True).encode()).hexdigest()


def as_read(
    channels: Iterator[Shares], geometry: Geometry, reader: Any, folder: Path
) -> Iterator[Shares]:
    """Give shares as nnU-Net's reader gives an image: a baseline's may turn the axes.

    Parameters
    ----------
    channels : iterator of ndarray
        (z, y, x) on `geometry`.
    geometry : Geometry
    reader : BaseReaderWriter
        Of the plans.
    folder : Path
        Each channel is in a file below it for a moment.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".soft-", dir=folder) as place:
        file = Path(place) / "share.nii"
        for channel in channels:
            write_volume(Volume(channel, geometry), file)
            yield reader.read_images([str(file)])[0][0].astype(np.float32, copy=False)


# --- the shares on the network's grid -------------------------------------------------------------


def linear_of(resampling: partial[Any]) -> Callable[..., Any]:
    """Return nnU-Net's resampling of label maps without its last step, the choice of a label.

    For each label it interpolates the mask of that label, linearly, and takes the label with the
    most; along an axis that it treats apart ("separate z") it takes the nearest slice, and so do
    we. What it interpolates is returned.
    """
    options = {**resampling.keywords, "is_seg": False}
    if options.get("order", 1) != 1:  # of the default resampling; torch's has a mode
        options["order"] = 1
    return partial(resampling.func, **options)


def stored(share: Shares, label: Mask | None = None) -> NDArray[np.float16]:
    """Return shares as they are stored: float16, less than 5e-4 from what they were.

    A share is on the same side of one half as before. float16 has steps of 4.9e-4 above it and of
    half that below.

    Parameters
    ----------
    share : ndarray
        In [0, 1].
    label : ndarray of bool, optional
        What nnU-Net makes of the hard mask behind it: where a share is one half, nnU-Net takes the
        nearest voxel's label, and so does `stored > 0.5`.
    """
    above, below = share > HALF, share < HALF
    if label is not None:
        tie = np.abs(share - np.float32(HALF)) < TIE
        above, below = np.where(tie, label, above), np.where(tie, ~label, below)
    kept = np.clip(share, 0, 1).astype(np.float16)
    kept[above & (kept <= HALF)] = ABOVE
    kept[below & (kept >= HALF)] = BELOW
    return kept
