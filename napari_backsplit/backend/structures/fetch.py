"""The program of the downloading process: list what nnInteractive offers, or get one model.

Run by `model_store` only, on request. Models are checked as data before they enter the store.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from napari_backsplit.backend.errors import BackSplitError, InputError
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
_PROGRESS_S = 0.5
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
    from napari_backsplit.backend.files import read_json

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
        _get(staging, path, size, reporter)
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


def _get(staging: Path, path: str, size: int, reporter: Reporter) -> None:
    """Bring the files into a folder beside the store; what is there already is not taken again."""
    from huggingface_hub import snapshot_download

    finished = threading.Event()

    def tell() -> None:
        while not finished.wait(_PROGRESS_S):
            reporter.say("downloading", done=min(_bytes(staging), size), size=size)

    threading.Thread(target=tell, daemon=True).start()
    try:
        snapshot_download(repository(), allow_patterns=[f"{path}/*"], local_dir=staging)
    finally:
        finished.set()
    if not is_complete(staging / path):
        raise EngineError(
            "The download is not whole.", "Try again: it goes on where it was interrupted."
        )


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
