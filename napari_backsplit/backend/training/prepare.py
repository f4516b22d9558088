"""Plan sets and their arms on disk: planned and preprocessed once, shared by every run.

Worker only. Layout, all of it plain nnU-Net:

    nnunet/plan_sets/<name>.json                  spec, cases, splits, dataset of each arm
    nnunet/raw/DatasetNNN_<set>-<arm>/            dataset.json, labelsTr/
    nnunet/preprocessed/DatasetNNN_<set>-<arm>/   plans, splits, arrays; images are hard links
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.files import link_or_copy, read_json, write_json
from napari_backsplit.backend.fusion.cases import admitted
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.training import nnunet, soft_labels
from napari_backsplit.backend.training.adoption import adopt
from napari_backsplit.backend.training.arms import (
    ArmScheme,
    arm_scheme,
    missing_sets,
    missing_supports,
)
from napari_backsplit.backend.training.dataset import sources, training_cases, write_raw
from napari_backsplit.backend.training.readiness import require_same_cases
from napari_backsplit.backend.training.spec import PLANS_NAME, PlanSpec

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, done, total); may raise to stop."""


@dataclass(frozen=True)
class PlanSet:
    """A plan set as it stands on disk.

    Attributes
    ----------
    nnunet : Path
        The project's nnunet folder.
    spec : PlanSpec
    cases : tuple of str
    splits : list of dict
        {"train": [...], "val": [...]} of each fold.
    arms : dict
        Arm name -> DatasetNNN_<name>.
    ready : bool
        Planned and preprocessed to the end.
    """

    nnunet: Path
    spec: PlanSpec
    cases: tuple[str, ...]
    splits: list[dict[str, list[str]]]
    arms: dict[str, str] = field(default_factory=dict)
    ready: bool = False

    @property
    def file(self) -> Path:
        """Where the plan set is written down."""
        return plan_set_file(self.nnunet, self.spec.name)

    @property
    def planned(self) -> bool:
        """Whether its plans are written; the images may not be preprocessed yet."""
        return (self.preprocessed("binary") / "splits_final.json").exists()

    def preprocessed(self, arm: str) -> Path:
        """Folder of an arm's plans and arrays."""
        return self.nnunet / "preprocessed" / self.arms[arm]

    def raw(self, arm: str) -> Path:
        """Folder of an arm's raw dataset."""
        return self.nnunet / "raw" / self.arms[arm]

    def plans(self, arm: str = "binary") -> dict[str, Any]:
        """nnU-Net's plans as an arm sees them."""
        plans: dict[str, Any] = read_json(self.preprocessed(arm) / f"{PLANS_NAME}.json")
        return plans

    def arrays(self, arm: str) -> Path:
        """Folder of an arm's preprocessed arrays."""
        configuration = self.plans(arm)["configurations"][self.spec.configuration]
        return self.preprocessed(arm) / str(configuration["data_identifier"])

    def save(self) -> None:
        """Write the plan set down."""
        content = {
            "spec": self.spec.model_dump(mode="json"),
            "cases": self.cases,
            "splits": self.splits,
            "arms": self.arms,
            "ready": self.ready,
        }
        write_json(self.file, content)

    def with_arm(self, name: str) -> PlanSet:
        """Return the plan set with a dataset for an arm, numbered if it is new."""
        if name in self.arms:
            return self
        number = 1 + max((int(path.name[7:10]) for path in _datasets(self.nnunet)), default=0)
        dataset = f"Dataset{number:03d}_{self.spec.name}-{name}"
        return replace(self, arms={**self.arms, name: dataset})


def plan_set_file(nnunet_folder: Path, name: str) -> Path:
    """Return where a plan set is written down."""
    return nnunet_folder / "plan_sets" / f"{name}.json"


def _datasets(nnunet_folder: Path) -> Iterator[Path]:
    for kind in ("raw", "preprocessed"):
        yield from (nnunet_folder / kind).glob("Dataset[0-9][0-9][0-9]_*")


def open_plan_set(project: Project, name: str) -> PlanSet:
    """Read a plan set.

    Raises
    ------
    InputError
        There is none of this name.
    """
    folder = project.folder / "nnunet"
    file = plan_set_file(folder, name)
    plan_set = _read_plan_set(folder, file) if file.exists() else None
    if plan_set is None or not plan_set.ready:
        raise InputError(f"The project has no plan set {name!r}.", "Make it with `backsplit plan`.")
    return plan_set


def _read_plan_set(folder: Path, file: Path) -> PlanSet:
    content = read_json(file)
    spec = PlanSpec.model_validate(content.pop("spec"))
    cases = tuple(content.pop("cases"))
    return PlanSet(nnunet=folder, spec=spec, cases=cases, **content)


@contextmanager
def nnunet_lock(project: Project) -> Iterator[None]:
    """Hold the project's nnunet folder: one preparation at a time, the next one waits."""
    folder = project.folder / "nnunet"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        nnunet.set_folders(folder)
        yield


