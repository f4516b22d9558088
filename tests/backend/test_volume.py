from __future__ import annotations

import gzip
import itertools
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from napari_backsplit.backend.errors import GeometryError, InputError
from napari_backsplit.backend.geometry import axis_codes, from_parts
from napari_backsplit.backend.volume import (
    Geometry,
    Volume,
    check_finite,
    read_geometry,
    read_label_map,
    read_mask,
    read_volume,
    resample,
    restore,
    write_volume,
)

FORMATS = (".nii", ".nii.gz", ".nrrd", ".mha")
IDENTITY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
SIGNED_PERMUTATIONS = [
    np.eye(3)[:, list(axes)] * signs
    for axes in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]
quick = settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def grid(shape=(3, 4, 5), spacing=(2.0, 1.5, 1.0), origin=(10.0, -20.0, 30.0), direction=IDENTITY):
    return from_parts(shape, spacing, origin, direction)


def counted(geometry: Geometry, dtype="int16") -> Volume:
    return Volume(
        np.arange(np.prod(geometry.shape)).reshape(geometry.shape).astype(dtype), geometry
    )


def nifti(path: Path, array_xyz, sform=None, qform=None, **header) -> Path:
    """Write a NIfTI file with exactly these forms; None means code 0."""
    image = nib.Nifti1Image(array_xyz, None)
    image.header.set_zooms((1.0, 1.5, 2.0, *(1.0,) * (array_xyz.ndim - 3)))
    image.set_qform(qform, code=0 if qform is None else 1)
    image.set_sform(sform, code=0 if sform is None else 1)
    nib.save(image, path)
    if header:
        patch_header(path, **header)
    return path


def patch_header(path: Path, **fields) -> None:
    content = path.read_bytes()
    header = nib.Nifti1Header(content[:348], check=False)
    for name, value in fields.items():
        header[name] = value
    path.write_bytes(header.binaryblock + content[348:])


AFFINE = np.array([[-1.0, 0, 0, 7], [0, -1.5, 0, 8], [0, 0, 2, 9], [0, 0, 0, 1]])
VOXELS = np.arange(60, dtype=np.int16).reshape(5, 4, 3)


@st.composite
def geometries(draw) -> Geometry:
    """Any grid: small, anisotropic, oblique, of either handedness."""
    shape = draw(st.tuples(*[st.integers(1, 5)] * 3))
    spacing = draw(st.tuples(*[st.floats(0.1, 10)] * 3))
    origin = draw(st.tuples(*[st.floats(-500, 500)] * 3))
    angles = draw(st.tuples(*[st.floats(-180, 180)] * 3))
    flip = draw(st.sampled_from([1, -1]))
    rotation = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    return from_parts(shape, spacing, origin, rotation * (1, 1, flip))


# --- the grid -----------------------------------------------------------------------------------


def test_to_lps_by_hand():
    geometry = grid()
    assert geometry.to_lps((0, 0, 0)).tolist() == [10, -20, 30]
    assert geometry.to_lps((1, 2, 3)).tolist() == [10 + 3 * 1.0, -20 + 2 * 1.5, 30 + 1 * 2.0]
    assert geometry.voxel_ml == pytest.approx(0.003)


def test_to_lps_takes_many_points_and_to_index_takes_them_back():
    geometry = grid(direction=Rotation.from_euler("xyz", (20, 30, 40), degrees=True).as_matrix())
    points = np.array([[0, 1, 2], [2, 3, 4]])
    assert np.allclose(geometry.to_index(geometry.to_lps(points)), points)


@given(geometries())
@quick
def test_to_lps_agrees_with_simpleitk(geometry):
    image = sitk.Image(geometry.shape[::-1], sitk.sitkUInt8)
    image.SetSpacing(geometry.spacing_mm[::-1])
    image.SetOrigin(geometry.origin_mm)
    image.SetDirection(np.ravel(geometry.direction).tolist())
    assert np.allclose(
        geometry.to_lps((2, 3, 4)), image.TransformIndexToPhysicalPoint((4, 3, 2)), atol=1e-6
    )


def test_difference_is_none_within_the_tolerance():
    assert grid().difference(grid()) is None
    assert grid().difference(grid(origin=(10.0 + 9e-4, -20.0, 30.0))) is None


