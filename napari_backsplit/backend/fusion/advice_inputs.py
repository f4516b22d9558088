"""What the advisor reads: the masks of a case one at a time, predictions, class probabilities."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.errors import GeometryError, InputError
from napari_backsplit.backend.files import read_json
from napari_backsplit.backend.fusion.cases import Admit, admitted, apply_recipes, known_of
from napari_backsplit.backend.fusion.fuse import Mask
from napari_backsplit.backend.geometry import Geometry
from napari_backsplit.backend.project import ProjectReader
from napari_backsplit.backend.project.recipes import Known, known_supports, owners, sources_of
from napari_backsplit.backend.volume import read_geometry, read_label_map, read_volume

Floats = NDArray[np.float32]

SEEN = ("training", "validation")
"""What a prediction's record calls a case that the model has learnt from, or was chosen by."""


@dataclass(frozen=True)
class CaseSources:
    """What is known of the structures of a case.

    Attributes
    ----------
    project : ProjectReader
    case : str
    entered : frozenset of str
        The structures whose masks enter.
    known : dict of str to {"whole", "part", "none"}
        Targets and supports, the recipes applied.
    """

    project: ProjectReader
    case: str
    entered: frozenset[str]
    known: dict[str, Known]

    @classmethod
    def of(cls, project: ProjectReader, case: str, admit: Admit) -> CaseSources:
        """Look at a case; no mask is read."""
        schema = project.schema
        names = [structure.name for structure in schema.structures]
        entered = [name for name in names if admitted(project, case, name, admit)]
        known = known_supports(known_of(schema, entered), schema.recipes)
        return cls(project, case, frozenset(entered), known)

    def targets(self) -> dict[str, Mask]:
        """Read the masks of the targets, (z, y, x)."""
        names = [name for name in self.project.schema.target_names if name in self.entered]
        return {name: self.project.mask(self.case, name) for name in names}

    def supports(self, targets: Mapping[str, Mask]) -> Iterator[tuple[str, Mask]]:
        """Yield every support of which something is known, each read when it is asked for.

        Parameters
        ----------
        targets : mapping of str to ndarray of bool
            The masks of the targets, which recipes may need.
        """
        for support in self.project.schema.fused_supports:
            if self.known[support.name] != "none":
                yield support.name, self._support(support.name, targets)

    def _support(self, name: str, targets: Mapping[str, Mask]) -> Mask:
        schema, masks = self.project.schema, dict(targets)
        for source in sources_of(name, schema.recipes):
            if source in self.entered and source not in masks:
                masks[source] = self.project.mask(self.case, source)
        return apply_recipes(schema, masks, self.project.geometry(self.case).spacing_mm)[name]

    def parts(self, name: str) -> tuple[str, ...]:
        """Return the structures that have become a support."""
        owner = owners(self.project.schema.support_names, self.project.schema.recipes)
        return tuple(source for source in owner if owner[source] == name)


# --- what a baseline predicts -------------------------------------------------------------------


class Predicted(Protocol):
    """What a model says of a case, read when it is asked for."""

    def mask(self) -> Mask:
        """Return where it sees a target, bool (z, y, x)."""

    def probability(self) -> Floats | None:
        """Return the probability of the targets, (z, y, x), where there is one."""


@dataclass(frozen=True)
class PredictedFiles:
    """A case in a folder of predictions: <case>.nii.gz with the ids of the targets, 1 to T.

    Attributes
    ----------
    folder : Path
    case : str
    geometry : Geometry
        The grid of the case's image.
    targets, supports : tuple of str
        Of the project; the supports' ids follow the targets'.
    """

    folder: Path
    case: str
    geometry: Geometry
    targets: tuple[str, ...]
    supports: tuple[str, ...] = ()

    def mask(self) -> Mask:
        """Return where it sees a target, bool (z, y, x).

        Raises
        ------
        GeometryError
            It is not on the grid of the image.
        InputError
            It holds ids that the project does not have.
        """
        path = self.folder / f"{self.case}.nii.gz"
        _require_grid(path, self.case, self.geometry)
        ids = read_label_map(path).array
        known = len(self.targets) + len(self.supports)
        if (highest := int(ids.max(initial=0))) > known:
            raise InputError(
                f"The prediction of {self.case} holds the id {highest}; the project's targets and "
                f"supports are 1 to {known}.",
                f"Keep the targets alone, with the ids 1 to {len(self.targets)}.",
            )
        found: Mask = (ids > 0) & (ids <= len(self.targets))
        return found

    def probability(self) -> Floats | None:
        """Return the probability of the targets, (z, y, x); None where a map is missing."""
        middles = [f"_{name}" for name in self.targets] if len(self.targets) > 1 else [""]
        paths = [self.folder / f"{self.case}{middle}_probability.nii.gz" for middle in middles]
        if not all(path.exists() for path in paths):
            return None
        for path in paths:
            _require_grid(path, self.case, self.geometry)
        total: Floats = np.sum([read_volume(path).array for path in paths], axis=0, dtype="f4")
        return np.clip(total, 0, 1)


def read_baseline(project: ProjectReader, folder: Path) -> dict[str, PredictedFiles]:
    """Return the predictions in a folder, by case; cases of other projects are left out.

    Raises
    ------
    InputError
        It holds none of this project's cases.
    """
    names = project.schema.target_names, tuple(s.name for s in project.schema.fused_supports)
    found = {
        case: PredictedFiles(folder, case, project.geometry(case), *names)
        for case in project.case_ids()
        if (folder / f"{case}.nii.gz").is_file()
    }
    if not found:
        raise InputError(
            "The folder holds no prediction of a case of this project.",
            "Name the files <case>.nii.gz, by the project's case ids.",
        )
    return found


