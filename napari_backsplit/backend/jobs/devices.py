"""What a machine can train on, asked of the system and of NVIDIA's tool: torch stays unloaded."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

ANSWER_S = 5.0
_MIB = 1 << 20
_FIELDS = ("index", "uuid", "name", "utilization.gpu", "memory.used", "memory.total")
_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


@dataclass(frozen=True)
class Device:
    """Something to train on.

    Attributes
    ----------
    name : str
        As torch names it: cuda:0, mps, cpu.
    title : str
        As a person knows it.
    total_bytes : int
        Its memory.
    """

    name: str
    title: str
    total_bytes: int


@dataclass(frozen=True)
class Card:
    """An NVIDIA GPU as the driver sees it now; None where it does not tell."""

    index: str
    uuid: str
    title: str
    utilisation: float | None
    used_bytes: int | None
    total_bytes: int | None


def devices() -> tuple[Device, ...]:
    """Return what this process could train on, the fastest kind first; the last is the CPU.

    NVIDIA's tool may take up to some seconds to answer: not for the thread of a window.
    """
    cards = visible(cards_now(), os.environ)
    gpus = [Device(f"cuda:{n}", c.title, c.total_bytes or 0) for n, c in enumerate(cards)]
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        gpus.append(Device("mps", "Apple GPU", memory_bytes()))
    return (*gpus, Device("cpu", cpu_title(), memory_bytes()))


def cards_now(limit_s: float = ANSWER_S) -> tuple[Card, ...]:
    """Return the NVIDIA GPUs of this machine; none where their tool is absent or fails."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    command = [tool, f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits"]
    with suppress(OSError, subprocess.SubprocessError):
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=limit_s, stdin=subprocess.DEVNULL
        )
        if answer.returncode == 0:
            return parse_cards(answer.stdout)
    return ()


def parse_cards(text: str) -> tuple[Card, ...]:
    """Read what NVIDIA's tool printed, a GPU a line; lines of another form are dropped."""
    rows = ([cell.strip() for cell in line.split(",")] for line in text.splitlines())
    return tuple(_card(row) for row in rows if len(row) == len(_FIELDS))


def _card(row: Sequence[str]) -> Card:
    index, uuid, title, utilisation, used, total = row
    return Card(index, uuid, title, _number(utilisation), _bytes(used), _bytes(total))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:  # "[N/A]", as on a GPU that is divided into instances
        return None


def _bytes(mib: str) -> int | None:
    value = _number(mib)
    return None if value is None else int(value) * _MIB


def visible(cards: Sequence[Card], environment: Mapping[str, str]) -> tuple[Card, ...]:
    """Return the GPUs that CUDA_VISIBLE_DEVICES leaves, in its order: as CUDA numbers them.

    As in CUDA, the first entry that names no GPU ends the list.
    """
    wanted = environment.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return tuple(cards)
    found: list[Card] = []
    for entry in (part.strip() for part in wanted.split(",")):
        card = next((c for c in cards if _is_named(c, entry)), None)
        if card is None:
            break
        found.append(card)
    return tuple(found)


def _is_named(card: Card, entry: str) -> bool:
    return entry == card.index or (entry.startswith("GPU-") and card.uuid.startswith(entry))


def cpu_title() -> str:
    """Return the name of the processor, with the cores that this process may use."""
    name = platform.processor() or platform.machine()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
        name = next(models, name)
    return f"{name}, {cores()} cores" if cores() > 1 else f"{name}, 1 core"


def cores() -> int:
    """Return how many cores this process may use: its affinity and its control group count."""
    allowed = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    quotas = [_quota(folder) for folder in _control_groups()]
    least = min((quota for quota in quotas if quota), default=float(allowed))
    return max(1, min(allowed, round(least + 0.49)))


def _quota(folder: Path) -> float | None:
    with suppress(OSError, ValueError):
        quota, period = (folder / "cpu.max").read_text().split()
        return int(quota) / int(period)
    return None


def memory_bytes() -> int:
    """Return the memory that this process may use: the machine's, or less in a control group."""
    limits = [_limit(folder / name) for folder in _control_groups() for name in _LIMITS]
    total: int = psutil.virtual_memory().total
    return min([total, *(limit for limit in limits if limit)])


def free_memory_bytes() -> int:
    """Return the memory that this process may still take: the machine's, or less in a group."""
    rooms = (_room(folder) for folder in _control_groups())
    available: int = psutil.virtual_memory().available
    return min([available, *(room for room in rooms if room is not None)])


def _room(folder: Path) -> int | None:
    """Return what a control group has left; what it only caches of files can be given back."""
    for limit, used in zip(_LIMITS, _USED, strict=True):
        most, now = _limit(folder / limit), _limit(folder / used)
        if most is not None and now is not None:
            return max(0, most - now + _cached(folder / "memory.stat"))
    return None


def _cached(file: Path) -> int:
    with suppress(OSError, ValueError):
        lines = (line.split() for line in file.read_text(encoding="utf-8").splitlines())
        found = {name: int(value) for name, value in lines}
        return found.get("total_inactive_file", found.get("inactive_file", 0))
    return 0


_LIMITS = ("memory.max", "memory.limit_in_bytes")
_USED = ("memory.current", "memory.usage_in_bytes")


def _limit(file: Path) -> int | None:
    with suppress(OSError, ValueError):
        return int(file.read_text())
    return None


def _control_groups() -> list[Path]:
    """Return the folders of this process's control groups and of all that are around them."""
    try:
        lines = _OWN_CGROUP.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found: list[Path] = []
    for controllers, path in (line.split(":", 2)[1:] for line in lines if line.count(":") >= 2):
        if controllers in ("", "memory"):
            root = _CGROUPS / controllers
            inside = root / path.lstrip("/")
            found += [p for p in (inside, *inside.parents) if p.is_relative_to(root)]
    return found