@pytest.mark.parametrize(
    ("other", "word"),
    [
        (grid(shape=(3, 4, 6)), "shapes"),
        (grid(spacing=(2.0, 1.5, 1.01)), "spacings"),
        (grid(origin=(10.1, -20.0, 30.0)), "origins"),
        (grid(direction=np.diag([1, -1, 1])), "directions"),
    ],
)
def test_difference_says_what_differs(other, word):
    assert word in (grid().difference(other) or "")


@pytest.mark.parametrize("spacing", [(0, 1, 1), (1, -1, 1), (1, 1, np.nan), (np.inf, 1, 1)])
def test_a_spacing_without_size_is_refused(spacing):
    with pytest.raises(GeometryError, match="spacing"):
        grid(spacing=spacing)


def test_an_origin_that_is_not_finite_is_refused():
    with pytest.raises(GeometryError, match="origin"):
        grid(origin=(np.nan, 0, 0))


def test_shear_is_refused_with_its_angle():
    sheared = np.array([[1, np.sin(np.radians(3)), 0], [0, np.cos(np.radians(3)), 0], [0, 0, 1]])
    with pytest.raises(GeometryError, match=r"axes x and y meet at 87\.000 degrees"):
        grid(direction=sheared)


def test_columns_of_a_wrong_length_are_refused():
    with pytest.raises(GeometryError, match="not orthonormal"):
        grid(direction=np.diag([1, 1.1, 1]))


def test_rounded_directions_are_made_exactly_orthonormal():
    rotation = Rotation.from_euler("xyz", (20, 30, 40), degrees=True).as_matrix()
    direction = np.array(grid(direction=np.round(rotation, 5)).direction)
    assert np.allclose(direction.T @ direction, np.eye(3), atol=1e-14)
    assert np.allclose(direction, rotation, atol=1e-5)


def test_a_volume_must_have_the_shape_of_its_grid():
    with pytest.raises(GeometryError, match=r"\(3, 4\)"):
        Volume(np.zeros((3, 4)), grid())


# --- the canonical view -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "direction", SIGNED_PERMUTATIONS, ids=lambda d: axis_codes(grid(direction=d))
)
def test_all_48_orientations_are_canonical_and_come_back(direction):
    geometry = grid(direction=direction)
    volume = counted(geometry)
    canonical = volume.canonical()
    assert np.array_equal(canonical.direction, IDENTITY)
    assert axis_codes(canonical.geometry) == "LPS"
    assert restore(canonical.array, geometry).tobytes() == volume.array.tobytes()
    landmark = (1, 3, 2)
    index = np.argwhere(canonical.array == volume.array[landmark])[0]
    assert np.allclose(canonical.geometry.to_lps(index), geometry.to_lps(landmark))


def test_the_48_orientations_are_48():
    assert len({axis_codes(grid(direction=d)) for d in SIGNED_PERMUTATIONS}) == 48


@given(geometries())
@quick
def test_canonical_keeps_every_voxel_in_its_place(geometry):
    volume = counted(geometry, "int32")
    canonical = volume.canonical()
    for index in np.ndindex(*geometry.shape):
        there = np.argwhere(canonical.array == volume.array[index])[0]
        assert np.allclose(
            canonical.geometry.to_lps(there), geometry.to_lps(index), rtol=0, atol=1e-6
        )


@given(geometries())
@quick
def test_canonical_only_permutes_and_flips(geometry):
    volume = counted(geometry, "int32")
    canonical = volume.canonical()
    assert np.shares_memory(canonical.array, volume.array)
    assert np.array_equal(restore(canonical.array, geometry), volume.array)
    assert np.array_equal(canonical.canonical().array, canonical.array)
    assert sorted(canonical.spacing_mm) == pytest.approx(sorted(volume.spacing_mm))
    # No axis that is canonical points away from its patient axis.
    assert np.linalg.det(canonical.direction) * np.trace(canonical.direction) != 0
    assert np.trace(canonical.direction) >= 1 - 1e-6


@pytest.mark.parametrize("direction", [d for d in SIGNED_PERMUTATIONS if np.linalg.det(d) > 0][::3])
def test_canonical_agrees_with_simpleitk(direction):
    volume = counted(grid(direction=direction))
    image = sitk.GetImageFromArray(volume.array)
    image.SetSpacing(volume.spacing_mm[::-1])
    image.SetOrigin(volume.origin_mm)
    image.SetDirection(np.ravel(volume.direction).tolist())
    oriented = sitk.DICOMOrient(image, "LPS")
    assert np.array_equal(sitk.GetArrayFromImage(oriented), volume.canonical().array)
    assert np.allclose(oriented.GetOrigin(), volume.canonical().origin_mm)


