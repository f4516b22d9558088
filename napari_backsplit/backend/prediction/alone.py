"""Predicts one image outside a project: `python -m napari_backsplit.backend.prediction.alone`.

Worker only. Standard input is one JSON object, a `Request`; every line of standard output is one
too: {"tile": n, "of": m} or {"note": ...}, at the end {"files": {what: path}}, or
{"problem": ..., "remedy": ...}.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from napari_backsplit.backend.errors import BackSplitError
from napari_backsplit.backend.prediction.archive import unpack_zip

Tell = Callable[..., None]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def main() -> None:
    """Answer the request; what libraries print goes to standard error."""
    for number in _SIGNALS:
        signal.signal(number, _stop)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def tell(**values: Any) -> None:
        print(json.dumps(values), file=answers, flush=True)

    try:
        _answer(json.load(sys.stdin), tell)
    except BackSplitError as error:
        tell(problem=error.problem, remedy=error.remedy)


def _stop(*_: object) -> None:
    """End at the first signal; no other disturbs the removal of an unpacked zip."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    sys.exit(1)


def _answer(request: Mapping[str, Any], tell: Tell) -> None:
    model = Path(request["model"])
    if model.suffix != ".zip":
        return _predict(model, request, tell)
    with TemporaryDirectory(prefix="backsplit-model-") as folder:
        return _predict(unpack_zip(model, Path(folder) / "model"), request, tell)


def _predict(model: Path, request: Mapping[str, Any], tell: Tell) -> None:
    from napari_backsplit.backend.prediction.predictor import Settings
    from napari_backsplit.backend.prediction.tasks import predict_files

    files = predict_files(
        model,
        [Path(file) for file in request["images"]],
        Path(request["output"]),
        settings=Settings(**request["settings"]),
        tile=lambda done, total: tell(tile=done, of=total),
        note=lambda text: tell(note=text),
        **request["options"],
    )
    tell(files={what: str(path) for what, path in files.items()})


if __name__ == "__main__":
    main()
