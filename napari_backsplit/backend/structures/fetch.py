"""The program of the downloading process: list what nnInteractive offers, or get one model.

Run by `model_store` only, on request. Models are checked as data before they enter the store.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

import httpx

from napari_backsplit.backend.errors import BackSplitError, InputError
from napari_backsplit.backend.files import read_json, sha256
from napari_backsplit.backend.structures.child import Reporter, follow_parent
from napari_backsplit.backend.structures.engines import EngineError
from napari_backsplit.backend.structures.model_store import (
    OFFICIAL_LICENCE,
    UNKNOWN_LICENCE,
    Offer,
    is_complete,
    licence_of,
)
from napari_backsplit.backend.structures.serve import check

REPOSITORY = "MIC-DKFZ/nnInteractive"
MANIFEST = "models.json"
ATTEMPTS = 5
_PROGRESS_S = 0.5
_PIECE = 2**20
_LICENCES = {"cc-by-nc-sa-4.0": OFFICIAL_LICENCE}


def main(arguments: Sequence[str]) -> int:
    """Do what is asked: PARENT ROOT offers | PARENT ROOT download ID PATH BYTES."""
    parent, root, what, *rest = arguments
    reporter = Reporter()
    follow_parent(int(parent))
    try:
        if what == "offers":
            reporter.say("offers", offers=[asdict(offer) for offer in _offers(Path(root))])
        else:
            _download(Path(root), rest[0], rest[1], int(rest[2]), reporter)
    except BackSplitError as error:
        reporter.refuse(error)
    except Exception as error:  # Of huggingface_hub and the network under it: a wide family.
        traceback.print_exc()
        reporter.refuse(_unreachable(error))
    return 0


def repository() -> str:
    """Return the repository of the models, as nnInteractive chooses it."""
    return os.environ.get("NNINTERACTIVE_REPO_ID", REPOSITORY)


def _unreachable(error: Exception) -> EngineError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return EngineError(
        f"The repository of the models could not be used: {reason}",
        "Check the network and its proxy, or copy a model folder here and choose it.",
    )


def _offers(root: Path) -> list[Offer]:
    from huggingface_hub import HfApi, hf_hub_download

    info = HfApi().model_info(repository(), files_metadata=True)
    sizes = {file.rfilename: int(file.size or 0) for file in info.siblings or ()}
    cache = root / "downloads"
    manifest = hf_hub_download(repository(), MANIFEST, revision=info.sha, cache_dir=cache)
    return [_offer(entry, sizes, info) for entry in _entries(Path(manifest))]


def _entries(manifest: Path) -> list[dict[str, Any]]:
    """Return the well-formed entries of a manifest, the default one first."""
    listed = read_json(manifest)
    models = listed.get("models") if isinstance(listed, dict) else None
    good = [entry for entry in models or () if isinstance(entry, dict) and _is_plain(entry)]
    return sorted(good, key=lambda entry: not entry.get("default"))


def _is_plain(entry: dict[str, Any]) -> bool:
    """Whether id and path are names of folders, and of nothing outside of the store."""
    names = [entry.get("id"), entry.get("path")]
    return all(
        isinstance(n, str) and n.startswith("nnInteractive_") and not set(n) & set("/\\*?[]:")
        for n in names
    )


def _offer(entry: dict[str, Any], sizes: dict[str, int], info: Any) -> Offer:
    path = entry["path"]
    said = str(getattr(info.card_data, "license", None) or UNKNOWN_LICENCE)
    return Offer(
        id=entry["id"],
        title=str(entry.get("display_name") or entry["id"]),
        size=sum(size for name, size in sizes.items() if name.startswith(f"{path}/")),
        licence=_LICENCES.get(said, said),
        path=path,
    )


def _download(root: Path, model: str, path: str, size: int, reporter: Reporter) -> None:
    if not _is_plain({"id": model, "path": path}):
        raise InputError(f"{model!r} is no name of a model.", "Choose one that is offered.")
    folder = root / "models" / model
    if not is_complete(folder):
        staging = root / "downloads" / model
        _check_space(root, size - _bytes(staging))
        _get(staging, path, Progress(reporter, size))
        reporter.say("checking")
        check(staging / path)
        _enter(staging / path, folder)
        shutil.rmtree(staging, ignore_errors=True)
    reporter.say("done", folder=str(folder), licence=licence_of(folder))


def _check_space(root: Path, wanted: int) -> None:
    root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(root).free
    if free < wanted:
        raise InputError(
            f"{root} has {free // 10**6} MB left; the model needs {wanted // 10**6} MB.",
            "Make room, or set NNINTERACTIVE_MODEL_DIR to another disk.",
        )


class Progress:
    """Says now and then how much is there."""

    def __init__(self, reporter: Reporter, size: int) -> None:
        self._reporter, self._size, self._done, self._said = reporter, size, 0, 0.0

    def add(self, count: int) -> None:
        """Count some bytes."""
        self._done += count
        if time.monotonic() > self._said + _PROGRESS_S:
            self._said = time.monotonic()
            self._reporter.say("downloading", done=min(self._done, self._size), size=self._size)


def _get(staging: Path, path: str, progress: Progress) -> None:
    """Bring a folder of the repository beside the store; what is there is not taken again.

    huggingface_hub 2 begins each file anew in another process, hence our own transfer.
    """
    from huggingface_hub import HfApi, hf_hub_url

    info = HfApi().model_info(repository(), files_metadata=True)
    for file in info.siblings or ():
        name = PurePosixPath(file.rfilename)
        if name.parts[0] == path and ".." not in name.parts:
            url = hf_hub_url(repository(), file.rfilename, revision=info.sha)
            _get_file(url, staging / name, file, progress)
    if not is_complete(staging / path):
        raise EngineError("The repository holds no whole model.", "Choose another one.")


def _get_file(url: str, target: Path, file: Any, progress: Progress) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():  # It got its name when it was whole.
        progress.add(target.stat().st_size)
        return
    part = target.with_name(f"{target.name}.{file.blob_id}.part")
    progress.add(_size(part))
    for attempt in range(ATTEMPTS):
        try:
            _go_on(url, part, progress)
            break
        except httpx.TransportError:
            if attempt + 1 == ATTEMPTS:
                raise
    _check_whole(part, file)
    part.replace(target)


def _go_on(url: str, part: Path, progress: Progress) -> None:
    """Get what is missing of a file."""
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    start = _size(part)
    headers = build_hf_headers() | ({"Range": f"bytes={start}-"} if start else {})
    with httpx.stream("GET", url, headers=headers, follow_redirects=True, timeout=30) as answer:
        if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # All of it is there.
        answer.raise_for_status()
        goes_on = answer.status_code == httpx.codes.PARTIAL_CONTENT
        with part.open("ab" if goes_on else "wb") as file:
            for piece in answer.iter_bytes(_PIECE):
                file.write(piece)
                progress.add(len(piece))


def _check_whole(part: Path, file: Any) -> None:
    lfs = file.lfs
    wrong = file.size is not None and part.stat().st_size != file.size
    if wrong or (lfs is not None and sha256(part) != lfs.sha256):
        part.unlink()
        raise EngineError(f"{file.rfilename} arrived damaged.", "Try again.")


def _bytes(folder: Path) -> int:
    return sum(_size(file) for file in folder.rglob("*"))


def _size(file: Path) -> int:
    with suppress(OSError):  # It may have been renamed meanwhile.
        return file.stat().st_size if file.is_file() else 0
    return 0


def _enter(staged: Path, folder: Path) -> None:
    if folder.exists():  # Somebody's half download: `is_complete` has said so.
        shutil.rmtree(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged.replace(folder)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
