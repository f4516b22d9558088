from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from napari.components import ViewerModel
from npe2 import PluginManager
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from napari_backsplit.backend.errors import BackSplitError
from napari_backsplit.backend.geometry import from_affine
from napari_backsplit.backend.volume import Volume, read_volume, write_volume
from napari_backsplit.widgets import reader
from napari_backsplit.widgets._layers import KEY, stored
from napari_backsplit.widgets.reader import get_reader, read_layers
from tests.widgets.display_support import SIGNED_PERMUTATIONS, counted, grid

FORMATS = (".nii", ".nii.gz", ".nrrd", ".mha", ".NII.GZ")


def written(path: Path, array=None, direction=SIGNED_PERMUTATIONS[29]) -> Path:
    volume = counted(grid(direction=direction), "int16")
    volume = volume if array is None else volume.with_array(array.reshape(volume.array.shape))
    lower = path.with_name(path.name.lower())
    write_volume(volume, lower)
    return lower.rename(path)


def series(folder: Path, slices: int = 4, uid: str | None = None, modality: str = "CT") -> Path:
    """Write an axial series of 5 x 6 pixels, 2 x 1 mm, slices 3 mm apart; slice k holds k."""
    folder.mkdir(exist_ok=True)
    uid = uid or generate_uid()
    for k in range(slices):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        image.SeriesInstanceUID, image.Modality, image.InstanceNumber = uid, modality, k + 1
        image.ImagePositionPatient = [10, -20, 30 + 3 * k]
        image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        image.PixelSpacing, image.SliceThickness = [2, 1], 3
        image.Rows, image.Columns, image.SamplesPerPixel = 5, 6, 1
        image.PhotometricInterpretation = "MONOCHROME2"
        image.BitsAllocated = image.BitsStored = 16
        image.HighBit, image.PixelRepresentation = 15, 0
        image.PixelData = np.full((5, 6), k, np.uint16).tobytes()
        image.save_as(folder / f"{uid[-6:]}-{k}.dcm", enforce_file_format=True)
    return folder


# --- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_opens_with_its_voxels_place_and_path(tmp_path, suffix):
    path = written(tmp_path / f"scan{suffix}")
    ((data, shown, kind),) = get_reader(str(path))(str(path))
    canonical = read_volume(path).canonical()
    assert kind == "image"
    assert shown["name"] == "scan"
    assert np.array_equal(stored(data), canonical.array)
    assert shown["scale"] == pytest.approx(canonical.spacing_mm)
    about = shown["metadata"][KEY]
    assert about["geometry"].difference(canonical.geometry) is None
    assert about["path"] == path
    assert read_volume(about["path"]).geometry.shape == (4, 5, 6)


def test_a_metaimage_header_with_its_voxels_beside_it(tmp_path):
    (tmp_path / "scan.raw").write_bytes(np.arange(120, dtype="<i2").tobytes())
    (tmp_path / "scan.mhd").write_text(
        "ObjectType = Image\nNDims = 3\nDimSize = 6 5 4\nElementSpacing = 1 2 3\n"
        "ElementType = MET_SHORT\nElementByteOrderMSB = False\nElementDataFile = scan.raw\n"
    )
    ((data, shown, _),) = read_layers(tmp_path / "scan.mhd")
    assert shown["scale"] == (3, 2, 1)
    assert stored(data).ravel().tolist() == list(range(120))


def test_several_paths_are_several_layers(tmp_path):
    paths = [str(written(tmp_path / f"{name}.nii.gz")) for name in ("flair", "t1")]
    assert [shown["name"] for _, shown, _ in get_reader(paths)(paths)] == ["flair", "t1"]


IDS = np.arange(120, dtype=np.uint8) % 5


@pytest.mark.parametrize(
    ("name", "array", "kind"),
    [
        ("case_1_seg", IDS, "labels"),
        ("labels", IDS, "labels"),
        ("Lesion-mask", IDS.astype(np.float32), "labels"),
        ("lesions", IDS.astype(np.int32), "labels"),
        ("case_1", IDS, "image"),
        ("seg_probabilities", IDS / np.float32(5), "image"),
        ("mask_of_counts", IDS.astype(np.int16) * 100, "image"),
        ("label_of_ct", IDS.astype(np.int16) - 1000, "image"),
        ("unmasked", IDS, "image"),
    ],
)
def test_whole_small_numbers_under_a_telling_name_are_labels(tmp_path, name, array, kind):
    path = written(tmp_path / f"{name}.nii.gz", array, SIGNED_PERMUTATIONS[0])
    ((data, shown, found),) = read_layers(path)
    assert found == kind
    assert np.allclose(stored(data).ravel(), array)
    assert shown["metadata"][KEY]["path"] == path


# --- DICOM --------------------------------------------------------------------------------------


def test_a_folder_opens_as_its_series(tmp_path):
    folder = series(tmp_path / "ct")
    ((data, shown, kind),) = get_reader(str(folder))(str(folder))
    assert (kind, shown["name"], data.shape) == ("image", "ct", (4, 5, 6))
    assert data[:, 0, 0].tolist() == [3, 2, 1, 0], "the head comes first"
    assert shown["scale"] == (3, 2, 1)
    assert shown["translate"] == (-39, -20, 10)
    assert shown["metadata"][KEY]["modality"] == "CT"
    assert shown["metadata"][KEY]["path"] == folder


def test_a_slice_opens_its_own_series_and_all_slices_open_it_once(tmp_path):
    series(tmp_path / "two", 4, "1.2.3.111111")
    folder = series(tmp_path / "two", 3, "1.2.3.222222", "MR")
    files = sorted(str(f) for f in folder.glob("222222-*.dcm"))
    ((data, shown, _),) = get_reader(files[1])(files[1])
    assert data.shape == (3, 5, 6)
    assert shown["metadata"][KEY]["series_uid"] == "1.2.3.222222"
    assert len(read_layers(files)) == 1
    assert len(read_layers([str(folder), *files])) == 2


