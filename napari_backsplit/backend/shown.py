"""What can be looked at of predictions: finished comparisons, and cases without a reference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from math import nan
from pathlib import Path
from typing import Any, Literal

from napari_backsplit.backend.comparison.curves import OperatingPoint
from napari_backsplit.backend.comparison.lesion_table import LesionRow
from napari_backsplit.backend.comparison.opened import COMPARISONS, OpenedComparison, comparisons
from napari_backsplit.backend.comparison.results import ALL, Row, Verdict
from napari_backsplit.backend.errors import BackSplitError, InputError
from napari_backsplit.backend.files import read_json
from napari_backsplit.backend.jobs import State, chains
from napari_backsplit.backend.model_choices import RECORD, ModelChoice, models
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.training.spec import WITH_SUPPORTS

Finding = Literal["reference", "false positive", "nothing", "case", "no reference", "not measured"]
"""What a row is about: a lesion, what is none, a case without either, a case whose lesions are not
listed, one without a reference, one that has a reference but was only predicted."""

LESIONS = "lesions.csv"
PREDICTED = "predicted-"
"""Before the id of a chain that only predicted cases."""


@dataclass(frozen=True)
class Listed:
    """A result in the list: its id, what it is called, when it was made, whether it was measured.

    Predictions of one model alone are no `pair`: there is nothing to look at beside them.
    """

    id: str
    title: str
    when: datetime
    measured: bool = True
    pair: bool = True


@dataclass(frozen=True)
class TableRow:
    """A row of the lesion table; its figures are those of `LesionRow`."""

    case: str
    target: str
    kind: Finding
    lesion: int = 0
    ml: float = nan
    stratum: str = ""
    found_by: tuple[str, ...] = ()
    dice: Mapping[str, float] = field(default_factory=dict)
    organ: str = ""
    nearest: str = ""
    distance_mm: float = nan
    voxel: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Shown:
    """A result that is looked at.

    Attributes
    ----------
    id, title : str
    arms : tuple of str
        The baseline first.
    controls, targets : tuple of str
    cases, unlabelled : tuple of str
        Cases that were compared, and those that were only predicted: without a reference, or
        not measured yet.
    table : tuple of TableRow
        By case; each case has one row at least.
    rows : tuple of Row
        The measures of each case, target and arm.
    verdicts : tuple of Verdict
    curves : mapping
        Target -> arm -> operating points; empty without probability maps.
    folders : mapping of str to tuple of Path
        Arm -> folders of its predictions, relative to the project.
    about : mapping of str to str
        Arm -> what it is, in words.
    report : Path, optional
        None where nothing was measured.
    fewer_found : frozenset of tuple
        (target, arm, against) where it is shown that fewer lesions are found.
    notes : tuple of str
        What has to be read with every verdict.
    """

    id: str
    title: str
    arms: tuple[str, ...]
    controls: tuple[str, ...]
    targets: tuple[str, ...]
    cases: tuple[str, ...]
    unlabelled: tuple[str, ...]
    table: tuple[TableRow, ...]
    rows: tuple[Row, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    curves: Mapping[str, Mapping[str, tuple[OperatingPoint, ...]]] = field(default_factory=dict)
    folders: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    about: Mapping[str, str] = field(default_factory=dict)
    report: Path | None = None
    fewer_found: frozenset[tuple[str, str, str]] = frozenset()
    notes: tuple[str, ...] = ()

    @property
    def baseline(self) -> str:
        """The arm that the others are measured against."""
        return self.arms[0]

    @property
    def new(self) -> str:
        """The arm that a person most likely asks about: the first that is no control."""
        others = self.arms[1:]
        return next((arm for arm in others if arm not in self.controls), others[0])

    @property
    def unmeasured(self) -> tuple[str, ...]:
        """Cases that have a reference, but were only predicted."""
        return tuple(row.case for row in self.table if row.kind == "not measured")

    def read_with(self, target: str, arm: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Return what is to be read with the verdicts of an arm: of which pair, and the sentences.

        What holds for every pair stands first, under "".
        """
        own = [v for v in self.verdicts if (v.target, v.arm) == (target, arm) and v.details]
        by_pair = [(f"{verdict.arm} against {verdict.against}", verdict.details) for verdict in own]
        return (*([("", self.notes)] if self.notes else []), *by_pair)


def listed(project_folder: Path) -> tuple[Listed, ...]:
    """Return what can be looked at, the newest first; predictions of one model alone stand last.

    Results of the same title also say which job they are of, and the time.
    """
    found = [_listed(project_folder, name) for name in comparisons(project_folder)]
    found += _predicted_only(project_folder)
    titles = Counter(each.title for each in found)
    told = [_told_apart(each) if titles[each.title] > 1 else each for each in found]
    return tuple(sorted(told, key=lambda each: (each.pair, each.when), reverse=True))


