"""`backsplit report` as a person meets it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from napari_backsplit.backend.comparison import pdf
from napari_backsplit.cli import main
from tests.browser_support import require_browser
from tests.cli_support import Answer, Backsplit


@pytest.fixture
def backsplit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Backsplit:
    monkeypatch.delenv("BACKSPLIT_PROJECT", raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")

    def run(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["backsplit", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return Answer(int(ended.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "project.json").write_text("{}")
    for name in ("0007-compare", "0012-compare"):
        folder = tmp_path / "comparisons" / name
        folder.mkdir(parents=True)
        (folder / "report.html").write_text(f"<!doctype html><title>{name}</title><p>{name}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("asked", "found"), [((), "0012"), (("7",), "0007"), (("0007-compare",), "0007")]
)
def test_a_report_is_found(backsplit: Backsplit, project: Path, asked, found) -> None:
    answer = backsplit("report", *asked, "--json")
    assert json.loads(answer.out) == {"report": f"comparisons/{found}-compare/report.html"}


@pytest.mark.parametrize("asked", ["8", "compare", "0007"])
def test_an_unknown_comparison_is_refused_with_those_there_are(
    backsplit: Backsplit, project: Path, asked: str
) -> None:
    answer = backsplit("report", asked)
    if asked == "0007":
        assert answer.code == 0
        return
    assert answer.code == 1
    assert f"There is no comparison {asked}." in answer.err
    assert "0007-compare, 0012-compare" in answer.err


def test_without_a_comparison_it_says_so(backsplit: Backsplit, tmp_path: Path) -> None:
    (tmp_path / "project.json").write_text("{}")
    answer = backsplit("report", "--project", tmp_path)
    assert answer.code == 1
    assert "no comparison yet" in answer.err


def test_it_is_printed_to_pdf(backsplit: Backsplit, project: Path) -> None:
    require_browser()
    answer = backsplit("report", "--pdf")
    assert answer.code == 0
    written = project / "comparisons" / "0012-compare" / "report.pdf"
    assert written.read_bytes().startswith(b"%PDF-")
    assert "report.pdf" in answer.out


def test_without_a_browser_it_says_what_to_do(
    backsplit: Backsplit, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pdf, "find_browser", lambda: None)
    answer = backsplit("report", "--pdf")
    assert answer.code == 1
    assert "print it" in answer.err
