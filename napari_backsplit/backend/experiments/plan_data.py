"""What the draws of an experiment are made of: phantoms, a folder of label maps, or a project."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, field_validator

from napari_backsplit.backend.phantom import STRUCTURES, SUPPORTS, PhantomSpec

Draws = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]


def twice_in(values: Sequence[Any]) -> list[Any]:
    """Return the values that are there more than once, as often as they are."""
    return [value for value in values if values.count(value) > 1]


class Frozen(BaseModel):
    """A value of a plan; a field that it does not know is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class _Data(Frozen):
    draws: Draws = (0,)
    """Numbers of the draws, each the seed of its data and of its runs."""

    @field_validator("draws")
    @classmethod
    def _once(cls, draws: tuple[int, ...]) -> tuple[int, ...]:
        if twice := twice_in(draws):
            raise ValueError(f"draw {twice[0]} is named twice")
        return draws


class Synthetic(_Data):
    """Phantoms, new ones for every draw."""

    kind: Literal["synthetic"] = "synthetic"
    train: Annotated[int, Field(ge=2)] = 16
    """Cases to train on."""
    test: Annotated[int, Field(ge=1)] = 24
    """Cases held out."""
    phantom: dict[str, Any] = {}
    """Fields of PhantomSpec; `lesion_free` is the share of cases without a lesion."""
    supports: dict[str, tuple[str, ...]] = dict(SUPPORTS)
    """Support -> structures fused under it, in order of priority."""
    noisy: dict[Annotated[str, Field(pattern=r"^[a-z0-9-]+$")], Annotated[float, Field(gt=0)]] = {}
    """Source -> standard deviation, in voxels, by which its masks' borders are off; the supports
    are there a second time, as kidney-SOURCE."""

    @field_validator("phantom")
    @classmethod
    def _fields(cls, phantom: dict[str, Any]) -> dict[str, Any]:
        unknown = sorted(set(phantom) - {field.name for field in fields(PhantomSpec)})
        if unknown:
            raise ValueError(f"a phantom has no {unknown[0]!r}")
        _ = TypeAdapter(PhantomSpec).validate_python(phantom)
        return phantom

    @field_validator("supports")
    @classmethod
    def _structures(cls, supports: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        named = {structure for structures in supports.values() for structure in structures}
        if unknown := sorted(named - set(STRUCTURES)):
            raise ValueError(f"a phantom has no {unknown[0]!r}, only {', '.join(STRUCTURES)}")
        return supports

    @property
    def spec(self) -> PhantomSpec:
        """What the phantoms are drawn from."""
        return TypeAdapter(PhantomSpec).validate_python(self.phantom)


class LabelFolder(_Data):
    """Images and label maps of many ids; every draw holds out other patients."""

    kind: Literal["labels"]
    folder: str
    """Folder in $BACKSPLIT_TEST_DATA with `images/` and `labels/`."""
    channel: str
    pattern: str = "{case}.nii.gz"
    """Names of the files in both folders."""
    ids: dict[int, str]
    """Label id -> structure."""
    targets: Annotated[tuple[str, ...], Field(min_length=1)]
    supports: tuple[str, ...] = ()
    test: Annotated[int, Field(ge=1)]
    """Patients held out."""


class OwnProject(_Data):
    """A project that exists; a draw is a seed of the trainings alone."""

    kind: Literal["project"]
    folder: str


Data = Annotated[Synthetic | LabelFolder | OwnProject, Field(discriminator="kind")]
