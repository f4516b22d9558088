"""The smallest values of a project: what is frozen, what has a name and a colour."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

NAME = r"^[a-z0-9_-]+$"


class Value(BaseModel):
    """A frozen value that refuses fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Structure(Value):
    """A target or a support: its name and its colour."""

    name: str = Field(pattern=NAME, max_length=64)
    colour: str = Field(pattern=r"^#[0-9a-f]{6}$")
