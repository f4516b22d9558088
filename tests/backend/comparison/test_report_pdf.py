"""The report as PDF, and what is said where it cannot be."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from napari_backsplit.backend import NOTICE
from napari_backsplit.backend.comparison import pdf
from napari_backsplit.backend.comparison.compare import compare
from napari_backsplit.backend.comparison.report import write_report
from napari_backsplit.backend.comparison.results import ComparisonSettings
from napari_backsplit.backend.errors import InputError
from tests.browser_support import require_browser


@pytest.fixture(scope="module")
def html(cases, tmp_path_factory):
    by_id = {case.case: case for case in cases}
    comparison = compare(by_id.values(), ComparisonSettings("baseline"))
    return write_report(comparison, tmp_path_factory.mktemp("r"), by_id.__getitem__)


def pages_of(file: Path) -> int:
    return len(re.findall(rb"/Type\s*/Page[^s]", file.read_bytes()))


def test_the_report_is_printed_with_the_notice_on_every_page(html, tmp_path):
    require_browser()
    file = pdf.write_pdf(html, tmp_path / "out.pdf")
    assert pages_of(file) > 3
    assert [path.name for path in tmp_path.iterdir()] == ["out.pdf"]
    if tool := shutil.which("pdftotext"):
        text = subprocess.run([tool, file, "-"], capture_output=True, text=True).stdout
        pages = text.split("\f")[:-1]
        assert len(pages) == pages_of(file)
        assert all(NOTICE in page for page in pages)


def test_the_notice_is_on_every_printed_page(html, tmp_path):
    """A footer that repeats takes its room on every page: a taller one makes more pages."""
    require_browser()
    with_notice = pages_of(pdf.write_pdf(html, tmp_path / "with.pdf"))
    tall = tmp_path / "tall.html"
    style = "<style>@media print { .page-foot span { padding-top: 45mm !important; } }</style>"
    tall.write_text(html.read_text().replace("</head>", style + "</head>"))
    assert pages_of(pdf.write_pdf(tall, tmp_path / "tall.pdf")) > with_notice + 1


def test_a_missing_report_is_said(tmp_path):
    with pytest.raises(InputError, match=r"no report none\.html"):
        pdf.write_pdf(tmp_path / "none.html", tmp_path / "out.pdf")


def test_without_a_browser_the_remedy_is_to_print_by_hand(html, tmp_path, monkeypatch):
    monkeypatch.setattr(pdf, "find_browser", lambda: None)
    with pytest.raises(pdf.PdfError, match="Open the report in a browser and print it"):
        pdf.write_pdf(html, tmp_path / "out.pdf")


def script(folder: Path, body: str) -> Path:
    path = folder / "browser"
    path.write_text(f"#!{sys.executable}\nimport os, subprocess, sys, time\n{body}\n")
    path.chmod(0o755)
    return path


@pytest.mark.skipif(sys.platform == "win32", reason="a script is no program there")
def test_a_browser_that_hangs_is_ended_with_its_children(html, tmp_path):
    body = (
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\n"
        "time.sleep(600)"
    )
    with pytest.raises(pdf.PdfError, match="did not print within 2 s"):
        pdf.write_pdf(html, tmp_path / "out.pdf", script(tmp_path, body), limit_s=2)
    assert not (tmp_path / "out.pdf").exists()
    child = int((tmp_path / "pid").read_text())
    end = time.monotonic() + 10  # a process that is killed takes a moment to go
    while running(child) and time.monotonic() < end:
        time.sleep(0.01)
    assert not running(child)


def running(pid: int) -> bool:
    """Say whether a process runs; a zombie that waits for its parent does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.skipif(sys.platform == "win32", reason="a script is no program there")
def test_a_browser_that_fails_leaves_the_old_pdf_and_tells_no_path(html, tmp_path):
    old = tmp_path / "out.pdf"
    old.write_bytes(b"old")
    body = (
        "sys.stderr.write('[1:2:ERROR] cannot open /home/someone\\n[1] no screen\\n'); sys.exit(3)"
    )
    with pytest.raises(pdf.PdfError, match="it ended with 3, no screen") as error:
        pdf.write_pdf(html, old, script(tmp_path, body))
    assert "someone" not in str(error.value)
    assert old.read_bytes() == b"old"


def test_the_first_browser_found_is_taken(monkeypatch, tmp_path):
    wanted = tmp_path / "microsoft-edge"
    wanted.touch()
    monkeypatch.setattr(
        pdf.shutil, "which", lambda name: str(wanted) if name == "microsoft-edge" else None
    )
    assert pdf.find_browser() == wanted
