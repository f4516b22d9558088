"""A trained nnU-Net model on disk: what it is, what it expects, whether it is whole.

The layout is nnU-Net's: ``<trainer>__<plans>__<configuration>/`` with plans.json, dataset.json
and fold_*/checkpoint_*.pth. Reading it needs no torch.
"""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.files import sha256
from napari_backsplit.backend.prediction.archive import unpack_zip as unpack_zip
from napari_backsplit.backend.prediction.compatibility import compatibility as compatibility
from napari_backsplit.backend.prediction.pickles import check_pickle, read_pickle
from napari_backsplit.backend.prediction.trust import check_folder, check_trainer

CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")
OUR_KEY = "backsplit"
_ZIP = b"PK\x03\x04"
"""How torch tells a zip; it reads a file that begins otherwise as a bare pickle."""


@dataclass(frozen=True, eq=False)
class ModelFolder:
    """A checked model folder.

    Attributes
    ----------
    path : Path
        The folder that holds plans.json.
    plans, dataset_json : dict
        As read and checked (see `trust`).
    configuration, trainer_name : str
        What the checkpoints say they are.
    checkpoints : dict of str to Path
        Fold name ("0", "all") to its checkpoint file, in order.
    """

    path: Path
    plans: dict[str, Any]
    dataset_json: dict[str, Any]
    configuration: str
    trainer_name: str
    checkpoints: dict[str, Path]

    @classmethod
    def open(
        cls,
        path: Path,
        folds: Sequence[int | str] | None = None,
        checkpoint: str | None = None,
    ) -> ModelFolder:
        """Open and check a model folder.

        Parameters
        ----------
        path : Path
            The model folder, one of its fold folders, or a folder that holds one model folder
            (as nnU-Net's zip unpacks).
        folds : sequence, optional
            The folds to use; by default all but "all", or "all" where it is the only one.
        checkpoint : str, optional
            checkpoint_final.pth or checkpoint_best.pth; by default the first that every fold has.

        Raises
        ------
        InputError
            Plans, folds or checkpoints are missing or half written.
        UntrustedModelError
            The folder names something that is not nnU-Net's own, or a checkpoint would run code.
        """
        folder = _model_root(path)
        _refuse_old(folder)
        if path.name.startswith("fold_") and folds is None:
            folds = [path.name.removeprefix("fold_")]
        plans, dataset_json = check_folder(folder)
        files = _checkpoints(folder, _folds(folder, folds), checkpoint)
        for file in files.values():
            check_complete(file)
            check_pickle(file, _pickle_name(file) or "")
        said = _peek(next(iter(files.values())))
        trainer = said.get("trainer_name") or folder.name.split("__")[0]
        check_trainer(trainer)
        configuration = _configuration(folder, plans, said.get("configuration"))
        return cls(folder, plans, dataset_json, configuration, trainer, files)

    @property
    def card(self) -> dict[str, Any]:
        """What this package wrote about the model; empty for a foreign one."""
        card = self.dataset_json.get(OUR_KEY) or self.plans.get(OUR_KEY)
        return dict(card) if isinstance(card, dict) else {}

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the image channels, in the order the network takes them."""
        names = self.dataset_json.get("channel_names") or self.dataset_json.get("modality") or {}
        return tuple(str(names[key]) for key in sorted(names, key=int))

    @property
    def labels(self) -> dict[str, int | list[int]]:
        """Label names to ids; a list of ids is a region."""
        return dict(self.dataset_json["labels"])

    @property
    def regions(self) -> bool:
        """Whether the network predicts overlapping regions rather than classes."""
        return any(isinstance(label, list) and len(label) > 1 for label in self.labels.values())

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the target labels: our card's, or every foreground label of a foreign model."""
        names = [name for name, label in self.labels.items() if label != 0 and name != "ignore"]
        card = self.card
        if "targets" in card:
            return tuple(name for name in card["targets"] if name in names)
        return tuple(name for name in names if name not in card.get("supports", ()))

    @property
    def supports(self) -> tuple[str, ...]:
        """Foreground labels that are no targets."""
        foreground = [name for name, label in self.labels.items() if label != 0]
        return tuple(n for n in foreground if n not in self.targets and n != "ignore")

    @property
    def soft(self) -> bool:
        """Whether the network predicts shares of a voxel (soft labels) rather than classes."""
        run = self.card.get("run")
        return isinstance(run, dict) and run.get("labels") == "soft"

    @property
    def activation(self) -> str:
        """What turns the outputs of a model of soft labels into shares; "" of another one."""
        return str(self.card["run"].get("activation", "")) if self.soft else ""

    @property
    def classes(self) -> int:
        """Number of heads of the network: labels with background, or regions without."""
        return len(self._heads()) if self.regions else len(self._ids())

    def head(self, name: str) -> int:
        """Return the channel of the network's output that belongs to a label.

        Raises
        ------
        InputError
            The model has no such label.
        """
        return self._heads().index(self._known(name))

    def values(self, name: str) -> tuple[int, ...]:
        """Return the values by which nnU-Net's label map marks a label or region.

        nnU-Net writes the position of a class among the sorted ids; that is the id itself
        when ids have no gaps.

        Raises
        ------
        InputError
            The model has no such label.
        """
        label = self.labels[self._known(name)]
        if self.regions:
            return tuple(label) if isinstance(label, list) else (label,)
        return (self._ids().index(_single(label)),)

    def value(self, name: str) -> int:
        """Return the value that nnU-Net writes where it finds a label or region.

        Raises
        ------
        InputError
            The model has no such label.
        """
        if self.regions and self.labels[self._known(name)] != 0:
            return int(self.dataset_json["regions_class_order"][self.head(name)])
        return self.values(name)[0]

    def _known(self, name: str) -> str:
        if name not in self.labels or name == "ignore":
            known = ", ".join(label for label in self.labels if label != "ignore")
            raise InputError(f"The model has no label {name!r}.", f"Choose from: {known}.")
        return name

    def _heads(self) -> list[str]:
        names = [name for name in self.labels if name != "ignore"]
        if self.regions:
            return [name for name in names if self.labels[name] != 0]
        return sorted(names, key=lambda name: _single(self.labels[name]))

    def _ids(self) -> list[int]:
        return sorted({_single(label) for name, label in self.labels.items() if name != "ignore"})

    @property
    def settings(self) -> dict[str, Any]:
        """The entries of the configuration, with what it inherits."""
        return _inherited(self.plans["configurations"], self.configuration)

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Spacing of the network's grid, mm, (z, y, x); (y, x) for a 2D model, () if unknown."""
        return self._unplanned("spacing")

    @property
    def patch_vox(self) -> tuple[int, ...]:
        """Patch the network takes, voxels, (z, y, x); (y, x) for a 2D model, () if unknown."""
        return tuple(int(size) for size in self._unplanned("patch_size"))

    def _unplanned(self, key: str) -> tuple[float, ...]:
        values = tuple(self.settings.get(key, ()))
        order = self.plans.get("transpose_backward", range(len(values)))
        return tuple(values[axis] for axis in order) if len(order) == len(values) else values

    @property
    def normalisation(self) -> tuple[str, ...]:
        """Normalisation scheme of each channel, as plans.json names it."""
        return tuple(self.settings.get("normalization_schemes", ()))

    def hashes(self) -> dict[str, str]:
        """Return SHA-256 of plans, dataset and the used checkpoints, by path in the folder."""
        files = [self.path / "plans.json", self.path / "dataset.json", *self.checkpoints.values()]
        return {file.relative_to(self.path).as_posix(): sha256(file) for file in files}


