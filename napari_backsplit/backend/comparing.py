"""Models against each other: what has to be predicted, then one comparison, as one chain of jobs.

`propose` says what would be done or why it cannot be, `begin` queues it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_backsplit.backend.arms_asked import Arm, asked_of
from napari_backsplit.backend.compare_settings import CompareSettings
from napari_backsplit.backend.errors import InputError, JobError
from napari_backsplit.backend.improvement_chain import UNDER_WAY, beginning, reading
from napari_backsplit.backend.jobs import State, list_jobs
from napari_backsplit.backend.links import Links
from napari_backsplit.backend.model_choices import (
    ModelChoice,
    Standing,
    models,
    standings,
    suggested,
)
from napari_backsplit.backend.prediction.compatibility import compatibility
from napari_backsplit.backend.prediction.model_folder import ModelFolder
from napari_backsplit.backend.prediction.targets import match_targets
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.training.space import duration_text
from napari_backsplit.backend.words import listed

__all__ = [
    "CompareSettings",
    "ModelChoice",
    "Proposal",
    "Standing",
    "begin",
    "models",
    "propose",
    "standings",
    "suggested",
]


@dataclass(frozen=True)
class Proposal:
    """What would be done.

    Attributes
    ----------
    arms : tuple of Arm
        The baseline first.
    labelled, unlabelled : tuple of str
        Cases that are compared on their reference, and those that are predicted only.
    settings : CompareSettings
    notes : tuple of str
        What has to be known of it, a sentence each.
    """

    arms: tuple[Arm, ...]
    labelled: tuple[str, ...]
    unlabelled: tuple[str, ...]
    settings: CompareSettings
    notes: tuple[str, ...] = ()

    @property
    def idle(self) -> bool:
        """Whether nothing has to be done: all is predicted, and no case has a reference."""
        return not self.labelled and not any(arm.todo for arm in self.arms)

    @property
    def seconds(self) -> float | None:
        """How long predicting takes, by what earlier predictions took; None where not known."""
        known = [arm.seconds for arm in self.arms if arm.todo]
        return None if None in known else sum(filter(None, known))

    @property
    def sentence(self) -> str:
        """What would be done, in one sentence."""
        parts = [*self._predicting(), *self._there()]
        if self.labelled:
            parts.append(f"compare on {_cases(self.labelled)}")
        if self.unlabelled:
            parts.append(f"{_cases(self.unlabelled)} without a reference: shown, not measured")
        took = self.seconds
        if took:
            parts.append(f"about {duration_text(took)} to predict")
        text = "; ".join(parts)
        return f"{text[:1].upper()}{text[1:]}."

    def _predicting(self) -> Iterator[str]:
        by_count: dict[tuple[str, ...], list[str]] = {}
        for arm in self.arms:
            if arm.todo:
                by_count.setdefault(arm.todo, []).append(arm.name)
        for todo, names in by_count.items():
            yield f"predict {_cases(todo)} with {listed(names)}"

    def _there(self) -> Iterator[str]:
        if not any(arm.todo for arm in self.arms):
            yield "all predictions are there already"
            return
        for arm in self.arms:
            if arm.there:
                yield f"{len(arm.there)} of {arm.name} are there already"


def _cases(cases: Sequence[str]) -> str:
    return f"{len(cases)} case{'' if len(cases) == 1 else 's'}"


def propose(
    project: Project | Path,
    chosen: Mapping[str, str],
    baseline: str,
    cases: Sequence[str],
    settings: Mapping[str, Any] | None = None,
) -> Proposal:
    """Return what comparing models on some cases takes.

    Parameters
    ----------
    project : Project or Path
        Open, or its folder.
    chosen : mapping of str to str
        Name of the arm -> the model's path, as `models` tells it.
    baseline : str
        The arm that the others are measured against.
    cases : sequence of str
        Those without a reference are predicted, not measured.
    settings : mapping, optional
        Fields of `CompareSettings` that differ from the usual.

    Raises
    ------
    InputError, UntrustedModelError
        There are fewer than two models or no case, a model has other targets or channels, or
        predictions whose model is gone lack a case.
    """
    asked = CompareSettings.of(settings or {})
    with reading(project) as opened:
        known = {choice.path: choice for choice in models(opened.folder)}
        order = _ordered(chosen, baseline)
        choices = {name: _known(known, chosen[name]) for name in order}
        labelled, unlabelled = _sorted_cases(opened, cases)
        opening = {name: _opened(opened, name, choice) for name, choice in choices.items()}
        folds, notes = _folds(opening)
        arms = [
            asked_of(name, choice, opening[name], folds.get(name, ()), cases, asked)
            for name, choice in choices.items()
        ]
        notes = [*notes, *_fit(opened, opening)]
        notes += _seen_notes(opened, list(choices.values()), labelled, asked)
    return Proposal(tuple(arms), labelled, unlabelled, asked, tuple(notes))


def _ordered(chosen: Mapping[str, str], baseline: str) -> list[str]:
    if len(chosen) < 2:
        raise InputError("One model alone cannot be compared.", "Choose another beside it.")
    if len(set(chosen.values())) < len(chosen):
        raise InputError("A model cannot be compared with itself.", "Choose another.")
    if baseline not in chosen:
        raise InputError(f"{baseline!r} is not among the models {', '.join(chosen)}.")
    return [baseline, *(name for name in chosen if name != baseline)]


def _known(known: Mapping[str, ModelChoice], path: str) -> ModelChoice:
    if path not in known:
        raise InputError(
            f"There is no model {path} in the project any more.", "Choose one that is there."
        )
    return known[path]


def _sorted_cases(
    project: Project, cases: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if not cases:
        raise InputError("No case is chosen.", "Choose cases to compare on.")
    lacking = [case for case in cases if project.case(case).missing_channels]
    if lacking:
        raise InputError(
            f"{', '.join(lacking[:5])} lacks a channel of the image.", "Leave the case out."
        )
    labelled = tuple(case for case in cases if not project.problems(case))
    return labelled, tuple(case for case in cases if case not in labelled)


def _opened(project: Project, name: str, choice: ModelChoice) -> ModelFolder | None:
    """Open a model, and refuse one of other targets or channels; None where it is gone."""
    if choice.kind == "predictions":
        return None
    model = ModelFolder.open(project.folder / choice.path)
    channels = project.schema.channels
    if len(model.channels) != len(channels):
        raise InputError(
            f"{name} takes the channels {', '.join(model.channels)}, the project has "
            f"{', '.join(channel.name for channel in channels)}.",
            "Choose a model that was trained on these channels.",
        )
    try:
        match_targets(model, project.schema.target_names)
    except InputError as error:
        raise InputError(f"{name}: {error}", "Choose a model of the same targets.") from None
    return model


def _folds(
    opened: Mapping[str, ModelFolder | None],
) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Return the folds of each model to predict with: the same, where they have some in common.

    An ensemble against a single network would compare more than what they were taught.
    """
    own = {name: tuple(model.checkpoints) for name, model in opened.items() if model is not None}
    if len(set(own.values())) < 2:
        return own, []
    common = set.intersection(*map(set, own.values()))
    if not common:
        return own, ["The models are of different folds: each predicts with all of its own."]
    same = {name: tuple(f for f in folds if f in common) for name, folds in own.items()}
    more = [name for name, folds in own.items() if len(folds) > len(common)]
    return same, [
        f"Only fold {', '.join(sorted(common))} of {listed(more)} predicts: not every model has "
        "the others."
    ]