def test_restore_refuses_an_array_of_another_shape():
    geometry = grid(direction=np.eye(3)[:, [2, 0, 1]])
    with pytest.raises(GeometryError, match="canonical view has"):
        restore(np.zeros(geometry.shape), geometry)


def test_notes_travel_along():
    volume = Volume(np.zeros((3, 4, 5)), grid(), ("A note.",))
    assert volume.canonical().notes == volume.with_array(np.ones((3, 4, 5))).notes == ("A note.",)


# --- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", FORMATS)
@given(geometry=geometries())
@quick
def test_files_give_back_what_was_written(tmp_path, suffix, geometry):
    path = tmp_path / f"volume{suffix}"
    write_volume(counted(geometry), path)
    volume = read_volume(path)
    assert np.array_equal(volume.array, counted(geometry).array)
    assert volume.array.dtype == np.int16
    assert not volume.notes
    last = np.subtract(geometry.shape, 1)
    assert np.allclose(volume.geometry.to_lps(last), geometry.to_lps(last), rtol=0, atol=1e-3)
    assert np.allclose(volume.direction, geometry.direction, rtol=0, atol=2e-6)
    assert read_geometry(path).difference(volume.geometry) is None


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("direction", SIGNED_PERMUTATIONS[::7])
def test_files_keep_their_orientation(tmp_path, suffix, direction):
    path = tmp_path / f"volume{suffix}"
    write_volume(counted(grid(direction=direction)), path)
    assert read_geometry(path).difference(grid(direction=direction)) is None


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", "int16", "uint16", "int32", "float32", "float64", ">i2"]
)
def test_dtypes_survive(tmp_path, suffix, dtype):
    array = (np.arange(60).reshape(3, 4, 5) % 2).astype(dtype)
    write_volume(Volume(array, grid()), tmp_path / f"v{suffix}")
    back = read_volume(tmp_path / f"v{suffix}").array
    assert np.array_equal(back, array)
    assert back.dtype == (np.uint8 if dtype == "bool" else np.dtype(dtype).newbyteorder("="))


@pytest.mark.parametrize("suffix", FORMATS)
def test_paths_may_hold_spaces_and_any_letter(tmp_path, suffix):
    path = tmp_path / "Ordner mit Ümläuten 日本" / f"bild é {suffix}"
    write_volume(counted(grid()), path)
    assert np.array_equal(read_volume(str(path)).array, counted(grid()).array)


@pytest.mark.parametrize("suffix", FORMATS)
def test_suffixes_may_be_upper_case_when_read(tmp_path, suffix):
    write_volume(counted(grid()), tmp_path / f"v{suffix}")
    path = (tmp_path / f"v{suffix}").rename(tmp_path / f"W{suffix.upper()}")
    assert np.array_equal(read_volume(path).array, counted(grid()).array)
    assert read_geometry(path).difference(grid()) is None


def test_a_view_that_is_not_contiguous_is_written_right(tmp_path):
    volume = counted(grid(direction=np.diag([-1, 1, -1]))).canonical()
    write_volume(volume, tmp_path / "v.nrrd")
    assert np.array_equal(read_volume(tmp_path / "v.nrrd").array, volume.array)


