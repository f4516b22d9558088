"""DICOM SEG: a prediction as segments on the slices of the series that its image came from.

The patient, the study and the frame of reference are those of the series; they go into that file
and nowhere else. One binary segment a target (DICOM PS3.3 A.51), coded in SNOMED CT.
"""

from __future__ import annotations

import logging
import secrets
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from napari_backsplit import __version__
from napari_backsplit.backend import NOTICE
from napari_backsplit.backend.errors import InputError, ProjectError
from napari_backsplit.backend.files import link_or_copy, read_json, writing
from napari_backsplit.backend.prediction.dicom_source import (
    Source,
    came_as_dicom,
    find_source,
    onto,
)
from napari_backsplit.backend.project.reader import ProjectReader
from napari_backsplit.backend.project.values import Structure
from napari_backsplit.backend.structures.vocabulary import Term, vocabulary
from napari_backsplit.backend.volume import read_label_map

__all__ = ["came_as_dicom", "write_seg"]

LESION = ("52988006", "Lesion")
MORPHOLOGY = ("49755003", "Morphologically Altered Structure")
ANATOMY = ("123037004", "Anatomical Structure")
SIDES = {
    "left": ("7771000", "Left"),
    "right": ("24028007", "Right"),
    "both": ("51440002", "Right and left"),
}
"""Codes of SNOMED CT, as PS3.16 has them (CID 7150, 7159, 244)."""

_ALTERED = {"367643001"}  # terms of the vocabulary that are no anatomy: cysts
_NAME = "napari-backsplit"
_LO = 64
_MAY_BE_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID",
    "StudyDate", "StudyTime",
)  # fmt: skip
_NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID")


def write_seg(
    project: ProjectReader,
    case: str,
    prediction_folder: Path,
    destination: Path,
    *,
    source: Path | None = None,
) -> Path:
    """Write the predicted mask of a case as a DICOM SEG; nothing is ever overwritten.

    Parameters
    ----------
    project : ProjectReader
        With its private.json, which says where the series lay.
    case : str
        A case that came as a DICOM series.
    prediction_folder : Path
        Of a job (jobs/<id>), or with the masks <case>.nii.gz, ids 1..T as the project's targets.
    destination : Path
        A new file that ends in .dcm.
    source : Path, optional
        Where the series is now, if it was moved since it was imported.

    Returns
    -------
    Path
        The destination.

    Raises
    ------
    InputError
        The destination exists, there is no prediction, or the series is gone or another one.
    GeometryError
        The mask does not lie on the slices, or these are tilted, uneven or missing.
    """
    _require_new(destination)
    folder = prediction_folder / "predictions"
    folder = folder if folder.is_dir() else prediction_folder
    mask = _mask_path(folder, case)
    series = find_source(project, case, source)
    array = onto(read_label_map(mask), series.geometry)
    targets = project.schema.targets
    if array.max() > len(targets):
        raise InputError(
            f"The prediction of {case} has the id {array.max()}; the project has "
            f"{len(targets)} target(s).",
            "Predict it again, for this project.",
        )
    _write(_segmentation(series, array, targets, _record(folder), case), destination)
    return destination


def _require_new(destination: Path) -> None:
    if destination.suffix.lower() != ".dcm":
        raise InputError(f"{destination.name} does not end in .dcm.", "Name the file so.")
    if destination.exists():
        raise InputError(f"{destination} exists.", "Choose a new name; nothing is overwritten.")


def _mask_path(folder: Path, case: str) -> Path:
    path = folder / f"{case}.nii.gz"
    if not path.is_file():
        raise InputError(f"There is no prediction of {case} there.", "Predict the case first.")
    return path


def _record(folder: Path) -> Mapping[str, Any]:
    path = folder / "predictions.json"
    record: Mapping[str, Any] = read_json(path) if path.is_file() else {}
    return record


def _write(seg: Any, destination: Path) -> None:
    """Write beside the destination first; then give it the name, if that is still free."""
    temporary = destination.with_name(f".tmp-{secrets.token_hex(6)}.dcm")
    with writing("The DICOM SEG"):
        destination.parent.mkdir(parents=True, exist_ok=True)
        try:
            seg.save_as(temporary)
            link_or_copy(temporary, destination)
        except FileExistsError:
            _require_new(destination)
        finally:
            temporary.unlink(missing_ok=True)


def _segmentation(
    series: Source,
    array: NDArray[Any],
    targets: Sequence[Structure],
    record: Mapping[str, Any],
    case: str,
) -> Any:
    """Return the data set, with the checks of highdicom passed."""
    from highdicom import UID
    from highdicom.seg import Segmentation

    ids = array.astype(np.uint8 if len(targets) < 256 else np.uint16, copy=False)
    try:
        with _silence():
            headers = [_complete(header, case) for header in series.headers]
            _agree(headers, series)
            return Segmentation(
                source_images=headers,
                pixel_array=np.ascontiguousarray(series.in_file_order(ids)),
                segmentation_type="BINARY",
                segment_descriptions=_segments(targets, record),
                series_instance_uid=UID(),
                series_number=_series_number(headers[0]),
                sop_instance_uid=UID(),
                instance_number=1,
                manufacturer=_NAME,
                manufacturer_model_name=_NAME,
                software_versions=__version__,
                device_serial_number="none",
                content_description=NOTICE,
                content_label="PREDICTION",
                omit_empty_frames=bool(ids.any()),
                content_creator_name=_NAME,
                series_description=_series_description(targets),
            )
    except (AttributeError, TypeError, ValueError) as error:  # it quotes values of the patient
        raise ProjectError(
            f"The headers of the series of {case} do not admit a DICOM SEG "
            f"({type(error).__name__}).",
            "Export the series again from its source, with all of its headers.",
        ) from None


