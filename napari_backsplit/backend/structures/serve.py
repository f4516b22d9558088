"""The program of the server's process: check a model as data, then hand it to nnInteractive.

Run by `server.Server` only. torch and nnInteractive are imported here, when they are needed.
"""

from __future__ import annotations

import argparse
import socket
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from napari_backsplit.backend.errors import BackSplitError, InputError
from napari_backsplit.backend.files import sha256
from napari_backsplit.backend.structures.child import Reporter, follow_parent

WEEK_S = 7 * 24 * 3600
"""A lease lasts as long as the server, and that as long as its parent."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until the parent ends."""
    chosen = _parser().parse_args(arguments)
    reporter = Reporter()
    follow_parent(chosen.parent)
    try:
        _serve(chosen, reporter)
    except BackSplitError as error:
        reporter.refuse(error)
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        reporter.refuse(error)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("parent", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    return parser


def _serve(chosen: argparse.Namespace, reporter: Reporter) -> None:
    reporter.say("checking")
    checkpoint = check(chosen.folder)
    digest = sha256(checkpoint)
    device = _device(chosen.device)
    reporter.say("loading", device=device)
    from nnInteractive.inference.server import main as official

    def run(app: Any, **options: Any) -> None:
        """Listen on a port that was free when it was taken, and say which."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            options |= {"timeout_keep_alive": WEEK_S, "access_log": False}
            server = official.uvicorn.Server(official.uvicorn.Config(app, **options))
            reporter.say("ready", port=port, device=device, sha256=digest)
            server.run(sockets=[listener])

    official.uvicorn.run = run
    _draw_the_same_patches()
    official.main(_official_arguments(checkpoint, device, chosen.threads))


def _draw_the_same_patches() -> None:
    """Let the same prompts give the same mask: the refinement of large masks draws its patches.

    It draws from NumPy's global generator, which nobody seeds.
    """
    import numpy as np
    from nnInteractive.utils import bboxes

    drawn = bboxes.random_sampling_fallback

    def repeatable(*arguments: Any, **more: Any) -> Any:
        np.random.seed(0)  # noqa: NPY002  # The generator that is drawn from.
        return drawn(*arguments, **more)

    bboxes.random_sampling_fallback = repeatable


def check(folder: Path) -> Path:
    """Check what nnInteractive will load of a model folder, as data, and return its checkpoint.

    Raises
    ------
    InputError
        Something is missing or half written, or it is another kind of model.
    UntrustedModelError
        Loading it would run code.
    """
    from napari_backsplit.backend.prediction.checkpoint import load_checkpoint
    from napari_backsplit.backend.prediction.trust import check_folder
    from napari_backsplit.backend.structures.model_store import checkpoint_of

    if not folder.is_dir():
        raise InputError(f"{folder} is no folder.", "Choose the folder of an nnInteractive model.")
    check_folder(folder)
    checkpoint = checkpoint_of(folder)
    _check_kind(folder, load_checkpoint(checkpoint))
    return checkpoint


def _check_kind(folder: Path, checkpoint: dict[str, Any]) -> None:
    trainer = str(checkpoint["trainer_name"])
    if not trainer.startswith("nnInteractive"):
        raise InputError(
            f"{folder.name} is no nnInteractive model: it was trained by {trainer}.",
            "Choose the folder of an nnInteractive model.",
        )


def _device(wanted: str) -> str:
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=wanted)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"The device {wanted} cannot be used: {reason}.", "Choose cpu or auto."
        ) from error
    return wanted


def _official_arguments(checkpoint: Path, device: str, threads: int) -> list[str]:
    return [
        f"--model-dir={checkpoint.parent.parent}",
        f"--fold={checkpoint.parent.name.removeprefix('fold_')}",
        f"--checkpoint={checkpoint.name}",
        f"--device={device}",
        f"--torch-n-threads={threads}",
        "--max-sessions=2",
        f"--idle-timeout-seconds={WEEK_S}",
        f"--liveness-timeout-seconds={WEEK_S // 2}",
        "--no-torch-compile",  # Compiling takes longer than a restart may, and needs a compiler.
    ]


if __name__ == "__main__":
    sys.exit(main())
