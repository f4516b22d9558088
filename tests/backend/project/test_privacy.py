"""A patient named X^Y, imported from a folder X_Y, is named in private.json and nowhere else."""

from __future__ import annotations

import gzip
import stat
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from napari_backsplit.backend.errors import BackSplitError
from napari_backsplit.backend.project import (
    LabelMaps,
    Project,
    import_folder,
    import_structure_folder,
)
from napari_backsplit.backend.project.images import has_private_text
from napari_backsplit.backend.volume import read_volume

NAMES = (b"X^Y", b"X_Y")


def _traces(folder: Path) -> list[str]:
    """Return every file whose name, link target or content (unpacked, too) names the patient."""
    return [path.name for path in folder.rglob("*") if _names(path)]


def _names(path: Path) -> bool:
    texts = [path.name.encode()]
    if path.is_symlink():
        texts.append(str(path.readlink()).encode())
    if path.is_file():
        content = path.read_bytes()
        texts.append(content)
        if content[:2] == b"\x1f\x8b":
            texts.append(gzip.decompress(content))
    return any(name in text for name in NAMES for text in texts)


def test_only_private_json_names_the_patient(tmp_path, make):
    make.image("X_Y/X^Y_ct.nii.gz")
    make.mask("X_Y/X^Y_lesion.nii.gz", (1, 2))
    make.mask("X_Y/liver.nii.gz")
    ids = {1: "lesion", 2: "kidney"}
    supports = ["kidney", "liver"]
    with Project.create(tmp_path / "p", "demo", ["CT"], ["lesion"], supports) as project:
        labels = LabelMaps(make.folder, "X_Y/{case}_lesion.nii.gz", ids)
        pattern = "{patient}/{case}_ct.nii.gz"
        report = import_folder(project, make.folder, pattern, [labels])
        names = {"liver": "liver"}
        import_structure_folder(project, "case_001", make.folder / "X_Y", names)
        project.set_mask(
            "case_001", "liver", read_volume(make.folder / "X_Y/liver.nii.gz"), {}, replace=True
        )
    assert report.problems == ()
    assert _traces(tmp_path / "p") == ["private.json"]
    private = tmp_path / "p/private.json"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert str(make.folder / "X_Y/X^Y_ct.nii.gz") in private.read_text()
    assert str(make.folder / "X_Y/liver.nii.gz") in private.read_text()


def test_private_json_stays_private_when_it_is_replaced(project, make):
    project.add_case({"CT": make.image("a.nii.gz")})
    assert stat.S_IMODE((project.folder / "private.json").stat().st_mode) == 0o600


def test_no_error_of_an_import_names_the_patient(project, make):
    bad = make.image("X_Y/X^Y.nii.gz")
    bad.write_bytes(b"nothing")
    with pytest.raises(BackSplitError) as caught:
        project.add_case({"CT": bad}, patient="X^Y")
    assert not any(name.decode() in str(caught.value) for name in NAMES)
    report = import_folder(project, make.folder, "{patient}/{case}.nii.gz")
    assert not any(n.decode() in p.message for n in NAMES for p in report.problems)
    assert report.problems[0].source == bad


def _nifti_with(path: Path, first: int, text: bytes) -> Path:
    """Put a text into the header of a NIfTI."""
    data = bytearray(gzip.decompress(path.read_bytes()))
    data[first : first + len(text)] = text
    path.write_bytes(gzip.compress(bytes(data)))
    return path


@pytest.mark.parametrize("first", [14, 148, 228, 328], ids=["db_name", "descrip", "aux", "intent"])
def test_a_name_in_the_header_is_not_taken_along(project, make, first):
    source = _nifti_with(make.image("a.nii.gz"), first, b"X^Y")
    case = project.add_case({"CT": source}, name="a", patient="X^Y")
    assert "without the text in its header" in case.notes[-1]
    assert _traces(project.folder) == ["private.json"]
    stored = read_volume(project.image_paths(case.id)[0])
    np.testing.assert_array_equal(stored.array, read_volume(source).array)
    assert stored.geometry.difference(read_volume(source).geometry) is None


def test_a_description_without_a_name_is_no_reason_to_copy(project, make):
    source = _nifti_with(make.image("a.nii.gz"), 148, b"FSL5.0")
    assert project.add_case({"CT": source}, name="a").notes == ()


def test_a_gzip_that_remembers_its_first_name_is_written_anew(project, make):
    source = make.image("a.nii.gz")
    data = gzip.decompress(source.read_bytes())
    with source.open("wb") as file, gzip.GzipFile("X_Y.nii", "wb", fileobj=file) as zipped:
        zipped.write(data)
    assert b"X_Y.nii" in source.read_bytes()
    project.add_case({"CT": source}, name="a")
    assert _traces(project.folder) == []


def test_a_nifti_extension_is_not_taken_along(project, make):
    source = make.image("a.nii.gz")
    data = bytearray(gzip.decompress(source.read_bytes()))
    extension = struct.pack("<ii", 16, 6) + b"X^Y\0\0\0\0\0"
    data[348:352] = b"\1\0\0\0"
    data[108:112] = struct.pack("<f", 352 + len(extension))
    source.write_bytes(gzip.compress(bytes(data[:352]) + extension + bytes(data[352:])))
    project.add_case({"CT": source}, name="a")
    assert _traces(project.folder) == []


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_keys_of_nrrd_and_metaimage_are_not_taken_along(project, make, ending):
    plain = make.image(f"plain{ending}")
    assert not has_private_text(plain, ())
    assert project.add_case({"CT": plain}, name="plain").notes == ()
    image = sitk.GetImageFromArray(np.random.default_rng(9).normal(size=(4, 5, 6)))
    image.SetMetaData("PatientName", "X^Y")
    source = make.folder / f"tagged{ending}"
    sitk.WriteImage(image, str(source))
    assert b"X^Y" in source.read_bytes()
    project.add_case({"CT": source}, name="tagged")
    assert _traces(project.folder) == []
