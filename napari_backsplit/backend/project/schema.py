"""What project.json holds: frozen values, their checks, and the way from older formats."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from napari_backsplit.backend.errors import InputError, ProjectError
from napari_backsplit.backend.project.recipes import Recipe
from napari_backsplit.backend.project.recipes import fused_supports as made_by
from napari_backsplit.backend.project.values import Structure as Structure
from napari_backsplit.backend.project.values import Value as Value

if TYPE_CHECKING:
    from napari_backsplit.backend.geometry import Geometry

FORMAT_VERSION = 2
"""The version of project.json that this package writes."""

Migration = Callable[[dict[str, Any]], dict[str, Any]]
MIGRATIONS: dict[int, Migration] = {1: dict}  # format 2 adds the recipes, of which there are none
"""Version -> the function that turns a project.json of that version into the next one."""

OKABE_ITO = (
    "#d55e00",
    "#56b4e9",
    "#009e73",
    "#f0e442",
    "#0072b2",
    "#e69f00",
    "#cc79a7",
    "#999999",
)
"""Colours that people with colour-vision deficiency tell apart (Okabe and Ito, 2008)."""

Judgement = Literal["accepted", "needs_work", "rejected"]
Review = Literal["unreviewed", "accepted", "needs_work", "rejected"]
Triple = tuple[float, float, float]
_Model = TypeVar("_Model", bound=Value)


class Channel(Value):
    """One image channel; `modality` is "CT" or anything else, and is the name if left out."""

    name: str = Field(min_length=1)
    modality: str = ""

    @model_validator(mode="before")
    @classmethod
    def _named_modality(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and not data.get("modality"):
            return {**data, "modality": data.get("name", "")}
        return data


class Image(Value):
    """An image file of the project, and what it was made from.

    Attributes
    ----------
    sha256, size
        Of the file in the project.
    file
        Project-relative and neutral: ``images/<case>_<channel number><ending>``.
    source_sha256
        Of the file that was imported; the same as `sha256` unless it was converted.
    """

    sha256: str
    size: int
    file: str
    source_sha256: str


class Grid(Value):
    """A case's voxel grid, kept so that a list of cases needs no image file."""

    shape: tuple[int, int, int]
    spacing_mm: Triple
    origin_mm: Triple
    direction: tuple[Triple, Triple, Triple]

    @classmethod
    def of(cls, geometry: Geometry) -> Grid:
        """Keep a geometry."""
        return cls(
            shape=geometry.shape,
            spacing_mm=_triple(geometry.spacing_mm),
            origin_mm=_triple(geometry.origin_mm),
            direction=tuple(_triple(row) for row in geometry.direction),
        )

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel, ml."""
        z, y, x = self.spacing_mm
        return z * y * x / 1000

    def geometry(self) -> Geometry:
        """Return the grid as the geometry of a volume."""
        from napari_backsplit.backend.geometry import Geometry

        return Geometry(self.shape, self.spacing_mm, self.origin_mm, self.direction)


class Case(Value):
    """One examination of one patient, under neutral ids.

    Attributes
    ----------
    images
        Channel name -> image.
    missing_channels
        Channels of the project that this case lacks.
    notes
        What was done to its images: converted, copied, resampled.
    """

    id: str
    patient: str
    images: dict[str, Image]
    grid: Grid
    test: bool = False
    missing_channels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along z, y, x."""
        return self.grid.shape

    @property
    def spacing_mm(self) -> Triple:
        """Voxel size along z, y, x, mm."""
        return self.grid.spacing_mm


