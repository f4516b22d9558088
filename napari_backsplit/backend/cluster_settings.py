"""How this user reaches other machines: a Dask scheduler, and how far it is trusted; SLURM."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from platformdirs import user_config_path
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from napari_backsplit.backend.errors import InputError, JobError
from napari_backsplit.backend.files import atomic_path, read_json

FILE = "cluster.json"
FOLDER = "BACKSPLIT_CONFIG_DIR"
"""The environment variable that moves the settings to another folder."""
_FORM = "Write tcp://host:8786, or tls://host:8786."
_FILES = ("tls_ca", "tls_cert", "tls_key")
_Word = Annotated[str, Field(pattern=r"^[\w.,:@%+-]*$")]


class ClusterSettings(BaseModel):
    """Settings of the machines that run jobs. Each field's text is its help."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    address: str = ""
    """Address of the Dask scheduler, such as tls://host:8786; empty: none."""
    tls_ca: str = ""
    """File of the authority that signed the scheduler's certificate (PEM)."""
    tls_cert: str = ""
    """File of this user's own certificate (PEM)."""
    tls_key: str = ""
    """File of this user's own private key (PEM)."""
    allow_unencrypted: bool = False
    """Allow a scheduler elsewhere without TLS: who can reach it can run anything on its workers."""
    path_map: Annotated[str, Field(pattern=r"^([^=\n]+=[^=\n]+)?$")] = ""
    """HERE=THERE, where the shared disk has another path on the workers; empty: the same path."""

    @field_validator("address")
    @classmethod
    def _is_address(cls, address: str) -> str:
        try:
            return scheduler_address(address) if address else ""
        except JobError as error:
            raise ValueError(error.problem) from None

    @field_validator("tls_ca", "tls_cert", "tls_key")
    @classmethod
    def _is_whole(cls, path: str) -> str:
        return str(Path(path).expanduser().absolute()) if path else ""

    def there(self, folder: Path) -> str:
        """Return the path of a folder as the other machines know it.

        Parameters
        ----------
        folder : Path
            A path of this machine; outside the mapped folder it is the same there.
        """
        here, _, there = self.path_map.partition("=")
        if not here or not folder.is_relative_to(here.strip()):
            return str(folder)
        return str(_pure(there.strip()).joinpath(*folder.relative_to(here.strip()).parts))


class SbatchOptions(BaseModel):
    """What each task of the array gets from SLURM."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    at_once: Annotated[int, Field(ge=1, le=1000)] = 4
    """Most tasks of the array that run at the same time."""
    gpus: Annotated[int, Field(ge=0, le=16)] = 1
    """GPUs of a job that trains or predicts on CUDA; the others get none."""
    cpus: Annotated[int, Field(ge=1, le=512)] = 8
    """Cores of a job."""
    memory_gb: Annotated[int, Field(ge=1, le=8192)] = 32
    """Main memory of a job, GB."""
    hours: Annotated[float, Field(gt=0, le=24 * 365)] = 24.0
    """Longest time of a job; what is not over by then saves, and goes on in SLURM's next turn."""
    partition: _Word = ""
    """SLURM's partition; empty: the cluster's default."""
    account: _Word = ""
    """SLURM's account; empty: the user's default."""
    python: Annotated[str, Field(pattern=r"^[^\n]*$")] = ""
    """Python with napari-backsplit on the cluster; empty: this one's path."""
    setup: str = ""
    """Lines of shell before a job, such as: module load cuda."""


def _pure(path: str) -> PurePath:
    return PurePosixPath(path) if path.startswith("/") else PureWindowsPath(path)


def scheduler_address(address: str) -> str:
    """Return the address of a scheduler with its protocol, tcp:// where none is named.

    Raises
    ------
    JobError
        It is no address.
    """
    text = address.strip()
    whole = text if "://" in text else f"tcp://{text}"
    try:
        parts = urlsplit(whole)
        complete = _is_complete(parts)
    except ValueError:  # A port or an IPv6 address that is none.
        complete = False
    if not complete:
        raise JobError(f"{address!r} is no address of a Dask scheduler.", _FORM)
    return f"{parts.scheme}://{parts.netloc}"


def _is_complete(parts: SplitResult) -> bool:
    plain = not (parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc)
    whole = parts.scheme in ("tcp", "tls") and bool(parts.hostname and parts.port)
    return plain and whole and parts.netloc.isprintable()


def is_loopback(address: str) -> bool:
    """Whether an address is of this machine, by its number or as localhost."""
    host = urlsplit(address).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def require_trust(address: str, settings: ClusterSettings) -> None:
    """Refuse a scheduler elsewhere without TLS, and TLS without its files.

    Raises
    ------
    JobError
        The connection would not be protected, and the settings do not allow that.
    """
    if address.startswith("tls://"):
        _require_files(settings)
    elif not (is_loopback(address) or settings.allow_unencrypted):
        raise JobError(
            f"The scheduler {address} is on another machine and not protected.",
            "Use tls:// with certificates, or an SSH tunnel; or set allow_unencrypted, if nobody "
            "else can reach that network.",
        )


def _require_files(settings: ClusterSettings) -> None:
    for name in _FILES:
        file = getattr(settings, name)
        if not (file and Path(file).is_file()):
            option = "--" + name.replace("_", "-")
            raise JobError(
                f"TLS needs the file {option}, and {file!r} is none.",
                f"Name it with: backsplit cluster set {option} FILE",
            )


def settings_file() -> Path:
    """Return where the settings are kept."""
    chosen = os.environ.get(FOLDER)
    return (Path(chosen) if chosen else user_config_path("napari-backsplit")) / FILE


def read_settings() -> ClusterSettings:
    """Read the settings; the defaults where there are none yet.

    Raises
    ------
    InputError
        The file does not fit.
    """
    file = settings_file()
    if not file.exists():
        return ClusterSettings()
    try:
        return ClusterSettings.model_validate(read_json(file))
    except ValidationError as error:
        found = ([*map(str, item["loc"]), item["msg"]] for item in error.errors())
        reason = "; ".join(": ".join(words) for words in found)
        raise InputError(f"{file} does not fit: {reason}.", "Remove the file.") from error


def write_settings(settings: ClusterSettings) -> None:
    """Keep the settings, readable by the user alone."""
    with atomic_path(settings_file()) as temporary:
        temporary.touch(mode=0o600)
        temporary.write_text(settings.model_dump_json(indent=2) + "\n", encoding="utf-8")