def _single(label: int | list[int]) -> int:
    return label if isinstance(label, int) else label[0]


def _model_root(path: Path) -> Path:
    if not path.is_dir():
        problem = "is a file" if path.is_file() else "does not exist"
        raise InputError(f"{path} {problem}.", "Choose a model folder; unpack a zip first.")
    if (path / "plans.json").exists():
        return path
    if path.name.startswith("fold_") and (path.parent / "plans.json").exists():
        return path.parent
    if (path / "project.json").exists():
        raise InputError(
            f"{path} is a project, not a model.", "Choose a model in it, or the number of its job."
        )
    found = sorted(
        plans.parent for level in ("*", "*/*") for plans in path.glob(level + "/plans.json")
    )
    if len(found) > 1:
        names = ", ".join(folder.relative_to(path).as_posix() for folder in found)
        raise InputError(f"{path} holds {len(found)} models: {names}.", "Choose one of them.")
    return found[0] if found else path


def _refuse_old(folder: Path) -> None:
    """Refuse a model of nnU-Net v1 by its name; its pickles are not looked into."""
    if (folder / "plans.json").exists():
        return
    places = ["*/" * depth for depth in range(6)]  # nnU-Net v1's zips nest a model in four folders
    for name in ("plans.pkl", "model_*.model"):
        if any(True for place in places for _ in folder.glob(f"{place}{name}")):
            raise InputError(
                f"{folder.name} is a model of nnU-Net v1 (it has {name}), which this version "
                "cannot use.",
                "Train it again with nnU-Net v2 (backsplit train --arm binary), or ask its maker "
                "for a model of nnU-Net v2.",
            )


