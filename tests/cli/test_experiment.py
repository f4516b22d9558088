from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.experiments import runner
from napari_backsplit.backend.jobs import list_jobs
from napari_backsplit.cli import main
from napari_backsplit.cli.experiment import draw_numbers
from tests.backend.experiments.experiment_support import FAKE
from tests.cli_support import Answer, Backsplit

TOML = """
name = "mine"
title = "Mine"
about = "What is asked."
[data]
kind = "synthetic"
draws = [1]
train = 2
test = 1
phantom = { shape = [8, 10, 10] }
[plan]
folds = 2
[run]
epochs = 2
iterations = 5
[[arms]]
name = "binary"
run = { arm = "binary" }
[[arms]]
name = "ours"
"""


@pytest.fixture
def backsplit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Backsplit:
    """Run the command in this process, its jobs with fake tasks."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.chdir(tmp_path)
    real = runner.run_batch
    monkeypatch.setattr(runner, "run_batch", lambda *a, **how: real(*a, **{**how, **FAKE}))
    (tmp_path / "mine.toml").write_text(TOML)

    def run(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["backsplit", "experiment", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return Answer(int(ended.value.code or 0), *capsys.readouterr())

    return run


def test_the_numbers_of_draws() -> None:
    assert draw_numbers("201-203, 7") == (201, 202, 203, 7)
    assert draw_numbers("5-5") == (5,)
    for text in ("", "a", "3-1", "1,,2", "-4"):
        with pytest.raises(InputError, match="is no draw"):
            draw_numbers(text)


def test_alone_it_lists_the_plans(backsplit: Backsplit) -> None:
    for answer in (backsplit(), backsplit("--list")):
        assert answer.code == 0
        assert re.search(r"phantom +BackSplit on the synthetic phantom", answer.out)
    assert "hippocampus" in {plan["name"] for plan in json.loads(backsplit("--json").out)}


def test_the_list_is_in_groups(backsplit: Backsplit) -> None:
    lines = [line.strip() for line in backsplit().out.splitlines()]
    heads = ("BackSplit, tables and figures", "table-1 ", "Other papers", "softseg")
    place = {h: next(i for i, line in enumerate(lines) if line.startswith(h)) for h in heads}
    assert sorted(place, key=lambda text: place[text]) == list(place)
    assert [line for line in lines if line.startswith("table-")][1].startswith("table-2 ")


def test_a_budget_may_be_set(backsplit: Backsplit) -> None:
    answer = backsplit("mine.toml", "--dry-run", "--epochs", "7", "--iterations", "3")
    assert "2 of 2 runs to do, 42 iterations" in answer.out


def test_a_dry_run_says_that_clicks_take_time_too(backsplit: Backsplit) -> None:
    assert "The time to click is not counted." in backsplit("table-5", "--dry-run").out
    assert "click" not in backsplit("mine.toml", "--dry-run").out


def test_a_dry_run_changes_nothing(backsplit: Backsplit, tmp_path: Path) -> None:
    answer = backsplit("mine.toml", "--dry-run", "--draws", "1-3")
    assert answer.code == 0
    assert "3     ours    10          to do" in answer.out
    assert "6 of 6 runs to do, 60 iterations, hours unknown until the first run" in answer.out
    assert "by arithmetic about" in answer.out
    assert [path.name for path in tmp_path.iterdir()] == ["mine.toml"]
    expected = json.loads(backsplit("mine.toml", "--dry-run", "--json").out)
    assert (expected["to_do"], expected["hours"]) == (2, None)


def test_an_experiment_prints_and_writes_its_tables(backsplit: Backsplit, tmp_path: Path) -> None:
    answer = backsplit("mine.toml", "--page", "page.md")
    assert answer.code == 0, answer.err
    assert "draw 1: ours started" in answer.err
    assert "draw 1: compare ended" in answer.err
    assert "binary  1      0.500" in answer.out
    folder = tmp_path / "experiments" / "mine"
    assert (folder / "mine.md").read_text() == (tmp_path / "page.md").read_text()
    assert (
        "# Mine\n\nWhat is asked.\n\n<!-- backsplit experiment mine -->"
        in (tmp_path / "page.md").read_text()
    )
    again = backsplit("mine.toml", "--json")
    assert json.loads(again.out) == json.loads((folder / "mine-results.json").read_text())
    assert again.err == ""
    assert "0 of 2 runs to do" in backsplit("mine.toml", "--dry-run").out


def test_a_draw_that_cannot_be_compared(backsplit: Backsplit, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(TOML.replace('arm = "binary"', "initial_lr = 7"))
    answer = backsplit("mine.toml", "out")
    assert answer.code == 1
    assert "Draw 1 was not compared: binary diverged (epoch 3)." in answer.out
    assert "run again with --retry" in answer.out
    assert "failed: The task computed a value that is no number" in answer.err


def test_interrupted_it_leaves_its_jobs_and_says_how_to_go_on(
    backsplit: Backsplit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.toml").write_text(TOML + "run = { initial_lr = 9 }\n")
    project = tmp_path / "out" / "draw-1"
    real = runner.run_batch

    def interrupted(*given: Any, tell: Any, **how: Any) -> Any:
        def stop(name: str, status: Any) -> None:
            if name == "draw 1: ours":
                raise KeyboardInterrupt

        return real(*given, tell=stop, **how)

    with monkeypatch.context() as patch:
        patch.setattr(runner, "run_batch", interrupted)
        answer = backsplit("mine.toml", "out")
    assert answer.code == 130
    assert "go on without this window" in answer.err
    assert "The same command goes on with the experiment." in answer.err
    (project / "go").touch()
    assert backsplit("mine.toml", "out").code == 0
    assert {job.status().attempt for job in list_jobs(project)} == {1}


ERRORS = {
    ("nowhere",): "There is no plan 'nowhere'",
    ("mine.toml", "--draws", "x"): "'x' is no draw",
    ("mine.toml", "--draws", "1,1"): "draw 1 is named twice",
    ("mine.toml", "--project", "nowhere"): "nowhere is no project",
    ("mine.toml", "--data", "."): "takes no --data",
    ("mine.toml", "--page", "."): "cannot be read",
    ("mine.toml", "--page", "mine.toml"): "no place for the tables of 'mine'",
}


@pytest.mark.parametrize("arguments", ERRORS, ids=" ".join)
def test_what_cannot_be_is_said_before_anything_is_made(
    backsplit: Backsplit, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    code, out, err = backsplit(*arguments)
    assert (code, out) == (1, "")
    assert ERRORS[arguments] in err
    assert len(err.splitlines()) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["mine.toml"]
