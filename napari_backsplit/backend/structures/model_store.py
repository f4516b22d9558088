"""nnInteractive's models on this machine, and more of them on request.

The store is nnInteractive's own: `<root>/models/<id>`. Only `offered` and `download` use the
network, in a process of their own; the rest looks at files.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from napari_backsplit.backend.errors import BackSplitError, InputError
from napari_backsplit.backend.files import read_json
from napari_backsplit.backend.prediction.model_folder import check_complete
from napari_backsplit.backend.structures.child import Child, Report
from napari_backsplit.backend.structures.settings import settings_file

CHECKPOINT = "checkpoint_final.pth"
OFFICIAL = "Dataset225_nnInteractiveV2"
OFFICIAL_LICENCE = "CC BY-NC-SA 4.0"
UNKNOWN_LICENCE = "unknown"
FETCH = "napari_backsplit.backend.structures.fetch"
SILENCE_S = 120.0

_ONLINE = {
    "HF_HUB_OFFLINE": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}


@dataclass(frozen=True)
class Offer:
    """A model that can be downloaded, and what a person has to know before.

    Attributes
    ----------
    size : int
        In bytes.
    path : str
        Its folder in the repository.
    """

    id: str
    title: str
    size: int
    licence: str
    path: str


def root() -> Path:
    """Return the folder of nnInteractive's store, whether it exists or not."""
    chosen = os.environ.get("NNINTERACTIVE_MODEL_DIR")
    return Path(chosen).expanduser() if chosen else Path.home() / ".nninteractive"


def models() -> tuple[Path, ...]:
    """Return the folders of whole models in the store, the newest first."""
    found = [folder for folder in (root() / "models").glob("*") if is_complete(folder)]
    return tuple(sorted(found, key=_age, reverse=True))


def _age(folder: Path) -> float:
    return checkpoint_of(folder).stat().st_mtime


def is_complete(folder: Path) -> bool:
    """Whether a folder holds a whole model, by a look that takes no time.

    Whether it may be trusted is checked before it is loaded.
    """
    return not lacking(folder)


def lacking(folder: Path) -> str:
    """Say in one sentence why a folder holds no whole model; "" where it does."""
    if not folder.is_dir():
        return f"{folder} is no folder."
    try:
        check_complete(checkpoint_of(folder))
        for name in ("plans.json", "dataset.json"):
            if not isinstance(read_json(folder / name), dict):
                return f"{folder / name} is no JSON object."
    except BackSplitError as error:
        return error.problem
    except OSError as error:
        return f"{folder} cannot be read: {error.strerror or type(error).__name__}."
    return ""


def checkpoint_of(folder: Path) -> Path:
    """Return the checkpoint that is used of a model: of the first fold that has one.

    Raises
    ------
    InputError
        It has none.
    """
    found = sorted(folder.glob(f"fold_*/{CHECKPOINT}"))
    if not found:
        raise InputError(
            f"{folder} has no fold_ folder with a {CHECKPOINT}.",
            "Copy or download the model again, whole.",
        )
    return found[0]


def licence_of(folder: Path) -> str:
    """Return a model's licence as nnInteractive reads it: the first line of its LICENSE file."""
    with suppress(OSError, UnicodeDecodeError):
        lines = (folder / "LICENSE").read_text(encoding="utf-8").splitlines()
        said = next((line.strip() for line in lines if line.strip()), "")
        if said:
            return said
    with suppress(InputError):
        plans = read_json(folder / "plans.json")
        if isinstance(plans, dict) and plans.get("dataset_name") == OFFICIAL:
            return OFFICIAL_LICENCE
    return UNKNOWN_LICENCE


def offered(cancelled: Callable[[], bool] = lambda: False) -> tuple[Offer, ...]:
    """Ask nnInteractive's repository what it offers: the default model first.

    Raises
    ------
    EngineCancelled
        `cancelled` came true.
    EngineError
        It cannot be reached.
    """
    child = _fetch("offers")
    try:
        report = child.report(cancelled, SILENCE_S)
        return tuple(Offer(**offer) for offer in report["offers"])
    finally:
        child.kill()


def download(offer: Offer, tell: Callable[[str], None], cancelled: Callable[[], bool]) -> Path:
    """Download a model, check it, and put it into the store, whole or not at all.

    What an earlier attempt got is taken up. `tell` hears of the progress.

    Raises
    ------
    EngineCancelled
        `cancelled` came true.
    EngineError
        The network failed.
    InputError, UntrustedModelError
        There is no space left, or the model is not what it should be.
    """
    child = _fetch("download", offer.id, offer.path, str(offer.size))
    try:
        while (report := child.report(cancelled, SILENCE_S))["state"] != "done":
            tell(_words(report))
        return Path(report["folder"])
    finally:
        child.kill()


def _words(report: Report) -> str:
    if report["state"] == "checking":
        return "checking the model"
    done, whole = (round(report[key] / 1e6) for key in ("done", "size"))
    return f"downloading: {done} of {whole} MB"


def _fetch(*arguments: str) -> Child:
    log = settings_file().parent / "logs" / "download.log"
    return Child(FETCH, [str(root()), *arguments], _ONLINE, log)
