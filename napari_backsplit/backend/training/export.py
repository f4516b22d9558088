"""A trained model as a plain nnU-Net model that works without this package.

Worker-only: imports torch.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.files import write_json, write_text
from napari_backsplit.backend.prediction.checkpoint import load_checkpoint
from napari_backsplit.backend.prediction.model_folder import OUR_KEY, ModelFolder
from napari_backsplit.backend.training.architectures import needs
from napari_backsplit.backend.training.head_split import is_head

EXPORTED = "checkpoint_final.pth"
"""What nnU-Net looks for unless told otherwise, whichever checkpoint was exported."""

TRAINER = "nnUNetTrainer"
SOFT_TRAINER = "nnUNetTrainer_soft_labels_need_napari_backsplit"
"""Trainer of an exported model of soft labels: nnU-Net has none of this name, so that it refuses
the model, with this name, where its softmax would give wrong masks."""
_ZIP_NAME = re.compile(r"Dataset\d{3}_[A-Za-z0-9_\-]+")


def export_model(
    model_folder: Path,
    destination: Path,
    *,
    zip: bool = False,
    checkpoint: str = "checkpoint_final.pth",
    folds: Sequence[int | str] | None = None,
) -> Path:
    """Write a model that stock nnU-Net loads, with a model card.

    A network of MONAI is found by nnU-Net only where this package and MONAI are installed too; the
    card says so. A model of soft labels is refused by stock nnU-Net, whose softmax would be wrong.

    The folder is what `nnUNetv2_predict_from_modelfolder -m` takes; the zip is what
    `nnUNetv2_install_pretrained_model_from_zip` takes. Weights are 32-bit floats; optimiser,
    logs and paths stay behind. What this package knows is under the key "backsplit" of
    dataset.json.

    Parameters
    ----------
    model_folder : Path
        A run's model.
    destination : Path
        A new folder, or a new file that ends in .zip.
    zip : bool
        Write nnU-Net's zip.
    checkpoint : str
        checkpoint_final.pth or checkpoint_best.pth; it is exported as checkpoint_final.pth.
    folds : sequence, optional
        Folds to export; by default all but "all".

    Returns
    -------
    Path
        `destination`.

    Raises
    ------
    InputError
        `destination` exists, or the model is not whole.
    """
    _check_destination(destination, zip)
    model = ModelFolder.open(model_folder, folds, checkpoint)
    temporary = destination.with_name(f".tmp-{secrets.token_hex(6)}-{destination.name}")
    try:
        inner = temporary / _inner_folder(model) if zip else temporary
        _write(model, inner, checkpoint)
        _publish(temporary, destination, zip)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.with_suffix(".part").unlink(missing_ok=True)
    return destination


def _check_destination(destination: Path, zip: bool) -> None:
    if destination.exists():
        raise InputError(f"{destination} exists already.", "Choose a new name.")
    if zip != (destination.suffix == ".zip"):
        raise InputError(
            f"{destination.name} does not fit an export {'as a zip' if zip else 'as a folder'}.",
            "End the name in .zip for a zip, and only then.",
        )


def _inner_folder(model: ModelFolder) -> Path:
    dataset = str(model.plans.get("dataset_name", ""))
    dataset = dataset if _ZIP_NAME.fullmatch(dataset) else "Dataset999_BackSplit"
    plans = str(model.plans.get("plans_name", "nnUNetPlans"))
    return Path(dataset) / f"{_trainer(model)}__{plans}__{model.configuration}"


def _publish(temporary: Path, destination: Path, zip: bool) -> None:
    if not zip:
        temporary.rename(destination)
        return
    archive = temporary.with_suffix(".part")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(p for p in temporary.rglob("*") if p.is_file()):
            file.write(path, path.relative_to(temporary).as_posix())
    archive.rename(destination)


def _write(model: ModelFolder, folder: Path, source: str) -> None:
    dataset_json = _dataset_json(model, source)
    plans = {key: value for key, value in model.plans.items() if key != OUR_KEY}
    for fold, path in model.checkpoints.items():
        loaded = load_checkpoint(path, state=False)
        _check_heads(loaded["network_weights"], model)
        target = folder / f"fold_{fold}" / EXPORTED
        target.parent.mkdir(parents=True)
        torch.save(_plain(loaded, model, plans, dataset_json, fold), target)
    write_json(folder / "plans.json", plans)
    write_json(folder / "dataset.json", dataset_json)
    write_text(folder / "MODEL_CARD.md", model_card(model, dataset_json[OUR_KEY]))
    fingerprint = model.path / "dataset_fingerprint.json"
    if fingerprint.is_file():
        shutil.copyfile(fingerprint, folder / fingerprint.name)


def _plain(
    loaded: Mapping[str, Any],
    model: ModelFolder,
    plans: dict[str, Any],
    dataset_json: dict[str, Any],
    fold: str,
) -> dict[str, Any]:
    weights = loaded["network_weights"]
    return {
        "network_weights": {name: _float32(value) for name, value in weights.items()},
        "trainer_name": _trainer(model),
        "inference_allowed_mirroring_axes": loaded.get("inference_allowed_mirroring_axes"),
        "init_args": {
            "plans": plans,
            "configuration": model.configuration,
            "fold": int(fold) if fold.isdigit() else fold,
            "dataset_json": dataset_json,
        },
    }


def _trainer(model: ModelFolder) -> str:
    """Return nnU-Net's own trainer: a stock variant may build another network, so it stays."""
    if model.soft:
        return SOFT_TRAINER
    from napari_backsplit.backend.prediction.predictor import stock_trainer

    return model.trainer_name if stock_trainer(model.trainer_name) else TRAINER