def test_simpleitk_and_nibabel_read_the_same(tmp_path):
    geometry = grid(direction=Rotation.from_euler("xyz", (10, 20, 30), degrees=True).as_matrix())
    write_volume(counted(geometry), tmp_path / "v.nii.gz")
    image = sitk.ReadImage(tmp_path / "v.nii.gz")
    assert np.allclose(image.GetDirection(), np.ravel(geometry.direction), atol=1e-6)
    affine = nib.load(tmp_path / "v.nii.gz").affine
    assert np.allclose(np.diag([-1, -1, 1, 1]) @ affine, geometry.affine, atol=1e-4)


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "v.nii.gz"
    write_volume(counted(grid()), path)
    before = path.read_bytes()
    with pytest.raises((RuntimeError, TypeError, ValueError)):
        write_volume(Volume(np.full((3, 4, 5), "x", object), grid()), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["v.nii.gz"]


def test_files_carry_no_metadata_but_the_grid(tmp_path):
    write_volume(
        Volume(np.zeros((3, 4, 5), np.uint8), grid(), ("Patient X^Y",)), tmp_path / "X_Y.nrrd"
    )
    write_volume(
        Volume(np.zeros((3, 4, 5), np.uint8), grid(), ("Patient X^Y",)), tmp_path / "X_Y.nii"
    )
    assert b"X^Y" not in (tmp_path / "X_Y.nrrd").read_bytes()
    header = nib.load(tmp_path / "X_Y.nii").header
    assert not header["descrip"].item()
    assert not header["aux_file"].item()
    assert b"X_Y" not in (tmp_path / "X_Y.nii").read_bytes()


@pytest.mark.parametrize("name", ["v.png", "v.mhd", "v", "v.nii.zip", "v.NII.GZ"])
def test_a_suffix_that_cannot_be_written_is_refused(tmp_path, name):
    with pytest.raises(InputError, match=r"\.nrrd"):
        write_volume(counted(grid()), tmp_path / name)


# --- NIfTI --------------------------------------------------------------------------------------


def test_stored_integers_are_scaled(tmp_path):
    path = nifti(tmp_path / "v.nii", VOXELS, AFFINE, scl_slope=0.5, scl_inter=-1024)
    array = read_volume(path).array
    assert array.dtype == np.float32
    assert np.array_equal(array, VOXELS.T * 0.5 - 1024)
    assert np.array_equal(array, sitk.GetArrayFromImage(sitk.ReadImage(path)))


@pytest.mark.parametrize("slope", [0, np.nan, 1])
def test_no_scale_keeps_the_integers(tmp_path, slope):
    path = nifti(tmp_path / "v.nii", VOXELS, AFFINE, scl_slope=slope, scl_inter=0)
    assert read_volume(path).array.dtype == np.int16


def test_big_endian_and_nifti2(tmp_path):
    nib.save(nib.Nifti2Image(VOXELS, AFFINE), tmp_path / "two.nii")
    big = nib.Nifti1Image(VOXELS, AFFINE, nib.Nifti1Header(endianness=">"))
    big.header.set_data_dtype(">i2")
    nib.save(big, tmp_path / "big.nii.gz")
    for name in ("two.nii", "big.nii.gz"):
        assert np.array_equal(read_volume(tmp_path / name).array, VOXELS.T)
        assert axis_codes(read_geometry(tmp_path / name)) == "LPS"


def test_4d_is_refused_with_its_shape(tmp_path):
    path = nifti(tmp_path / "v.nii.gz", np.zeros((5, 4, 3, 2), np.int16), AFFINE)
    for read in (read_volume, read_geometry):
        with pytest.raises(GeometryError, match=r"shape \(5, 4, 3, 2\)"):
            read(path)


def test_a_fourth_axis_of_one_is_fine(tmp_path):
    path = nifti(tmp_path / "v.nii.gz", VOXELS[..., None], AFFINE)
    assert read_volume(path).array.shape == (3, 4, 5)


def test_2d_is_refused(tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((5, 4), np.int16), AFFINE), tmp_path / "v.nii")
    with pytest.raises(GeometryError, match=r"shape \(5, 4\)"):
        read_volume(tmp_path / "v.nii")


def test_forms_that_conflict_are_refused(tmp_path):
    turned = AFFINE @ np.diag([1, -1, 1, 1])
    path = nifti(tmp_path / "v.nii", VOXELS, sform=AFFINE, qform=turned)
    with pytest.raises(GeometryError, match="qform and its sform"):
        read_volume(path)


def test_forms_that_differ_by_rounding_are_fine(tmp_path):
    close = AFFINE.copy()
    close[:3, 3] += 0.01
    path = nifti(tmp_path / "v.nii", VOXELS, sform=AFFINE, qform=close)
    assert read_volume(path).origin_mm == pytest.approx((-7, -8, 9))


@pytest.mark.parametrize("tool", ["simpleitk", "nibabel"])
def test_what_a_quaternion_rounds_is_no_conflict(tmp_path, tool):
    """A tilted gantry: at half a turn, as from LPS to RAS, a quaternion is least exact."""
    for tilt in np.linspace(0.01, 2, 40):
        turn = Rotation.from_euler("xyz", (tilt, tilt / 3, tilt / 7), degrees=True).as_matrix()
        geometry = from_parts((2, 512, 512), (3.0, 0.7, 0.7), (-170, -180, 33), turn)
        path = tmp_path / "v.nii"
        if tool == "simpleitk":
            image = sitk.Image(512, 512, 2, sitk.sitkUInt8)
            image.SetSpacing((0.7, 0.7, 3.0))
            image.SetOrigin((-170, -180, 33))
            image.SetDirection(turn.ravel().tolist())
            sitk.WriteImage(image, path)
        else:
            affine = np.diag([-1, -1, 1, 1]) @ np.block(
                [[turn * (0.7, 0.7, 3.0), np.array([[-170], [-180], [33]])], [np.eye(4)[3:]]]
            )
            nifti(path, np.zeros((512, 512, 2), np.uint8), sform=affine, qform=affine)
        assert read_geometry(path).difference(geometry) is None


