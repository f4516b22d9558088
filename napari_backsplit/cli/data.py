"""Commands from files to a project: sample, init, import, reserve."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from napari_backsplit.backend.errors import InputError, ProjectError
from napari_backsplit.cli import app
from napari_backsplit.cli.options import pairs

if TYPE_CHECKING:
    from napari_backsplit.backend.project import ImportReport, Project

PANEL = "1 Prepare"

ProjectOption = Annotated[
    Path,
    typer.Option(
        "--project", "-p", envvar="BACKSPLIT_PROJECT", help="Project folder.", show_default="here"
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for a program.")]
ReplaceOption = Annotated[
    bool, typer.Option("--replace", help="Replace masks; the old ones are kept.")
]
AcceptedOption = Annotated[
    bool,
    typer.Option(
        "--accepted", help="A person drew or checked these masks: they may enter training."
    ),
]
ResampleOption = Annotated[
    bool,
    typer.Option(
        "--resample", help="Bring files on another grid to the first channel's, and record it."
    ),
]
PatternOption = Annotated[
    str,
    typer.Option(
        help="Names of files below the folder; {case}, {patient}, {channel}, {structure} and * "
        "stand for parts of them. Ending with / it finds DICOM folders."
    ),
]

importing = typer.Typer(
    help="Bring images and masks into the project. Images stay where they are.",
    no_args_is_help=True,
)
app.add_typer(importing, name="import", rich_help_panel=PANEL)


def open_project(folder: Path, *, read_only: bool = False) -> Project:
    """Open the project that a command works on."""
    from napari_backsplit.backend.project import Project

    return Project.open(folder, read_only=read_only)


def require_project(folder: Path) -> None:
    """Refuse a folder that is no project, where nothing is read from it.

    Raises
    ------
    ProjectError
        It is none.
    """
    if not (folder / "project.json").is_file():
        raise ProjectError(
            f"{folder.resolve()} is no project.", "Choose a folder with a project.json."
        )


@app.command(rich_help_panel=PANEL)
def sample(
    folder: Annotated[Path, typer.Argument(help="New project folder.")],
    seed: Annotated[int, typer.Option(help="Another seed draws other cases.")] = 1,
    train: Annotated[int, typer.Option(help="Cases to train on.")] = 16,
    test: Annotated[int, typer.Option(help="Cases held out.")] = 24,
) -> None:
    """Make a project of SYNTHETIC abdominal CT: renal cysts, organs, look-alikes."""
    from napari_backsplit.backend.phantom import sample_project
    from napari_backsplit.cli.console import say

    with sample_project(folder, seed, train, test) as project:
        say(f"{folder}: {len(project.case_ids())} synthetic cases, {test} of them held out.")


@app.command(rich_help_panel=PANEL)
def init(
    folder: Annotated[Path, typer.Argument(help="New project folder.")],
    channel: Annotated[
        list[str], typer.Option(help='Image channel, in order. "CT" is normalised as CT.')
    ],
    target: Annotated[list[str], typer.Option(help="Lesion to segment; may be repeated.")],
    support: Annotated[
        list[str] | None, typer.Option(help="Support structure; repeat in order of priority.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the project; by default the folder's.")] = "",
    seed: Annotated[int, typer.Option(help="Seed of splits and controls.")] = 0,
) -> None:
    """Make an empty project."""
    from napari_backsplit.backend.project import Project
    from napari_backsplit.cli.console import say

    name = name or folder.resolve().name
    with Project.create(folder, name, channel, target, support or [], seed=seed):
        say(f"Made the project {folder}. Next: backsplit import --help")


@importing.command("images")
def import_images(
    folder: Annotated[Path, typer.Argument(help="Where the images are.")],
    project: ProjectOption = Path(),
    pattern: PatternOption = "{case}.nii.gz",
    channel: Annotated[
        list[str] | None,
        typer.Option(help="WORD=CHANNEL where {channel} is not the channel's name or number."),
    ] = None,
    test: Annotated[bool, typer.Option("--test", help="Reserve these cases for the test.")] = False,
    resample: ResampleOption = False,
    correct_tilt: Annotated[
        bool,
        typer.Option(
            "--correct-tilt", help="Resample DICOM of a tilted gantry onto a straight grid."
        ),
    ] = False,
    suv: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CHANNEL", help="Turn DICOM PET in Bq/ml into SUVbw; may be repeated."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Add cases: one image per channel, or DICOM series folders."""
    from napari_backsplit.backend.project import Reading, import_folder

    options: dict[str, Any] = {"test": test, "resample": resample}
    reading = Reading(correct_tilt, tuple(suv or ()))
    with open_project(project) as opened:
        report = import_folder(
            opened, folder, pattern, channels=pairs(channel), reading=reading, **options
        )
    _show_import(report, as_json)