def _float32(value: torch.Tensor) -> torch.Tensor:
    # A clone, so that the file holds this tensor only and not the storage it is a view of.
    return value.detach().float().clone() if value.is_floating_point() else value.clone()


def _dataset_json(model: ModelFolder, source: str) -> dict[str, Any]:
    """Return a dataset.json with gapless labels, without per-case files, with our key."""
    dropped = ("dataset", OUR_KEY)
    kept = {key: value for key, value in model.dataset_json.items() if key not in dropped}
    if not model.regions:
        kept["labels"] = _gapless(model)
    card = json.loads(json.dumps(model.card, default=str))
    card |= {"targets": list(model.targets), "supports": list(model.supports)}
    return {**kept, OUR_KEY: {**card, "exported_checkpoint": source}}


def _gapless(model: ModelFolder) -> dict[str, int]:
    """Return labels as the network's heads are ordered: nnU-Net writes these, whatever the ids.

    An ignore label has no head; it comes last.
    """
    labels = {name: model.head(name) for name in model.labels if name != "ignore"}
    labels = dict(sorted(labels.items(), key=lambda item: item[1]))
    return labels | ({"ignore": len(labels)} if "ignore" in model.labels else {})


def _check_heads(weights: Mapping[str, torch.Tensor], model: ModelFolder) -> None:
    for name, value in weights.items():
        if is_head(name) and value.shape[0] != model.classes:
            raise InputError(
                f"The network predicts {value.shape[0]} classes, dataset.json has "
                f"{model.classes} labels.",
                "Use the dataset.json that belongs to this checkpoint.",
            )


def model_card(model: ModelFolder, card: Mapping[str, Any]) -> str:
    """Return a model card in Markdown: what the model is, learnt from, and may be used for.

    Parameters
    ----------
    card : mapping
        Any of: data (role -> cases), licences (structure -> licence), figures and versions
        (name -> value), arm, targets, supports, exported_checkpoint.
    """
    spacing = " x ".join(f"{value:g}" for value in model.spacing_mm) or "unknown"
    sections = {
        "Model": {
            "Dataset": model.plans.get("dataset_name", "unknown"),
            "Configuration": model.configuration,
            "Network": _network(model),
            "To load it": needs(model.settings)
            or ("napari-backsplit" if model.soft else "nnU-Net"),
            "Output": _output(model),
            "Folds": ", ".join(model.checkpoints),
            "Checkpoint": card.get("exported_checkpoint", "unknown"),
            "Channels, in order": ", ".join(model.channels),
            "Spacing (mm, z y x)": spacing,
            "Targets": ", ".join(card.get("targets", ())) or "none",
            "Supports (classes that divide the background)": ", ".join(card.get("supports", ()))
            or "none",
            "Arm": card.get("arm", "unknown"),
        },
        "Data": _counts(card.get("data")),
        "Figures": _table(card.get("figures")),
        "Licences of the masks it learnt from": _table(card.get("licences")),
        "Versions": _table(card.get("versions")),
    }
    body = "\n\n".join(f"## {title}\n\n{_lines(rows)}" for title, rows in sections.items())
    return f"# Model card\n\nFor research use only. Not a medical device.\n\n{body}\n"


def _output(model: ModelFolder) -> str:
    """Return what the network predicts, and of soft labels that stock nnU-Net refuses it."""
    if not model.soft:
        return "classes"
    return (
        f"shares of a voxel (soft labels): {model.activation} of each tile, averaged over tiles "
        "and folds; lesion where the resampled share is above 0.5. Stock nnU-Net would take a "
        "softmax, which is wrong, and therefore finds no trainer for it; predict with backsplit"
    )


def _network(model: ModelFolder) -> str:
    """Return the name of the network's class."""
    named = model.settings.get("architecture", {}).get("network_class_name", "")
    return str(named).rpartition(".")[2] or str(model.settings.get("UNet_class_name", "unknown"))


def _counts(data: object) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        return {}
    return {f"Cases for {role}": len(cases) for role, cases in data.items()}


def _table(values: object) -> dict[str, Any]:
    return dict(values) if isinstance(values, Mapping) else {}


def _lines(rows: Mapping[str, Any]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in rows.items()) or "Not recorded."