def _told_apart(result: Listed) -> Listed:
    number = result.id.removeprefix(PREDICTED).partition("-")[0].lstrip("0")
    when = result.when.astimezone()
    return replace(result, title=f"{result.title}, job {number}, {when:%H:%M}")


def open_shown(project: Project, shown: str) -> Shown:
    """Read a result of the list.

    Raises
    ------
    InputError
        It is gone, or cannot be read.
    """
    if shown.startswith(PREDICTED):
        return _open_predicted(project, shown)
    return from_comparison(project, OpenedComparison.open(project.folder, shown))


def from_comparison(project: Project, opened: OpenedComparison) -> Shown:
    """Return a finished comparison with the cases that were predicted beside it."""
    arms = (opened.baseline, *(arm for arm in opened.arms if arm != opened.baseline))
    folders = {arm: tuple(map(Path, opened.folders.get(arm, ()))) for arm in arms}
    cases = tuple(dict.fromkeys(row.case for row in opened.rows))
    predicted = _in_all(project, folders) if all(folders.values()) else ()
    unlabelled = tuple(case for case in predicted if case not in set(cases))
    unlabelled = tuple(case for case in unlabelled if project.problems(case))
    about = opened.summary.get("about") or {}
    return Shown(
        id=opened.id,
        title=opened.title,
        arms=arms,
        controls=opened.controls,
        targets=opened.targets,
        cases=cases,
        unlabelled=unlabelled,
        table=table_of(cases, unlabelled, opened.targets, opened.lesions)
        if (project.folder / COMPARISONS / opened.id / LESIONS).exists()
        else _by_case(opened.rows),
        rows=opened.rows,
        verdicts=opened.verdicts,
        curves=opened.curves,
        folders=folders,
        about={arm: str(about.get(arm, "")) for arm in arms},
        report=opened.report if opened.report.exists() else None,
        fewer_found=frozenset(_fewer_found(opened.summary)),
        notes=tuple(map(str, opened.summary.get("notes") or ())),
    )


