"""A report as PDF, printed by a Chromium, Chrome or Edge that is on the machine.

The browser gets a profile of its own in a temporary folder, nothing of the user's, and no network:
its names resolve to nothing. The PDF holds no address of the file it was printed from.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from napari_backsplit.backend.errors import BackSplitError, InputError
from napari_backsplit.backend.files import atomic_path

TIME_LIMIT_S = 120.0

_NAMES = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "microsoft-edge",
    "microsoft-edge-stable",
    "msedge",
    "brave-browser",
)
_MAC = ("Google Chrome", "Chromium", "Microsoft Edge", "Brave Browser")
_WINDOWS = (
    "Google/Chrome/Application/chrome.exe",
    "Microsoft/Edge/Application/msedge.exe",
    "Chromium/Application/chrome.exe",
)
_BY_HAND = "Open the report in a browser and print it (Ctrl+P, or Cmd+P on a Mac) to a PDF file."


class PdfError(BackSplitError):
    """No browser that prints, or one that failed."""


def find_browser() -> Path | None:
    """Return a browser that prints to PDF without a screen; None if the machine has none."""
    return next((path for path in _candidates() if path.is_file()), None)


def _candidates() -> Iterator[Path]:
    for name in _NAMES:
        if found := shutil.which(name):
            yield Path(found)
    if sys.platform == "darwin":
        for folder in (Path("/Applications"), Path.home() / "Applications"):
            yield from (folder / f"{name}.app" / "Contents" / "MacOS" / name for name in _MAC)
    if sys.platform == "win32":
        for variable in ("ProgramFiles", "ProgramFiles(x86)", "LocalAppData"):
            if folder := os.environ.get(variable):
                yield from (Path(folder) / place for place in _WINDOWS)


def write_pdf(
    html: Path, pdf: Path, browser: Path | None = None, limit_s: float = TIME_LIMIT_S
) -> Path:
    """Print an HTML file to a PDF file, which is replaced at once or not at all.

    Parameters
    ----------
    html : Path
        A file that needs no other.
    pdf : Path
        Where the PDF goes.
    browser : Path, optional
        The browser; the first that `find_browser` finds by default.
    limit_s : float
        After so many seconds the browser is ended.

    Returns
    -------
    Path
        `pdf`.

    Raises
    ------
    InputError
        There is no such HTML file.
    PdfError
        There is no browser, or it wrote no PDF in time.
    """
    if not html.is_file():
        raise InputError(f"There is no report {html.name}.", "Compare first: backsplit compare")
    browser = browser or find_browser()
    if browser is None:
        raise PdfError(
            "No Chromium, Chrome or Edge was found to print the report with.",
            f"Install one of them. Or: {_BY_HAND}",
        )
    with tempfile.TemporaryDirectory(prefix="print-", ignore_cleanup_errors=True) as folder:
        printed = Path(folder) / "report.pdf"
        said = _run(_arguments(browser, html, printed, Path(folder)), limit_s)
        if not _is_pdf(printed):
            raise PdfError(f"{browser.name} printed no PDF: {said or 'it said nothing'}.", _BY_HAND)
        with atomic_path(pdf) as temporary:
            shutil.copyfile(printed, temporary)
    return pdf


def _is_pdf(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(5) == b"%PDF-"


def _arguments(browser: Path, html: Path, printed: Path, folder: Path) -> list[str]:
    as_root = hasattr(os, "geteuid") and os.geteuid() == 0
    return [
        str(browser),
        "--headless",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-extensions",
        "--disable-default-apps",
        "--no-first-run",
        "--no-default-browser-check",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--no-pdf-header-footer",
        "--print-to-pdf-no-header",  # the same, before Chrome 112
        f"--user-data-dir={folder / 'profile'}",
        *(["--no-sandbox"] if as_root else []),  # Chromium refuses its sandbox to root
        f"--print-to-pdf={printed}",
        html.resolve().as_uri(),
    ]


def _run(arguments: list[str], limit_s: float) -> str:
    """Run the browser to its end and return the last line it said."""
    process = subprocess.Popen(
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        said = process.communicate(timeout=limit_s)[1]
    except subprocess.TimeoutExpired:
        raise PdfError(f"The browser did not print within {limit_s:g} s.", _BY_HAND) from None
    finally:
        _end(process)
    return "" if process.returncode == 0 else f"it ended with {process.returncode}, {_last(said)}"


def _end(process: subprocess.Popen[str]) -> None:
    """End the browser with all its processes."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()


def _last(text: str) -> str:
    """Return what kind of error was said; never a path or an address."""
    lines = [line.rpartition("] ")[2].strip() for line in text.splitlines() if line.strip()]
    return next((line for line in reversed(lines) if "/" not in line), "without a reason")
