"""Commands for structures: segment supports with simulated clicks, list engines, adopt results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_backsplit.backend.errors import InputError, JobError, ProjectError
from napari_backsplit.backend.structures.settings import EngineSettings
from napari_backsplit.cli import app
from napari_backsplit.cli.data import (
    PANEL,
    JsonOption,
    ProjectOption,
    ReplaceOption,
    open_project,
)
from napari_backsplit.cli.options import make_spec, with_spec

if TYPE_CHECKING:
    from napari_backsplit.backend.jobs import Job
    from napari_backsplit.backend.project import Project
    from napari_backsplit.backend.structures.adopting import Adoption
    from napari_backsplit.backend.structures.simulation import References, SegmentSpec

PAINT = {
    "name": "paint",
    "title": "Brush",
    "state": "ready",
    "reason": "napari's own brush, eraser and polygon: it works in the window only.",
    "remedy": "",
    "model": "",
    "licence": "",
}
KEPT = "as kept for this user"
COLUMNS = ("structure", "cases", "absent", "left out", "Dice", "lowest", "s a prompt")


@app.command(rich_help_panel=PANEL)
def engines(as_json: JsonOption = False) -> None:
    """List the engines that turn clicks into masks: whether each is ready, and what it lacks."""
    from napari_backsplit.backend.structures.engines import engine_states
    from napari_backsplit.backend.structures.settings import read_settings
    from napari_backsplit.cli.console import show, table

    rows = [*map(vars, engine_states(read_settings())), PAINT]
    show(rows, as_json)
    if not as_json:
        about = [(f"{row['reason']} {row['remedy']}".strip(), row) for row in rows]
        table(
            ("engine", "state", "model", "licence", "remark"),
            ((r["name"], r["state"], r["model"], r["licence"], text) for text, r in about),
        )


@app.command(rich_help_panel=PANEL)
@with_spec(
    EngineSettings,
    skip=("where", "url", "key", "insecure"),
    first=(),
    **dict.fromkeys(("model_folder", "device", "threads"), KEPT),
)
def segment(
    *,
    support: Annotated[
        list[str],
        typer.Option(
            metavar="NAME[=REFERENCE]",
            help="Structure to segment; may be repeated. A new one is added. With "
            "kidney-7-clicks=kidney it is clicked in the reference of kidney, which stays.",
        ),
    ],
    engine: Annotated[str, typer.Option(help="Name of an engine; see: backsplit engines")],
    project: ProjectOption = Path(),
    clicks: Annotated[
        int | None, typer.Option(help="Random positive clicks to draw in each reference mask.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed draws other clicks.")] = 0,
    from_reference: Annotated[
        str,
        typer.Option(
            metavar="FOLDER|project",
            help="Reference masks to draw clicks in and to measure Dice against.",
        ),
    ] = "",
    pattern: Annotated[
        str | None,
        typer.Option(
            help="Names of files below that folder, as in: import masks. "
            "[default: {case}.nii.gz, for several structures {case}/{structure}.nii.gz]"
        ),
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="Journal of a case to replay, in place of clicks.")
    ] = None,
    channel: Annotated[str, typer.Option(help="Channel to click on. [default: the first]")] = "",
    case: Annotated[
        list[str] | None, typer.Option(help="Case id; may be repeated. [default: all]")
    ] = None,
    replace: ReplaceOption = False,
    send_to: Annotated[
        str,
        typer.Option(
            metavar="SERVER",
            help="You agree that this project's images are sent to this server; asked once.",
        ),
    ] = "",
    detach: Annotated[
        bool, typer.Option("--detach", help="Start the job and return at once.")
    ] = False,
    as_json: JsonOption = False,
    options: dict[str, Any],
) -> None:
    """Segment supports with simulated clicks, or with a journal's, and measure Dice.

    Masks are adopted where a case has none of that structure; the others stay with the job.
    """
    from napari_backsplit.backend.structures import simulation
    from napari_backsplit.cli.console import follow_job, say

    asked = {"clicks": clicks, "prompts": str(prompts or ""), "reference": from_reference}
    structures, clicked_in = _names(support)
    values = {"structures": structures, "engine": engine, "seed": seed, "channel": channel}
    values["clicked_in"] = clicked_in
    spec = _spec({**asked, **values, "settings": _settings(options), "cases": case})
    simulation.require_ready(engine, spec.engine_settings())
    with open_project(project, read_only=True) as opened:
        spec, references = _checked(opened, spec, pattern)
        _require_consent(opened, spec, send_to)
        job = simulation.submit_segment(opened, spec, references, prompts)
    tell = (lambda text: None) if as_json else say
    tell(f"{job.id}: {spec.title}")
    if detach:
        return _say_detached(job, as_json)
    follow_job(job, quiet=as_json)
    _finish(project, job, replace, as_json)
    return None


def _names(given: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return the names as they are, and in whose references others are clicked.

    Raises
    ------
    InputError
        One is no name of a structure; the remedy has one that is.
    """
    from napari_backsplit.backend.structures.vocabulary import neutral

    pairs = [(name, source) for name, _, source in (text.partition("=") for text in given)]
    for name in (each for pair in pairs for each in pair if each):
        if (right := neutral(name)) != name:
            raise InputError(f"--support {name!r} is no name of a structure.", f"Write {right}.")
    sources = {name: source for name, source in pairs if source and source != name}
    return list(dict.fromkeys(name for name, _ in pairs)), sources


