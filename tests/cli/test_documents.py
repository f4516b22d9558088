"""What the documents and the plans tell a person to type is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from napari_backsplit.cli import app

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "napari_backsplit/backend/experiments/plans").glob("*.toml")),
]


def typed(text: str) -> Iterator[str]:
    """Yield the command lines in a text: at the beginning of a line, or in backquotes."""
    for found in re.finditer(r"(?:^|`)backsplit ([a-z][^`#|]*?)(?=[`#|]|$)", text, re.MULTILINE):
        yield " ".join(found[1].split())


def problem_of(line: str) -> str:
    command: Any = typer.main.get_command(app)
    words = line.split()
    while hasattr(command, "commands") and words:
        name = words.pop(0)
        if name not in command.commands:
            return f"there is no command {name}" if re.fullmatch(r"[a-z-]+", name) else ""
        command = command.commands[name]
    known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | {"--help"}
    unknown = set(re.findall(r"(?<!\S)--[a-z][a-z-]*", line)) - known
    return f"{command.name} has no {', '.join(sorted(unknown))}" if unknown else ""


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: file.name)
def test_every_command_that_is_told_is_there(file: Path) -> None:
    lines = list(typed(file.read_text(encoding="utf-8")))
    assert {line: problem for line in lines if (problem := problem_of(line))} == {}


def test_what_is_not_there_is_found() -> None:
    text = "See `backsplit structures --help`, or\nbacksplit train --armm binary\n"
    assert [problem_of(line) for line in typed(text)] == [
        "there is no command structures",
        "train has no --armm",
    ]
