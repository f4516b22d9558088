"""A patient named X^Y, from a folder X_Y, goes through the loop; only private.json knows the name.

Import, clicks and, as real jobs, plan, train, predict, compare and export; then every file that was
written is searched: names, link targets, contents, and those of archives, arrays and texts in them.
"""

from __future__ import annotations

import base64
import gzip
import io
import pickle
import re
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from napari_backsplit.backend.fusion.audit import examine
from napari_backsplit.backend.fusion.raw_dataset import write_dataset, write_label_maps
from napari_backsplit.backend.fusion.review_report import write_review
from napari_backsplit.backend.jobs import Job, State, submit
from napari_backsplit.backend.phantom import LESION, PhantomSpec, draw
from napari_backsplit.backend.project import Masks, Project, import_folder, import_masks
from napari_backsplit.backend.structures.annotation import Annotation
from napari_backsplit.backend.structures.prompts import Point
from napari_backsplit.backend.volume import Volume, read_geometry, write_volume
from tests.backend.structures.drawing import ABOUT, Cubes
from tests.backend.training.conftest import PLAN, RUN

pytestmark = pytest.mark.training

SECRETS = ("X^Y", "X_Y")
SPEC = PhantomSpec(shape=(20, 30, 30), lesion_radius_mm=(14.0, 22.0), lesion_free=0.0)
ENV = {"OMP_NUM_THREADS": "1"}
NUMBERS = range(1, 6)


def write_series(folder: Path, image: Volume) -> None:
    """Write an axial CT series of the patient X^Y."""
    folder.mkdir(parents=True)
    spacing_mm = image.geometry.spacing_mm
    uids = generate_uid(), generate_uid(), generate_uid()
    slices = np.clip(np.round(image.array), -1024, 3000).astype(np.int16)
    for index, pixels in enumerate(slices):
        slice_ = pydicom.Dataset()
        slice_.file_meta = pydicom.dataset.FileMetaDataset()
        slice_.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        slice_.SOPClassUID, slice_.SOPInstanceUID = CTImageStorage, generate_uid()
        slice_.StudyInstanceUID, slice_.SeriesInstanceUID, slice_.FrameOfReferenceUID = uids
        slice_.PatientName, slice_.PatientID, slice_.Modality = "X^Y", "X_Y", "CT"
        slice_.SeriesDescription, slice_.InstanceNumber = "series of X^Y", index + 1
        slice_.ImagePositionPatient = [0.0, 0.0, index * spacing_mm[0]]
        slice_.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        slice_.PixelSpacing, slice_.SliceThickness = list(spacing_mm[1:]), spacing_mm[0]
        slice_.Rows, slice_.Columns = pixels.shape
        slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
        slice_.BitsAllocated = slice_.BitsStored = 16
        slice_.HighBit, slice_.PixelRepresentation = 15, 1
        slice_.RescaleSlope, slice_.RescaleIntercept = 1, 0
        slice_.PixelData = pixels.tobytes()
        slice_.save_as(folder / f"{index:03d}.dcm", enforce_file_format=True)


def write_sources(folder: Path) -> None:
    """Write what a hospital gives: a DICOM series and NIfTI files, all named after the patient."""
    for number in (0, *NUMBERS):
        phantom = draw((11, number), SPEC)
        name = f"X_Y_{number:04d}"
        grid = phantom.image.geometry
        if number == 0:
            write_series(folder / "dicom" / name / "ct", phantom.image)
            grid = read_geometry(folder / "dicom" / name / "ct")
        else:
            write_volume(phantom.image, folder / "images" / f"{name}.nii.gz")
        masks = {LESION: phantom.masks[LESION], "kidney": phantom.union(("kidney",))}
        for structure, mask in masks.items():
            write_volume(Volume(mask, grid), folder / structure / f"{name}.nii.gz")


def import_all(source: Path, folder: Path) -> None:
    with Project.create(folder, "demo", ["CT"], [LESION], ["kidney"]) as project:
        reports = [
            import_folder(project, source / "dicom", "{case}/ct/"),
            import_folder(project, source / "images", "{case}.nii.gz"),
            import_masks(
                project,
                [Masks(name, source / name, "{case}.nii.gz") for name in (LESION, "kidney")],
                accepted=True,
            ),
        ]
        assert [problem for report in reports for problem in report.problems] == []
        assert len(project.case_ids()) == 6
        project.reserve_test(ids=project.case_ids()[-2:])


