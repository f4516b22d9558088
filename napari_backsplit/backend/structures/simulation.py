"""What the job `segment` is asked for, and how it gets its references and prompts.

They are linked into the job's folder under neutral names, so that no original name is in the job's
files, and a journal that goes on growing changes nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from napari_backsplit.backend.errors import GeometryError, InputError, ProjectError
from napari_backsplit.backend.files import link_or_copy
from napari_backsplit.backend.jobs import Job, submit
from napari_backsplit.backend.project.reader import ProjectReader
from napari_backsplit.backend.project.recipes import fused_supports
from napari_backsplit.backend.project.scanning import ImportPlan, Masks, StructureFiles, scan_masks
from napari_backsplit.backend.project.schema import Structure, Value, checked
from napari_backsplit.backend.project.sources import MaskFiles
from napari_backsplit.backend.structures.engines import engine_states, make_engine
from napari_backsplit.backend.structures.settings import EngineSettings, read_settings
from napari_backsplit.backend.structures.vocabulary import structure_named
from napari_backsplit.backend.volume import read_geometry, read_mask, write_volume

PROJECT = "project"
"""As a reference: the project's own masks."""

REFERENCES = "references"
PROMPTS = "prompts.jsonl"
ENDING = ".nii.gz"

References = Mapping[tuple[str, str], Path]
"""(case, structure) -> mask."""


class SegmentSpec(Value):
    """What the job `segment` is asked for.

    Attributes
    ----------
    clicked_in
        Structure -> the one whose reference (or journal) it is clicked in, where that is another:
        so a project holds both, as kidney-7-clicks beside kidney.
    clicks, seed
        Positive clicks to draw in the reference of each case, see `draw_clicks`.
    reference
        "project": the project's own masks; or a folder with <case>/<structure>.nii.gz, relative to
        the job's folder or the project's, or absolute. It is what Dice is measured against too.
    prompts
        A journal to replay in place of clicks; a file, as above.
    channel
        Image to click on; "" is the first one of the project.
    cases
        None: all.
    settings
        Fields of `EngineSettings` that replace this user's. Never the key of a server: it would be
        kept with the job.
    """

    structures: tuple[str, ...] = Field(min_length=1)
    clicked_in: dict[str, str] = {}
    engine: str
    clicks: int | None = Field(None, ge=1)
    seed: int = Field(0, ge=0)
    reference: str = ""
    prompts: str = ""
    channel: str = ""
    cases: tuple[str, ...] | None = None
    settings: dict[str, str | int | bool] = {}

    @model_validator(mode="after")
    def _one_source(self) -> SegmentSpec:
        if (self.clicks is None) == (not self.prompts):
            raise ValueError("give either a number of clicks or a journal of prompts, and not both")
        if self.clicks is not None and not self.reference:
            raise ValueError("clicks are drawn in reference masks: say where those are")
        if strange := sorted(set(self.clicked_in) - set(self.structures)):
            raise ValueError(f"{', '.join(strange)} is not among the structures to segment")
        if "key" in self.settings:
            raise ValueError("a key is never kept with a job: put it into this user's settings")
        return self

    @property
    def title(self) -> str:
        """The job in words."""
        how = f"{self.clicks} clicks" if self.clicks else "prompts of a journal"
        return f"segment {', '.join(self.structures)} with {self.engine}: {how}"

    def source_of(self, structure: str) -> str:
        """Return the structure whose reference a structure is clicked in."""
        return self.clicked_in.get(structure, structure)

    def engine_settings(self) -> EngineSettings:
        """Return this user's settings with those of the job on top."""
        values = {**read_settings().model_dump(), **self.settings}
        return checked(EngineSettings, "The settings of the engine", **values)


def require_ready(name: str, settings: EngineSettings) -> None:
    """Refuse an engine that cannot work, before a job is made of it.

    Raises
    ------
    InputError
        There is none of that name, a package is missing, or something must be chosen first.
    """
    states = {state.name: state for state in engine_states(settings)}
    if name not in states:
        make_engine(name, settings)  # says which there are
    elif states[name].state != "ready":
        raise InputError(states[name].reason, states[name].remedy)


def grown(project: ProjectReader, names: Sequence[str]) -> tuple[Structure, ...]:
    """Return the project's supports with further ones at the end; those that are there stay.

    Raises
    ------
    InputError
        A name is that of a target or of what a recipe makes, or has other characters than
        a-z 0-9 _ -.
    """
    schema = project.schema
    structures = list(schema.structures)
    for name in dict.fromkeys(names):
        if name in schema.target_names:
            raise InputError(f"{name} is a target of the project.", "Name a support.")
        if name not in [structure.name for structure in structures]:
            structures.append(structure_named(name, [s.colour for s in structures]))
    supports = tuple(structures[len(schema.targets) :])
    try:
        fused_supports(supports, schema.target_names, schema.recipes)
    except ValueError as error:
        raise InputError(
            f"A recipe makes a support of that name: {error}.",
            "Name one of its sources, or take the recipe away: backsplit supports undo.",
        ) from error
    return supports