class Schema(Value):
    """The content of project.json.

    Attributes
    ----------
    targets, supports
        What has a mask of its own, in order of priority: the first wins where two overlap, and
        targets always win.
    recipes
        What is made of the supports before they are fused, step by step.
    file_ending
        Of every image of the project (nnU-Net knows one a data set); "" before the first case.
    folds
        Patient -> fold, once the splits were kept.
    frozen_test
        A training has used the reserved test set.
    """

    format_version: int = FORMAT_VERSION
    name: str = Field(min_length=1)
    channels: tuple[Channel, ...] = Field(min_length=1)
    targets: tuple[Structure, ...] = Field(min_length=1)
    supports: tuple[Structure, ...] = ()
    recipes: tuple[Recipe, ...] = ()
    cases: dict[str, Case] = {}
    seed: int = 0
    file_ending: str = ""
    folds: dict[str, int] = {}
    frozen_test: bool = False

    @model_validator(mode="after")
    def _unique_names(self) -> Schema:
        for names in ([c.name for c in self.channels], [s.name for s in self.structures]):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{', '.join(twice)} is there twice")
        made_by(self.supports, self.target_names, self.recipes)
        return self

    @property
    def structures(self) -> tuple[Structure, ...]:
        """Targets, then supports."""
        return self.targets + self.supports

    @property
    def target_names(self) -> tuple[str, ...]:
        """Names of the targets, in order."""
        return tuple(target.name for target in self.targets)

    @property
    def support_names(self) -> tuple[str, ...]:
        """Names of the supports, the one with the highest priority first."""
        return tuple(support.name for support in self.supports)

    @property
    def fused_supports(self) -> tuple[Structure, ...]:
        """The supports of the label map: what the recipes make, in order of priority."""
        return made_by(self.supports, self.target_names, self.recipes)

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Names of the channels, in order."""
        return tuple(channel.name for channel in self.channels)

    def refuse_unknown_channels(self, names: Iterable[str]) -> None:
        """Raise an InputError where a name is none of the channels."""
        unknown = sorted(set(names) - set(self.channel_names))
        if unknown:
            raise InputError(
                f"The project has no channel {', '.join(unknown)}.",
                f"Its channels are {', '.join(self.channel_names)}.",
            )

    def with_case(self, case: Case, file_ending: str) -> Schema:
        """Return the schema with one more, or a changed, case."""
        cases = {**self.cases, case.id: case}
        return self.model_copy(update={"cases": cases, "file_ending": file_ending})


class Provenance(BaseModel):
    """Where a mask comes from; kept beside it. It never holds a path.

    Further keys are kept as they are.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    engine: str = "file"
    model: str = ""
    licence: str = ""
    prompts: Any = ()
    who: str = ""
    when: str = ""
    review: Review = "unreviewed"
    source_sha256: str = ""
    resampled: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _no_paths(self) -> Provenance:
        for text in _strings(self.model_dump(mode="json")):
            if re.match(r"(/|~|[A-Za-z]:[\\/]|\\\\|file:)", text):
                raise ValueError(f"{text!r} is a path, and may name a patient")
        return self


def checked(model: type[_Model], what: str, **values: Any) -> _Model:
    """Make a value of `model`.

    Raises
    ------
    InputError
        The values do not fit; it says where and why.
    """
    try:
        return model(**values)
    except ValidationError as error:
        raise InputError(f"{what}: {explain(error)}.", "Correct it.") from error


def explain(error: ValidationError) -> str:
    """Say in one line what does not fit."""
    lines = []
    for item in error.errors():
        place = ".".join(str(part) for part in item["loc"])
        value = "" if isinstance(item["input"], dict) else f" (found {item['input']!r:.80})"
        said = str(item["msg"]).removeprefix("Value error, ")
        lines.append(f"{place}: {said}{value}" if place else said)
    return "; ".join(lines)


def coloured(names: Iterable[str | Structure], taken: Sequence[str] = ()) -> tuple[Structure, ...]:
    """Give each bare name the next default colour that is not taken."""
    named = list(names)
    used = [*taken, *(item.colour for item in named if isinstance(item, Structure))]
    result = []
    for item in named:
        if isinstance(item, str):
            item = checked(Structure, f"The structure {item!r}", name=item, colour=_next(used))
            used.append(item.colour)
        result.append(item)
    return tuple(result)


def neutral_name(text: str) -> str:
    """Turn a label's name into a structure's name: "Left Kidney" -> "left_kidney"."""
    return re.sub(r"[^a-z0-9_-]+", "_", text.strip().lower()).strip("_")


def today() -> str:
    """Return the present time, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def migrate(data: Any) -> tuple[dict[str, Any], int]:
    """Bring the content of a project.json to the present format.

    Returns
    -------
    data : dict
    version : int
        The format it came in.

    Raises
    ------
    ProjectError
        It is no project, its format is newer, or no way leads from its format.
    """
    version = data.get("format_version") if isinstance(data, dict) else None
    if not isinstance(version, int):
        raise ProjectError("project.json names no format version.", "Restore the file.")
    if version > FORMAT_VERSION:
        raise ProjectError(
            f"The project has format {version}; this version reads up to {FORMAT_VERSION}.",
            "Update napari-backsplit.",
        )
    for step in range(version, FORMAT_VERSION):
        if step not in MIGRATIONS:
            raise ProjectError(f"No migration leads from format {step}.", "Restore the file.")
        data = {**MIGRATIONS[step](data), "format_version": step + 1}
    return data, version


def parse(data: Any) -> tuple[Schema, int]:
    """Read the content of a project.json; return the schema and the format it came in."""
    migrated, version = migrate(data)
    try:
        return Schema.model_validate(migrated), version
    except ValidationError as error:
        raise ProjectError(
            f"project.json does not fit its format: {explain(error)}.", "Restore the file."
        ) from error


def _triple(values: Sequence[float]) -> Triple:
    x, y, z = (float(value) for value in values)
    return x, y, z


def _next(used: Sequence[str]) -> str:
    counts = [used.count(colour) for colour in OKABE_ITO]
    return OKABE_ITO[counts.index(min(counts))]


def _strings(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _strings(item)
