from __future__ import annotations

import threading
from pathlib import Path

import pytest

from napari_backsplit.backend.jobs import courtesy
from napari_backsplit.backend.training import standing_aside as module
from napari_backsplit.backend.training.standing_aside import StandingAside
from tests.backend.jobs.job_support import until


@pytest.fixture(autouse=True)
def _claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKSPLIT_CONFIG_DIR", str(tmp_path))


class Training:
    """Goes on with its batches in a thread, as often as it may."""

    def __init__(self, device: str) -> None:
        self.batches, self.checks, self._over = 0, 0, False
        self._aside = StandingAside(self._check, device)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _check(self) -> None:
        self.checks += 1
        if self._over:
            raise KeyboardInterrupt

    def _run(self) -> None:
        try:
            while True:
                self._aside()
                self.batches += 1
        except KeyboardInterrupt:
            return

    def goes_on(self) -> None:
        seen = self.batches
        until(lambda: self.batches > seen + 2)

    def waits(self) -> None:
        until(lambda: courtesy.claimed("cpu"))
        seen = self.checks
        until(lambda: self.checks > seen + 5)  # the batch that was under way is over
        batches = self.batches
        until(lambda: self.checks > seen + 20)
        assert self.batches == batches

    def end(self) -> None:
        self._over = True
        self._thread.join(10)
        assert not self._thread.is_alive()


def test_a_training_waits_for_a_click_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    freed: list[str] = []
    monkeypatch.setattr(module, "free_memory", freed.append)
    training = Training("cpu")
    try:
        training.goes_on()
        with courtesy.claim("cpu"):
            training.waits()
        training.goes_on()
        assert freed == []
        with courtesy.claim("cpu", free_cache=True):
            training.waits()
        assert freed == ["cpu"], "once"
        training.goes_on()
    finally:
        training.end()


def test_it_can_be_cancelled_meanwhile() -> None:
    training = Training("cpu")
    with courtesy.claim("cpu"):
        training.waits()
        training.end()


def test_it_stands_aside_on_its_own_device_only_and_where_it_shall() -> None:
    for device in ("cuda", ""):
        training = Training(device)
        with courtesy.claim("cpu"):
            training.goes_on()
        training.end()


def test_a_claim_that_never_ends_stops_no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_S", 0.05)
    training = Training("cpu")
    with courtesy.claim("cpu"):
        training.goes_on()
    training.end()
