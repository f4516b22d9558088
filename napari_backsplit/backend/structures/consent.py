"""Images leave this machine only where the user has said so, once for each project."""

from __future__ import annotations

from urllib.parse import urlsplit

from napari_backsplit.backend.errors import ProjectError
from napari_backsplit.backend.files import read_json, write_json
from napari_backsplit.backend.project import Project, ProjectReader
from napari_backsplit.backend.project.masks import login
from napari_backsplit.backend.project.schema import today
from napari_backsplit.backend.structures.settings import EngineSettings

FILE = "consent.json"


class ConsentMissing(ProjectError):
    """The images of a project would leave the machine, and nobody has agreed."""


def server_of(engine: str, settings: EngineSettings) -> str:
    """Return the server that would see the images, "" where they stay on this machine.

    A tunnel's near end is an address of this machine; what goes in leaves it all the same.
    """
    if engine != "nninteractive" or not settings.is_elsewhere:
        return ""
    return urlsplit(settings.url).netloc.rpartition("@")[2] or settings.url


def allows_elsewhere(project: ProjectReader, engine: str, settings: EngineSettings) -> None:
    """Refuse an engine elsewhere that the project has no consent for.

    Raises
    ------
    ConsentMissing
        Names the server.
    """
    host = server_of(engine, settings)
    if host and not has_consent(project, host):
        raise ConsentMissing(
            f"The images of this project would be sent to {host}.",
            "Agree to it for this project, or choose an engine on this machine.",
        )


def has_consent(project: ProjectReader, host: str) -> bool:
    """Whether a person agreed that the images of a project may be sent to a server."""
    file = project.folder / FILE
    return file.exists() and host in read_json(file)


def give_consent(project: Project, host: str) -> None:
    """Record that the images of a project may be sent to a server, by whom and when.

    Raises
    ------
    ProjectError
        The project is open to read only.
    """
    if project.read_only:
        raise ProjectError("The project is open to read only.", "Agree where it is open to write.")
    file = project.folder / FILE
    given = read_json(file) if file.exists() else {}
    write_json(file, {**given, host: {"who": login(), "when": today()}})