def make_plan_set(project: Project, spec: PlanSpec, progress: Progress) -> PlanSet:
    """Plan and preprocess the binary arm of a new plan set, or adopt a baseline's plans.

    Raises
    ------
    InputError
        A plan set of this name exists with other settings, the baseline does not fit, or an image
        has changed since it was imported.
    """
    with nnunet_lock(project):
        plan_set = _claim(project, spec)
        if plan_set.ready:
            return plan_set
        _require_images(project, plan_set.cases)
        scheme = arm_scheme(project, "binary", (), plan_set.cases)
        dataset = write_raw(
            project, scheme, plan_set.cases, plan_set.raw("binary"), _step(progress, "label maps")
        )
        if not plan_set.planned:
            _plan(project, plan_set, dataset, progress)
        _preprocess_images(project, plan_set, dataset, progress)
        _write_labels(project, plan_set, scheme, "binary", dataset, progress)
        plan_set = replace(plan_set, ready=True)
        plan_set.save()
    return plan_set


def _require_images(project: Project, cases: Sequence[str]) -> None:
    changed = project.verify_images(cases)
    if changed:
        raise InputError(
            f"The image of {', '.join(changed[:5])} is gone, or has changed since it was imported: "
            "its masks may not fit it.",
            "Restore it, import the case again, or reject the case in the review.",
        )


def _claim(project: Project, spec: PlanSpec) -> PlanSet:
    """Return the plan set of this spec, begun before or new; its datasets' names are kept.

    One that was refused before it was planned is no hindrance.
    """
    folder = project.folder / "nnunet"
    file = plan_set_file(folder, spec.name)
    begun = _read_plan_set(folder, file) if file.exists() else None
    if begun and begun.planned:
        if begun.spec != spec:
            raise InputError(
                f"Plan set {spec.name!r} exists with other settings.", "Choose another --name."
            )
        require_same_cases(project, spec.name)
        return begun
    cases, arms = tuple(training_cases(project)), begun.arms if begun else {}
    plan_set = PlanSet(folder, spec, cases, _splits(project, spec, cases), arms)
    plan_set = plan_set.with_arm("binary")
    plan_set.save()
    return plan_set


def _splits(project: Project, spec: PlanSpec, cases: Sequence[str]) -> list[dict[str, list[str]]]:
    return [
        {part: [case for case in ids if case in cases] for part, ids in split.items()}
        for split in project.splits(spec.folds)
    ]