def test_several_series_are_several_layers_named_by_what_they_are(tmp_path):
    series(tmp_path / "two", 4, "1.2.3.111111")
    layers = read_layers(series(tmp_path / "two", 3, "1.2.3.222222", "MR"))
    names = {shown["name"]: data.shape for data, shown, _ in layers}
    assert names == {
        "two: CT, 4 slices of 6 x 5": (4, 5, 6),
        "two: MR, 3 slices of 6 x 5": (3, 5, 6),
    }


def test_a_series_that_is_no_volume_is_left_out_with_a_warning(tmp_path, monkeypatch):
    series(tmp_path / "two", 4, "1.2.3.111111")
    folder = series(tmp_path / "two", 1, "1.2.3.222222")
    told = []
    monkeypatch.setattr(reader, "show_warning", told.append)
    assert [data.shape for data, _, _ in read_layers(folder)] == [(4, 5, 6)]
    assert len(told) == 1
    assert told[0].startswith("A series of the folder was left out. The DICOM series is no volume.")


def test_an_image_and_a_folder_in_one_go(tmp_path):
    paths = [written(tmp_path / "mr.nii.gz"), series(tmp_path / "ct")]
    assert [shown["name"] for _, shown, _ in read_layers(paths)] == ["mr", "ct"]


def test_real_series_open_as_the_backend_reads_them(real_data):
    folder = real_data / "dicom/ct-with-seg/image"
    ((data, shown, _),) = get_reader(str(folder))(str(folder))
    volume = read_volume(folder).canonical()
    assert np.array_equal(stored(data), volume.array)
    assert shown["scale"] == pytest.approx(volume.spacing_mm)


# --- what is not ours, and what is broken -------------------------------------------------------


def test_other_paths_are_left_to_other_readers(tmp_path):
    (tmp_path / "image.zarr").mkdir()
    (tmp_path / "image.zarr" / "zarr.json").write_text("{}")
    (tmp_path / "photo.png").touch()
    scan = written(tmp_path / "scan.nii")
    for path in (tmp_path / "image.zarr", tmp_path / "photo.png", tmp_path / "gone"):
        assert get_reader(str(path)) is None
        assert get_reader([str(scan), str(path)]) is None


def test_a_dicom_folder_without_suffixes_is_ours(tmp_path):
    for k, file in enumerate(sorted(series(tmp_path / "ct").iterdir())):
        file.rename(file.with_name(f"IM{k}"))
    assert get_reader(str(tmp_path / "ct")) is not None
    assert len(read_layers(tmp_path / "ct")) == 1


def cut_short(folder: Path) -> Path:
    path = written(folder / "cut.nii")
    path.write_bytes(path.read_bytes()[:400])
    return path


def four_d(folder: Path) -> Path:
    import nibabel

    path = folder / "time.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 4, 5, 2), np.int16), np.eye(4)), path)
    return path


def no_dicom(folder: Path) -> Path:
    (folder / "slice.dcm").write_bytes(b"no DICOM at all")
    return folder / "slice.dcm"


def gone(folder: Path) -> Path:
    return folder / "gone.nrrd"


@pytest.mark.parametrize("broken", [cut_short, four_d, no_dicom, gone])
def test_a_file_that_cannot_be_read_says_why_and_what_to_do(tmp_path, broken):
    path = broken(tmp_path)
    with pytest.raises(BackSplitError, match=path.name) as caught:
        get_reader(str(path))(str(path))
    assert caught.value.remedy


# --- through napari -----------------------------------------------------------------------------


@pytest.fixture
def viewer() -> ViewerModel:
    PluginManager.instance().discover()
    return ViewerModel()


@pytest.mark.parametrize("name", ["scan.nii.gz", "scan.nrrd", "SCAN.NII.GZ"])
def test_napari_opens_a_dropped_file(tmp_path, viewer, name):
    path = written(tmp_path / name)
    (layer,) = viewer.open(str(path), plugin="napari-backsplit")
    assert np.array_equal(stored(layer.data), read_volume(path).canonical().array)
    assert layer.source.path == str(path)


def test_napari_opens_a_dropped_folder(tmp_path, viewer):
    (layer,) = viewer.open(str(series(tmp_path / "ct")), plugin="napari-backsplit")
    assert layer.data.shape == (4, 5, 6)


def test_napari_shows_the_sentence_of_the_error(tmp_path, viewer):
    with pytest.raises(BackSplitError) as caught:
        viewer.open(str(four_d(tmp_path)), plugin="napari-backsplit")
    assert str(caught.value).startswith("time.nii.gz ")
    assert len(viewer.layers) == 0


def test_two_volumes_of_a_case_lie_over_each_other(tmp_path, viewer):
    ct = written(tmp_path / "ct.nii.gz")
    whole = read_volume(ct)
    half = Volume(whole.array[::2], _every_second(whole.geometry))
    write_volume(half, tmp_path / "pet.nii.gz")
    viewer.open([str(ct), str(tmp_path / "pet.nii.gz")], plugin="napari-backsplit")
    first, second = viewer.layers
    value = whole.array[2, 3, 4]
    places = [layer.data_to_world(np.argwhere(layer.data == value)[0]) for layer in (first, second)]
    assert np.allclose(*places, atol=1e-3)


def _every_second(geometry):
    affine = geometry.affine
    affine[:3, 2] *= 2
    return from_affine((2, *geometry.shape[1:]), affine)