@contextmanager
def _silence() -> Iterator[None]:
    """Keep what pydicom and highdicom have to say of a header, with its values, to themselves."""
    logger = logging.getLogger("highdicom")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logger.setLevel(level)


def _complete(header: Any, case: str) -> Any:
    """Make what may be empty be there at least; refuse a header without what may not."""
    missing = [name for name in _NEEDED if not header.get(name)]
    if missing:
        raise InputError(
            f"The series of {case} has no {missing[0]}.",
            "Export the series again from its source, with all of its headers.",
        )
    for name in _MAY_BE_EMPTY:
        setattr(header, name, header.get(name) or "")
    if header.PatientSex not in ("M", "F", "O"):
        header.PatientSex = ""
    return header


def _agree(headers: Sequence[Any], series: Source) -> None:
    """Give all slices the plane of the first: headers round it, and some leave out the step."""
    if "PerFrameFunctionalGroupsSequence" in headers[0]:
        _share_plane(headers[0])
        return
    step = f"{series.geometry.spacing_mm[0]:.10g}"
    for header in headers:
        header.ImageOrientationPatient = headers[0].ImageOrientationPatient
        header.SpacingBetweenSlices = step
        header.SliceThickness = header.get("SliceThickness") or step


def _share_plane(header: Any) -> None:
    """Put what every frame repeats where highdicom looks for it."""
    if not header.get("SharedFunctionalGroupsSequence"):
        header.SharedFunctionalGroupsSequence = [Dataset()]
    shared, first = (
        header[name][0]
        for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
    )
    for name in ("PixelMeasuresSequence", "PlaneOrientationSequence"):
        if name not in shared:
            setattr(shared, name, first.get(name))


def _series_number(header: Any) -> int:
    return 1000 + max(int(header.get("SeriesNumber") or 0), 0)


def _series_description(targets: Sequence[Structure]) -> str:
    return f"{NOTICE} {', '.join(target.name for target in targets)}"[:_LO]


def _segments(targets: Sequence[Structure], record: Mapping[str, Any]) -> list[Any]:
    return [_segment(number, target, record) for number, target in enumerate(targets, start=1)]


def _segment(number: int, target: Structure, record: Mapping[str, Any]) -> Any:
    from highdicom import UID
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentDescription

    category, kind = _codes(target.name)
    return SegmentDescription(
        segment_number=number,
        segment_label=target.name[:_LO],
        segmented_property_category=category,
        segmented_property_type=kind,
        algorithm_type="AUTOMATIC",
        algorithm_identification=_algorithm(record),
        tracking_uid=UID(),
        tracking_id=f"{_NAME} {target.name}"[:_LO],
        display_color=CIELabColor.from_rgb(*bytes.fromhex(target.colour[1:])),
    )


def _codes(name: str) -> tuple[Any, Any]:
    """Return category and type of a target: the vocabulary's, or "Lesion" for all others."""
    term = next((each for each in vocabulary() if each.name == name), None)
    if term is None:
        return _code(*MORPHOLOGY), _code(*LESION)
    kind = _code(term.code, term.meaning)
    _add_side(kind, term)
    return _code(*(MORPHOLOGY if term.code in _ALTERED else ANATOMY)), kind


def _add_side(kind: Any, term: Term) -> None:
    if term.laterality:
        kind.SegmentedPropertyTypeModifierCodeSequence = [_code(*SIDES[term.laterality])]


def _code(value: str, meaning: str) -> Any:
    from highdicom.sr import CodedConcept

    return CodedConcept(value, "SCT", meaning)


def _algorithm(record: Mapping[str, Any]) -> Any:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.sr import CodedConcept

    model = record.get("model", {})
    words = [_NAME, str(model.get("trainer_name") or "nnU-Net"), str(model.get("arm") or "")]
    return AlgorithmIdentificationSequence(
        name=" ".join(filter(None, words))[:_LO],
        family=CodedConcept("123110", "DCM", "Artificial Intelligence"),
        version=__version__,
        parameters=_parameters(record) or None,
    )


def _parameters(record: Mapping[str, Any]) -> dict[str, str]:
    """Return what the mask depends on: hashes of the model, and the settings."""
    model, settings = record.get("model", {}), record.get("settings", {})
    wanted = ("rule", "step_size", "mirroring")
    hashes = {f"sha256 of {name}": digest for name, digest in model.get("hashes", {}).items()}
    return {**hashes, **{key: str(settings[key]) for key in wanted if key in settings}}
