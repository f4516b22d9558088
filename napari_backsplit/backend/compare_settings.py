"""How models are predicted with and compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.project.schema import explain


class CompareSettings(BaseModel):
    """How models are predicted with and compared; nothing needs to be changed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str = Field("cpu", description="What predicts: cpu, mps, cuda or cuda:N")
    mirroring: bool = Field(
        True, description="Average over mirrored images: up to 8 times the time, a little better"
    )
    step_size: float = Field(
        0.5, gt=0, le=1, description="Step of the sliding window as a share of the patch"
    )
    probabilities: bool = Field(
        False,
        title="Probability maps",
        description="Write them too: needed for FROC and to show them over the image",
    )
    rule: Literal["argmax", "p > 0.5"] = Field(
        "argmax",
        description="When a voxel is lesion: more likely than each other class (nnU-Net's own), "
        "or more likely than not",
    )
    declare_unseen: bool = Field(
        False,
        title="Declared unseen",
        description="You declare that the models were never trained on these cases, where no "
        "record tells; it is recorded and printed. Otherwise there is no verdict",
    )
    matching: Literal["any overlap", "IoU", "one-to-one"] = Field(
        "any overlap", description="When a lesion counts as found"
    )
    iou_threshold: float = Field(
        0.5,
        gt=0,
        le=1,
        title="IoU threshold",
        description="Least overlap for the matchings IoU and one-to-one",
    )
    connectivity: Literal[6, 18, 26] = Field(
        26, description="Neighbours by which voxels are one lesion"
    )
    strata_ml: tuple[float, ...] = Field(
        (1.0, 10.0),
        title="Lesion sizes (ml)",
        description="Volumes that divide small from large lesions, rising",
    )
    tolerance_mm: float = Field(
        2.0,
        ge=0,
        title="NSD tolerance (mm)",
        description="Surface distance that counts as none",
    )
    missed_hd95: Literal["leave out", "image diagonal"] = Field(
        "leave out",
        title="HD-95 of missed cases",
        description="Leave cases out in which nothing was predicted, or count the image's diagonal",
    )

    @field_validator("connectivity", mode="before")
    @classmethod
    def _counted(cls, value: Any) -> Any:
        """Take a number that was chosen from a list as text."""
        return int(value) if isinstance(value, str) and value.isdigit() else value

    @field_validator("strata_ml")
    @classmethod
    def _rising(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(low >= high for low, high in zip((0.0, *value), value, strict=False)):
            raise ValueError("Volumes above zero that rise, such as 1, 10.")
        return value

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> CompareSettings:
        """Return the settings with some changed.

        Raises
        ------
        InputError
            One is unknown or not what its field takes.
        """
        try:
            return cls.model_validate(dict(settings))
        except ValidationError as error:
            raise InputError(f"The comparison: {explain(error)}.", "Correct it.") from None