def _spec(values: dict[str, Any]) -> SegmentSpec:
    from napari_backsplit.backend.structures.simulation import SegmentSpec

    clicks, prompts = values["clicks"], values["prompts"]
    if (clicks is None) == (not prompts):
        raise InputError("Give either --clicks or --prompts.", "As in: --clicks 7")
    if clicks is not None and not values["reference"]:
        raise InputError(
            "Clicks are drawn in reference masks.",
            "Say where they are: --from-reference FOLDER, or --from-reference project",
        )
    return make_spec(SegmentSpec, values)


def _settings(options: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that were given, checked."""
    checked = make_spec(EngineSettings, options).model_dump(include=set(options))
    if checked.get("model_folder"):
        checked["model_folder"] = str(Path(checked["model_folder"]).resolve())
    return checked


def _checked(
    project: Project, spec: SegmentSpec, pattern: str | None
) -> tuple[SegmentSpec, References]:
    """Find out what cannot work before there is a job; return its spec and references."""
    from napari_backsplit.backend.structures import simulation

    project.schema.refuse_unknown_channels([spec.channel] if spec.channel else [])
    simulation.grown(project, spec.structures)
    spec = simulation.with_cases(project, spec)
    if spec.reference == simulation.PROJECT:
        simulation.require_own_references(project, spec)
    if spec.reference in ("", simulation.PROJECT):
        return spec, {}
    default = "{case}.nii.gz" if len(spec.structures) == 1 else "{case}/{structure}.nii.gz"
    found = simulation.find_references(
        project, spec.structures, Path(spec.reference), pattern or default, spec.clicked_in
    )
    wanted = {key: path for key, path in found.items() if key[0] in (spec.cases or ())}
    if not wanted:
        raise InputError(
            f"{spec.reference} has no reference mask of {', '.join(spec.cases or ())}.",
            "Name other cases, or check --pattern.",
        )
    simulation.check_grids(project, wanted)
    return spec, wanted


def _require_consent(project: Project, spec: SegmentSpec, send_to: str) -> None:
    """Keep a consent that was given; refuse a server elsewhere without one."""
    from napari_backsplit.backend.structures import consent

    settings = spec.engine_settings()
    host = consent.server_of(spec.engine, settings)
    if send_to and send_to != host:
        where = f"{host} is" if host else "no other machine is"
        raise InputError(f"--send-to {send_to!r}: {where} asked.", "Leave it out, or correct it.")
    if send_to:
        with open_project(project.folder) as writer:
            consent.give_consent(writer, host)
    try:
        consent.allows_elsewhere(project, spec.engine, settings)
    except consent.ConsentMissing as error:
        raise InputError(error.problem, f"If you agree, once: --send-to {host}") from error


def _say_detached(job: Job, as_json: bool) -> None:
    from napari_backsplit.cli.console import show

    lines = [f"It goes on by itself. Adopt its masks when it is done: backsplit adopt {job.id}"]
    show({"job": job.id}, as_json, lines)


def _finish(folder: Path, job: Job, replace: bool, as_json: bool) -> None:
    """Show the table of a finished job, and adopt its masks."""
    from napari_backsplit.backend.files import read_json
    from napari_backsplit.backend.structures.adopting import Adoption, segmented
    from napari_backsplit.cli.console import table

    scores = read_json(job.folder / "segment.json")
    if not as_json:
        table(COLUMNS, map(_cells, scores["summary"]))
    with open_project(folder, read_only=True) as opened:
        made = segmented(opened, job.id)
    adoption = _adopt_segmented(folder, job, None, replace) if made else Adoption()
    _show_adoption(adoption, job, as_json, scores)


def _cells(summary: dict[str, Any]) -> list[object]:
    keys = ("structure", "segmented", "absent", "missing")
    figures = [summary[key] for key in ("dice_mean", "dice_min")]
    seconds = summary["seconds_per_prompt"]
    return [
        *(summary[key] for key in keys),
        *("-" if figure is None else f"{figure:.4f}" for figure in figures),
        "-" if seconds is None else f"{seconds:.2f}",
    ]


def _adopt_segmented(
    folder: Path, job: Job, cases: Sequence[str] | None, replace: bool
) -> Adoption:
    from napari_backsplit.backend.structures.adopting import adopt_segmented

    try:
        with open_project(folder) as opened:
            return adopt_segmented(opened, job.id, cases, replace=replace)
    except ProjectError as error:
        raise ProjectError(
            f"The masks are in jobs/{job.id}/masks, but were not adopted: {error.problem}",
            f"{error.remedy} Then: backsplit adopt {job.id}".strip(),
        ) from error


@app.command(rich_help_panel=PANEL)
def adopt(
    job: Annotated[str, typer.Argument(help="Number or id of a predict or a segment job.")],
    project: ProjectOption = Path(),
    case: Annotated[
        list[str] | None, typer.Option(help="Case id; may be repeated. [default: all of the job]")
    ] = None,
    replace: ReplaceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Take a job's masks into the project where a case has none: predicted lesions, supports.

    They are marked as not reviewed. A predicted lesion is no reference until a person has
    corrected it.
    """
    from napari_backsplit.cli.jobs import find_job

    found = find_job(project, job)
    if found.spec.task not in ("predict", "segment"):
        raise JobError(f"Job {found.id} has no masks to adopt.", "Name a predict or a segment job.")
    take = _adopt_predicted if found.spec.task == "predict" else _adopt_segmented
    _show_adoption(take(project, found, case, replace), found, as_json, {})


def _adopt_predicted(
    folder: Path, job: Job, cases: Sequence[str] | None, replace: bool
) -> Adoption:
    from napari_backsplit.backend.structures.adopting import adopt_predictions
    from napari_backsplit.cli.console import say_aside

    with open_project(folder) as opened:
        adoption = adopt_predictions(opened, job.id, cases, replace=replace)
        held = sorted({case for case, _ in adoption.adopted} & set(opened.test_cases()))
    if held:
        say_aside(
            f"{', '.join(held)}: held out. A comparison against a reference that a model made "
            "says nothing; correct it by hand first.",
            "yellow",
        )
    return adoption


def _show_adoption(adoption: Adoption, job: Job, as_json: bool, scores: dict[str, Any]) -> None:
    from napari_backsplit.cli.console import show

    value = {
        "job": job.id,
        **scores,
        "adopted": [list(pair) for pair in adoption.adopted],
        "left": [list(pair) for pair in adoption.left],
    }
    lines = [f"{len(adoption.adopted)} mask(s) adopted, not reviewed yet."]
    if not adoption.adopted and not adoption.left:
        lines = ["No mask was made."]
    if adoption.left:
        lines.append(
            f"{len(adoption.left)} mask(s) stay in jobs/{job.id} alone: the project has one there "
            f"already ({_first(adoption.left)}). To replace: backsplit adopt {job.id} --replace"
        )
    show(value, as_json, lines)


def _first(pairs: Sequence[tuple[str, str]]) -> str:
    case, structure = pairs[0]
    more = f" and {len(pairs) - 1} more" if len(pairs) > 1 else ""
    return f"{structure} of {case}{more}"