def test_a_turn_that_is_no_rounding_is_a_conflict(tmp_path):
    turn = Rotation.from_euler("z", 0.2, degrees=True).as_matrix()
    other = np.diag([-0.7, -0.7, 3, 1]) @ np.block([[turn, np.zeros((3, 1))], [np.eye(4)[3:]]])
    flat = np.zeros((512, 512, 2), np.uint8)
    path = nifti(tmp_path / "v.nii", flat, sform=np.diag([-0.7, -0.7, 3, 1]), qform=other)
    with pytest.raises(GeometryError, match="qform and its sform"):
        read_volume(path)


def test_a_form_with_code_zero_is_not_looked_at(tmp_path):
    path = nifti(tmp_path / "q.nii", VOXELS, qform=AFFINE)
    patch_header(path, srow_x=(9, 9, 9, 9))
    assert read_volume(path).origin_mm == pytest.approx((-7, -8, 9))
    path = nifti(tmp_path / "s.nii", VOXELS, sform=AFFINE)
    patch_header(path, qoffset_x=500)
    assert read_volume(path).origin_mm == pytest.approx((-7, -8, 9))


def test_no_form_is_noted_and_read_as_simpleitk_does(tmp_path):
    path = nifti(tmp_path / "v.nii", VOXELS)
    volume = read_volume(path)
    assert "left and right are not known" in volume.notes[0]
    assert volume.spacing_mm == (2.0, 1.5, 1.0)
    image = sitk.ReadImage(path)
    assert np.allclose(image.GetDirection(), np.ravel(volume.direction))
    assert np.allclose(image.GetOrigin(), volume.origin_mm)


def test_a_sheared_sform_is_refused(tmp_path):
    sheared = AFFINE.copy()
    sheared[0, 1] = 0.1
    path = nifti(tmp_path / "v.nii", VOXELS, sform=sheared)
    patch_header(path, pixdim=[1, *np.linalg.norm(sheared[:3, :3], axis=0), 1, 1, 1, 1])
    for read in (read_volume, read_geometry):
        with pytest.raises(GeometryError, match=r"v\.nii: The grid is sheared"):
            read(path)


def test_a_spacing_that_contradicts_the_sform_is_refused(tmp_path):
    path = nifti(tmp_path / "v.nii", VOXELS, sform=AFFINE)
    patch_header(path, pixdim=[1, 2, 2, 2, 1, 1, 1, 1])
    with pytest.raises(GeometryError, match=r"\(1, 1\.5, 2\) mm, its pixdim \(2, 2, 2\)"):
        read_volume(path)


@pytest.mark.parametrize("sform", [None, AFFINE, AFFINE @ np.diag([0, 1, 1, 1])])
def test_a_zero_spacing_is_refused(tmp_path, sform):
    path = nifti(tmp_path / "v.nii", VOXELS, sform=sform)
    patch_header(path, pixdim=[1, 0, 1.5, 2, 1, 1, 1, 1])
    with pytest.raises(GeometryError, match="spacing"):
        read_volume(path)


def test_a_qform_that_is_no_rotation_is_refused(tmp_path):
    path = nifti(tmp_path / "v.nii", VOXELS, qform=AFFINE)
    patch_header(path, quatern_b=0.9, quatern_c=0.9)
    with pytest.raises(GeometryError, match="no rotation"):
        read_volume(path)


def test_lengths_in_metres_are_refused(tmp_path):
    with pytest.raises(GeometryError, match="metres"):
        read_volume(nifti(tmp_path / "v.nii", VOXELS, AFFINE, xyzt_units=1))


def test_colours_are_refused(tmp_path):
    rgb = np.zeros((5, 4, 3), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(rgb, AFFINE), tmp_path / "v.nii")
    with pytest.raises(InputError, match="type 128"):
        read_volume(tmp_path / "v.nii")


# --- NRRD and MetaImage -------------------------------------------------------------------------