def _step(progress: Progress, text: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(text, done, total)


def _plan(project: Project, plan_set: PlanSet, dataset: dict[str, Any], progress: Progress) -> None:
    spec, folder = plan_set.spec, plan_set.preprocessed("binary")
    if spec.baseline is not None:
        plans, figures = adopt(project, spec)
    else:
        measured = _measured_masks(project, plan_set)
        figures = nnunet.fingerprint(measured, spec.workers, _step(progress, "fingerprint"))
        write_json(folder / "dataset_fingerprint.json", figures)
        progress("plan", 0, 1)
        plans = nnunet.plan(folder.name, spec)
    nnunet.write_plan_files(folder, plans, dataset, figures, plan_set.splits)


def _measured_masks(
    project: Project, plan_set: PlanSet
) -> dict[str, tuple[list[Path], list[Path]]]:
    """Return case -> (images, masks) whose voxels give the intensities for normalisation.

    All that nobody rejected: the plan set is shared by runs that take unreviewed masks.
    """
    structures = list(project.schema.targets)
    if plan_set.spec.intensities == "structures":
        structures += project.schema.supports
    return {
        case: (
            project.image_paths(case),
            [
                path
                for s in structures
                if admitted(project, case, s.name, "unreviewed")
                and (path := project.mask_path(case, s.name))
            ],
        )
        for case in plan_set.cases
    }


def _preprocess_images(
    project: Project, plan_set: PlanSet, dataset: dict[str, Any], progress: Progress
) -> None:
    raw, arrays = plan_set.raw("binary"), plan_set.arrays("binary")
    missing = {
        case: (project.image_paths(case), raw / dataset["dataset"][case]["label"])
        for case in plan_set.cases
        if not (arrays / f"{case}.pkl").exists()
    }
    if missing:
        how = (plan_set.plans(), plan_set.spec.configuration, dataset)
        step = _step(progress, "preprocess images")
        nnunet.preprocess(missing, arrays, how, plan_set.spec.workers, step)


def prepare_arm(
    project: Project,
    plan_set: PlanSet,
    scheme: ArmScheme,
    progress: Progress,
    *,
    soft: bool = False,
) -> tuple[PlanSet, str]:
    """Bring an arm's label maps to the network's grid; its images are the plan set's own.

    Parameters
    ----------
    project : Project
    plan_set : PlanSet
    scheme : ArmScheme
    progress : callable
    soft : bool
        Also bring the shares of each voxel that belong to the classes, for soft labels.

    Returns
    -------
    PlanSet
        With the arm's dataset.
    str
        The dataset's name among its arms: the scheme's, with a version where masks were edited;
        that of one with shares ends in "-soft".

    Raises
    ------
    InputError
        Soft labels are asked for where background may be a support.
    """
    if soft:
        soft_labels.refuse_label_sets(missing_sets(project, scheme, plan_set.cases))
    with nnunet_lock(project):
        plan_set = open_plan_set(project, plan_set.spec.name)
        require_same_cases(project, plan_set.spec.name)
        name = _snapshot(project, plan_set, scheme, soft)
        plan_set = plan_set.with_arm(name)
        plan_set.save()
        dataset = write_raw(
            project,
            scheme,
            plan_set.cases,
            plan_set.raw(name),
            _step(progress, "label maps"),
            soft=soft,
        )
        figures = read_json(plan_set.preprocessed("binary") / "dataset_fingerprint.json")
        nnunet.write_plan_files(
            plan_set.preprocessed(name), plan_set.plans(), dataset, figures, plan_set.splits
        )
        _link_images(plan_set, name, progress)
        _write_labels(project, plan_set, scheme, name, dataset, progress)
    return plan_set, name


def _snapshot(project: Project, plan_set: PlanSet, scheme: ArmScheme, soft: bool) -> str:
    """Return the arm's dataset that was made from the present masks, or the name of a new one.

    A training may be reading an older one, so a mask that was edited never changes it.
    """
    wanted = sources(project, scheme, plan_set.cases, soft=soft)
    for version in count(1):
        name = scheme.name if version == 1 else f"{scheme.name}-v{version}"
        name += soft_labels.SUFFIX if soft else ""
        if name not in plan_set.arms:
            return name
        made = plan_set.raw(name) / "sources.json"
        if not made.exists() or read_json(made) == wanted:
            return name
    raise AssertionError("count never ends")


def _link_images(plan_set: PlanSet, arm: str, progress: Progress) -> None:
    source, destination = plan_set.arrays("binary"), plan_set.arrays(arm)
    if source == destination:
        return
    missing = [case for case in plan_set.cases if not (destination / f"{case}.b2nd").exists()]
    for done, case in enumerate(missing, 1):
        how = link_or_copy(source / f"{case}.b2nd", destination / f"{case}.b2nd")
        progress("share images" if how == "link" else "copy images", done, len(missing))


def _write_labels(
    project: Project,
    plan_set: PlanSet,
    scheme: ArmScheme,
    name: str,
    dataset: dict[str, Any],
    progress: Progress,
) -> None:
    raw, arrays = plan_set.raw(name), plan_set.arrays(name)
    codes = missing_sets(project, scheme, plan_set.cases)
    record_file = plan_set.preprocessed(name) / "labels.json"
    record: dict[str, Any] = read_json(record_file) if record_file.exists() else {}
    sources: Mapping[str, str] = read_json(raw / "sources.json")
    changed = [
        case for case in plan_set.cases if record.get(case, {}).get("source") != sources[case]
    ]
    preprocessing = nnunet.Preprocessing(plan_set.plans(), plan_set.spec.configuration, dataset)
    reader = preprocessing.plans.image_reader_writer_class()  # a baseline's may turn the axes
    for done, case in enumerate(changed, 1):
        path = raw / dataset["dataset"][case]["label"]
        label_map = reader.read_seg(str(path))[0][0].astype(np.uint16)
        unknown = codes.code(missing_supports(project, scheme, case))
        base = plan_set.arrays("binary") / case
        lost = preprocessing.save_labels(arrays / case, label_map, base, unknown)
        if "soft" in dataset["backsplit"]:
            channels = soft_labels.share_channels(project, scheme, case)
            grid = project.geometry(case)
            read = soft_labels.as_read(channels, grid, reader, plan_set.preprocessed(name))
            preprocessing.save_soft(arrays / case, read, base)
        record[case] = {"source": sources[case], "vanished": lost}
        write_json(record_file, record)
        progress("preprocess labels", done, len(changed))


def vanished_lesions(plan_set: PlanSet) -> dict[str, int]:
    """Return how many lesions of each case have no voxel left at the planned spacing."""
    record = read_json(plan_set.preprocessed("binary") / "labels.json")
    return {case: entry["vanished"] for case, entry in record.items() if entry["vanished"]}


def folds_of(plan_set: PlanSet, fold: int | str) -> tuple[Sequence[str], Sequence[str]]:
    """Return the training and validation cases of a fold; "all" trains and validates on all.

    Raises
    ------
    InputError
        The plan set has no such fold.
    """
    if fold == "all":
        return plan_set.cases, plan_set.cases
    if int(fold) >= len(plan_set.splits):
        raise InputError(
            f"The plan set has no fold {fold}.", f"Choose 0 to {len(plan_set.splits) - 1}, or all."
        )
    split = plan_set.splits[int(fold)]
    return split["train"], split["val"]
