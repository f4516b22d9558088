"""DICOM series read as the user asks: with the tilt corrected, as SUV."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, PositronEmissionTomographyImageStorage, generate_uid
from typer.testing import CliRunner

from napari_backsplit.backend.errors import GeometryError, InputError
from napari_backsplit.backend.project import Project, Reading, import_folder
from napari_backsplit.backend.volume import read_volume
from napari_backsplit.cli import app

SHAPE, SLICES, STEP_MM = (5, 6), 4, 3.0
DOSE_BQ, HALF_LIFE_S, WEIGHT_KG = 3.7e8, 6586.2, 70
ACTIVITY = 1000
SUV = ACTIVITY * 1000 * WEIGHT_KG / (DOSE_BQ * 2 ** (-3600 / HALF_LIFE_S))


def series(folder: Path, *, slide_mm: float = 0.0, **tags) -> Path:
    """PET of 1000 Bq/ml, 3600 s after the administration; slices slide along their columns."""
    folder.mkdir(parents=True)
    for n in range(SLICES):
        data = _slice(n, (0.0, n * slide_mm, n * STEP_MM))
        for name, value in tags.items():
            setattr(data, name, value)
        data.save_as(folder / f"{n}.dcm", enforce_file_format=True)
    return folder


def _slice(number: int, position: tuple[float, float, float]) -> FileDataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = PositronEmissionTomographyImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, generate_uid()
    data.PatientName, data.Modality, data.SeriesInstanceUID = "X^Y", "PT", "1.2.3"
    data.InstanceNumber, data.ImagePositionPatient = number + 1, list(position)
    data.ImageOrientationPatient, data.PixelSpacing = [1, 0, 0, 0, 1, 0], [1, 1]
    data.Rows, data.Columns = SHAPE
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
    data.RescaleSlope, data.RescaleIntercept = 1, 0
    data.Units, data.CorrectedImage, data.DecayCorrection = "BQML", ["ATTN", "DECY"], "START"
    data.PatientWeight = WEIGHT_KG
    data.SeriesDate = data.AcquisitionDate = "20200102"
    data.SeriesTime = data.AcquisitionTime = "100000"
    injected = Dataset()
    injected.RadionuclideTotalDose, injected.RadionuclideHalfLife = DOSE_BQ, HALF_LIFE_S
    injected.RadiopharmaceuticalStartTime = "090000"
    data.RadiopharmaceuticalInformationSequence = Sequence([injected])
    data.PixelData = np.full(SHAPE, ACTIVITY, np.int16).tobytes()
    return data


@pytest.fixture
def pet(tmp_path):
    with Project.create(tmp_path / "pet", "demo", ["PET"], ["lesion"]) as project:
        yield project


def test_pet_becomes_suv_on_request_and_the_case_says_so(pet, tmp_path):
    case = pet.add_case({"PET": series(tmp_path / "s")}, reading=Reading(suv=("PET",)))
    assert read_volume(pet.image_paths(case.id)[0]).array == pytest.approx(SUV)
    assert "SUVbw with the factor" in case.notes[0]
    assert case.notes[1] == "PET was converted from a DICOM series."


def test_pet_stays_as_it_is_otherwise(pet, tmp_path):
    case = pet.add_case({"PET": series(tmp_path / "s")}, reading=Reading(correct_tilt=True))
    assert (read_volume(pet.image_paths(case.id)[0]).array == ACTIVITY).all()
    assert case.notes == ("PET was converted from a DICOM series.",)


def test_only_the_channel_that_was_named_becomes_suv(tmp_path, make):
    with Project.create(tmp_path / "p", "demo", ["CT", "PET"], ["lesion"]) as project:
        for name, value in (("CT", 5), ("PET", ACTIVITY)):
            pixels = np.full(SHAPE, value, np.int16).tobytes()
            series(tmp_path / f"in/a/{name}", PixelData=pixels)
        reading = Reading(suv=("PET",))
        report = import_folder(project, tmp_path / "in", "{case}/{channel}/", reading=reading)
        assert report.problems == ()
        ct, activity = (read_volume(path).array for path in project.image_paths("case_001"))
        assert (ct == 5).all()
        assert activity == pytest.approx(SUV)


def test_a_missing_tag_is_named_whatever_the_folder_is_called(pet, tmp_path):
    folder = series(tmp_path / "in/PET", PatientWeight=None)
    report = import_folder(pet, folder.parent, "{case}/", reading=Reading(suv=("PET",)))
    assert report.added == {}
    assert report.errors[0].message.startswith(
        "The PET series cannot be turned into SUV: the tag PatientWeight is missing."
    )


def test_a_note_keeps_its_figures_in_a_folder_with_a_number(pet, tmp_path):
    folder = series(tmp_path / "3", slide_mm=1)
    case = pet.add_case({"PET": folder}, reading=Reading(correct_tilt=True))
    assert "by up to 3 mm" in case.notes[0]


def test_suv_of_what_is_no_pet_is_refused(pet, tmp_path):
    folder = series(tmp_path / "s", Modality="CT")
    with pytest.raises(InputError, match="Modality is 'CT' instead of PT"):
        pet.add_case({"PET": folder}, reading=Reading(suv=("PET",)))


def test_suv_of_a_file_is_refused(pet, make):
    image = make.image("a.nii.gz")
    with pytest.raises(InputError, match="The image of PET is no DICOM series, so it cannot"):
        pet.add_case({"PET": image}, reading=Reading(suv=("PET",)))
    assert pet.case_ids() == ()
    assert list((pet.folder / "images").glob("*")) == []


def test_suv_of_an_unknown_channel_is_refused_before_anything_is_read(pet, make):
    image = make.image("a.nii.gz")
    reading = Reading(suv=("pet2",))
    with pytest.raises(InputError, match="no channel pet2"):
        import_folder(pet, make.folder, "{case}.nii.gz", reading=reading)
    with pytest.raises(InputError, match="no channel pet2"):
        pet.add_case({"PET": image}, reading=reading)


def test_a_tilt_is_refused_with_the_remedy_and_corrected_on_request(pet, tmp_path):
    folder = series(tmp_path / "s", slide_mm=1)
    with pytest.raises(GeometryError, match=r"gantry tilt of .* \(--correct-tilt\)"):
        pet.add_case({"PET": folder})
    case = pet.add_case({"PET": folder}, reading=Reading(correct_tilt=True))
    assert pet.geometry(case.id).shape == (SLICES, SHAPE[0] + 3, SHAPE[1])
    assert "shifted back by linear interpolation" in case.notes[0]
    with pytest.raises(Exception, match="same file as one of case_001"):
        pet.add_case({"PET": folder}, name="again", reading=Reading(correct_tilt=True))


def test_a_real_tilt_is_corrected_on_request(tmp_path, real_data):
    folder = real_data / "dicom/gantry-tilt"
    with Project.create(tmp_path / "p", "demo", ["CT"], ["lesion"]) as project:
        report = import_folder(project, folder, "{case}/")
        assert "14.00 degrees" in report.errors[0].message
        report = import_folder(project, folder, "{case}/", reading=Reading(correct_tilt=True))
        assert report.problems == ()
        assert "14.00 degrees" in report.notes[0]
        stored = read_volume(project.image_paths("case_001")[0])
        assert stored.geometry.shape == (4, 521, 512)
        assert stored.spacing_mm[0] == pytest.approx(5 * 0.970295726276)


def test_the_command_takes_both_options(pet, tmp_path):
    series(tmp_path / "in/a", slide_mm=1)
    pet.close()
    command = ["import", "images", str(tmp_path / "in"), "-p", str(pet.folder), "--pattern"]
    refused = CliRunner().invoke(app, [*command, "{case}/"])
    assert refused.exit_code == 1
    unknown = CliRunner().invoke(app, [*command, "{case}/", "--suv", "CT"])
    assert isinstance(unknown.exception, InputError)
    done = CliRunner().invoke(app, [*command, "{case}/", "--correct-tilt", "--suv", "PET"])
    assert done.exit_code == 0
    assert "gantry tilt" in done.output
    assert "SUVbw" in done.output
    stored = read_volume(Project.open(pet.folder, read_only=True).image_paths("case_001")[0])
    assert stored.array.max() == pytest.approx(SUV)