def edited(tmp_path: Path, suffix: str, old: bytes, new: bytes) -> Path:
    """Write a plain file and replace `old` in its header."""
    image = sitk.GetImageFromArray(counted(grid()).array)
    sitk.WriteImage(image, tmp_path / f"v{suffix}", False)
    content = (tmp_path / f"v{suffix}").read_bytes()
    assert old in content
    (tmp_path / f"v{suffix}").write_bytes(content.replace(old, new))
    return tmp_path / f"v{suffix}"


NRRD_DIRECTIONS = b"space directions: (1,0,0) (0,1,0) (0,0,1)"


@pytest.mark.parametrize(
    ("suffix", "old", "new", "message"),
    [
        (".nrrd", NRRD_DIRECTIONS, b"space directions: (1,0,0) (.3,1,0) (0,0,1)", "sheared"),
        (".nrrd", NRRD_DIRECTIONS, b"space directions: (1,0,0) (0,0,0) (0,0,1)", "spacing 0"),
        (".nrrd", b"left-posterior-superior", b"scanner-xyz", "scanner-xyz"),
        (".mha", b"1 0 0 0 1 0 0 0 1", b"1 0 0 .3 1 0 0 0 1", "orthonormal"),
        (".mha", b"ElementSpacing = 1 1 1", b"ElementSpacing = 1 0 1", "spacing 1 0 1"),
    ],
)
def test_a_bad_grid_is_refused(tmp_path, suffix, old, new, message):
    path = edited(tmp_path, suffix, old, new)
    for read in (read_volume, read_geometry):
        with pytest.raises(GeometryError, match=message):
            read(path)


@pytest.mark.parametrize(
    ("suffix", "old", "new"),
    [
        (".mha", b"TransformMatrix = 1 0 0 0 1 0 0 0 1\n", b""),
        (
            ".nrrd",
            b"space: left-posterior-superior\nsizes: 5 4 3\n" + NRRD_DIRECTIONS,
            b"sizes: 5 4 3\nspacings: 1 1 2",
        ),
    ],
)
def test_a_missing_grid_is_noted(tmp_path, suffix, old, new):
    path = edited(tmp_path, suffix, old, new)
    if suffix == ".nrrd":
        path.write_bytes(path.read_bytes().replace(b"space origin: (0,0,0)\n", b""))
    assert "left and right are not known" in read_volume(path).notes[0]


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_several_components_are_refused_with_their_shape(tmp_path, suffix):
    image = sitk.GetImageFromArray(np.zeros((3, 4, 5, 2), np.uint8), isVector=True)
    sitk.WriteImage(image, tmp_path / f"v{suffix}")
    with pytest.raises(GeometryError, match=r"shape \(5, 4, 3, 2\)"):
        read_volume(tmp_path / f"v{suffix}")


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_4d_nrrd_and_mha_are_refused_with_their_shape(tmp_path, suffix):
    image = sitk.JoinSeries([sitk.GetImageFromArray(counted(grid()).array)] * 2)
    sitk.WriteImage(image, tmp_path / f"v{suffix}")
    with pytest.raises(GeometryError, match=r"shape \(5, 4, 3, 2\)"):
        read_volume(tmp_path / f"v{suffix}")


def test_mhd_is_read_and_its_missing_voxels_noticed(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(counted(grid()).array), tmp_path / "v.mhd")
    assert np.array_equal(read_volume(tmp_path / "v.mhd").array, counted(grid()).array)
    (tmp_path / "v.raw").write_bytes(b"short")
    with pytest.raises(InputError, match="5 of 120 bytes"):
        read_volume(tmp_path / "v.mhd")
    (tmp_path / "v.raw").unlink()
    with pytest.raises(InputError, match=r"v\.mhd"):
        read_volume(tmp_path / "v.mhd")


def test_nrrd_in_ras_is_turned_to_lps(tmp_path):
    path = edited(tmp_path, ".nrrd", b"left-posterior-superior", b"right-anterior-superior")
    assert axis_codes(read_geometry(path)) == "RAS"


# --- damage -------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.98])
def test_a_file_cut_short_is_refused_in_silence(tmp_path, capfd, suffix, share):
    path = tmp_path / f"v{suffix}"
    noise = np.random.default_rng(0).integers(0, 999, (20, 20, 20)).astype(np.int16)
    write_volume(Volume(noise, grid(shape=(20, 20, 20))), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match=r"^v\.") as caught:
        read_volume(path)
    assert str(tmp_path) not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_wrong_checksum_is_noticed(tmp_path):
    path = nifti(tmp_path / "v.nii.gz", VOXELS, AFFINE)
    content = bytearray(path.read_bytes())
    content[-6] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        read_volume(path)