def click(folder: Path) -> None:
    """Change a support by a prompt and by hand, accept it: the journal and its provenance."""
    with Project.open(folder) as project:
        work = Annotation(project, project.case_ids()[0])
        work.unlock("kidney")
        work.prompt("kidney", Point(at=(10, 15, 15)), Cubes(), ABOUT)
        work.edit("kidney", ((0, 1), (0, 1), (0, 1)), np.ones((1, 1, 1), bool))
        work.accept("kidney")
        project.judge(work.case, "accepted", comment="fine")
        write_review(project, examine(project), folder.parent / "review")
        write_label_maps(project, folder.parent / "label-maps")
        write_dataset(project, folder.parent / "raw", "501_Lesions")


def run(folder: Path, task: str, params: dict[str, Any]) -> Job:
    job = submit(folder, task, params, task, env=ENV)
    status = job.wait(240)
    assert status.state is State.SUCCEEDED, (status.message, job.log_tail())
    return job


def run_loop(folder: Path) -> None:
    """Plan, train two arms, predict with each, compare, export."""
    plan = PLAN.model_copy(update={"folds": 2})
    run(folder, "plan", {"plan": plan.model_dump(mode="json")})
    predicted = {}
    for arm in ("binary", "backsplit"):
        spec = RUN.model_copy(update={"arm": arm, "epochs": 1})
        trained = run(folder, "train", {"run": spec.model_dump(mode="json")})
        model = f"jobs/{trained.id}/model"
        settings = {"probabilities": True, "full_label_map": True, "mirroring": False}
        predicted[arm] = f"jobs/{run(folder, 'predict', {'model': model, **settings}).id}"
    run(folder, "compare", {"arms": predicted, "baseline": "binary", "resamples": 200})
    for packed in (False, True):
        checkpoint = "checkpoint_final.pth"
        run(folder, "export", {"model": model, "zip": packed, "checkpoint": checkpoint})


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that the loop wrote, in a folder whose own name is neutral."""
    source = tmp_path_factory.mktemp("source") / "X_Y"
    folder = tmp_path_factory.mktemp("written")
    write_sources(source)
    import_all(source, folder / "project")
    click(folder / "project")
    run_loop(folder / "project")
    return folder


# ---------------------------------------------------------------------- the search


@dataclass(frozen=True)
class Part:
    """A file, or something packed in it.

    In `bulk` (compressed bytes, voxels, weights) three given bytes turn up by chance, once in
    some 16 MB: only longer pieces of the name's surroundings are looked for there.
    """

    name: str
    data: bytes
    bulk: bool = False


def pattern(secrets: Sequence[str]) -> re.Pattern[bytes]:
    """Return what to look for: plain, as UTF-16 and -32, escaped in JSON, HTML and URLs, base64."""
    plain = [s.encode(code) for s in secrets for code in ("utf-8", "utf-16-le", "utf-32-le")]
    escaped = [s.replace("^", e).encode() for s in secrets for e in ("\\u005e", "&#94;", "%5E")]
    long = [s for s in secrets if len(s) > 4]
    encoded = [_base64(s, offset) for s in long for offset in range(3)]
    return re.compile(b"|".join(map(re.escape, (*plain, *escaped, *encoded))))


def _base64(secret: str, offset: int) -> bytes:
    """Return the digits of a secret that do not depend on what stands before and after it."""
    text = base64.b64encode(bytes(offset) + secret.encode() + bytes(3))
    return text[-(-offset * 8 // 6) : (offset + len(secret)) * 8 // 6]


LONG = ("X_Y_0", "of X^Y", "X_Y/dicom", "X_Y/images", "/X_Y/")
ANYWHERE, IN_BULK = pattern(SECRETS + LONG), pattern(LONG)


def parts(name: str, data: bytes) -> Iterator[Part]:
    """Yield a file and everything packed in it."""
    if data[:2] == b"\x1f\x8b":
        yield Part(f"{name}|gzip header", data[:64])
        yield from parts(name.removesuffix(".gz"), gzip.decompress(data))
    elif data[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = "\n".join(archive.namelist()).encode()
            yield Part(f"{name}|names", names + archive.comment)
            for entry in archive.infolist():
                yield from parts(f"{name}|{entry.filename}", archive.read(entry))
    elif data[:8] == b"\x89PNG\r\n\x1a\n":
        yield Part(f"{name}|texts", b"\n".join(_png_texts(data)))
    elif name.endswith(".b2nd"):
        yield from _blosc2(name, data)
    elif name.endswith(".nii"):
        start = int(struct.unpack("<f", data[108:112])[0])
        yield Part(f"{name}|header", data[:start])
        yield Part(f"{name}|voxels", data[start:], bulk=True)
    elif re.search(r"\|.*/data/\d+$", name):
        yield Part(name, data, bulk=True)
    else:
        yield Part(name, data)
        for number, found in enumerate(re.finditer(rb";base64,([A-Za-z0-9+/=\s]{16,})", data)):
            yield from parts(f"{name}|base64 {number}", base64.b64decode(found[1]))
        return
    yield Part(f"{name}|packed", data, bulk=True)


def _png_texts(data: bytes) -> Iterator[bytes]:
    position = 8
    while position < len(data):
        size = int.from_bytes(data[position : position + 4], "big")
        kind, chunk = data[position + 4 : position + 8], data[position + 8 : position + 8 + size]
        if kind in (b"tEXt", b"eXIf"):
            yield chunk
        elif kind in (b"zTXt", b"iTXt"):
            packed = chunk.find(b"\x78")
            yield chunk + (zlib.decompressobj().decompress(chunk[packed:]) if packed > 0 else b"")
        position += 12 + size


def _blosc2(name: str, data: bytes) -> Iterator[Part]:
    import blosc2

    array = blosc2.ndarray_from_cframe(data)
    meta = f"{array.schunk.meta} {array.schunk.vlmeta.getall()}"
    yield Part(f"{name}|meta", meta.encode())
    yield Part(f"{name}|voxels", array[:].tobytes(), bulk=True)


def traces(folder: Path) -> list[str]:
    """Return each place below a folder that names the patient."""
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        target = str(path.readlink()) if path.is_symlink() else ""
        if ANYWHERE.search(f"{name}\n{target}".encode()):
            found.append(f"{name} -> {target}")
        if path.is_file():
            searched = parts(name, path.read_bytes())
            found += [p.name for p in searched if (IN_BULK if p.bulk else ANYWHERE).search(p.data)]
    return found


def test_only_private_json_knows_the_patient(written: Path) -> None:
    assert traces(written) == ["project/private.json"]
    assert written.as_posix().count("X_Y") == 0
    private = (written / "project" / "private.json").read_text()
    assert "X_Y_0001" in private
    assert "dicom/X_Y_0000" in private


def test_the_search_saw_what_the_loop_wrote(written: Path) -> None:
    files = {path.name for path in written.rglob("*") if path.is_file()}
    assert {
        "log.txt", "events.jsonl", "job.json", "checkpoint_final.pth", "plans.json", "report.html",
        "summary.json", "predictions.json", "export.zip", "dataset.json", "progress.png",
    } <= files  # fmt: skip
    assert any(name.endswith(".b2nd") for name in files)
    assert any(name.endswith(".pkl") for name in files)


def _zip(name: str, data: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    return packed.getvalue()


def _torch(value: Any) -> bytes:
    import torch

    packed = io.BytesIO()
    torch.save(value, packed)
    return packed.getvalue()


def _png() -> bytes:
    text = b"Title\0\0" + zlib.compress(b"of X^Y.")
    return b"\x89PNG\r\n\x1a\n" + len(text).to_bytes(4, "big") + b"zTXt" + text + bytes(4)


HIDDEN: dict[str, Callable[[], bytes]] = {
    "UTF-16": lambda: "the patient X_Y".encode("utf-16-le"),
    "JSON": lambda: b'"X\\u005eY"',
    "gzip": lambda: gzip.compress(b"of X^Y."),
    "gzip in zip": lambda: _zip("inner.gz", gzip.compress(b"of X^Y.")),
    "name in zip": lambda: _zip("X_Y.txt", b""),
    "checkpoint": lambda: _torch({"path": "X^Y"}),
    "pickle": lambda: pickle.dumps({"X^Y": np.zeros(3)}),
    "png": _png,
    "image in a page": lambda: b"data:image/png;base64," + base64.b64encode(_png()),
    "base64": lambda: base64.b64encode(b"/data/X_Y_0001 and more"),
}


@pytest.mark.parametrize("how", HIDDEN)
def test_the_search_finds_what_is_hidden(tmp_path: Path, how: str) -> None:
    """The search is worth nothing if it is blind."""
    (tmp_path / "file.bin").write_bytes(HIDDEN[how]())
    assert traces(tmp_path) != []


def test_the_search_finds_names_and_links(tmp_path: Path) -> None:
    (tmp_path / "X_Y.txt").touch()
    (tmp_path / "image").symlink_to("/data/X_Y/image.nii.gz")
    assert traces(tmp_path) == ["X_Y.txt -> ", "image -> /data/X_Y/image.nii.gz"]


def test_the_source_is_not_changed_and_not_needed(written: Path, tmp_path: Path) -> None:
    """Images that were linked stay readable when the source's folder is gone."""
    copy = tmp_path / "project"
    shutil.copytree(written / "project", copy, symlinks=True)
    with Project.open(copy, read_only=True) as project:
        assert project.verify_images() == ()
