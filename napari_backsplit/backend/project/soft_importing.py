"""Import of soft masks: one folder a rater, averaged voxel by voxel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

from napari_backsplit.backend.errors import InputError, ProjectError
from napari_backsplit.backend.files import sha256
from napari_backsplit.backend.project import soft
from napari_backsplit.backend.project.importing import ImportReport, Log, Progress
from napari_backsplit.backend.project.patterns import Pattern
from napari_backsplit.backend.project.private import unnamed
from napari_backsplit.backend.project.reader import ProjectReader
from napari_backsplit.backend.project.scanning import Masks, Problem, scan_masks
from napari_backsplit.backend.project.sources import MaskFiles, Options
from napari_backsplit.backend.project.store import Project
from napari_backsplit.backend.volume import Volume

AGREES = 0.7
"""Dice of a soft mask's half with the target's mask, below which it is warned of."""

FEWER = "Give a file of each rater (an empty mask says that there is nothing), or --fewer-raters."


@dataclass(frozen=True)
class SoftFiles:
    """The soft mask of a target in a case: one file a rater, the mean of them all."""

    target: str
    files: tuple[Path, ...]

    @property
    def source(self) -> Path:
        """The file to name in a report."""
        return self.files[0]

    def attach(self, project: Project, case: str, options: Options) -> tuple[str, ...]:
        """Write the soft mask; return what was written."""
        if project.soft_path(case, self.target) and not options.replace:
            raise ProjectError(
                f"{case} has a soft mask of {self.target} already.",
                "Choose to replace it (--replace).",
            )
        raters = [self._rater(project, case, number, options) for number in range(len(self.files))]
        records = [record for _, record in raters]
        provenance = {
            "engine": "file",
            "soft": _how(records),
            "source_sha256": " ".join(record["sha256"] for record in records),
            "resampled": next((r["resampled"] for r in records if r["resampled"]), None),
            "raters": records,
        }
        mean = soft.mean([shares for shares, _ in raters])
        replace, files = options.replace, self.files
        project.set_soft_mask(case, self.target, mean, provenance, replace=replace, sources=files)
        return (f"soft {self.target}",)

    def _rater(
        self, project: Project, case: str, number: int, options: Options
    ) -> tuple[Volume, dict[str, Any]]:
        """Read the shares of a rater, on the case's grid, and say what was read."""
        file = self.files[number]
        rater = f" (rater {number + 1} of {len(self.files)})" if len(self.files) > 1 else ""
        what = f"The soft mask of {self.target}{rater}"
        with unnamed(file, what):
            shares, digest = soft.read(file, what=what), sha256(file)
        fitted, resampled = soft.fit(shares, project.geometry(case), what, options.resample)
        kind = "binary mask" if soft.is_hard(shares.array) else "float mask"
        return fitted, {"kind": kind, "sha256": digest, "resampled": resampled}


def _how(records: Sequence[Mapping[str, Any]]) -> str:
    return f"mean of {len(records)} raters" if len(records) > 1 else str(records[0]["kind"])


def import_soft(
    project: Project,
    folders: Sequence[Path],
    pattern: Pattern = "{case}.nii.gz",
    target: str = "",
    *,
    replace: bool = False,
    resample: bool = False,
    make_target: bool = False,
    fewer_raters: bool = False,
    progress: Progress | None = None,
) -> ImportReport:
    """Import soft masks for cases of the project. One failure never loses the others.

    Parameters
    ----------
    project : Project
    folders : sequence of Path
        One a rater, with a float mask in [0, 1] or a binary one for each case; several raters are
        averaged voxel by voxel.
    pattern : str
        See `patterns.find`.
    target : str
        "" for the only one.
    replace : bool
        Replace soft masks that are there; the old ones are kept.
    resample : bool
        Bring masks on another grid to the image's, linearly, and record it.
    make_target : bool
        Give a case without a mask of the target one: where at least half of a voxel is target.
    fewer_raters : bool
        Average those raters that have a file where some have none.
    progress : callable, optional
        Called with the number of cases done, and of all.

    Raises
    ------
    InputError
        There is no such target, a folder does not exist or is named twice, or a pattern cannot be
        used.
    """
    target = _target(project, target)
    _refuse_twice(folders)
    found, problems = _scan(project, folders, pattern, target)
    log = Log(problems)
    options = Options(replace, resample)
    for done, (case, raters) in enumerate(found.items(), 1):
        place = next(file for files in raters for file in files)
        chosen = log.guard(place, partial(_files, raters, fewer_raters), case)
        if chosen:
            _import_case(project, case, SoftFiles(target, chosen), options, make_target, log)
        if progress:
            progress(done, len(found))
    return ImportReport({}, log.masks, tuple(log.notes), tuple(log.problems))


def _target(project: ProjectReader, target: str) -> str:
    names = project.schema.target_names
    if not target and len(names) > 1:
        raise InputError(
            f"The project has {len(names)} targets.", f"Name one of {', '.join(names)} (--target)."
        )
    if target and target not in names:
        raise InputError(
            f"The project has no target {target!r}.",
            f"Soft masks are for targets: {', '.join(names)}.",
        )
    return target or names[0]