def _fit(project: Project, opened: Mapping[str, ModelFolder | None]) -> Iterator[str]:
    """Say what does not fit, though it can be predicted: normalisation, spacing."""
    spacing = project.geometry(project.case_ids()[0]).spacing_mm
    channels = [channel.modality for channel in project.schema.channels]
    for name, model in opened.items():
        for note in compatibility(model, channels=channels, spacing_mm=spacing) if model else ():
            yield f"{name}: {note}"


def _seen_notes(
    project: Project,
    choices: Sequence[ModelChoice],
    labelled: Sequence[str],
    settings: CompareSettings,
) -> Iterator[str]:
    """Say where there will be no verdict, or one from fewer cases."""
    if not labelled:
        return
    each = [standings(project, choice) for choice in choices]
    worst = {case: [known[case] for known in each] for case in labelled}
    seen = sum("seen" in states for states in worst.values())
    unknown = sum("unknown" in states and "seen" not in states for states in worst.values())
    if settings.declare_unseen:
        unknown = 0
    if seen == len(labelled):
        yield "A model was trained on every one of these cases: there will be no verdict."
    elif seen:
        yield f"{seen} of them a model was trained on: they do not count for the verdict."
    if unknown and seen + unknown == len(labelled):
        yield (
            "It is not known whether the models were trained on these cases: there will be no "
            "verdict, unless you declare in the settings that they were not."
        )
    elif unknown:
        yield f"Of {unknown} it is not known whether a model was trained on them."
    if len(labelled) == 1:
        yield "One case allows no statistics: it is shown and measured, without a verdict."


