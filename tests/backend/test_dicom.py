from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from scipy.spatial.transform import Rotation

from napari_backsplit.backend import dicom
from napari_backsplit.backend.errors import GeometryError, InputError
from napari_backsplit.backend.volume import read_geometry, read_volume, write_volume

NAME = "Doe^Jane"
AXIAL = np.array([[1.0, 0, 0], [0, 1, 0]])
WEIGHTS = np.array([1.0, 2.0, 3.0])
COUNT, SHAPE, SPACING, STEP = 6, (7, 8), (1.5, 1.25), 4.0


def header(position, rows=AXIAL, *, series="1.2.3", number=1, **tags) -> FileDataset:
    """One CT slice; the patient has a name that must never be seen."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    data.PatientName, data.PatientID, data.Modality = NAME, NAME, "CT"
    data.SeriesInstanceUID, data.InstanceNumber = series, number
    data.ImagePositionPatient = [round(float(value), 6) for value in position]
    data.ImageOrientationPatient = [round(float(value), 8) for value in np.ravel(rows)]
    data.PixelSpacing = list(SPACING)
    data.Rows, data.Columns = SHAPE
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 1
    data.RescaleSlope, data.RescaleIntercept = 1, 0
    for name, value in tags.items():
        setattr(data, name, value)
    return data


def save(data: FileDataset, path: Path, pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data.PixelData = np.asarray(pixels, np.int16).tobytes()
    data.save_as(path, enforce_file_format=True)


def world(position, rows=AXIAL):
    """LPS positions of the pixels of a slice, shape (rows, columns, 3)."""
    down, right = np.indices(SHAPE)
    return (
        np.asarray(position, float)
        + (right * SPACING[1])[..., None] * rows[0]
        + (down * SPACING[0])[..., None] * rows[1]
    )


def linear(points):
    """A brightness that tells where in the patient a pixel lies."""
    return 10 * points @ WEIGHTS


def stack(folder: Path, positions, rows=AXIAL, **tags) -> Path:
    """Write slices whose brightness is `linear` in the patient, with names out of order."""
    for n, position in enumerate(positions):
        name = f"IM-{(n * 7) % 10}{n}.dcm"
        pixels = np.rint(linear(world(position, rows)))
        save(header(position, rows, number=n + 1, **tags), folder / name, pixels)
    return folder


def straight(count=COUNT, rows=AXIAL, step=STEP):
    normal = np.cross(rows[0], rows[1])
    return [np.array([-5.0, 3.0, 20.0]) + n * step * normal for n in range(count)]


def check_places(volume, atol=0.6):
    points = volume.geometry.to_lps(np.stack(np.indices(volume.geometry.shape), -1))
    assert np.allclose(volume.array, linear(points), atol=atol)


def refused(folder: Path) -> str:
    """Return why the series is refused, by all that read it, in silence about the patient."""
    with pytest.raises(GeometryError) as caught:
        read_volume(folder)
    with pytest.raises(GeometryError):
        read_geometry(folder)
    assert dicom.check_series(folder)
    assert NAME not in str(caught.value)
    assert caught.value.remedy
    return str(caught.value)


# --- order and place ----------------------------------------------------------------------------


def test_slices_are_ordered_by_position(tmp_path):
    volume = read_volume(stack(tmp_path, straight()))
    assert volume.geometry.shape == (COUNT, *SHAPE)
    assert volume.spacing_mm == (STEP, *SPACING)
    assert volume.array.dtype == np.int16
    check_places(volume)
    assert read_geometry(tmp_path).difference(volume.geometry) is None
    assert dicom.check_series(tmp_path) == []


@given(st.tuples(*[st.floats(-180, 180)] * 3))
@settings(
    deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_oblique_series_keep_every_pixel_in_its_place(tmp_path_factory, angles):
    folder = tmp_path_factory.mktemp("series")
    rows = Rotation.from_euler("xyz", angles, degrees=True).as_matrix().T[:2]
    volume = read_volume(stack(folder, straight(rows=rows), rows))
    check_places(volume)
    check_places(volume.canonical())


@pytest.mark.parametrize("order", [1, -1])
def test_the_order_of_acquisition_does_not_matter(tmp_path, order):
    check_places(read_volume(stack(tmp_path, straight()[::order])))


def test_simpleitk_reads_the_same(tmp_path):
    volume = read_volume(stack(tmp_path, straight()))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    image = reader.Execute()
    assert np.array_equal(sitk.GetArrayFromImage(image), volume.array)
    assert np.allclose(image.GetOrigin(), volume.origin_mm)
    assert np.allclose(image.GetDirection(), np.ravel(volume.direction))


def test_slices_may_each_have_a_slope(tmp_path):
    for n, position in enumerate(straight()):
        data = header(position, number=n, RescaleSlope=1 + n / 8, RescaleIntercept=n)
        save(data, tmp_path / f"{n}.dcm", np.full(SHAPE, 100))
    array = read_volume(tmp_path).array
    assert array.dtype == np.float32
    assert array[:, 0, 0].tolist() == [100 * (1 + n / 8) + n for n in range(COUNT)]


def test_other_files_are_left_out(tmp_path):
    stack(tmp_path, straight())
    (tmp_path / "readme.txt").write_text("not DICOM")
    (tmp_path / "sub").mkdir()
    save(header((0, 0, 0), series="9", Modality="SEG"), tmp_path / "seg.dcm", np.zeros(SHAPE))
    check_places(read_volume(tmp_path))


def test_paths_may_hold_spaces_and_any_letter(tmp_path):
    check_places(read_volume(stack(tmp_path / "Serie für 日本", straight())))


# --- what tags do not say -----------------------------------------------------------------------


def tilted(degrees=14.0, count=COUNT):
    """Slices turned about x, moved along z: the gantry is tilted and no tag says so."""
    rows = Rotation.from_euler("x", -degrees, degrees=True).apply(AXIAL)
    return [np.array([-5.0, 3.0, 20.0 + STEP * n]) for n in range(count)], rows


def test_tilt_is_found(tmp_path):
    text = refused(stack(tmp_path, *tilted()))
    assert "14.00 degrees" in text
    assert "correction of the tilt" in text


def test_a_tilt_tag_of_zero_is_not_believed(tmp_path):
    refused(stack(tmp_path, *tilted(2), GantryDetectorTilt=0))


def test_a_tilt_below_a_quarter_of_a_pixel_is_none(tmp_path):
    check_places(read_volume(stack(tmp_path, *tilted(0.5))), atol=5)


@pytest.mark.parametrize("degrees", [14.0, -20.0])
def test_tilt_is_corrected_on_request(tmp_path, degrees):
    volume = dicom.read_series(stack(tmp_path, *tilted(degrees)), correct_tilt=True)
    points = volume.geometry.to_lps(np.stack(np.indices(volume.geometry.shape), -1))
    seen = volume.array > volume.array.min() + 1
    inner = np.zeros_like(seen)
    inner[:, 1:-1] = seen[:, 1:-1] & seen[:, 2:] & seen[:, :-2]
    assert inner.sum() > COUNT * 5 * 6
    assert np.allclose(volume.array[inner], linear(points)[inner], atol=1)
    assert "tilt" in volume.notes[0]
    assert "linear interpolation" in volume.notes[0]
    assert volume.spacing_mm[0] == pytest.approx(STEP * np.cos(np.radians(degrees)))
    assert volume.geometry.shape[1] > SHAPE[0]  # nothing was cut off


def test_correcting_a_straight_series_changes_nothing(tmp_path):
    stack(tmp_path, straight())
    volume = dicom.read_series(tmp_path, correct_tilt=True)
    assert volume.array.dtype == np.int16
    assert not volume.notes


def test_a_missing_slice_is_found(tmp_path):
    positions = straight()
    del positions[3]
    text = refused(stack(tmp_path, positions))
    assert "1 slice(s) are missing between slices 3 and 4: they are 8 mm apart, others 4 mm" in text


def test_missing_slices_of_three_are_found(tmp_path):
    positions = straight(8)
    assert "missing" in refused(stack(tmp_path, [positions[n] for n in (0, 1, 4)]))


def test_uneven_slices_are_found(tmp_path):
    positions = straight()
    positions[2] = positions[2] + [0, 0, 0.4]
    assert "3.6 to 4.4 mm apart" in refused(stack(tmp_path, positions))


def test_positions_rounded_to_a_hundredth_are_even(tmp_path):
    positions = [np.round(position, 2) for position in straight(step=0.625)]
    assert read_volume(stack(tmp_path, positions)).spacing_mm[0] == pytest.approx(0.625, abs=0.003)


def test_duplicate_slices_are_found(tmp_path):
    positions = straight()
    assert "repeat a position: 3 and 7" in refused(stack(tmp_path, [*positions, positions[2]]))


def test_several_volumes_are_refused_with_their_shape(tmp_path):
    text = refused(stack(tmp_path, straight() * 2))
    assert f"shape (8, 7, {COUNT}, 2)" in text


def test_several_problems_are_all_told(tmp_path):
    positions, rows = tilted(count=8)
    del positions[5]
    stack(tmp_path, [*positions, positions[0]], rows)
    texts = dicom.check_series(tmp_path)
    assert len(texts) == 3
    with pytest.raises(GeometryError, match="missing"):
        dicom.read_series(tmp_path, correct_tilt=True)


def test_a_single_slice_is_no_volume(tmp_path):
    assert "one position" in refused(stack(tmp_path, straight(1)))


def test_slices_that_are_not_parallel_are_found(tmp_path):
    stack(tmp_path, straight())
    coronal = np.array([[1.0, 0, 0], [0, 0, -1]])
    save(header((0, 0, 0), coronal, number=99), tmp_path / "scout.dcm", np.zeros(SHAPE))
    assert "are not parallel" in refused(tmp_path)


def test_slices_of_other_sizes_are_found(tmp_path):
    stack(tmp_path, straight())
    data = header((-5, 3, 20 + 6 * STEP), number=99, PixelSpacing=[1, 1])
    save(data, tmp_path / "x.dcm", np.zeros(SHAPE))
    assert "differ in size" in refused(tmp_path)


def test_rows_that_meet_columns_at_an_angle_are_found(tmp_path):
    skew = np.array([[1.0, 0, 0], [0.2, 0.98, 0]])
    assert "not perpendicular" in refused(stack(tmp_path, straight(), skew))


@pytest.mark.parametrize("tag", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
def test_a_missing_plane_is_named(tmp_path, tag):
    data = header((0, 0, 0))
    delattr(data, tag)
    save(data, tmp_path / "x.dcm", np.zeros(SHAPE))
    with pytest.raises(GeometryError, match=f"Slice 1 has no {tag}"):
        read_volume(tmp_path)


def test_a_zero_pixel_spacing_is_refused(tmp_path):
    with pytest.raises(GeometryError, match="pixel spacing"):
        read_volume(stack(tmp_path, straight(), PixelSpacing=[0, 1]))


# --- several series -----------------------------------------------------------------------------


def test_two_series_are_listed_and_one_can_be_chosen(tmp_path):
    stack(tmp_path, straight(), series="1.2.3")
    for n in range(3):
        data = header((0, 0, n), series="4.5.6", Modality="MR", number=n)
        save(data, tmp_path / f"mr{n}.dcm", np.zeros(SHAPE))
    with pytest.raises(InputError, match=r"1\.2\.3: CT, 6 slices of 8 x 7; 4\.5\.6: MR") as caught:
        read_volume(tmp_path)
    assert NAME not in str(caught.value)
    check_places(dicom.read_series(tmp_path, series_uid="1.2.3"))
    assert dicom.read_geometry(tmp_path, series_uid="4.5.6").shape == (3, *SHAPE)
    assert set(dicom.list_series(tmp_path)) == {"1.2.3", "4.5.6"}
    with pytest.raises(InputError, match=r"no series 7"):
        dicom.read_series(tmp_path, series_uid="7")


# --- damage -------------------------------------------------------------------------------------


def test_folders_without_images_are_refused(tmp_path):
    with pytest.raises(InputError, match="no DICOM image"):
        read_volume(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        dicom.read_series(tmp_path / "none")


@pytest.mark.parametrize("content", [b"", b"x" * 500])
def test_a_dcm_that_is_none_is_named(tmp_path, content):
    stack(tmp_path, straight())
    (tmp_path / "bad.dcm").write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.dcm is no readable DICOM"):
        read_volume(tmp_path)


def test_an_empty_file_among_the_slices_is_named(tmp_path):
    stack(tmp_path, straight())
    (tmp_path / "IM0099").touch()
    with pytest.raises(InputError, match="IM0099"):
        read_volume(tmp_path)


@pytest.mark.parametrize("share", [0.2, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_a_slice_cut_short_is_refused_in_silence(tmp_path, capfd, share):
    file = sorted(stack(tmp_path, straight()).iterdir())[0]
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError) as caught:
        read_volume(tmp_path)
    assert NAME not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_value_that_is_no_number_is_refused(tmp_path, capfd):
    file = sorted(stack(tmp_path, straight()).iterdir())[0]
    file.write_bytes(file.read_bytes().replace(b"1.5\\1.25", b"1.5\\X^Y "))
    with pytest.raises(InputError, match="damaged DICOM header") as caught:
        read_volume(tmp_path)
    assert "X^Y" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_colours_are_refused(tmp_path):
    data = header((0, 0, 0), SamplesPerPixel=3, PhotometricInterpretation="RGB")
    save(data, tmp_path / "x.dcm", np.zeros((*SHAPE, 3)))
    with pytest.raises(InputError, match="colour"):
        read_volume(tmp_path)


def test_a_compression_that_is_not_known_is_named(tmp_path):
    for n, position in enumerate(straight()):
        data = header(position, number=n)
        data.file_meta.TransferSyntaxUID = pydicom.uid.HTJ2KLossless
        data.PixelData = pydicom.encaps.encapsulate([b"\xff\x4f\xff\x51" + b"\0" * 60])
        data["PixelData"].VR = "OB"
        data["PixelData"].is_undefined_length = True
        data.save_as(tmp_path / f"{n}.dcm", enforce_file_format=True)
    with pytest.raises(InputError, match="High-Throughput JPEG 2000"):
        read_volume(tmp_path)


def test_nothing_of_the_patient_is_written(tmp_path):
    folder = stack(tmp_path / "Doe_Jane", straight())
    for suffix in (".nii", ".nrrd", ".mha"):
        write_volume(read_volume(folder), tmp_path / f"v{suffix}")
        content = (tmp_path / f"v{suffix}").read_bytes()
        assert b"Doe" not in content
        assert b"1.2.3" not in content


# --- multi-frame --------------------------------------------------------------------------------


def frames(positions, *, slopes=None) -> FileDataset:
    """One enhanced CT object with a frame for each position."""
    data = header((0, 0, 0), NumberOfFrames=len(positions))
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(data, name)
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = list(SPACING)
    orientation.ImageOrientationPatient = AXIAL.ravel().tolist()
    shared.PixelMeasuresSequence = Sequence([measures])
    shared.PlaneOrientationSequence = Sequence([orientation])
    data.SharedFunctionalGroupsSequence = Sequence([shared])
    groups = []
    for n, each in enumerate(positions):
        group, plane, scale = Dataset(), Dataset(), Dataset()
        plane.ImagePositionPatient = [float(value) for value in each]
        scale.RescaleSlope = slopes[n] if slopes else 1
        scale.RescaleIntercept = 0
        group.PlanePositionSequence = Sequence([plane])
        group.PixelValueTransformationSequence = Sequence([scale])
        groups.append(group)
    data.PerFrameFunctionalGroupsSequence = Sequence(groups)
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = pydicom.uid.EnhancedCTImageStorage
    return data


def write_frames(folder: Path, positions, **options) -> Path:
    pixels = np.stack([np.rint(linear(world(each))) for each in positions])
    save(frames(positions, **options), folder / "multi.dcm", pixels)
    return folder


def test_frames_are_ordered_by_position(tmp_path):
    check_places(read_volume(write_frames(tmp_path, straight()[::-1])))


def test_a_missing_frame_is_found(tmp_path):
    positions = straight()
    del positions[2]
    assert "missing between slices 1, frame 2" in refused(write_frames(tmp_path, positions))


def test_frames_scaled_differently_are_refused(tmp_path):
    with pytest.raises(InputError, match="scales its frames differently"):
        read_volume(write_frames(tmp_path, straight(), slopes=range(1, COUNT + 1)))


def test_frames_without_positions_are_refused(tmp_path):
    save(header((0, 0, 0), NumberOfFrames=3), tmp_path / "x.dcm", np.zeros((3, *SHAPE)))
    with pytest.raises(GeometryError, match="3 frames without positions"):
        read_volume(tmp_path)


# --- SUV ----------------------------------------------------------------------------------------

DOSE, HALF_LIFE, WEIGHT = 3.7e8, 6586.2, 70


def pet(folder: Path, *, source=None, **tags) -> Path:
    """PET slices of 1000 Bq/ml, 3600 s after the administration."""
    injected = Dataset()
    injected.RadionuclideTotalDose, injected.RadionuclideHalfLife = DOSE, HALF_LIFE
    injected.RadiopharmaceuticalStartTime = "090000"
    for name, value in (source or {}).items():
        setattr(injected, name, value)
    values = {
        "Modality": "PT", "Units": "BQML", "CorrectedImage": ["ATTN", "DECY", "SCAT"],
        "DecayCorrection": "START", "PatientWeight": WEIGHT, "SeriesDate": "20200102",
        "SeriesTime": "100000.000", "AcquisitionDate": "20200102", "AcquisitionTime": "100001",
        "RadiopharmaceuticalInformationSequence": Sequence([injected]),
    }  # fmt: skip
    values |= tags
    for n, position in enumerate(straight()):
        save(header(position, number=n, **values), folder / f"{n}.dcm", np.full(SHAPE, 1000))
    return folder


def expected(elapsed_s: float) -> float:
    return WEIGHT * 1000 / (DOSE * 2 ** (-elapsed_s / HALF_LIFE))


def test_suv_by_hand(tmp_path):
    factor, note = dicom.suv_factor(pet(tmp_path))
    assert factor == pytest.approx(expected(3600))
    assert "3600 s" in note
    assert "70" not in note.split("(")[1]
    volume = dicom.read_series(tmp_path, suv=True)
    assert volume.array == pytest.approx(1000 * expected(3600))
    assert volume.notes == (note,)
    assert read_volume(tmp_path).array.max() == 1000  # only on request


@pytest.mark.parametrize(
    ("tags", "source", "elapsed_s"),
    [
        ({"DecayCorrection": "ADMIN"}, {}, 0),
        ({"SeriesTime": "120000"}, {}, 3601),  # a series made later: its first acquisition counts
        ({}, {"RadiopharmaceuticalStartDateTime": "20200102083000.00"}, 5400),
        ({}, {"RadiopharmaceuticalStartTime": "233000"}, 37800),  # before midnight
    ],
)
def test_suv_decay(tmp_path, tags, source, elapsed_s):
    factor, _ = dicom.suv_factor(pet(tmp_path, source=source, **tags))
    assert factor == pytest.approx(expected(elapsed_s))


def test_suv_that_is_one_already(tmp_path):
    assert dicom.suv_factor(pet(tmp_path, Units="GML"))[0] == 1


@pytest.mark.parametrize(
    ("tags", "source", "named"),
    [
        ({"PatientWeight": None}, {}, "PatientWeight is missing"),
        ({"PatientWeight": 0}, {}, "PatientWeight is 0"),
        ({"Units": "CNTS"}, {}, "Units is 'CNTS'"),
        ({"DecayCorrection": "NONE"}, {}, "DecayCorrection is 'NONE'"),
        ({"CorrectedImage": ["ATTN"]}, {}, "lacks DECY"),
        ({"CorrectedImage": "DECY"}, {}, "lacks ATTN"),
        ({"RadiopharmaceuticalInformationSequence": Sequence()}, {}, "Sequence is missing"),
        ({"SeriesTime": ""}, {}, "SeriesTime is missing"),
        ({}, {"RadionuclideTotalDose": None}, "RadionuclideTotalDose is missing"),
        ({}, {"RadionuclideTotalDose": 370}, "too low for becquerels"),
        ({}, {"RadionuclideHalfLife": None}, "RadionuclideHalfLife is missing"),
        ({}, {"RadiopharmaceuticalStartTime": ""}, "StartTime is missing"),
        ({}, {"RadiopharmaceuticalStartDateTime": "20191224090000"}, "24 hours"),
    ],
)  # fmt: skip
def test_suv_is_refused_with_the_tag(tmp_path, tags, source, named):
    with pytest.raises(InputError, match=named):
        dicom.suv_factor(pet(tmp_path, source=source, **tags))


# --- real data ----------------------------------------------------------------------------------


def test_real_tilt_is_found_and_corrected(real_data):
    folder = real_data / "dicom/gantry-tilt/001"
    assert "14.00 degrees" in refused(folder)
    volume = dicom.read_series(folder, correct_tilt=True)
    assert volume.geometry.shape == (4, 521, 512)
    assert volume.spacing_mm[0] == pytest.approx(5 * 0.970295726276)


def test_real_jpeg2000_is_its_ground_truth(real_data):
    volume = read_volume(real_data / "dicom/jpeg2000/001").canonical()
    truth = read_volume(real_data / "dicom/jpeg2000/001_ground_truth.nii.gz").canonical()
    assert volume.geometry.difference(truth.geometry) is None
    assert np.array_equal(volume.array, truth.array)


def test_real_oblique_series(real_data):
    volume = read_volume(real_data / "dicom/oblique")
    assert volume.geometry.shape == (3, 50, 100)
    assert volume.spacing_mm == pytest.approx((4.5, 3.5, 2.5), abs=1e-3)
    assert volume.geometry.to_lps((2, 0, 0)) == pytest.approx(
        (122.0159697, -428.1596334, 38.0798058), abs=1e-3
    )


def test_real_multiframe_is_its_slices(real_data):
    slices = read_volume(real_data / "dicom/ct-with-seg/image")
    multi = read_volume(real_data / "dicom/ct-with-seg/multiframe")
    assert slices.geometry.difference(multi.geometry) is None
    assert np.array_equal(slices.array, multi.array)
    mask = read_geometry(real_data / "dicom/ct-with-seg/nrrd/label.nrrd")
    assert slices.geometry.difference(mask) is None


def test_real_structure_sets_are_left_out(real_data):
    assert read_volume(real_data / "dicom/rtstruct").geometry.shape == (2, 512, 512)
