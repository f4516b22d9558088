"""Asks a process of its own to predict an image outside a project: torch stays unloaded here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryFile
from typing import IO, Any

from napari_backsplit.backend.errors import InputError, JobError

_MODULE = "napari_backsplit.backend.prediction.alone"
_LAST_LINES = 5


@dataclass(frozen=True)
class Request:
    """One image to predict.

    Attributes
    ----------
    model : str
        A model folder, or nnU-Net's zip of one.
    images : tuple of str
        One file a channel, in the model's order.
    output : str
        The mask to write, ending in .nii.gz; what else is written is named after it.
    settings : mapping
        device, threads, mirroring, step_size.
    options : mapping
        rule, probabilities, full_label_map, gap, folds, checkpoint, targets.
    """

    model: str
    images: tuple[str, ...]
    output: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


def predict_outside(
    request: Request,
    tile: Callable[[int, int], None] | None = None,
    note: Callable[[str], None] | None = None,
) -> dict[str, Path]:
    """Predict an image that belongs to no project; nothing is ever overwritten.

    Parameters
    ----------
    tile : callable, optional
        Called for each tile of the sliding window with (done, total).
    note : callable, optional
        Called with what a person should know of how the image was predicted.

    Returns
    -------
    dict of str to Path
        "mask", and as asked "labels", "gap" and "probability of <target>" ("share of <target>" of
        a model of soft labels).

    Raises
    ------
    InputError
        A file is missing or in the way, nothing can be written there, or the model or the
        image is refused.
    JobError
        The process died.
    """
    _require_new(Path(request.output))
    _require_there(request.images)
    files: dict[str, Path] | None = None
    with TemporaryFile("w+") as said, closing(_answers(request, said)) as answers:
        for answer in answers:  # to the end: the process still clears up after its last
            if "problem" in answer:
                raise InputError(answer["problem"], answer["remedy"])
            if "files" in answer:
                files = {what: Path(path) for what, path in answer["files"].items()}
            if "note" in answer and note:
                note(answer["note"])
            if "tile" in answer and tile:
                tile(answer["tile"], answer["of"])
        if files is None:
            raise JobError(f"The prediction ended early. {_last_lines(said)}".strip())
    return files


def _answers(request: Request, said: IO[str]) -> Generator[dict[str, Any], None, None]:
    command = [sys.executable, "-P", "-m", _MODULE]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": said}
    with subprocess.Popen(command, text=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            with suppress(BrokenPipeError):  # it died at once; what it said is told
                json.dump(asdict(request), process.stdin)
                process.stdin.close()
            for line in process.stdout:
                yield json.loads(line)
        finally:
            process.terminate()


def _last_lines(said: IO[str]) -> str:
    said.seek(0)
    return "\n".join(said.read().strip().splitlines()[-_LAST_LINES:])


def _require_there(images: Sequence[str]) -> None:
    for image in images:
        if not Path(image).exists():
            raise InputError(f"{Path(image).name} does not exist.", "Check the path.")


def _require_new(output: Path) -> None:
    """Refuse a place that cannot take the mask; what is named after it is known with the model."""
    if not output.name.endswith(".nii.gz"):
        raise InputError(f"{output.name} does not end in .nii.gz.", "Name the output so.")
    if output.exists():
        raise InputError(f"{output} exists.", "Choose a new name; nothing is overwritten.")
    if not output.parent.is_dir():
        raise InputError(f"There is no folder {output.parent}.", "Make it, or check the path.")
    try:
        with NamedTemporaryFile(prefix=".backsplit-", dir=output.parent):
            pass
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(
            f"Nothing can be written in {output.parent}: {reason}.", "Choose another folder."
        ) from None
