"""Checks before a training: whether anything of the test set was, or would be, trained on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from napari_backsplit.backend.errors import BackSplitError
from napari_backsplit.backend.prediction.roles import role_of, says_all
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.training.checks import Check, Wanted, passed, refused, some, warned
from napari_backsplit.backend.training.workload import named_model, plan_set_of


def split_checks(project: Project, wanted: Wanted) -> Iterator[Check]:
    """Look for patients and images on both sides of a split, and for what the model has seen."""
    yield from _leaks(project, wanted)
    yield from _changed(project, wanted)
    yield from (_folds_unseen if wanted.folds else _unseen)(project, wanted)


def _leaks(project: Project, wanted: Wanted) -> Iterator[Check]:
    test, training = set(project.test_cases()), set(project.training_cases())
    patients = _shared(project, test, training)
    twins = [pair for pair in _twins(project) if len({case in test for case in pair}) == 2]
    folds = [case for split in _splits(project, wanted)
             for case in _shared(project, split["train"], split["val"])]  # fmt: skip
    if patients:
        text = f"The patient of {some(patients)} is in the test set and is trained on."
        yield refused("splits", text, "Reserve the test set again.", "reserve")
    elif twins:
        pairs = some([" and ".join(pair) for pair in twins], 3)
        yield refused(
            "splits",
            f"{pairs} hold the same image, one held out, one trained on.",
            "Import both as one patient, or leave one out.",
        )
    elif folds:
        text = f"The patient of {some(sorted(set(folds)))} is on both sides of a fold."
        yield refused("splits", text, "Plan again under another name: backsplit plan --name NAME")
    else:
        yield passed("splits", "By patient; no image is on both sides.")


def _shared(project: Project, some_cases: Any, others: Any) -> list[str]:
    """Return the cases whose patient is also among the patients of others."""
    there = {project.case(case).patient for case in others if case in project.schema.cases}
    known = [case for case in some_cases if case in project.schema.cases]
    return sorted(case for case in known if project.case(case).patient in there)


def _twins(project: Project) -> list[tuple[str, ...]]:
    """Return groups of cases that share an image."""
    owners: dict[str, set[str]] = defaultdict(set)
    for case in project.case_ids():
        for digest in _hashes(project, case):
            owners[digest].add(case)
    return sorted({tuple(sorted(cases)) for cases in owners.values() if len(cases) > 1})


def _hashes(project: Project, case: str) -> set[str]:
    images = project.case(case).images.values()
    return {h for image in images for h in (image.sha256, image.source_sha256) if h}


def _splits(project: Project, wanted: Wanted) -> Sequence[dict[str, list[str]]]:
    made = plan_set_of(project.folder, wanted.run.plan_set)
    return made.splits if made is not None else ()


def _changed(project: Project, wanted: Wanted) -> Iterator[Check]:
    """Look whether the plan set still has the project's cases, and the fold that is asked for."""
    made = plan_set_of(project.folder, wanted.run.plan_set)
    if made is None or not made.ready or wanted.plan is not None:
        return
    changed = sorted(set(project.training_cases()) ^ set(made.cases))
    fold = wanted.run.fold
    if changed:
        yield refused(
            "plan set",
            f"{some(changed)} came or went since the plan set {wanted.run.plan_set!r} was made.",
            "Make a new plan set, or take back what was added, removed or rejected.",
        )
    elif fold != "all" and int(fold) >= len(made.splits):
        yield refused(
            "plan set",
            f"The plan set {wanted.run.plan_set!r} has no fold {fold}.",
            f"Choose 0 to {len(made.splits) - 1}, or all.",
        )


def _folds_unseen(project: Project, wanted: Wanted) -> Iterator[Check]:
    """Say whether each fold of a foreign model may be measured; the project's own starts anew."""
    if str(wanted.run.baseline or wanted.model).startswith("jobs/"):
        return
    try:
        with named_model(project.folder, wanted) as model:
            folds, known = set(model.checkpoints), says_all(model.card)
    except BackSplitError:
        return  # the line on the model says why
    missing = [str(fold) for fold in wanted.folds if str(fold) not in folds]
    if missing:
        text = f"The model has no fold {some(missing)}; it has {some(sorted(folds))}."
        yield refused("unseen", text, "Choose among these folds.")
    elif not known and not wanted.declare_unseen:
        yield refused(
            "unseen",
            "Nothing says whether each fold of the model was trained on the cases that it is "
            "measured on.",
            "If it was not, declare it (--declare-unseen); otherwise measure on a test set.",
            "declare unseen",
        )
    elif not known:
        yield passed("unseen", "You declare that no fold was trained on the cases it held out.")
    else:
        yield passed("unseen", "The model says what each fold was trained on.")


def _unseen(project: Project, wanted: Wanted) -> Iterator[Check]:
    """Say of how many test cases it is known that the model has not seen them."""
    cases = project.test_cases()
    if not cases:
        return
    try:
        with named_model(project.folder, wanted) as model:
            roles = {case: role_of(model.card, _hashes(project, case)) for case in cases}
    except BackSplitError:
        return  # the line on the model says why
    seen = [case for case, role in roles.items() if role in ("training", "validation")]
    unknown = [case for case, role in roles.items() if role is None]
    if seen:
        text = f"The model has seen {len(seen)} of {len(cases)} test cases: {some(seen)}."
        remedy = "Reserve cases that it was not trained on; these are not counted."
        say = refused if len(seen) == len(cases) else warned
        yield say("unseen", text, remedy, "" if project.schema.frozen_test else "reserve")
    elif unknown and not wanted.declare_unseen:
        yield warned(
            "unseen",
            f"Nothing says whether the model has seen {len(unknown)} of {len(cases)} test cases: "
            "no verdict will be given.",
            "If it was not trained on them, declare it (--declare-unseen).",
            "declare unseen",
        )
    elif unknown:
        yield passed("unseen", f"You declare that the model has not seen {len(cases)} test cases.")
    else:
        yield passed("unseen", f"Checked: the model has not seen {len(cases)} test cases.")
