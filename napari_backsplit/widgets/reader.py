"""Opens medical images in napari: NIfTI, NRRD, MetaImage, DICOM.

Layers show the radiological convention and carry the grid and the path of their file, so that a
project can be started from them. An error is the sentence of a BackSplitError, which napari shows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path

import numpy as np
from napari.utils.notifications import show_warning
from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from napari_backsplit.backend.dicom import list_series, read_series
from napari_backsplit.backend.errors import BackSplitError, InputError
from napari_backsplit.backend.volume import READABLE_SUFFIXES, Volume, read_volume
from napari_backsplit.widgets._layers import LayerData, image_layer, label_map_layer
from napari_backsplit.widgets._orientation import orient_current

Paths = str | PathLike[str] | Sequence[str | PathLike[str]]

SLICE_SUFFIXES = (".dcm", ".ima")
_LABELS = re.compile(r"(?:^|[^a-z])(?:seg|label|mask|lesion)")
_MOST_LABELS = 255
_FILES_TO_TRY = 20


def get_reader(path: Paths) -> Callable[[Paths], list[LayerData]] | None:
    """Return the function that reads one or several paths, each a file or a DICOM folder.

    None where one of them is nothing for this reader. The voxels are not looked at yet.
    """
    return read_layers if all(map(_is_readable, _listed(path))) else None


def read_layers(path: Paths) -> list[LayerData]:
    """Read one or several paths as layers: one for each file and each DICOM series.

    A file of whole numbers from 0 to 255 whose name says seg, label, mask or lesion opens as
    labels, anything else as an image. A slice opens the series that it belongs to, once.

    Raises
    ------
    BackSplitError
        A file cannot be read, or no series of a folder; of other series it is shown as a warning.
    """
    paths = _listed(path)
    layers = [_file_layer(p) for p in paths if not (p.is_dir() or _is_slice(p))]
    for folder, uids in _series_in(paths).items():
        layers += _folder_layers(folder, uids)
    orient_current()
    return layers


def _listed(path: Paths) -> list[Path]:
    each = [path] if isinstance(path, str | PathLike) else path
    return [Path(p).resolve() for p in each]


def _is_slice(path: Path) -> bool:
    return path.is_file() and path.name.lower().endswith(SLICE_SUFFIXES)


def _is_readable(path: Path) -> bool:
    if path.is_dir():
        return _holds_dicom(path)
    return path.name.lower().endswith((*READABLE_SUFFIXES, *SLICE_SUFFIXES))


def _holds_dicom(folder: Path) -> bool:
    """Return whether one of the first files of a folder is DICOM: other folders are not ours."""
    files = sorted(f for f in folder.iterdir() if f.is_file() and not f.name.startswith("."))
    return any(_is_slice(file) or _has_preamble(file) for file in files[:_FILES_TO_TRY])


def _has_preamble(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def _file_layer(path: Path) -> LayerData:
    volume = read_volume(path).canonical()
    name = _stem(path)
    if not _is_label_map(name, volume):
        return image_layer(volume, name, path=path)
    ids = volume.array.astype(np.uint8)
    return label_map_layer(ids, volume.geometry, name, path=path, notes=volume.notes)


def _stem(path: Path) -> str:
    name = path.name
    suffix = next((s for s in READABLE_SUFFIXES[::-1] if name.lower().endswith(s)), "")
    return name[: len(name) - len(suffix)] or name


def _is_label_map(name: str, volume: Volume) -> bool:
    array = volume.array
    if not _LABELS.search(name.lower()) or array.min() < 0 or array.max() > _MOST_LABELS:
        return False
    return array.dtype.kind in "bui" or bool((array == np.rint(array)).all())


def _series_in(paths: Sequence[Path]) -> dict[Path, set[str]]:
    """Return the DICOM folders to read, and of each the UIDs asked for; none means all."""
    asked: dict[Path, set[str]] = {path: set() for path in paths if path.is_dir()}
    for path in filter(_is_slice, paths):
        if path.parent not in paths:
            asked.setdefault(path.parent, set()).add(_series_uid(path))
    return asked


def _folder_layers(folder: Path, uids: set[str]) -> list[LayerData]:
    """Read the series of a folder that are volumes; the others are shown as warnings."""
    series = list_series(folder)
    layers, problems = [], []
    for uid in sorted(uids) or series:
        name = folder.name if len(series) == 1 else f"{folder.name}: {series.get(uid, uid)}"
        try:
            volume = read_series(folder, series_uid=uid)
        except BackSplitError as error:
            problems.append(error)
            continue
        modality = series[uid].partition(",")[0]
        layers.append(image_layer(volume, name, modality, path=folder, series_uid=uid))
    _tell(problems, fatal=not layers)
    return layers


def _tell(problems: list[BackSplitError], fatal: bool) -> None:
    if problems and fatal:
        raise problems[0]
    for problem in problems:
        show_warning(f"A series of the folder was left out. {problem}")


def _series_uid(slice_file: Path) -> str:
    try:
        header = dcmread(slice_file, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"])
        return str(header["SeriesInstanceUID"].value)
    except (InvalidDicomError, OSError, KeyError):
        raise InputError(
            f"{slice_file.name} is no readable DICOM file.", "Export the series again."
        ) from None
