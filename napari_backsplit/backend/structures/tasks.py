"""The job `segment`: an engine answers simulated clicks, or a journal, over all cases."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.errors import GeometryError, InputError
from napari_backsplit.backend.files import read_json, write_json
from napari_backsplit.backend.jobs import Cancelled, JobContext, Note, Phase, Progress
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.project.schema import checked
from napari_backsplit.backend.structures.annotation import Annotation
from napari_backsplit.backend.structures.clicks import draw_clicks
from napari_backsplit.backend.structures.consent import allows_elsewhere
from napari_backsplit.backend.structures.engines import (
    About,
    Engine,
    EngineCancelled,
    Request,
    Scene,
    make_engine,
)
from napari_backsplit.backend.structures.history import AnyPrompt, read_prompts
from napari_backsplit.backend.structures.prompts import check_inside, slices
from napari_backsplit.backend.structures.scoring import Row, State, dice, plain_table
from napari_backsplit.backend.structures.simulation import ENDING, PROJECT, SegmentSpec
from napari_backsplit.backend.volume import Volume, read_label_map, restore, write_volume

MASKS = "masks"
TABLE = "segment.json"

Mask = NDArray[np.bool_]


def run_segment(context: JobContext) -> dict[str, Any]:
    """Segment structures into <job>/masks/<case>; finished ones are not redone.

    The parameters of the job are those of `SegmentSpec`. Beside each mask is its provenance; the
    table of Dice and seconds is <job>/segment.json.
    """
    spec = checked(SegmentSpec, "The job", **context.params)
    with (
        Project.open(context.project_folder, read_only=True) as project,
        closing(_Segmenter(context, project, spec)) as segmenter,
    ):
        rows = list(segmenter.rows())
    table = {
        "engine": spec.engine,
        "clicks": spec.clicks,
        "seed": spec.seed,
        **plain_table(rows, spec.structures),
    }
    write_json(context.folder / TABLE, table)
    return {
        MASKS: f"jobs/{context.folder.name}/{MASKS}",
        "table": f"jobs/{context.folder.name}/{TABLE}",
    }


@dataclass(frozen=True)
class _Work:
    """One structure of one case."""

    case: str
    structure: str
    reference: Path | None
    hindrance: State | None = None


class _Segmenter:
    """Does the work of a job, one structure of one case after the other.

    The engine starts when the first mask is to be made, and an image is read once.
    """

    def __init__(self, context: JobContext, project: Project, spec: SegmentSpec) -> None:
        self._context, self._project, self._spec = context, project, spec
        self._engine: Engine | None = None
        self._about = About(spec.engine)
        self._scene: tuple[str, Scene] | None = None
        self._done = self._total = 0
        self._began = time.monotonic()

    def close(self) -> None:
        """End the engine and what it started."""
        if self._engine is not None:
            self._engine.close()

    def rows(self) -> Iterator[Row]:
        """Do all the work, and yield what became of each part."""
        works = self._works()
        self._total = len(works)
        for self._done, work in enumerate(works):
            self._say(f"{work.case}: {work.structure}")
            yield self._row(work)
        self._done = self._total
        self._say("")

    def _say(self, text: str) -> None:
        self._context.checkpoint()
        pace = (time.monotonic() - self._began) / self._done if self._done else None
        eta_s = None if pace is None else pace * (self._total - self._done)
        self._context.report(Progress(self._done, self._total, text, eta_s))

    # ------------------------------------------------------------------ what there is to do

    def _works(self) -> list[_Work]:
        project, spec = self._project, self._spec
        cases = project.case_ids() if spec.cases is None else spec.cases
        if not cases:
            raise InputError("No case was chosen.", "Import images, or choose cases.")
        project.schema.refuse_unknown_channels([spec.channel] if spec.channel else [])
        works = [self._work(case, structure) for case in cases for structure in spec.structures]
        if spec.clicks and all(work.reference is None for work in works):
            sources = ", ".join(map(spec.source_of, spec.structures))
            raise InputError(
                f"No case has a reference mask of {sources}.",
                "Give the folder of the references, or import masks.",
            )
        return works

    def _work(self, case: str, structure: str) -> _Work:
        reference = self._reference_file(case, structure)
        hindrance: State | None = None
        if self._channel not in self._project.case(case).images:
            hindrance = "no image"
        elif self._spec.clicks and reference is None:
            hindrance = "no reference"
        return _Work(case, structure, reference, hindrance)

    @property
    def _channel(self) -> str:
        return self._spec.channel or self._project.schema.channel_names[0]

    def _reference_file(self, case: str, structure: str) -> Path | None:
        if not self._spec.reference:
            return None
        if self._spec.reference == PROJECT:
            return self._project.mask_path(case, self._spec.source_of(structure))
        file = self._place(self._spec.reference) / case / f"{structure}{ENDING}"
        return file if file.exists() else None

    def _place(self, name: str) -> Path:
        """Return a path of the job's parameters: below its folder, the project's, or absolute."""
        own = self._context.folder / name
        return own if own.exists() else self._context.path(name)

    # ------------------------------------------------------------------ one after the other

    def _row(self, work: _Work) -> Row:
        if work.hindrance:
            self._context.report(Note(level="warning", text=self._hindered(work)))
            return Row(case=work.case, structure=work.structure, state=work.hindrance)
        if not (record := self._file(work, ".json")).exists():
            reference = self._reference(work)
            prompts = self._prompts(work, reference)
            if not prompts:
                return Row(case=work.case, structure=work.structure, state="absent")
            self._make(work, prompts, reference)
        return _row_of(work, read_json(record))

    def _hindered(self, work: _Work) -> str:
        if work.hindrance == "no image":
            return f"{work.case} lacks the channel {self._channel}: it is left out."
        source = self._spec.source_of(work.structure)
        return f"{work.case} has no reference mask of {source}: it is left out."

    def _file(self, work: _Work, ending: str) -> Path:
        return self._context.folder / MASKS / work.case / f"{work.structure}{ending}"

    def _reference(self, work: _Work) -> Mask | None:
        """Read the reference: bool, (z, y, x), canonical."""
        if work.reference is None:
            return None
        volume = read_label_map(work.reference)
        what = f"The reference of {work.structure} for {work.case}"
        if difference := self._project.geometry(work.case).difference(volume.geometry):
            raise GeometryError(
                f"{what} is not on the grid of the image. {difference}",
                "Give masks on the grid of the image.",
            )
        if len(ids := np.unique(volume.array[volume.array != 0])) > 1:
            raise InputError(
                f"{what} has the ids {', '.join(map(str, ids[:20]))}; a mask has one beside 0.",
                "Give a file for each structure.",
            )
        reference: Mask = volume.canonical().array != 0
        return reference

    def _prompts(self, work: _Work, reference: Mask | None) -> tuple[AnyPrompt, ...]:
        spec, source = self._spec, self._spec.source_of(work.structure)
        if spec.clicks and reference is not None:
            return draw_clicks(reference, spec.clicks, spec.seed, work.case, source)
        prompts = read_prompts(self._place(spec.prompts), source)
        if not prompts:
            raise InputError(
                f"The journal has no prompts of {source}.", "Name a structure that it has."
            )
        return prompts

    def _make(self, work: _Work, prompts: Sequence[AnyPrompt], reference: Mask | None) -> None:
        scene = self._scene_of(work.case)
        for prompt in prompts:
            check_inside(prompt, scene.image.shape)
        engine = self._started()
        _require_kinds(engine, prompts, self._spec.engine)
        run = f"{self._context.folder.name}/{work.case}/{work.structure}"
        mask, seconds = np.zeros(scene.image.shape, bool), []
        for count in range(1, len(prompts) + 1):
            self._say(f"{work.case}: {work.structure}, prompt {count} of {len(prompts)}")
            request = Request(scene, run, None, tuple(prompts[:count]), mask)
            mask, took_s = _answered(engine, request, self._context.cancel_requested)
            seconds.append(round(took_s, 6))
        geometry = self._project.geometry(work.case)
        write_volume(Volume(restore(mask, geometry), geometry), self._file(work, ENDING))
        record = {
            **self._provenance(prompts, self._spec.clicked_in.get(work.structure)),
            "seconds": seconds,
            "voxels": int(np.count_nonzero(mask)),
            "dice": None if reference is None else dice(reference, mask),
        }
        write_json(self._file(work, ".json"), record)

    def _provenance(self, prompts: Sequence[AnyPrompt], source: str | None) -> dict[str, Any]:
        spec, about = self._spec, self._about
        of = f" of {source}" if source else ""
        how = f"{len(prompts)} random clicks in a reference mask{of}, seed {spec.seed}."
        return {
            "engine": about.engine,
            "model": about.model,
            "licence": about.licence,
            "prompts": [prompt.model_dump(mode="json") for prompt in prompts],
            "notes": [f"Simulated: {how}" if spec.clicks else "Replayed from a journal."],
            "channel": self._channel,
            "job": self._context.folder.name,
        }

    def _scene_of(self, case: str) -> Scene:
        if self._scene is None or self._scene[0] != case:
            self._scene = None  # let the last image go first
            self._scene = case, Annotation(self._project, case).scene(self._channel)
        return self._scene[1]

    def _started(self) -> Engine:
        if self._engine is None:
            settings = self._spec.engine_settings()
            allows_elsewhere(self._project, self._spec.engine, settings)
            self._engine = make_engine(self._spec.engine, settings)
            self._about = self._engine.start(lambda text: self._context.report(Phase(name=text)))
        return self._engine


def _require_kinds(engine: Engine, prompts: Sequence[AnyPrompt], name: str) -> None:
    for prompt in prompts:
        if prompt.kind not in engine.kinds:
            raise InputError(
                f"The engine {name} has no use for a {prompt.kind}.",
                f"It knows: {', '.join(engine.kinds)}.",
            )


def _answered(
    engine: Engine, request: Request, cancelled: Callable[[], bool]
) -> tuple[Mask, float]:
    """Ask an engine; return the whole mask and how many seconds it took."""
    began = time.perf_counter()
    try:
        answer = engine.segment(request, cancelled)
    except EngineCancelled:
        raise Cancelled from None
    took_s = time.perf_counter() - began
    mask = request.mask.copy()  # the engine may keep the one it was given
    mask[slices(answer.bounds)] = answer.mask
    return mask, took_s


def _row_of(work: _Work, record: dict[str, Any]) -> Row:
    seconds = record["seconds"]
    return Row(
        case=work.case,
        structure=work.structure,
        state="segmented",
        prompts=len(record["prompts"]),
        voxels=record["voxels"],
        dice=record["dice"],
        seconds_per_prompt=sum(seconds) / len(seconds),
    )