def test_gzip_that_is_no_nifti_is_refused(tmp_path):
    (tmp_path / "v.nii.gz").write_bytes(gzip.compress(b"x" * 1000))
    with pytest.raises(InputError, match="not a NIfTI"):
        read_volume(tmp_path / "v.nii.gz")
    (tmp_path / "w.nii.gz").write_bytes(b"plain")
    with pytest.raises(InputError, match="damaged"):
        read_geometry(tmp_path / "w.nii.gz")


def test_a_size_beyond_the_file_is_refused(tmp_path):
    path = nifti(tmp_path / "v.nii", VOXELS, AFFINE)
    patch_header(path, dim=[3, 32767, 32767, 32767, 1, 1, 1, 1])
    with pytest.raises(InputError, match="cut short"):
        read_volume(path)


@given(st.binary(max_size=400), st.sampled_from([".nii", ".nrrd", ".mha"]))
@quick
def test_any_bytes_are_refused_plainly(tmp_path, content, suffix):
    path = tmp_path / f"v{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError):
        read_volume(path)


@pytest.mark.parametrize("read", [read_volume, read_geometry, read_label_map, read_mask])
def test_missing_and_unknown_files_are_named(tmp_path, read):
    with pytest.raises(InputError, match=r"none\.nii does not exist"):
        read(tmp_path / "none.nii")
    (tmp_path / "v.png").touch()
    with pytest.raises(InputError, match="suffix that is not known"):
        read(tmp_path / "v.png")
    (tmp_path / "v.dcm").touch()
    with pytest.raises(InputError, match="folder of the series"):
        read(tmp_path / "v.dcm")