def with_cases(project: ProjectReader, spec: SegmentSpec) -> SegmentSpec:
    """Return a spec that names its cases: all, or the one that its journal belongs to.

    Raises
    ------
    ProjectError
        There is no such case.
    InputError
        There is no case, or it is not plain which one a journal belongs to.
    """
    cases = spec.cases
    if spec.prompts:
        own = journal_case(project, Path(spec.prompts))
        cases = cases or ((own,) if own else ())
        if len(cases) != 1:
            raise InputError("A journal belongs to one case.", "Say which: --case case_001")
    cases = project.case_ids() if cases is None else tuple(project.case(c).id for c in cases)
    if not cases:
        raise InputError("The project has no case.", "Import images first.")
    return spec.model_copy(update={"cases": tuple(dict.fromkeys(cases))})


def require_own_references(project: ProjectReader, spec: SegmentSpec) -> None:
    """Refuse a structure that no case of the spec has a mask of.

    Raises
    ------
    InputError, ProjectError
        None has one; the project has no such structure.
    """
    for structure in map(spec.source_of, spec.structures):
        if not any(project.mask_path(case, structure) for case in spec.cases or ()):
            raise InputError(
                f"No case has a reference mask of {structure}.",
                "Import masks of it, or give the folder of the references.",
            )


def find_references(
    project: ProjectReader,
    structures: Sequence[str],
    folder: Path,
    pattern: str,
    names: Mapping[str, str] | None = None,
) -> dict[tuple[str, str], Path]:
    """Find reference masks by the names of files, as an import does; nothing is read.

    Parameters
    ----------
    structures : sequence of str
        They need not be the project's.
    pattern : str
        See `patterns.find`; {structure} is needed where there are several.
    names : mapping, optional
        Structure -> what stands at {structure} for it, where that is another name.

    Raises
    ------
    InputError
        The folder does not exist, no file of it belongs to a case, or two structures share files.
    """
    clicked_in = {(names or {}).get(name, name): name for name in structures}
    if len(clicked_in) < len(set(structures)):
        raise InputError(
            "Two structures are to be clicked in the same references of a folder.",
            "Segment one after the other.",
        )
    if "{structure}" not in pattern and len(structures) > 1:
        raise InputError(
            f"The pattern {pattern!r} does not tell {', '.join(structures)} apart.",
            "Write {structure} where its name stands, as in '{case}/{structure}.nii.gz'.",
        )
    supports = grown(project, structures)
    wide = ProjectReader(project.folder, project.schema.model_copy(update={"supports": supports}))
    masking = (
        StructureFiles(folder, pattern, clicked_in)
        if "{structure}" in pattern
        else Masks(structures[0], folder, pattern)
    )
    return _sources(scan_masks(wide, [masking]), folder)


def _sources(plan: ImportPlan, folder: Path) -> dict[tuple[str, str], Path]:
    found = {
        (case.existing or "", source.structure): source.source
        for case in plan.cases
        for source in case.masks
        if isinstance(source, MaskFiles)
    }
    if not found:
        why = plan.problems[0].message if plan.problems else "Nothing fits."
        raise InputError(
            f"{folder} has no reference mask of any case: {why}", "Check the folder and --pattern."
        )
    return found


def check_grids(project: ProjectReader, references: References) -> None:
    """Refuse references on another grid than the image's; only headers are read.

    Raises
    ------
    GeometryError
        Names the case, the structure and both grids.
    """
    for (case, structure), path in references.items():
        geometry, other = project.geometry(case), read_geometry(path)
        if difference := geometry.difference(other):
            raise GeometryError(
                f"The reference of {structure} for {case} is not on the grid of the image. "
                f"{difference} Image: {geometry}; reference: {other}.",
                "Give masks on the grid of the image.",
            )


def journal_case(project: ProjectReader, journal: Path) -> str | None:
    """Return the case whose journal a file of the project is, None for any other file.

    Raises
    ------
    InputError
        There is no such file.
    """
    if not journal.is_file():
        raise InputError(f"There is no journal {journal}.", "Check the path.")
    whole = journal.resolve()
    cases = project.folder / "cases"
    return whole.parent.name if whole.parent.parent == cases.resolve() else None


def submit_segment(
    project: ProjectReader,
    spec: SegmentSpec,
    references: References | None = None,
    journal: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Job:
    """Start the job `segment`.

    Parameters
    ----------
    references : mapping, optional
        Masks outside of the project; they are linked into the job's folder.
    journal : Path, optional
        The journal to replay; it is copied there.
    env : mapping, optional
        Environment variables for the job alone.
    """
    staged = {"reference": REFERENCES} if references else {}
    staged |= {"prompts": PROMPTS} if journal else {}
    params: dict[str, Any] = {**spec.model_dump(mode="json"), **staged}
    job = submit(project.folder, "segment", params, spec.title, start=False)
    try:
        _stage(project, job.folder, references or {}, journal)
    except OSError as error:
        job.cancel()
        reason = error.strerror or type(error).__name__
        raise ProjectError(
            f"The references cannot be kept with {job.id}: {reason}.",
            "Check the space on the disk.",
        ) from error
    except BaseException:
        job.cancel()
        raise
    job.start(env=env)
    return job


def _stage(
    project: ProjectReader, folder: Path, references: References, journal: Path | None
) -> None:
    if journal is not None:
        shutil.copyfile(journal, folder / PROMPTS)
    for (case, structure), path in references.items():
        kept = folder / REFERENCES / case / f"{structure}{ENDING}"
        if path.name.lower().endswith(ENDING):
            link_or_copy(path, kept)
        else:
            write_volume(read_mask(path, project.geometry(case)), kept)