@importing.command("masks")
def import_masks(
    structure: Annotated[str, typer.Argument(help="Target or support of the project.")],
    folder: Annotated[Path, typer.Argument(help="Where its masks are, one file a case.")],
    project: ProjectOption = Path(),
    pattern: PatternOption = "{case}.nii.gz",
    absent_is_empty: Annotated[
        bool, typer.Option("--absent-is-empty", help="A case without a file is free of it.")
    ] = False,
    replace: ReplaceOption = False,
    resample: ResampleOption = False,
    accepted: AcceptedOption = False,
    as_json: JsonOption = False,
) -> None:
    """Add the masks of one structure."""
    from napari_backsplit.backend.project import Masks

    masks = Masks(structure, folder, pattern, absent_is_empty)
    _import(project, masks, replace, resample, accepted, as_json)


@importing.command("soft")
def import_soft(
    folder: Annotated[
        list[Path],
        typer.Argument(help="Where the soft masks are, one file a case; one folder a rater."),
    ],
    project: ProjectOption = Path(),
    target: Annotated[
        str, typer.Option(help="Target they are of, where the project has several.")
    ] = "",
    pattern: PatternOption = "{case}.nii.gz",
    make_target: Annotated[
        bool,
        typer.Option(
            "--make-target",
            help="Give a case without a mask of the target one: where at least half of a voxel is.",
        ),
    ] = False,
    fewer_raters: Annotated[
        bool,
        typer.Option(
            "--fewer-raters", help="Average those who have a file for a case, where some have none."
        ),
    ] = False,
    replace: ReplaceOption = False,
    resample: ResampleOption = False,
    as_json: JsonOption = False,
) -> None:
    """Add soft masks of a target, for soft labels: shares of voxels from 0 to 1, or several raters.

    With several folders, their mean is taken, voxel by voxel. The target's mask stays as it is.
    """
    from napari_backsplit.backend.project import import_soft as apply

    with open_project(project) as opened:
        report = apply(
            opened, folder, pattern, target,
            replace=replace, resample=resample, make_target=make_target, fewer_raters=fewer_raters,
        )  # fmt: skip
    _show_import(report, as_json)


@importing.command("labels")
def import_labels(
    folder: Annotated[Path, typer.Argument(help="Where the label maps are, one file a case.")],
    ids: Annotated[str, typer.Option(help="ID=STRUCTURE,...; several ids may make one.")],
    project: ProjectOption = Path(),
    pattern: PatternOption = "{case}.nii.gz",
    ignore_others: Annotated[
        bool, typer.Option("--ignore-others", help="Leave out ids that are not named.")
    ] = False,
    replace: ReplaceOption = False,
    resample: ResampleOption = False,
    accepted: AcceptedOption = False,
    as_json: JsonOption = False,
) -> None:
    """Add structures from label maps with many ids in one file (as TotalSegmentator --ml)."""
    from napari_backsplit.backend.project import LabelMaps

    named = pairs(ids.split(","))
    odd = [key for key in named if not key.strip().isdigit()]
    if odd:
        raise InputError(f"--ids: {odd[0]!r} is no label id.", "Write --ids 2=kidney,3=kidney.")
    others: Literal["ignore", "refuse"] = "ignore" if ignore_others else "refuse"
    maps = LabelMaps(folder, pattern, {int(key): name for key, name in named.items()}, others)
    _import(project, maps, replace, resample, accepted, as_json)


