from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.training.course import Course
from napari_backsplit.backend.training.pace import WARM_UP, Pace
from napari_backsplit.backend.training.schedule import lr_factor, support_weight
from napari_backsplit.backend.training.spec import RunSpec, next_time
from napari_backsplit.backend.training.stopwatch import LONGEST_S, Stopwatch
from napari_backsplit.backend.training.time_budget import require_time_left

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


class Clock:
    """A clock that a test moves."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        return self.seconds


class Trained:
    """A run of a course whose batches take as long as a test says."""

    def __init__(self, spec: RunSpec, wall: Clock | None = None) -> None:
        self.clock, self.wall = Clock(), wall or Clock(NOW.timestamp())
        self.course = Course(spec)
        self.course.watch = Stopwatch(clock=self.clock)
        if self.course.budget is not None:
            self.course.budget._now = self.wall
        self.lr: list[float] = []
        self.eta: list[tuple[float, float | None]] = []

    def passes(self, seconds: float) -> None:
        self.clock.seconds += seconds
        self.wall.seconds += seconds

    def epoch(self, step: float = 1.0, extra: float = 0.0, wait: float = 0.0) -> bool:
        """Train an epoch; False where there is none any more."""
        course, spec = self.course, self.course.spec
        number = len(self.lr)
        if not course.another(number):
            return False
        self.lr.append(lr_factor(spec, number, course.used))
        with course.watch.part("waiting"):
            self.passes(wait)
        for _ in range(spec.iterations):
            with course.iteration(), course.watch.part("backward"):
                self.passes(step)
            self.eta.append((self.clock.seconds, course.told(number)[3]))
        with course.watch.part("validation"):
            self.passes(spec.validation_iterations * step / 3)
        course.end_of_work()
        with course.watch.part("checkpoint"):
            self.passes(extra)
        course.end_of_epoch()
        return True


def _spec(**changes: Any) -> RunSpec:
    return RunSpec.model_validate({"iterations": 10, "validation_iterations": 6, **changes})


# ---------------------------------------------------------------------- what a run may ask for


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"hours": 1, "until": NOW}, "hours and until are two budgets"),
        ({"hours": 1, "same_epochs_as": "model"}, "hours and same_epochs_as are two budgets"),
        ({"hours": 0}, "greater than 0"),
        ({"until": "25:00"}, "hour must be in 0..23"),
        ({"until": "tomorrow"}, "write 18:00"),
        ({"hours": 2, "warmup_epochs": 3}, "3 warmup epochs need a budget in epochs"),
        ({"hours": 2, "curriculum_epochs": 1}, "1 curriculum epochs need a budget in epochs"),
        ({"until": NOW, "freeze_encoder_epochs": 1}, "need a budget in epochs"),
        ({"patience": 0}, "greater than or equal to 1"),
        ({"tracker": "comet"}, "'none', 'mlflow' or 'wandb'"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        RunSpec.model_validate(changes)


def test_a_time_of_day_is_the_next_one() -> None:
    noon = datetime(2026, 5, 4, 12, 0).astimezone()
    assert next_time("18:00", noon) == noon + timedelta(hours=6)
    assert next_time("12:00", noon).date() == noon.date() + timedelta(days=1)
    assert next_time("7:05", noon) == datetime(2026, 5, 5, 7, 5).astimezone()

    spec = RunSpec.model_validate({"until": "18:00"})
    assert spec.until is not None
    assert 0 < (spec.until - datetime.now(UTC)).total_seconds() <= 25 * 3600
    again = RunSpec.model_validate(spec.model_dump(mode="json"))
    assert again == spec, "the job keeps the moment, not the words"
    plain = RunSpec.model_validate({"until": "2026-05-04 18:00"})
    assert plain.until == datetime(2026, 5, 4, 18, 0).astimezone()


def test_a_time_that_is_past_is_refused_before_the_start() -> None:
    spec = _spec(until=NOW)
    require_time_left(spec, Clock(NOW.timestamp() - 1))
    with pytest.raises(InputError, match="which is past") as refused:
        require_time_left(spec, Clock(NOW.timestamp()))
    assert "later time" in refused.value.remedy
    require_time_left(_spec())


# ---------------------------------------------------------------------- the time of an epoch


def test_parts_of_an_epoch_by_hand() -> None:
    clock = Clock()
    watch = Stopwatch(clock=clock)
    for part, seconds in (("data", 1), ("forward", 2), ("waiting", 50), ("data", 0.5)):
        with watch.part(part):
            clock.seconds += seconds
        clock.seconds += 0.25  # between the parts
    lap = watch.lap()
    assert (lap["data"], lap["forward"], lap["backward"]) == (1.5, 2, 0)
    assert lap["epoch"] == 3.5 + 4 * 0.25
    assert "waiting" not in lap
    watch.start()
    assert watch.lap()["epoch"] == 0


def test_sleep_and_a_clock_that_jumps_back_are_no_training() -> None:
    clock = Clock()
    watch = Stopwatch(clock=clock)
    with watch.part("data"):
        clock.seconds += 8 * 3600
    with watch.part("forward"):
        clock.seconds -= 5
    assert watch.lap()["data"] == LONGEST_S
    assert watch.lap()["epoch"] == LONGEST_S


# ---------------------------------------------------------------------- how long it takes


def test_the_first_epoch_is_foretold_from_its_iterations() -> None:
    run = Trained(_spec(epochs=2, iterations=100, validation_iterations=30))
    run.epoch()
    for at, eta in run.eta[4:]:
        assert eta is not None
        assert at + eta == pytest.approx(2 * (100 + 10), rel=0.02)


def test_a_slow_start_and_a_slow_epoch_do_not_mislead() -> None:
    run = Trained(_spec(epochs=100))
    for epoch in range(6):
        run.epoch(step=30.0 if epoch == 3 else 1.0)
    assert run.course.pace.epoch_s() == pytest.approx(12)

    pace = Pace(40, 0)
    for number in range(40):
        pace.add_step(9.0 if number < WARM_UP else 1.0, 0.0)
    assert pace.epoch_s() == 40
    pace.add_epoch(9.0 * WARM_UP + 40 - WARM_UP)
    assert pace.epoch_s() == 40


def test_rare_checkpoints_count_by_their_mean() -> None:
    run = Trained(_spec(epochs=100))
    for epoch in range(10):
        run.epoch(extra=20.0 if epoch == 4 else 0.0)
    assert run.course.pace.epoch_s() == pytest.approx(12 + 20 / 10)


def test_waiting_is_no_pace() -> None:
    run = Trained(_spec(epochs=100))
    for _ in range(3):
        run.epoch(wait=1000)
    assert run.course.pace.epoch_s() == pytest.approx(12)
    assert run.course.seconds == pytest.approx(36)


# ---------------------------------------------------------------------- epochs


def test_epochs_are_counted() -> None:
    run = Trained(_spec(epochs=3))
    while run.epoch():
        pass
    assert run.lr == [lr_factor(run.course.spec, epoch) for epoch in range(3)]
    assert run.course.ended == ""
    assert run.course.told(3) == (30, 30, "epoch 3 of 3", 0.0)


def test_patience_ends_a_run() -> None:
    course = Course(_spec(patience=2))
    assert course.another(3, [0.1, 0.3, 0.2])
    assert course.another(4, [0.1, 0.3, 0.2, 0.4])
    assert not course.another(4, [0.1, 0.3, 0.2, 0.3])
    assert course.ended == (
        "The targets' Dice has not risen since epoch 2: the training ended early, after epoch 4."
    )
    assert Course(_spec()).another(4, [0.5, 0.1, 0.1, 0.1])


# ---------------------------------------------------------------------- time


@given(
    seconds=st.floats(5, 5000),
    steps=st.lists(st.floats(0.01, 3), min_size=1, max_size=30),
    until=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_a_budget_of_time_is_used_and_kept(seconds: float, steps: list[float], until: bool) -> None:
    """The rate falls from 1; the run is over in time, but for its first epoch."""
    budget = {"until": NOW + timedelta(seconds=seconds)} if until else {"hours": seconds / 3600}
    run = Trained(_spec(**budget))
    lengths = []
    while run.epoch(step := steps[len(run.lr) % len(steps)]):
        lengths.append(step * 12)
    assert run.lr[0] == 1
    assert all(0 <= later < earlier for earlier, later in pairwise(run.lr))
    assert len(run.lr) >= 1
    if len(run.lr) > 1:
        assert run.course.seconds <= seconds + max(lengths)
    if len(set(steps)) == 1:
        assert run.course.seconds <= max(seconds, lengths[0]) + 1e-6
        assert run.course.seconds > seconds - lengths[0] - 1e-6


def test_the_rate_falls_over_the_time_as_over_epochs() -> None:
    run = Trained(_spec(hours=12 * 20 / 3600))
    while run.epoch():
        pass
    assert run.lr == pytest.approx([lr_factor(_spec(epochs=20), epoch) for epoch in range(20)])
    assert run.course.ended == "20 epochs fitted into 0.0667 hours."
    assert run.course.told(20) == (200, 200, "epoch 20 of 20", 0.0)
    half = support_weight(_spec(hours=1, final_support_weight=0.2), 7, used=0.5)
    assert half == pytest.approx(0.6)


def test_hours_do_not_pass_in_a_pause_but_the_time_of_day_comes() -> None:
    hours = Trained(_spec(hours=12 * 10 / 3600))
    until = Trained(_spec(until=NOW + timedelta(seconds=120)))
    for run in (hours, until):
        while run.epoch(wait=30.0 if len(run.lr) == 4 else 0.0):
            pass
    assert len(hours.lr) == 10
    assert len(until.lr) == 7
    assert until.lr[5] < hours.lr[5] - 0.1, "it knows how little is left"


def test_a_clock_that_is_set_back_gives_no_time() -> None:
    wall = Clock(NOW.timestamp())
    run = Trained(_spec(until=NOW + timedelta(seconds=120)), wall)
    while run.epoch():
        if len(run.lr) == 4:
            wall.seconds -= 3600
    assert len(run.lr) == 10


def test_a_laptop_that_slept_past_the_time_ends_well_and_says_so() -> None:
    wall = Clock(NOW.timestamp())
    run = Trained(_spec(until=NOW + timedelta(seconds=1200)), wall)
    while run.epoch():
        if len(run.lr) == 4:
            wall.seconds += 8 * 3600
    assert len(run.lr) == 4
    assert run.course.ended.endswith("its learning rate had hardly fallen by then.")


def test_an_epoch_longer_than_the_budget_is_trained_all_the_same() -> None:
    run = Trained(_spec(hours=1 / 3600))
    while run.epoch():
        pass
    assert run.lr == [1]


@pytest.mark.parametrize("budget", [{"hours": 240 / 3600}, {"until": NOW + timedelta(seconds=240)}])
def test_a_resumed_run_goes_on_with_the_rule(budget: dict[str, Any]) -> None:
    """Killed after an epoch that was kept: what the dead process took of it is not counted."""
    whole = Trained(_spec(**budget))
    while whole.epoch():
        pass
    first = Trained(_spec(**budget))
    for _ in range(7):
        first.epoch()
    second = Trained(_spec(**budget), Clock(first.wall.seconds))
    second.course.restore(first.course.state())
    second.lr = first.lr
    while second.epoch():
        pass
    assert second.lr == pytest.approx(whole.lr)
    assert second.course.seconds == pytest.approx(whole.course.seconds)


def test_the_number_of_epochs_is_foretold() -> None:
    run = Trained(_spec(hours=12 * 20 / 3600))
    assert run.course.another(0)
    assert run.course.told(0) == (0, 10, "epoch 1", None)
    run.epoch()
    assert run.course.another(1)
    done, total, text, eta_s = run.course.told(1)
    assert (done, total, text) == (10, 200, "epoch 2 of about 20")
    assert eta_s == pytest.approx(19 * 12)
