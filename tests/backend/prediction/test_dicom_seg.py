from __future__ import annotations

from collections.abc import Callable
from itertools import permutations, product
from pathlib import Path
from typing import Any, NamedTuple

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from napari_backsplit.backend import NOTICE
from napari_backsplit.backend.errors import BackSplitError, GeometryError, InputError
from napari_backsplit.backend.files import write_json
from napari_backsplit.backend.geometry import from_affine
from napari_backsplit.backend.prediction.dicom_seg import came_as_dicom, write_seg
from napari_backsplit.backend.prediction.dicom_source import onto
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.project.images import Reading
from napari_backsplit.backend.volume import Volume, write_volume
from tests.backend.prediction.dicom_series import NAME, PLANES, write_frames, write_series

TARGETS = ("lesion", "kidney_left")


class Case(NamedTuple):
    """A case that came as DICOM, with a random prediction of two targets."""

    project: Project
    id: str
    series: Path
    predictions: Path
    mask: np.ndarray

    def write(self, destination: Path, **options: Any) -> Path:
        return write_seg(self.project, self.id, self.predictions, destination, **options)

    def predict(self, mask: Volume) -> None:
        write_volume(mask, self.predictions / "predictions" / f"{self.id}.nii.gz")


Make = Callable[..., Case]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def case(plane: str = "axial", folder: Path | None = None, **series: Any) -> Case:
        folder = folder or write_series(tmp_path / NAME, plane, **series)
        project = Project.create(tmp_path / "project", "x", ["CT"], TARGETS)
        reading = Reading(correct_tilt=True)
        added = project.add_case({"CT": folder}, name=NAME, patient=NAME, reading=reading)
        grid = project.geometry(added.id)
        mask = np.random.default_rng(0).integers(0, 3, grid.shape).astype(np.uint8)
        mask[1] = 0  # a slice without anything
        made = Case(project, added.id, folder, project.folder / "jobs" / "0001-predict", mask)
        made.predict(Volume(mask, grid))
        return made

    return case


def lps_of_mask(case: Case, number: int) -> np.ndarray:
    """Where the voxels of a target lie, by the grid of the NIfTI; sorted."""
    index = np.argwhere(case.mask == number)
    return ordered(case.project.geometry(case.id).to_lps(index))


def lps_of_seg(path: Path, number: int, frames: np.ndarray) -> np.ndarray:
    """Where the voxels of a segment lie, by the tags of its frames alone; sorted."""
    data = pydicom.dcmread(path)
    shared = data.SharedFunctionalGroupsSequence[0]
    along = np.reshape(shared.PlaneOrientationSequence[0].ImageOrientationPatient, (2, 3))
    down, right = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    points = []
    for group, frame in zip(data.PerFrameFunctionalGroupsSequence, frames, strict=True):
        if group.SegmentIdentificationSequence[0].ReferencedSegmentNumber == number:
            start = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
            row, column = np.nonzero(frame)
            points.append(
                start + np.outer(column * right, along[0]) + np.outer(row * down, along[1])
            )
    return ordered(np.concatenate(points))


def ordered(points: np.ndarray) -> np.ndarray:
    points = np.round(points.astype(float), 2) + 0.0
    return points[np.lexsort(points.T)]


# --- where the voxels are -------------------------------------------------------------------------


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("plane", PLANES)
def test_every_voxel_is_where_it_was(
    make: Make, tmp_path: Path, plane: str, backwards: bool
) -> None:
    case = make(plane, backwards=backwards)
    path = case.write(tmp_path / "seg.dcm")
    by_pydicom = pydicom.dcmread(path).pixel_array
    by_itk = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    for number in (1, 2):
        expected = lps_of_mask(case, number)
        for frames in (by_pydicom, by_itk):
            np.testing.assert_allclose(lps_of_seg(path, number, frames), expected, atol=0.011)


def test_frames_of_one_file_in_any_order(make: Make, tmp_path: Path) -> None:
    case = make(folder=write_frames(tmp_path / "series", [3, 0, 4, 1, 2], plane="oblique"))
    path = case.write(tmp_path / "seg.dcm")
    for number in (1, 2):
        found = lps_of_seg(path, number, pydicom.dcmread(path).pixel_array)
        np.testing.assert_allclose(found, lps_of_mask(case, number), atol=0.011)
    for group in pydicom.dcmread(path).PerFrameFunctionalGroupsSequence:
        position = group.PlanePositionSequence[0].ImagePositionPatient
        frame = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        source = pydicom.dcmread(case.series / "frames.dcm").PerFrameFunctionalGroupsSequence
        assert position == source[frame - 1].PlanePositionSequence[0].ImagePositionPatient


def test_highdicom_reads_the_mask_back(make: Make, tmp_path: Path) -> None:
    case = make("oblique")
    seg = highdicom.seg.segread(case.write(tmp_path / "seg.dcm"))
    volume = seg.get_volume(combine_segments=True)
    grid = from_affine(volume.array.shape, volume.affine[:, [2, 1, 0, 3]])
    same = onto(Volume(volume.array, grid), case.project.geometry(case.id))
    assert np.array_equal(same, case.mask)