@importing.command("structures")
def import_structures(
    folder: Annotated[Path, typer.Argument(help="Where the folders of masks are.")],
    names: Annotated[str, typer.Option(help="FILE=STRUCTURE,...; several may make one.")],
    project: ProjectOption = Path(),
    pattern: PatternOption = "{case}/{structure}.nii.gz",
    replace: ReplaceOption = False,
    resample: ResampleOption = False,
    accepted: AcceptedOption = False,
    as_json: JsonOption = False,
) -> None:
    """Add structures from folders with one file a structure (as TotalSegmentator)."""
    from napari_backsplit.backend.project import StructureFiles

    files = StructureFiles(folder, pattern, pairs(names.split(",")))
    _import(project, files, replace, resample, accepted, as_json)


@importing.command("nnunet")
def import_nnunet(
    folder: Annotated[Path, typer.Argument(help="Folder with dataset.json.")],
    project: ProjectOption = Path(),
    label: Annotated[
        list[str] | None,
        typer.Option(help="LABEL=STRUCTURE of the project; LABEL= makes it background."),
    ] = None,
    replace: ReplaceOption = False,
    resample: ResampleOption = False,
    accepted: AcceptedOption = False,
    as_json: JsonOption = False,
) -> None:
    """Add the cases of an nnU-Net raw dataset; imagesTs is reserved for the test."""
    from napari_backsplit.backend.project import import_nnunet_raw

    with open_project(project) as opened:
        report = import_nnunet_raw(
            opened, folder, pairs(label), replace=replace, resample=resample, accepted=accepted
        )
    _show_import(report, as_json)


@app.command(rich_help_panel=PANEL)
def reserve(
    project: ProjectOption = Path(),
    fraction: Annotated[float | None, typer.Option(help="Share of the patients.")] = None,
    count: Annotated[int | None, typer.Option(help="Number of patients.")] = None,
    case: Annotated[list[str] | None, typer.Option(help="Case id; may be repeated.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Change it although a training has begun.")
    ] = False,
) -> None:
    """Reserve a test set, by patient, before the first training."""
    from napari_backsplit.cli.console import say

    if [fraction, count, case].count(None) != 2:
        raise InputError(
            "Give one of --fraction, --count and --case.", "As in: reserve --fraction 0.25"
        )
    with open_project(project) as opened:
        cases = opened.reserve_test(fraction, count=count, ids=case, force=force)
    say(f"{len(cases)} case(s) are held out: {', '.join(cases)}.")


def _grouped(notes: Sequence[str]) -> list[str]:
    """Say a note that several cases share once."""
    cases: dict[str, list[str]] = {}
    for note in notes:
        case, _, text = note.partition(": ")
        cases.setdefault(text, []).append(case)
    return [
        f"{found[0]}: {text}" if len(found) == 1 else f"{len(found)} cases: {text}"
        for text, found in cases.items()
    ]


def _import(
    project: Path, masks: Any, replace: bool, resample: bool, accepted: bool, as_json: bool
) -> None:
    from napari_backsplit.backend.project import import_masks as apply

    with open_project(project) as opened:
        report = apply(opened, [masks], replace=replace, resample=resample, accepted=accepted)
    _show_import(report, as_json)


def _show_import(report: ImportReport, as_json: bool) -> None:
    from napari_backsplit.cli.console import err, show

    problems = [(p.severity, str(p.source), p.message) for p in report.problems]
    columns = ("severity", "source", "message")
    result = {
        "added": list(report.added.values()),
        "masks": {case: list(names) for case, names in report.masks.items()},
        "notes": list(report.notes),
        "problems": [dict(zip(columns, problem, strict=True)) for problem in problems],
    }
    masks = sum(len(names) for names in report.masks.values())
    counted = f"{len(report.added)} case(s) and {masks} mask(s) added."
    show(result, as_json, [*_grouped(report.notes), counted])
    for severity, source, message in problems:
        err.print(f"{severity}: {source}: {message}", highlight=False, markup=False, soft_wrap=True)
    if report.errors:
        raise typer.Exit(1)
