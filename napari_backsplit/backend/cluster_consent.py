"""Jobs run on other machines only where the user has said so, once for each project."""

from __future__ import annotations

from napari_backsplit.backend.cluster_settings import scheduler_address
from napari_backsplit.backend.files import read_json
from napari_backsplit.backend.project import Project, ProjectReader
from napari_backsplit.backend.structures.consent import FILE, ConsentMissing
from napari_backsplit.backend.structures.consent import give_consent as record_consent


def require_consent(project: ProjectReader, where: str) -> None:
    """Refuse a scheduler that the project has no consent for; "" is this machine.

    A tunnel's near end is an address of this machine, so loopback needs consent too.

    Raises
    ------
    ConsentMissing
        Names the scheduler.
    JobError
        It is no address.
    """
    if not where:
        return
    address = scheduler_address(where)
    file = project.folder / FILE
    if address not in (read_json(file) if file.exists() else {}):
        raise ConsentMissing(
            f"The jobs of this project would run on the machines of {address}, which read its "
            "images.",
            f"Agree to it once: backsplit cluster agree {address}",
        )


def give_consent(project: Project, where: str) -> str:
    """Record that a project's jobs may run at a scheduler, by whom and when; return its address.

    Raises
    ------
    JobError, ProjectError
        It is no address, or the project is open to read only.
    """
    address = scheduler_address(where)
    record_consent(project, address)
    return address
