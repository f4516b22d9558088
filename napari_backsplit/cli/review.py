"""Commands of the review: the cohort, verdicts, recipes, the checks, and what is written out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from napari_backsplit.backend.errors import InputError
from napari_backsplit.cli import app
from napari_backsplit.cli.data import PANEL, JsonOption, ProjectOption, open_project

if TYPE_CHECKING:
    from napari_backsplit.backend.fusion.cases import Admit
    from napari_backsplit.backend.fusion.review import CaseState
    from napari_backsplit.backend.project import Project, ProjectReader
    from napari_backsplit.backend.project.schema import Judgement


class State(StrEnum):
    """How a case or a mask stands; "none": a case without a verdict, or no mask."""

    NONE = "none"
    UNREVIEWED = "unreviewed"
    ACCEPTED = "accepted"
    NEEDS_WORK = "needs_work"
    REJECTED = "rejected"


class Said(StrEnum):
    """What a person may say."""

    ACCEPTED = "accepted"
    NEEDS_WORK = "needs_work"
    REJECTED = "rejected"


class Entering(StrEnum):
    """Which masks of supports enter."""

    ACCEPTED = "accepted"
    UNREVIEWED = "unreviewed"


StateOption = Annotated[
    list[State] | None,
    typer.Option(
        help="Only cases of which this was said, or of a mask of which; may be repeated.",
    ),
]
MasksOption = Annotated[
    Entering | None,
    typer.Option(
        help="Masks of supports that enter: those that a person accepted, or all that none "
        "rejected. Default: unreviewed, with --dataset accepted.",
    ),
]

GRAVITY = ("info", "warning", "error")
"""The gravest is printed last: next to the prompt."""

recipe = typer.Typer(
    help="Make supports of several masks, take one from another, grow one over its lesions. "
    "Masks stay as they are.",
    no_args_is_help=True,
)
app.add_typer(recipe, name="supports", rich_help_panel=PANEL)


# ---------------------------------------------------------------------- look


@app.command(rich_help_panel=PANEL)
def check(project: ProjectOption = Path(), as_json: JsonOption = False) -> None:
    """Audit the project before training; exit code 1 where something must be mended."""
    from napari_backsplit.backend.fusion.audit import audit
    from napari_backsplit.cli.console import say, show, table

    with open_project(project, read_only=True) as opened:
        findings = audit(opened)
        cases = len(opened.case_ids())
    columns = ("severity", "structure", "code", "case", "message")
    rows = [(f.severity, f.structure, f.code, f.case, f.message) for f in findings]
    show([dict(zip(columns, row, strict=True)) for row in rows], as_json)
    if not as_json:
        gravest = sorted(rows, key=lambda row: (GRAVITY.index(row[0]), row))
        alike = groupby(gravest, key=lambda row: row[:3])
        table(columns, (_first_of(list(group)) for _, group in alike))
        say(f"{cases} case(s), {len(findings)} finding(s).")
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(1)


def _first_of(rows: list[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the first of some findings of one kind, and how many cases more have it."""
    *kind, case, message = rows[0]
    more = len({row[3] for row in rows}) - 1
    return (*kind, f"{case} and {more} more" if more else case, message)