def _folds(folder: Path, folds: Sequence[int | str] | None) -> list[str]:
    present = sorted(f.name.removeprefix("fold_") for f in folder.glob("fold_*") if f.is_dir())
    if not present:
        raise InputError(
            f"{folder} has no fold_ folder, so it holds no trained network.",
            "Choose a finished training, or copy its fold folders too.",
        )
    if folds is None:
        return [fold for fold in present if fold != "all"] or present
    for fold in folds:
        if str(fold) not in present:
            raise InputError(
                f"Fold {fold} is not in {folder}, which has {', '.join(present)}.",
                "Choose among these folds.",
            )
    return [str(fold) for fold in folds]


def _checkpoints(folder: Path, folds: Sequence[str], name: str | None) -> dict[str, Path]:
    if not folds:
        raise InputError("No fold was chosen.", "Choose at least one fold.")
    for candidate in CHECKPOINTS if name is None else (name,):
        files = {fold: folder / f"fold_{fold}" / candidate for fold in folds}
        if all(file.is_file() for file in files.values()):
            return files
    wanted = name or " or ".join(CHECKPOINTS)
    raise InputError(
        f"{folder} has no {wanted} in fold {', '.join(folds)}.",
        "Finish the training, or choose other folds or another checkpoint.",
    )


def check_complete(path: Path) -> None:
    """Refuse a checkpoint that is missing, empty or cut short.

    torch writes a zip whose directory comes last, so a file that was cut has none.

    Raises
    ------
    InputError
        The file is not whole.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist.", "Check the path.")
    remedy = "It was cut short while being written; copy it again or use another checkpoint."
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes).", remedy)
    with path.open("rb") as file:
        begins_as_zip = file.read(len(_ZIP)) == _ZIP
    if not begins_as_zip or not zipfile.is_zipfile(path) or _pickle_name(path) is None:
        raise InputError(f"{path} is no whole checkpoint ({path.stat().st_size} bytes).", remedy)


def _pickle_name(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.lower().endswith("/data.pkl")]
    except zipfile.BadZipFile:
        return None
    return names[0] if len(names) == 1 else None


def _peek(path: Path) -> dict[str, str]:
    """Read trainer and configuration out of a checkpoint's pickle without executing it.

    A hint only: whoever loads the checkpoint compares.
    """
    wanted: dict[str, str] = {}
    key = None
    for text in _strings(path):
        if key is not None:
            wanted.setdefault(key, text)
        key = text if text in ("trainer_name", "configuration") else None
    return wanted


def _strings(path: Path) -> Iterator[str]:
    """Yield the strings of a checkpoint's pickle in order, "" where another value stands."""
    content = read_pickle(path, _pickle_name(path) or "")
    memo: dict[int, str] = {}
    text = ""
    try:
        for opcode, value, _ in pickletools.genops(content):
            if opcode.name in ("BINPUT", "LONG_BINPUT"):
                memo[int(value or 0)] = text
                continue
            text = str(value) if opcode.name == "BINUNICODE" else ""
            yield memo.get(int(value or 0), "") if "BINGET" in opcode.name else text
    except ValueError:
        return


def _configuration(folder: Path, plans: dict[str, Any], said: str | None) -> str:
    known = list(plans["configurations"])
    only = known[0] if len(known) == 1 else ""
    for name in (said or "", folder.name.split("__")[-1], only):
        if name in known:
            _inherited(plans["configurations"], name)
            return name
    raise InputError(
        f"{folder} does not say which of its configurations it is: {', '.join(known)}.",
        "Give the folder nnU-Net's name, trainer__plans__configuration.",
    )


def _inherited(configurations: dict[str, Any], name: str) -> dict[str, Any]:
    chain: list[str] = []
    step: str | None = name
    while step is not None:
        if step in chain or step not in configurations:
            raise InputError(
                f"Configuration {name} inherits from {step}, which is missing or itself.",
                "Restore plans.json.",
            )
        chain.append(step)
        step = configurations[step].get("inherits_from")
    merged: dict[str, Any] = {}
    for step in reversed(chain):
        merged |= configurations[step]
    return merged