def test_reading_imports_no_screen_and_no_torch():
    code = (
        "import sys, napari_backsplit.backend.volume, napari_backsplit.backend.dicom;"
        "print(*({'torch', 'napari', 'qtpy', 'nnunetv2'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == ""


# --- label maps and masks -----------------------------------------------------------------------


def stored(tmp_path: Path, array) -> Path:
    write_volume(Volume(np.asarray(array), grid(np.shape(array))), tmp_path / "labels.nii.gz")
    return tmp_path / "labels.nii.gz"


@pytest.mark.parametrize(("top", "dtype"), [(1, "uint8"), (255, "uint8"), (256, "uint16")])
@pytest.mark.parametrize("stored_as", ["int16", "float32", "float64"])
def test_label_maps_take_the_smallest_type(tmp_path, top, dtype, stored_as):
    path = stored(tmp_path, np.array([[[0, top]]], stored_as))
    assert read_label_map(path).array.dtype == dtype
    assert read_label_map(path).array.tolist() == [[[0, top]]]


@pytest.mark.parametrize(
    ("value", "message"),
    [(0.5, r"0\.5 at .*\(0, 0, 1\) is not a whole number"), (-1, "is negative"), (np.nan, "NaN")],
)
def test_bad_labels_are_named(tmp_path, value, message):
    with pytest.raises(InputError, match=message):
        read_label_map(stored(tmp_path, np.array([[[0, value]]], np.float32)))


def test_negative_integers_are_named(tmp_path):
    with pytest.raises(InputError, match="-3 at"):
        read_label_map(stored(tmp_path, np.array([[[0, -3]]], np.int16)))


def test_a_mask_is_true_where_not_zero(tmp_path):
    mask = read_mask(stored(tmp_path, np.array([[[0, 7, 1]]], np.uint8))).array
    assert mask.dtype == bool
    assert mask.tolist() == [[[False, True, True]]]


def test_an_empty_mask_is_fine(tmp_path):
    assert not read_mask(stored(tmp_path, np.zeros((3, 4, 5), np.uint8)), grid()).array.any()


def test_a_mask_on_another_grid_is_refused_with_both(tmp_path):
    path = stored(tmp_path, np.zeros((3, 4, 5), np.uint8))
    with pytest.raises(GeometryError, match=r"(?s)Image: shape.*mask: shape"):
        read_mask(path, grid(origin=(11, -20, 30)))


def test_check_finite_counts_and_points():
    array = np.zeros((3, 4, 5), np.float32)
    check_finite(Volume(array, grid()), "CT")
    array[1, 2, 3], array[2, 0, 0] = np.nan, np.inf
    with pytest.raises(InputError, match=r"CT has 2 voxels .*\(1, 2, 3\): nan"):
        check_finite(Volume(array, grid()), "CT")


# --- resampling ---------------------------------------------------------------------------------


def test_resampling_onto_the_same_voxels_in_another_order_is_exact():
    source = counted(grid(direction=np.diag([-1, 1, -1])))
    result = resample(source, source.geometry.canonical(), "nearest")
    assert np.array_equal(result.array, source.canonical().array)
    assert result.array.dtype == source.array.dtype


def test_linear_resampling_is_exact_for_a_linear_image():
    source = grid((9, 9, 9), (2, 2, 2), (0, 0, 0))
    weights = np.array([1.0, 2.0, 3.0])
    indices = np.stack(np.indices(source.shape), -1)
    image = Volume(source.to_lps(indices) @ weights, source)
    target = grid((4, 4, 4), (1.5, 1.0, 0.7), (5, 4, 3))
    result = resample(image, target, "linear")
    expected = target.to_lps(np.stack(np.indices(target.shape), -1)) @ weights
    assert result.array.dtype == np.float32
    assert np.allclose(result.array, expected, atol=1e-4)


def test_resampling_is_recorded_with_what_lies_outside():
    source = counted(grid((4, 4, 4), (1, 1, 1), (0, 0, 0)), "float32")
    result = resample(
        Volume(source.array - 1024, source.geometry, ("Before.",)),
        grid((4, 4, 4), (1, 1, 1), (2, 0, 0)),
        "linear",
    )
    assert result.notes[0] == "Before."
    assert "Resampled (linear)" in result.notes[1]
    assert "50.0 % of it lies outside" in result.notes[1]
    assert (result.array[..., 2:] == -1024).all()


def test_masks_stay_masks():
    mask = Volume(np.ones((3, 4, 5), bool), grid())
    result = resample(mask, grid((6, 4, 5), (1, 1.5, 1)), "nearest")
    assert result.array.dtype == bool
    assert result.array[:5].all()


# --- real data ----------------------------------------------------------------------------------


def test_one_image_in_eight_orientations(real_data):
    files = sorted((real_data / "orientations").glob("*.nii.gz"))
    volumes = [read_volume(file) for file in files]
    assert len(volumes) == 8
    first = volumes[0].canonical()
    for file, volume in zip(files, volumes, strict=True):
        assert axis_codes(volume.geometry) == file.name[:3]
        canonical = volume.canonical()
        assert canonical.geometry.difference(first.geometry) is None
        assert np.array_equal(canonical.array, first.array)
        assert restore(canonical.array, volume.geometry).tobytes() == volume.array.tobytes()


@pytest.mark.parametrize(
    "folder", ["orientations", "totalsegmentator", "ms-lesions", "hippocampus"]
)
def test_real_files_read_as_simpleitk_reads_them(real_data, folder):
    for file in sorted((real_data / folder).rglob("*.nii.gz"))[:8]:
        volume, image = read_volume(file), sitk.ReadImage(file)
        assert np.array_equal(volume.array, sitk.GetArrayFromImage(image))
        assert np.allclose(np.ravel(volume.direction), image.GetDirection(), atol=1e-6)
        assert np.allclose(volume.origin_mm, image.GetOrigin(), atol=1e-3)
        assert read_geometry(file).difference(volume.geometry) is None


def test_real_masks_lie_on_their_image(real_data):
    image = read_geometry(real_data / "ms-lesions/flair.nii.gz")
    assert read_mask(real_data / "ms-lesions/lesion.nii.gz", image).array.any()
    image = read_geometry(real_data / "totalsegmentator/example_ct_sm.nii.gz")
    labels = read_label_map(real_data / "totalsegmentator/example_seg.nii.gz")
    assert labels.geometry.difference(image) is None
    assert labels.array.dtype == np.uint8


@pytest.mark.parametrize("suffix", FORMATS)
def test_real_files_survive_every_format(real_data, tmp_path, suffix):
    volume = read_volume(real_data / "totalsegmentator/example_ct_sm.nii.gz")
    write_volume(volume, tmp_path / f"v{suffix}")
    back = read_volume(tmp_path / f"v{suffix}")
    assert back.array.tobytes() == volume.array.tobytes()
    assert back.geometry.difference(volume.geometry) is None


def test_the_header_alone_is_quick(real_data):
    start = time.perf_counter()
    for _ in range(20):
        read_geometry(real_data / "ms-lesions/flair.nii.gz")
    assert (time.perf_counter() - start) / 20 < 0.05