def test_every_frame_names_the_slice_that_it_lies_on(make: Make, tmp_path: Path) -> None:
    case = make("sagittal", backwards=True)
    data = pydicom.dcmread(case.write(tmp_path / "seg.dcm"))
    slices = {d.SOPInstanceUID: d for d in map(pydicom.dcmread, case.series.iterdir())}
    assert len(data.PerFrameFunctionalGroupsSequence) == 8, "two targets, without the empty slice"
    for group in data.PerFrameFunctionalGroupsSequence:
        item = group.DerivationImageSequence[0].SourceImageSequence[0]
        source = slices[item.ReferencedSOPInstanceUID]
        position = group.PlanePositionSequence[0].ImagePositionPatient
        assert list(position) == list(source.ImagePositionPatient)


def test_a_mask_on_any_of_the_48_orientations_is_turned_exactly() -> None:
    rng = np.random.default_rng(1)
    array = rng.integers(0, 9, (3, 4, 5))
    turn = np.array([[0.8, -0.36, 0.48], [0.6, 0.48, -0.64], [0, 0.8, 0.6]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn * (1.5, 1.25, 4.0), (7, -3, 11)
    grid = from_affine(array.shape, affine)
    for axes, flips in product(permutations(range(3)), product((1, -1), repeat=3)):
        turned = array.transpose(axes)[tuple(slice(None, None, flip) for flip in flips)]
        other = np.eye(4)
        for new, (old, flip) in enumerate(zip(axes, flips, strict=True)):
            other[:3, 2 - new] = affine[:3, 2 - old] * flip
        first = [0 if flip > 0 else n - 1 for n, flip in zip(turned.shape, flips, strict=True)]
        other[:3, 3] = grid.to_lps(np.array(first)[np.argsort(axes)])
        volume = Volume(turned, from_affine(turned.shape, other))
        assert np.array_equal(onto(volume, grid), array)


@pytest.mark.parametrize("shift_mm", [(0.3, 0, 0), (0, 0, 4.0)])
def test_a_mask_beside_the_slices_is_refused(
    make: Make, tmp_path: Path, shift_mm: tuple[float, ...]
) -> None:
    case = make()
    affine = case.project.geometry(case.id).affine
    affine[:3, 3] += shift_mm
    case.predict(Volume(case.mask, from_affine(case.mask.shape, affine)))
    with pytest.raises(GeometryError, match="does not lie on the slices"):
        case.write(tmp_path / "seg.dcm")


# --- what the file says ---------------------------------------------------------------------------


def test_it_says_what_it_is_and_whose(make: Make, tmp_path: Path) -> None:
    case = make()
    write_json(
        case.predictions / "predictions" / "predictions.json",
        {
            "model": {"trainer_name": "nnUNetTrainer", "arm": "backsplit", "hashes": {"a": "ff"}},
            "settings": {"rule": "argmax"},
        },
    )
    data = pydicom.dcmread(case.write(tmp_path / "seg.dcm"))
    source = pydicom.dcmread(next(case.series.iterdir()))
    assert (data.PatientName, data.PatientID) == (NAME, NAME)
    for name in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientBirthDate"):
        assert data[name].value == source[name].value
    assert data.SegmentationType == "BINARY"
    assert data.ContentDescription == NOTICE
    assert NOTICE in data.SeriesDescription
    lesion, kidney = data.SegmentSequence
    algorithm = lesion.SegmentationAlgorithmIdentificationSequence[0]
    assert lesion.SegmentAlgorithmType == kidney.SegmentAlgorithmType == "AUTOMATIC"
    assert algorithm.AlgorithmName == "napari-backsplit nnUNetTrainer backsplit"
    assert "rule" in algorithm.AlgorithmParameters
    assert lesion.TrackingUID != kidney.TrackingUID
    assert _codes(lesion) == ("49755003", "52988006")
    assert _codes(kidney) == ("123037004", "64033007")
    side = kidney.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence
    assert side[0].CodeMeaning == "Left"


def _codes(segment: Any) -> tuple[str, str]:
    category = segment.SegmentedPropertyCategoryCodeSequence[0]
    return category.CodeValue, segment.SegmentedPropertyTypeCodeSequence[0].CodeValue


def test_an_empty_prediction_has_its_segments(make: Make, tmp_path: Path) -> None:
    case = make()
    case.predict(Volume(np.zeros_like(case.mask), case.project.geometry(case.id)))
    data = pydicom.dcmread(case.write(tmp_path / "seg.dcm"))
    assert [segment.SegmentLabel for segment in data.SegmentSequence] == list(TARGETS)
    assert not data.pixel_array.any()


# --- the series, found again ----------------------------------------------------------------------


def test_a_series_that_moved_is_asked_for_and_taken_where_it_is_now(
    make: Make, tmp_path: Path
) -> None:
    case = make()
    moved = case.series.rename(tmp_path / "elsewhere")
    with pytest.raises(InputError) as caught:
        case.write(tmp_path / "seg.dcm")
    assert "--series" in caught.value.remedy
    assert NAME not in str(caught.value)
    assert came_as_dicom(case.project, case.id)
    case.write(tmp_path / "seg.dcm", source=moved)
    assert (tmp_path / "seg.dcm").exists()


def test_files_that_were_renamed_or_added_do_not_matter(make: Make, tmp_path: Path) -> None:
    case = make()
    first = next(case.series.iterdir())
    first.rename(first.with_name("again.dcm"))
    (case.series / "notes.txt").write_text("seen")
    case.write(case.series / "seg.dcm")
    case.write(tmp_path / "again.dcm")  # the first SEG lies beside the slices now


def test_another_series_is_refused(make: Make, tmp_path: Path) -> None:
    case = make()
    other = write_series(tmp_path / "other", RescaleIntercept=5)
    with pytest.raises(InputError, match="another image"):
        case.write(tmp_path / "seg.dcm", source=other)


@pytest.mark.parametrize("number", [1, 3, 5], ids=["first", "middle", "last"])
def test_a_slice_that_is_gone_is_refused(make: Make, tmp_path: Path, number: int) -> None:
    case = make()
    for file in list(case.series.iterdir()):
        if pydicom.dcmread(file).InstanceNumber == number:
            file.unlink()
    with pytest.raises(GeometryError, match="missing" if number == 3 else "are not those of"):
        case.write(tmp_path / "seg.dcm")
    assert not (tmp_path / "seg.dcm").exists()


def test_a_tilted_series_is_refused(make: Make, tmp_path: Path) -> None:
    case = make(tilt_mm=1.5)
    with pytest.raises(GeometryError, match="tilt") as caught:
        case.write(tmp_path / "seg.dcm")
    assert "DICOM SEG" in caught.value.remedy


def test_a_case_that_came_as_nifti_is_refused(make: Make, tmp_path: Path) -> None:
    case = make()
    file = tmp_path / "image.nii.gz"
    grid = case.project.geometry(case.id)
    write_volume(Volume(np.ones(grid.shape, np.float32), grid), file)
    plain = case.project.add_case({"CT": file}).id
    write_volume(Volume(case.mask, grid), case.predictions / f"predictions/{plain}.nii.gz")
    assert not came_as_dicom(case.project, plain)
    with pytest.raises(InputError, match="did not come as a DICOM"):
        write_seg(case.project, plain, case.predictions, tmp_path / "seg.dcm")


@pytest.mark.filterwarnings("ignore:Invalid value")
@pytest.mark.parametrize(
    "tags", [{"FrameOfReferenceUID": None}, {"PatientBirthDate": "no date"}], ids=["missing", "bad"]
)
def test_headers_that_admit_no_seg_are_refused_without_their_values(
    make: Make, tmp_path: Path, tags: dict[str, Any]
) -> None:
    case = make(**tags)
    with pytest.raises(BackSplitError) as caught:
        case.write(tmp_path / "seg.dcm")
    assert case.id in str(caught.value)
    assert "no date" not in str(caught.value)
    assert not list(tmp_path.glob("*.dcm"))


# --- the destination ------------------------------------------------------------------------------


def test_nothing_is_overwritten(make: Make, tmp_path: Path) -> None:
    case = make()
    taken = tmp_path / "seg.dcm"
    taken.write_text("mine")
    with pytest.raises(InputError, match="exists"):
        case.write(taken)
    assert taken.read_text() == "mine"


@pytest.mark.parametrize(("name", "value"), [("seg.nii.gz", 1), ("seg.dcm", 3)])
def test_a_wrong_name_and_an_unknown_id_are_refused(
    make: Make, tmp_path: Path, name: str, value: int
) -> None:
    case = make()
    case.predict(Volume(np.full_like(case.mask, value), case.project.geometry(case.id)))
    with pytest.raises(InputError):
        case.write(tmp_path / name)
    assert not list(tmp_path.glob("*seg*"))


@pytest.mark.filterwarnings("error")
def test_the_patient_is_named_in_the_file_alone(
    make: Make,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    case = make(PatientName="Jane Doe")  # not as DICOM would have it
    case.write(tmp_path / "out" / "seg.dcm")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["seg.dcm"]
    said = capfd.readouterr()
    assert said.out + said.err + caplog.text == ""


# --- real series ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["image", "multiframe"])
def test_a_real_series(make: Make, tmp_path: Path, real_data: Path, kind: str) -> None:
    case = make(folder=real_data / "dicom" / "ct-with-seg" / kind)
    path = case.write(tmp_path / "seg.dcm")
    for number in (1, 2):
        found = lps_of_seg(path, number, pydicom.dcmread(path).pixel_array)
        np.testing.assert_allclose(found, lps_of_mask(case, number), atol=0.011)