@app.command(rich_help_panel=PANEL)
def review(
    project: ProjectOption = Path(),
    state: StateOption = None,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the table as CSV, to a new file.")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Audit, and write review.html and contact sheets of all cases to a new folder.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show how far the review is: each case's verdict, volumes, and what was edited since."""
    from napari_backsplit.backend.files import write_text, writing
    from napari_backsplit.backend.fusion.review import survey
    from napari_backsplit.backend.fusion.review_table import csv_text, plain_rows, review_rows
    from napari_backsplit.cli.console import say_aside, show

    if csv is not None and csv.exists():
        raise InputError(f"{csv} exists.", "Choose a new name.")
    written: list[str] = []
    with open_project(project, read_only=True) as opened:
        every = survey(opened)
        states = [s for s in every.values() if not state or _is_any(s, state)]
        rows = review_rows(opened, states)
        if csv is not None:
            with writing(f"The table {csv}"):
                write_text(csv, csv_text(rows))
            written.append(f"Wrote {len(rows)} rows to {csv}.")
        if report is not None:
            written.append(f"Wrote the report {_write_report(opened, report)}.")
        names = [structure.name for structure in opened.schema.structures]
    show(plain_rows(rows), as_json)
    if not as_json:
        _print_table(states, names, len(every))
    for words in written:
        say_aside(words)


def _is_any(case: CaseState, wanted: Sequence[str]) -> bool:
    return case.state in wanted or any(mask.state in wanted for mask in case.masks)


def _write_report(project: Project, folder: Path) -> Path:
    from napari_backsplit.backend.fusion.audit import examine
    from napari_backsplit.backend.fusion.review_report import require_new, write_review

    require_new(folder)
    return write_review(project, examine(project), folder)


def _print_table(states: Sequence[CaseState], names: Sequence[str], count: int) -> None:
    from napari_backsplit.backend.fusion.review_table import case_words, mask_words, volume_words
    from napari_backsplit.cli.console import say, table

    rows = []
    for case in states:
        masks = [f"{volume_words(mask.ml)} {mask_words(mask)}".strip() for mask in case.masks]
        rows.append((case.case, case_words(case), *masks))
    if rows:
        table(("case", "verdict", *names), rows)
    judged = sum(case.state != "none" for case in states)
    shown = f"{len(states)} of {count}" if len(states) < count else f"{count}"
    say(f"{shown} case(s), {judged} with a verdict.")


# ---------------------------------------------------------------------- judge


@app.command(rich_help_panel=PANEL)
def verdict(
    judgement: Annotated[Said, typer.Argument(help="What you say of it.")],
    project: ProjectOption = Path(),
    case: Annotated[list[str] | None, typer.Option(help="Case id; may be repeated.")] = None,
    all_cases: Annotated[bool, typer.Option("--all", help="Every case.")] = False,
    structure: Annotated[
        list[str] | None,
        typer.Option(help="Judge its mask, not the case as a whole; may be repeated."),
    ] = None,
    comment: Annotated[str, typer.Option(help="Why; kept with the verdict.")] = "",
    who: Annotated[str, typer.Option(help="Who judged; by default your login.")] = "",
) -> None:
    """Say what you think of cases or masks; what was said before is kept.

    Accepting a case accepts every mask of it that nobody has judged, as in the window.
    """
    from napari_backsplit.backend.fusion.review import accept_unjudged
    from napari_backsplit.cli.console import say

    if bool(case) == all_cases:
        raise InputError("Give either --case or --all.", "As in: verdict accepted --case case_001")
    said: Judgement = judgement.value
    with open_project(project) as opened:
        named = tuple(opened.case(name).id for name in dict.fromkeys(case or ()))
        cases = opened.case_ids() if all_cases else named
        names = tuple(dict.fromkeys(structure or ()))
        there = {c: [n for n in names if opened.mask_path(c, n)] for c in cases}
        taken = 0
        for chosen, masks in there.items():
            if not names and said == "accepted":
                taken += len(accept_unjudged(opened, chosen, who))
            for name in masks if names else ("",):
                opened.judge(chosen, said, name, comment=comment, who=who)
    judged = sum(len(masks) for masks in there.values())
    if not names:
        also = f"; with them {taken} mask(s) that nobody had judged" if taken else ""
        say(f"{said}: {_few(cases)}{also}.")
        return
    skipped = len(names) * len(cases) - judged
    also = f"; {skipped} skipped, as there is no mask" if skipped else ""
    say(f"{said}: {judged} mask(s) of {', '.join(names)} in {_few(cases)}{also}.")


def _few(cases: Sequence[str]) -> str:
    shown = ", ".join(cases[:3])
    more = f", ... ({len(cases)} cases)" if len(cases) > 3 else ""
    return f"{shown}{more}" if cases else "no case"


# ---------------------------------------------------------------------- recipes

SupportArgument = Annotated[str, typer.Argument(help="The support that is made or changed.")]
SourcesArgument = Annotated[list[str], typer.Argument(help="Structures that it is made of.")]


@recipe.command("merge")
def merge(
    support: SupportArgument,
    sources: SourcesArgument,
    project: ProjectOption = Path(),
) -> None:
    """Make one support of several, which are no supports of their own any more."""
    _add(project, "merge", support, sources)


@recipe.command("subtract")
def subtract(
    support: SupportArgument,
    sources: Annotated[list[str], typer.Argument(help="Structures that are taken away from it.")],
    project: ProjectOption = Path(),
) -> None:
    """Take structures away from a support."""
    _add(project, "subtract", support, sources)


@recipe.command("grow")
def grow(support: SupportArgument, project: ProjectOption = Path()) -> None:
    """Grow a support over the lesions that lie in it, and the gaps around them."""
    _add(project, "grow", support, ())


def _add(
    folder: Path,
    kind: Literal["merge", "subtract", "grow"],
    support: str,
    sources: Sequence[str],
) -> None:
    from napari_backsplit.cli.console import say

    with open_project(folder) as opened:
        opened.add_recipe(kind, support, sources)
        number, made = len(opened.schema.recipes), opened.schema.recipes[-1]
        say(f"{number}. {made.words}. Priorities: {_priorities(opened)}.")


def _priorities(project: ProjectReader) -> str:
    """Return the fused supports, the one that wins first."""
    return " > ".join(support.name for support in project.schema.fused_supports) or "no support"


@recipe.command("list")
def list_recipes(project: ProjectOption = Path(), as_json: JsonOption = False) -> None:
    """Show what is merged, subtracted and grown, in order, and the priorities of the supports."""
    from napari_backsplit.cli.console import show

    with open_project(project, read_only=True) as opened:
        recipes = opened.schema.recipes
        supports = [support.name for support in opened.schema.fused_supports]
        priorities = _priorities(opened)
    lines = [
        f"{number}. {made.words}{f' ({made.who}, {made.when[:10]})' if made.who else ''}"
        for number, made in enumerate(recipes, start=1)
    ]
    value = {"recipes": [made.model_dump(mode="json") for made in recipes], "supports": supports}
    show(
        value,
        as_json,
        [*(lines or ["Nothing is merged, subtracted or grown."]), f"Priorities: {priorities}."],
    )


@recipe.command("undo")
def undo(
    number: Annotated[
        int | None, typer.Argument(help="As `supports list` counts; by default the last.", min=1)
    ] = None,
    project: ProjectOption = Path(),
) -> None:
    """Take a merge, subtraction or growth away: what it changed is as it was before."""
    from napari_backsplit.cli.console import say

    with open_project(project) as opened:
        recipes = opened.schema.recipes
        if not recipes:
            raise InputError("Nothing is merged, subtracted or grown.", "There is nothing to undo.")
        which = len(recipes) if number is None else number
        opened.remove_recipe(which - 1)
        undone = recipes[which - 1].words
        say(f"Took away {which}: {undone}. Priorities: {_priorities(opened)}.")


@recipe.command("order")
def order(
    names: Annotated[list[str], typer.Argument(help="Every support, the one that wins first.")],
    project: ProjectOption = Path(),
) -> None:
    """Set which support wins where two overlap; a target always wins."""
    from napari_backsplit.cli.console import say

    with open_project(project) as opened:
        opened.set_priorities(names)
        say(f"Priorities: {_priorities(opened)}.")


# ---------------------------------------------------------------------- write out


@app.command(rich_help_panel=PANEL)
def fuse(
    output: Annotated[Path, typer.Argument(help="New folder for the label maps.")],
    project: ProjectOption = Path(),
    masks: MasksOption = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="NNN_NAME",
            help="Write a raw nnU-Net v2 dataset instead, OUTPUT/DatasetNNN_NAME.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the fused label map of every case: the lesion wins, then supports by priority.

    Where a case lacks a support, its background stays 0 in a label map, which labels.json says,
    and becomes nnU-Net's "ignore" in a dataset; a training is told "background or that support".
    """
    from napari_backsplit.backend.fusion.raw_dataset import write_dataset, write_label_maps
    from napari_backsplit.cli.console import show

    chosen = masks or (Entering.ACCEPTED if dataset else Entering.UNREVIEWED)
    admit: Admit = chosen.value
    with open_project(project, read_only=True) as opened:
        if dataset is None:
            result = write_label_maps(opened, output, admit)
            lines: Iterable[str] = [f"Wrote {len(result['cases'])} label maps to {output}."]
        else:
            result = write_dataset(opened, output, dataset, admit)
            lines = _dataset_lines(result)
    show(result, as_json, lines)


def _dataset_lines(result: dict[str, Any]) -> Iterable[str]:
    counts = {name: len(result[name]) for name in ("train", "test", "left_out", "missing")}
    yield (
        f"Wrote {result['dataset']}: {counts['train']} training case(s), {counts['test']} test "
        f"image(s) without labels, {counts['left_out']} case(s) left out."
    )
    if counts["missing"]:
        yield (
            f'{counts["missing"]} case(s) lack a support: their background is "ignore". '
            "README.md of the dataset says what that means."
        )
