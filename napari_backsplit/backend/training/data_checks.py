"""Checks before a training: cases, verdicts, masks, test set, splits and small lesions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress

from napari_backsplit.backend.errors import BackSplitError
from napari_backsplit.backend.fusion.cases import admitted
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.project.recipes import sources_of
from napari_backsplit.backend.training.checks import Check, Wanted, passed, refused, some, warned
from napari_backsplit.backend.training.mask_checks import mask_checks
from napari_backsplit.backend.training.readiness import fold_of
from napari_backsplit.backend.training.run_scheme import run_scheme, supports_of
from napari_backsplit.backend.training.spec import PlanSpec, RunSpec
from napari_backsplit.backend.training.split_checks import split_checks
from napari_backsplit.backend.training.support_checks import support_checks
from napari_backsplit.backend.training.workload import plan_set_of

FEW_TESTS = 6
"""Below so many test cases with a lesion no difference can be shown at the usual level."""


def data_checks(project: Project, wanted: Wanted) -> list[Check]:
    """Look at the project: what is trained on, what it was judged, what is left to measure on."""
    cases = project.training_cases()
    return [
        *_cases(project, wanted, cases),
        *_images(project),
        *(_verdicts(project, wanted, cases) if cases else ()),
        *mask_checks(project, wanted, cases),
        *_test_set(project, wanted),
        *split_checks(project, wanted),
    ]


def _cases(project: Project, wanted: Wanted, cases: Sequence[str]) -> Iterator[Check]:
    """Compare the number of cases and patients with the folds."""
    reserved = len(project.test_cases())
    left_out = {case: p for case in project.case_ids() if (p := project.problems(case))}
    out = [f"{case} {problems[0]}" for case, problems in left_out.items()]
    if len(cases) < 2:
        yield refused(
            "cases",
            f"{_count(len(cases), 'case')} to train on{': ' if out else ''}{some(out)}.",
            "Import at least two with a reference mask; an all-zero mask says: no lesion.",
            "review" if out else "",
        )
        return
    patients, folds = _patients(project, cases), _folds(project, wanted)
    said = f"{len(cases)} cases of {_count(len(patients), 'patient')} to train on, {reserved} held "
    said += f"out; {folds} folds"
    if folds > len(patients):
        yield refused(
            "cases",
            f"{folds} folds for {_count(len(patients), 'patient')}: a fold needs one of its own.",
            f"Take {len(patients)} folds (--folds), or import more patients."
            if len(patients) > 1
            else "Import cases of another patient.",
            "fewer folds" if len(patients) > 1 else "",
        )
    elif out:
        yield warned("cases", f"{said}. Left out: {some(out)}.", "Complete them, or go on without.")
    else:
        yield passed("cases", f"{said}.")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _patients(project: Project, cases: Sequence[str]) -> set[str]:
    return {project.case(case).patient for case in cases}


def _folds(project: Project, wanted: Wanted) -> int:
    """Return the folds of the plan set, or those that it is to have."""
    made = plan_set_of(project.folder, wanted.run.plan_set)
    if wanted.plan is None and made is not None:
        return len(made.splits)
    return (wanted.plan or PlanSpec()).folds


def _images(project: Project) -> Iterator[Check]:
    """Look whether images are there, and of the size that they had; hashes are for the plan."""
    changed = [case for case in project.case_ids() if not _are_there(project, case)]
    if changed:
        text = f"The images of {some(changed)} are gone, or have changed since they were imported."
        yield refused("images", text, "Restore them, or import the cases again.")
    else:
        yield passed("images", f"{len(project.case_ids())} cases: there, with the size they had.")


def _are_there(project: Project, case: str) -> bool:
    for image in project.case(case).images.values():
        path = project.folder / image.file
        if not path.exists() or path.stat().st_size != image.size:
            return False
    return True


# ---------------------------------------------------------------------- verdicts


def _verdicts(project: Project, wanted: Wanted, cases: Sequence[str]) -> Iterator[Check]:
    """Count what a person said of the cases, and in how many of them each support is known."""
    run = wanted.run
    supports: tuple[str, ...] = ()
    with suppress(BackSplitError):  # the line on the supports says why
        supports = supports_of(project, run)
    if not supports:
        yield from _taught(project, wanted, cases)
        return
    kinds = Counter(_kind(project, case, supports) for case in cases)
    order = ("accepted", "partial", "unreviewed", "rejected")
    said = ", ".join(f"{kinds[kind]} {kind}" for kind in order if kinds[kind])
    if run.masks == "accepted" and not kinds["accepted"] + kinds["partial"]:
        yield refused(
            "verdicts",
            f"No mask of {', '.join(supports)} is accepted in {len(cases)} cases ({said}).",
            "Accept masks in the review, or train also with unreviewed ones (--masks unreviewed).",
            "include unreviewed",
        )
        return
    if kinds["accepted"] < len(cases) and run.masks == "accepted":
        remedy = "Go on, or accept more in the review: elsewhere background may be either."
        yield warned("verdicts", f"{said} of {len(cases)} cases.", remedy, "review")
    elif run.masks == "unreviewed" and kinds["unreviewed"]:
        text = f"{said} of {len(cases)} cases; masks that nobody looked at enter."
        yield warned("verdicts", text, "Look at them in the review first.", "review")
    elif doubted := [case for case in cases if _needs_work(project, case)]:
        text = f"{said} of {len(cases)} cases; {some(doubted)} as a case needs work."
        remedy = "Go on, as its masks are accepted; or reject the case in the review."
        yield warned("verdicts", text, remedy, "review")
    else:
        yield passed("verdicts", f"{said} of {len(cases)} cases.")
    yield from _taught(project, wanted, cases)


def _needs_work(project: Project, case: str) -> bool:
    verdict = project.verdict(case)
    return verdict is not None and verdict.verdict == "needs_work"


def _kind(project: Project, case: str, supports: Sequence[str]) -> str:
    """Return what was said of the masks that the supports of a case are made of."""
    recipes = project.schema.recipes
    names = sorted({source for name in supports for source in sources_of(name, recipes)})
    accepted = [admitted(project, case, name, "accepted") for name in names]
    if all(accepted):
        return "accepted"
    if any(accepted):
        return "partial"
    said = {facts.review for name in names if (facts := project.facts(case, name))}
    return "rejected" if said == {"rejected"} else "unreviewed"


def _taught(project: Project, wanted: Wanted, cases: Sequence[str]) -> Iterator[Check]:
    """Look where supports are known and present: in all cases, and in those of each fold."""
    run = wanted.run
    found: dict[str, Check] = {}
    with suppress(BackSplitError, KeyError):  # other lines say why
        whole = run.model_copy(update={"support_cases": 1.0})
        found = _lines(project, whole, cases, (cases, cases))
        for fold in wanted.folds or (run.fold,):
            one = run.model_copy(update={"fold": fold})
            lines = _lines(project, one, cases, fold_of(project, one, wanted.plan))
            found |= {n: line for n, line in lines.items() if line.level == "refused"}
    yield from found.values()


def _lines(
    project: Project, run: RunSpec, cases: Sequence[str], fold: tuple[Sequence[str], Sequence[str]]
) -> dict[str, Check]:
    scheme = run_scheme(project, run, cases, fold)
    return {c.name: c for c in support_checks(project, run, scheme, cases, fold[0])}


# ---------------------------------------------------------------------- the test set


def _test_set(project: Project, wanted: Wanted) -> Iterator[Check]:
    if wanted.folds:
        yield passed("test set", f"Each of {len(wanted.folds)} folds is measured on its own cases.")
        return
    cases = project.test_cases()
    unmarked = [case for case in cases if project.problems(case)]
    lesions = [case for case in cases if project.has_lesion(case) and case not in unmarked]
    if not cases:
        yield refused(
            "test set",
            "No case is reserved, so nothing would tell whether the model got better.",
            "Reserve some patients: backsplit reserve --fraction 0.25",
            "reserve",
        )
    elif len(unmarked) == len(cases):
        text = f"None of {len(cases)} held-out cases has a reference that may be used."
        yield refused("test set", text, "Draw the lesions in them, or reserve other cases.")
    elif unmarked:
        text = f"{some(unmarked)}: held out, without a reference that may be used: not measured."
        yield warned("test set", text, "Draw the lesions in them.")
    elif len(lesions) < FEW_TESTS:
        yield warned(
            "test set",
            f"{_count(len(lesions), 'held-out case')} with a lesion: a difference can hardly be "
            "shown on so few.",
            "Reserve more patients, or cross-validate.",
            "" if project.schema.frozen_test else "reserve",
        )
    else:
        yield passed("test set", f"{len(cases)} cases, {len(lesions)} of them with a lesion.")