def seen_cases(folder: Path) -> tuple[str, ...]:
    """Return the cases that a model has trained on or was chosen by, as its predictions tell."""
    record = folder / "predictions.json"
    cases = read_json(record).get("cases", {}) if record.is_file() else {}
    return tuple(case for case, said in cases.items() if (said or {}).get("role") in SEEN)


def _require_grid(path: Path, case: str, geometry: Geometry) -> None:
    difference = geometry.difference(read_geometry(path))
    if difference:
        raise GeometryError(
            f"The prediction of {case} is not on the grid of its image. {difference}",
            "Predict from the project's own images, or resample the prediction onto them.",
        )


# --- class probabilities of a run with supports -------------------------------------------------


class ClassMaps(Protocol):
    """The softmax of a run over all its classes, for one case."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the K classes, in their order."""

    def values(self, region: Mask) -> Floats:
        """Return the probabilities, (K, n), of the n voxels of a region, bool (z, y, x)."""


@dataclass(frozen=True, eq=False)
class ClassArray:
    """Class probabilities in memory: float (K, z, y, x), on the image's grid."""

    classes: tuple[str, ...]
    array: NDArray[np.floating[Any]]

    def values(self, region: Mask) -> Floats:
        """Return the probabilities, (K, n), of the voxels of a region.

        Raises
        ------
        GeometryError
            They have another shape.
        """
        _require_shape(self.array.shape, len(self.classes), region, "they")
        return self.array[:, region].astype(np.float32, copy=False)


@dataclass(frozen=True)
class ClassFile:
    """<case>.npz as nnU-Net's --save_probabilities writes it: "probabilities", (K, z, y, x).

    The axes are the image file's own with nnU-Net's SimpleITKIO and NibabelIO; what
    NibabelIOWithReorient has turned is refused by the label map that nnU-Net writes beside it.
    """

    folder: Path
    case: str
    classes: tuple[str, ...]

    def values(self, region: Mask) -> Floats:
        """Return the probabilities, (K, n), of the voxels of a region; a plane is read at a time.

        Raises
        ------
        GeometryError
            They have another shape than the image, or do not fit the label map beside them.
        InputError
            The file cannot be read.
        """
        values = self._read(region)
        beside = self.folder / f"{self.case}.nii.gz"
        if beside.is_file() and values.size:
            ids = read_label_map(beside).array
            same = ids.shape == region.shape and (values.argmax(axis=0) == ids[region]).mean()
            if not same >= 0.99:
                raise GeometryError(
                    f"The class probabilities of {self.case} do not fit the label map beside them: "
                    "nnU-Net's reader may have turned the axes.",
                    "Predict with a model whose reader is SimpleITKIO.",
                )
        return values

    def _read(self, region: Mask) -> Floats:
        try:
            with (
                zipfile.ZipFile(self.folder / f"{self.case}.npz") as archive,
                archive.open("probabilities.npy") as file,
            ):
                shape, dtype = _header(file)
                _require_shape(shape, len(self.classes), region, self.case)
                return np.stack([_read_class(file, dtype, region) for _ in self.classes])
        except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, EOFError) as error:
            raise InputError(
                f"The class probabilities of {self.case} cannot be read.",
                "Predict again with nnU-Net's --save_probabilities.",
            ) from error


def read_run(project: ProjectReader, folder: Path) -> dict[str, ClassFile]:
    """Return the class probabilities in a folder, by case.

    Raises
    ------
    InputError
        There are none of this project's cases, or nothing says which class is which.
    """
    cases = [case for case in project.case_ids() if (folder / f"{case}.npz").is_file()]
    if not cases:
        raise InputError(
            "There are no class probabilities (<case>.npz) of this project's cases.",
            "Export the run and predict with nnU-Net: nnUNetv2_predict_from_modelfolder "
            "... --save_probabilities; then give the folder that it wrote.",
        )
    classes = _classes(folder)
    return {case: ClassFile(folder, case, classes) for case in cases}


def _classes(folder: Path) -> tuple[str, ...]:
    try:
        labels = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))["labels"]
        names = sorted(labels, key=lambda name: int(labels[name]))
        if [int(labels[name]) for name in names] == list(range(len(names))):
            return tuple(names)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise InputError(
        "Beside the class probabilities is no dataset.json that gives each class one id, from 0 "
        "on.",
        "Copy the dataset.json of the model there.",
    )


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, turned, dtype = read(file)
    if turned or dtype.kind != "f":
        raise ValueError(f"{dtype}, Fortran order: {turned}")
    return shape, dtype


def _read_class(file: IO[bytes], dtype: np.dtype[Any], region: Mask) -> Floats:
    plane = region.shape[1:]
    size = int(np.prod(plane)) * dtype.itemsize
    return np.concatenate(
        [np.frombuffer(_exactly(file, size), dtype).reshape(plane)[here] for here in region]
    ).astype(np.float32)


def _exactly(file: IO[bytes], size: int) -> bytes:
    read = file.read(size)
    if len(read) < size:
        raise EOFError
    return read


def _require_shape(shape: tuple[int, ...], classes: int, region: Mask, whose: str) -> None:
    if tuple(shape) != (classes, *region.shape):
        raise GeometryError(
            f"The class probabilities ({whose}) have shape {tuple(shape)}, {classes} classes on "
            f"the image's grid {(classes, *region.shape)}.",
            "Predict from the project's own images.",
        )