def _refuse_twice(folders: Sequence[Path]) -> None:
    places = [folder.resolve() for folder in folders]
    twice = [place for place in places if places.count(place) > 1]
    if twice:
        raise InputError(f"{twice[0]} is named twice.", "Name one folder for each rater.")


def _scan(
    project: ProjectReader, folders: Sequence[Path], pattern: Pattern, target: str
) -> tuple[dict[str, list[list[Path]]], list[Problem]]:
    """Find case -> files of each rater, and what has no place."""
    found: dict[str, list[list[Path]]] = {}
    problems: list[Problem] = []
    for number, folder in enumerate(folders):
        plan = scan_masks(project, [Masks(target, folder, pattern)])
        problems += plan.problems
        for case in plan.cases:
            files = [m.source for m in case.masks if isinstance(m, MaskFiles)]
            if files and case.existing:
                raters = found.setdefault(case.existing, [[] for _ in folders])
                raters[number] = files
    return {case: found[case] for case in project.case_ids() if case in found}, problems


def _files(raters: Sequence[Sequence[Path]], fewer: bool) -> tuple[Path, ...]:
    """Return one file a rater.

    Raises
    ------
    InputError
        A rater has several, or none where each must have one.
    """
    for number, files in enumerate(raters, 1):
        if len(files) > 1:
            raise InputError(
                f"Rater {number} has {len(files)} files for the case.", "Keep one a case."
            )
    absent = [str(number) for number, files in enumerate(raters, 1) if not files]
    if absent and not fewer:
        raise InputError(f"Rater {', '.join(absent)} of {len(raters)} has no file for it.", FEWER)
    return tuple(files[0] for files in raters if files)


def _import_case(
    project: Project, case: str, source: SoftFiles, options: Options, make: bool, log: Log
) -> None:
    steps: list[Callable[[], tuple[str, ...]]] = [partial(source.attach, project, case, options)]
    if make:
        steps.append(partial(make_target_mask, project, case, source.target))
    for step in steps:
        written = log.guard(source.source, step, case)
        if written is None:
            return
        log.masks[case] = (*log.masks.get(case, ()), *written)
    findings = log.guard(source.source, partial(soft_findings, project, case, source.target), case)
    for text in findings or ():
        log.problems.append(Problem(source.source, text, "warning"))


def make_target_mask(project: Project, case: str, target: str) -> tuple[str, ...]:
    """Give a case the mask of a target where at least half of a voxel is target.

    Returns
    -------
    tuple of str
        The target; () where the case has a mask of it already, which stays.

    Raises
    ------
    InputError
        The soft mask has no voxel of which half is target, but is not empty: an empty mask would
        say that the case is free of it.
    """
    shares, record = project.soft_mask(case, target), project.soft_provenance(case, target)
    if project.mask_path(case, target) or shares is None or record is None:
        return ()
    half = soft.at_least_half(shares)
    if shares.any() and not half.any():
        raise InputError(
            f"No voxel of {case} is at least half {target} (at most {shares.max():.2f}), so no "
            "mask was made of its soft mask.",
            f"Import a mask of {target}; an empty one says that the case is free of it.",
        )
    note = "Where at least half of a voxel is target, by the soft mask."
    provenance = {"engine": "soft mask", "source_sha256": record.source_sha256, "notes": (note,)}
    project.set_mask(case, target, Volume(half, project.geometry(case)), provenance)
    return (target,)


def soft_findings(project: ProjectReader, case: str, target: str) -> list[str]:
    """Say what is odd about a soft mask, a sentence each; none where the case has none."""
    shares, record = project.soft_mask(case, target), project.soft_provenance(case, target)
    if shares is None or record is None:
        return []
    return [*_against_target(project, case, target, shares), *_same_raters(case, record)]


def _against_target(
    project: ProjectReader, case: str, target: str, shares: soft.Shares
) -> list[str]:
    if project.mask_path(case, target) is None:
        return [
            f"{case} has no mask of {target}, so it is not trained on. Import one (backsplit "
            f"import masks {target} FOLDER), or make it of the soft one (--make-target)."
        ]
    mask = project.mask(case, target)
    if not shares.any():
        empty = f"The soft mask of {case} is empty, but its mask of {target} is not. Look at both."
        return [empty] if mask.any() else []
    agreement = soft.dice(mask, soft.at_least_half(shares))
    return [] if agreement >= AGREES else [
        f"The soft mask of {case}, where it is at least half {target}, and its mask of {target} "
        f"have Dice {agreement:.2f}. Check that they belong together and lie on the same side."
    ]  # fmt: skip


def _same_raters(case: str, record: Any) -> list[str]:
    digests = [rater["sha256"] for rater in (record.model_extra or {}).get("raters", ())]
    return [
        f"Raters {first} and {second} of {case} gave the same file: they count twice."
        for first, second in combinations(range(1, len(digests) + 1), 2)
        if digests[first - 1] == digests[second - 1]
    ]
