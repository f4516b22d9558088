"""How this user runs engines: which model, which device, which server. Kept per user."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from platformdirs import user_config_path
from pydantic import Field, ValidationError

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.files import atomic_path, read_json
from napari_backsplit.backend.project.schema import Value, explain

FILE = "engines.json"
FOLDER = "BACKSPLIT_CONFIG_DIR"
"""The environment variable that moves the settings to another folder."""


class EngineSettings(Value):
    """Settings of the engines. Each field's description is its help, in a form and in a command."""

    where: Literal["here", "elsewhere"] = Field(
        "here", description="Run nnInteractive on this machine, or use a server elsewhere."
    )
    model_folder: str = Field(
        "", description="Folder of the nnInteractive model; empty: the newest one downloaded."
    )
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="auto, cpu, mps, cuda, cuda:1."
    )
    threads: int = Field(
        0, ge=0, le=256, description="CPU threads of the server; 0: all but one of the cores."
    )
    url: str = Field("", description="Address of a server elsewhere, such as https://host:1527.")
    training_waits: bool = Field(
        True,
        description="Training on the same device waits while nnInteractive answers a prompt here.",
    )
    notify: bool = Field(
        True, description="Say on the desktop when a training or another long job has ended."
    )
    key: str = Field("", description="Key of the server elsewhere.")
    insecure: bool = Field(
        False, description="Allow a server elsewhere without HTTPS: images go unprotected."
    )

    def same_engine(self, other: EngineSettings) -> bool:
        """Whether an engine that was made with other settings need not be made anew."""
        about_jobs = {"training_waits": self.training_waits, "notify": self.notify}
        return other.model_copy(update=about_jobs) == self

    @property
    def is_elsewhere(self) -> bool:
        """Whether images leave this machine; so they do by a tunnel, whose near end is loopback."""
        return self.where == "elsewhere"


def settings_file() -> Path:
    """Return where the settings are kept."""
    chosen = os.environ.get(FOLDER)
    return (Path(chosen) if chosen else user_config_path("napari-backsplit")) / FILE


def read_settings() -> EngineSettings:
    """Read the settings; the defaults where there are none yet.

    Raises
    ------
    InputError
        The file does not fit.
    """
    file = settings_file()
    if not file.exists():
        return EngineSettings()
    try:
        return EngineSettings.model_validate(read_json(file))
    except ValidationError as error:
        raise InputError(f"{file} does not fit: {explain(error)}.", "Remove the file.") from error


def write_settings(settings: EngineSettings) -> None:
    """Keep the settings, readable by the user alone: they hold a key."""
    with atomic_path(settings_file()) as temporary:
        temporary.touch(mode=0o600)
        temporary.write_text(settings.model_dump_json(indent=2) + "\n", encoding="utf-8")