def begin(
    project: Project | Path,
    chosen: Mapping[str, str],
    baseline: str,
    cases: Sequence[str],
    settings: Mapping[str, Any] | None = None,
) -> str:
    """Queue what `propose` proposes as one chain of jobs.

    Returns
    -------
    str
        The name of the chain; "" where nothing has to be done, since all is predicted and no
        case has a reference.

    Raises
    ------
    InputError, UntrustedModelError
        As for `propose`.
    JobError
        The same is queued or runs already.
    """
    with beginning(project) as opened:
        proposal = propose(opened, chosen, baseline, cases, settings)
        _require_new(opened.folder, proposal)
        with Links(opened.folder) as links:
            return _queue(links, proposal)


def _queue(links: Links, proposal: Proposal) -> str:
    title = f"compare {listed([_plain(arm.name) for arm in proposal.arms])}"
    folders: dict[str, list[str]] = {}
    needs: list[str] = []
    device = proposal.settings.device
    for arm in proposal.arms:
        folders[arm.name] = sorted({arm.there[case] for case in arm.there})
        if arm.todo:
            words = f"{title}: predict with {_plain(arm.name)}"
            job = links.add("predict", arm.params, words, device=device)
            folders[arm.name].append(f"jobs/{job}")
            needs.append(job)
    if proposal.labelled:
        alone = not needs
        words = title if alone else f"{title}: measure"
        links.add("compare", comparison(proposal, folders), words, needs)
    return links.name


def _plain(name: str) -> str:
    """Return a name without a colon, which ends the title of a chain."""
    return name.replace(":", "")


def comparison(proposal: Proposal, folders: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return the parameters of the comparison of some prediction folders."""
    settings, baseline = proposal.settings, proposal.arms[0]
    others = [arm for arm in proposal.arms[1:] if _is_control(arm, proposal.arms)]
    return {
        "arms": {arm.name: list(folders[arm.name]) for arm in proposal.arms},
        "baseline": baseline.name,
        "controls": [arm.name for arm in others],
        "about": {arm.name: arm.choice.title for arm in proposal.arms},
        "cases": list(proposal.labelled),
        "declared_unseen": [arm.name for arm in proposal.arms] if settings.declare_unseen else [],
        "title": f"{listed([arm.name for arm in proposal.arms[1:]])} against {baseline.name}",
        "tolerance_mm": settings.tolerance_mm,
        "missed_hd95": settings.missed_hd95,
        "matching": settings.matching,
        "iou_threshold": settings.iou_threshold,
        "connectivity": settings.connectivity,
        "strata_ml": list(settings.strata_ml),
    }


def _is_control(arm: Arm, arms: Sequence[Arm]) -> bool:
    """Whether a model is the same extra training without supports, where another has them."""
    start, others = arm.choice.started_from, (a for a in arms if a is not arms[0] and a is not arm)
    same = any(o.choice.started_from == start and o.choice.arm != "binary" for o in others)
    return arm.choice.arm == "binary" and bool(start) and same


def _require_new(folder: Path, proposal: Proposal) -> None:
    """Refuse what is queued or runs already."""
    wanted = [dict(arm.params) for arm in proposal.arms if arm.todo]
    folders = {arm.name: sorted(set(arm.there.values())) for arm in proposal.arms}
    task = "predict" if wanted else "compare"
    asked = wanted or [comparison(proposal, folders)]
    going = [job for job in list_jobs(folder) if job.spec.task == task]
    going = [job for job in going if job.status().state in (State.PENDING, *UNDER_WAY)]
    same = [job for job in going if job.spec.params in asked]
    if same and len(same) >= len(asked):
        raise JobError(
            f"The same is queued or runs already: job {same[0].id} ({same[0].spec.title}).",
            "Wait for it, cancel it, or choose other cases or settings.",
        )