def _fewer_found(summary: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for each in summary.get("differences", ()):
        of_all = each["group"] == "lesion" and each.get("stratum", ALL) == ALL
        if of_all and each["metric"] == "found_lesions" and each["reading"] == "worse":
            yield each["target"], each["arm"], each["against"]


def table_of(
    cases: Sequence[str],
    unlabelled: Sequence[str],
    targets: Sequence[str],
    lesions: Sequence[LesionRow],
) -> tuple[TableRow, ...]:
    """Return the rows of the lesion table; a case without a lesion has one of its own."""
    by_case: dict[tuple[str, str], list[TableRow]] = {}
    for row in lesions:
        by_case.setdefault((row.case, row.target), []).append(TableRow(**row.__dict__))
    found: list[TableRow] = []
    for case in cases:
        own = [row for target in targets for row in by_case.get((case, target), ())]
        found += own or [TableRow(case, targets[0], "nothing")]
    return (*found, *(TableRow(case, targets[0], "no reference") for case in unlabelled))


def _by_case(rows: Sequence[Row]) -> tuple[TableRow, ...]:
    """Return a row for each case and target, of a comparison that listed no lesions."""
    found: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        found.setdefault((row.case, row.target), {})[row.arm] = row
    return tuple(_case_row(*key, arms) for key, arms in found.items())


def _case_row(case: str, target: str, arms: Mapping[str, Row]) -> TableRow:
    measures = next(iter(arms.values())).measures
    if not measures.reference_lesions and not any(
        a.measures.false_positives for a in arms.values()
    ):
        return TableRow(case, target, "nothing")
    dice = {arm: row.measures.dice for arm, row in arms.items()}
    return TableRow(case, target, "case", ml=measures.reference_ml, dice=dice)


# ---------------------------------------------------------------- the list


def _listed(project_folder: Path, name: str) -> Listed:
    summary = project_folder / COMPARISONS / name / "summary.json"
    when = datetime.fromtimestamp(summary.stat().st_mtime, UTC)
    title = ""
    with suppress(BackSplitError, KeyError, TypeError):
        job = read_json(project_folder / "jobs" / name / "job.json")
        title = job["params"].get("title") or " against ".join(_named(job["params"]))
    if not title:
        with suppress(BackSplitError):
            title = str(read_json(summary).get("title") or "")
    return Listed(name, title or name, when)


def _named(params: Mapping[str, Mapping[str, object]]) -> Iterator[str]:
    """Yield the arms as a title names them: the new model, then the baseline."""
    names, controls = list(params["arms"]), list(params.get("controls") or ())
    baseline = str(params.get("baseline") or names[0])
    others = [name for name in names if name != baseline and name not in controls]
    yield ", ".join(others or [name for name in names if name != baseline])
    yield baseline


def _predicted_only(project_folder: Path) -> Iterator[Listed]:
    """Yield the chains that ended with predictions: nothing of them was measured by these."""
    only = [c for c in chains(project_folder) if all(j.spec.task == "predict" for j in c.jobs)]
    choices = models(project_folder) if only else ()
    for chain in only:
        specs = [job.spec for job in chain.jobs]
        statuses = [job.status() for job in chain.jobs]
        if all(status.state is State.SUCCEEDED for status in statuses):
            times = zip(statuses, specs, strict=True)
            when = max(status.ended or spec.created for status, spec in times)
            cases = {case for spec in specs for case in spec.params.get("cases") or ()}
            count = f"{len(cases)} case{'s' * (len(cases) != 1)}"
            pair = len(_able(choices, cases)) > 1
            yield Listed(f"{PREDICTED}{chain.name}", f"Predicted: {count}", when, False, pair)


def _open_predicted(project: Project, shown: str) -> Shown:
    name = shown.removeprefix(PREDICTED)
    chain = next((chain for chain in chains(project.folder) if chain.name == name), None)
    if chain is None:
        raise InputError(f"There are no predictions {name} any more.", "Choose another result.")
    asked = [case for job in chain.jobs for case in job.spec.params.get("cases") or ()]
    cases = tuple(case for case in dict.fromkeys(asked) if case in project.case_ids())
    first = [str(job.spec.params["model"]) for job in chain.jobs]
    return predicted_by(project, models(project.folder), cases, first, shown, chain.title)


def predicted_by(
    project: Project,
    choices: Sequence[ModelChoice],
    cases: Sequence[str],
    asked: Sequence[str],
    shown: str,
    title: str,
    baseline: str = "",
) -> Shown:
    """Return predictions of some cases to look at, unmeasured.

    Parameters
    ----------
    asked : sequence of str
        Paths of the models that it is about; the others that predicted all cases stand behind.
    baseline : str
        Path of the one that the others are looked at against; "" for the one that fits best.

    Raises
    ------
    InputError
        Fewer than two models have predicted all of the cases.
    """
    able = _able(choices, cases)
    if len(able) < 2:
        raise InputError(
            f"Only {len(able)} model has predicted these cases.", "Predict them with another too."
        )
    able = _paired(able, asked, baseline)
    folders = {
        choice.name: tuple(dict.fromkeys(Path(choice.predicted[case]) for case in cases))
        for choice in able
    }
    targets = project.schema.target_names
    return Shown(
        id=shown,
        title=title,
        arms=tuple(choice.name for choice in able),
        controls=(),
        targets=targets,
        cases=(),
        unlabelled=tuple(cases),
        table=tuple(TableRow(case, targets[0], _unmeasured(project, case)) for case in cases),
        folders=folders,
        about={choice.name: choice.title for choice in able},
    )


def _able(choices: Sequence[ModelChoice], cases: Collection[str]) -> list[ModelChoice]:
    """Return the models that have predicted all of some cases."""
    return [choice for choice in choices if set(cases) <= choice.predicted.keys()]


def _paired(
    choices: Sequence[ModelChoice], asked: Sequence[str], baseline: str
) -> list[ModelChoice]:
    """Return models in the order of a comparison: a baseline, what was asked for, the others.

    What another was fine-tuned from is its baseline; no fine-tune is, where there is one.
    """
    starts = {choice.started_from for choice in choices if choice.path in asked}
    meant = [choice for choice in choices if choice.path in {*asked, *starts}]

    def rank(choice: ModelChoice) -> tuple[bool, ...]:
        tuned, supported = bool(choice.started_from), choice.arm in WITH_SUPPORTS
        return choice.path != baseline, choice.path not in starts, tuned, supported

    first = min(meant or choices, key=rank)
    others = (choice for choice in choices if choice is not first)
    return [first, *sorted(others, key=lambda c: (c.path not in asked, c.arm not in WITH_SUPPORTS))]


def _unmeasured(project: Project, case: str) -> Finding:
    return "no reference" if project.problems(case) else "not measured"


def _in_all(project: Project, folders: Mapping[str, Sequence[Path]]) -> tuple[str, ...]:
    """Return the cases of the project that every arm has predicted."""
    each = [_recorded(project.folder, own) for own in folders.values()]
    common = set.intersection(*each) if each else set()
    return tuple(case for case in project.case_ids() if case in common)


def _recorded(project_folder: Path, folders: Sequence[Path]) -> set[str]:
    found: set[str] = set()
    for folder in folders:
        inner = project_folder / folder
        for place in (inner / RECORD, inner / "predictions.json"):
            with suppress(BackSplitError, OSError, KeyError):
                found |= set(read_json(place)["cases"]) if place.exists() else set()
    return found
