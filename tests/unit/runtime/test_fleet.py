"""What a replica knows of the others: who is there, how long work will wait, which upstreams are well."""

import itertools
import math

import pytest

from kitemesh_contracts.beats import BEAT_EVERY_S, Beat, Health, Queue
from kitemesh_contracts.codec import encode
from kitemesh_contracts.topology import MODEL
from kitemesh_runtime import metrics
from kitemesh_runtime.fleet import RETRY_MOST_S, SILENCE_S, Backlog, Fleet, wait_s


class HandClock:
    """A clock that the test turns."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def now_ms(self) -> int:
        return 0

    def new_id(self) -> str:
        return ""


class Ears:
    """A fleet, and who speaks to it."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.fleet = Fleet(self.clock)

    def hear(
        self,
        replica: str,
        *queues: Queue,
        service: str = "model-runner",
        load: int = 4,
        slots: int = 4,
        health: dict[str, Health] | None = None,
    ) -> None:
        said = Beat(
            service=service,
            replica=replica,
            version="1",
            load=load,
            slots=slots,
            queues=queues,
            health=health or {},
        )
        self.fleet.hear("km.v1.beat", encode(said))

    def wait(self, **options: object) -> float | None:
        return self.fleet.predicted_wait_s(MODEL, "p", **options)  # type: ignore[arg-type]  a test's shorthand


def queue(waiting: int, done: int, priority: str = "interactive", lanes: tuple[int, ...] = ()) -> Queue:
    return Queue(stream=MODEL, pool="p", priority=priority, waiting=waiting, done=done, lanes=lanes)


def run_for(ears: Ears, beats: int, per_beat: int, waiting: int, **options: int) -> None:
    for n in range(beats):
        for replica in ("a", "b"):
            ears.hear(replica, queue(waiting, n * per_beat), **options)  # type: ignore[arg-type]  same
        ears.clock.now += BEAT_EVERY_S


@pytest.mark.requirement("pressure:predicted-wait")
def test_what_waits_over_what_all_replicas_finish_is_how_long_it_will_take() -> None:
    ears = Ears()
    run_for(ears, beats=8, per_beat=10, waiting=200)
    # Two replicas, each five a second, speak of the same two hundred.
    assert ears.wait() == pytest.approx(20)
    assert ears.fleet.retry_after_s(MODEL, "p") == pytest.approx(20)


def test_how_fast_a_pool_is_emptied_is_shown_beside_how_long_it_waits_until_nobody_can_tell() -> None:
    def shown(name: str) -> float | None:
        return metrics.REGISTRY.get_sample_value(f"kitemesh_{name}", {"stream": MODEL, "pool": "p"})

    ears = Ears()
    run_for(ears, beats=8, per_beat=10, waiting=200)
    assert shown("queue_drain_rate") == pytest.approx(10)
    assert shown("predicted_wait_seconds") == pytest.approx(20)
    # Somebody is heard, but nobody who works.
    for _ in range(4):
        ears.clock.now += BEAT_EVERY_S
        ears.hear("g", service="gateway")
    assert math.isnan(shown("queue_drain_rate") or 0)


def test_who_hears_nobody_shows_no_old_wait_to_autoscalers_and_alerts() -> None:
    ears = Ears()
    run_for(ears, beats=8, per_beat=10, waiting=200)
    labels = {"stream": MODEL, "pool": "p"}
    names = ("kitemesh_predicted_wait_seconds", "kitemesh_queue_waiting", "kitemesh_queue_drain_rate")
    assert all((metrics.REGISTRY.get_sample_value(name, labels) or 0) > 0 for name in names)
    # Cut off from the bus: nobody comes who would have it look again.
    ears.clock.now += 2 * SILENCE_S
    assert all(math.isnan(metrics.REGISTRY.get_sample_value(name, labels) or 0) for name in names)


def test_nothing_is_known_before_anybody_spoke_nor_once_nobody_speaks_any_more() -> None:
    ears = Ears()
    assert (ears.wait(), ears.fleet.retry_after_s(MODEL, "p", 7)) == (None, 7)
    run_for(ears, beats=3, per_beat=1, waiting=50)
    assert ears.wait() is not None
    ears.clock.now += SILENCE_S + 0.1
    assert ears.wait() is None


def test_with_a_free_slot_for_each_nothing_waits_whatever_is_on_its_way() -> None:
    ears = Ears()
    run_for(ears, beats=3, per_beat=1, waiting=3)
    ears.clock.now += 1
    ears.hear("c", queue(3, 0), load=1)
    assert ears.wait() == 0


@pytest.mark.requirement("pressure:predicted-wait")
def test_a_slot_that_is_free_between_two_jobs_does_not_hide_what_waits() -> None:
    ears = Ears()
    for n in range(8):
        for replica in ("a", "b"):
            ears.hear(replica, queue(201, n * 10), load=3 if replica == "b" else 4)
        ears.clock.now += BEAT_EVERY_S
    assert ears.wait() == pytest.approx(20)


def test_of_what_is_saturated_and_has_finished_nothing_yet_one_can_only_tell_later() -> None:
    ears = Ears()
    run_for(ears, beats=3, per_beat=0, waiting=3)
    assert ears.wait() is None
    run_for(ears, beats=4, per_beat=0, waiting=3)
    assert ears.wait() == pytest.approx(30)
    run_for(ears, beats=1, per_beat=0, waiting=1000)
    assert ears.fleet.retry_after_s(MODEL, "p") == RETRY_MOST_S


@pytest.mark.requirement("pressure:predicted-wait")
def test_how_little_was_done_while_there_was_less_to_do_refuses_nobody_when_a_burst_begins() -> None:
    ears = Ears()
    run_for(ears, beats=8, per_beat=0, waiting=0, load=1)
    run_for(ears, beats=1, per_beat=0, waiting=100)
    assert ears.wait() is None
    run_for(ears, beats=1, per_beat=0, waiting=100)
    ears.hear("a", queue(100, 40))
    ears.clock.now += BEAT_EVERY_S
    ears.hear("b", queue(100, 40))
    # Each did forty in the six or eight seconds since it had room last.
    assert ears.wait() == pytest.approx(100 / (40 / 6 + 40 / 8))


def test_a_long_batch_queue_does_not_make_an_interactive_request_wait() -> None:
    ears = Ears()
    for n in range(6):
        ears.hear("a", queue(0, 0), queue(10_000, 20 * n, "batch"))
        ears.clock.now += BEAT_EVERY_S
    assert ears.wait() == 0
    assert ears.wait(priority="batch") == pytest.approx(1000)
    assert metrics.REGISTRY.get_sample_value("kitemesh_predicted_wait_seconds", {"stream": MODEL, "pool": "p"}) == 0
    ears.hear("a", queue(8, 0), queue(10_000, 120, "batch"))
    ears.clock.now += BEAT_EVERY_S
    # None was done yet, but eight of nine will be.
    assert ears.wait() == pytest.approx(8 / (10 * 8 / 9))


def test_a_lane_without_a_queue_does_not_wait_for_another_s() -> None:
    backlogs = {"interactive": Backlog(1001, (1000, 0, 1, 0), rate=10, watched_s=10, free=0)}
    assert wait_s(backlogs, "interactive", None) == pytest.approx(100.1)
    assert wait_s(backlogs, "interactive", 0) == pytest.approx(100.1)
    assert wait_s(backlogs, "interactive", 1) == 0
    assert wait_s(backlogs, "interactive", 2) == pytest.approx(0.2)
    assert wait_s(backlogs, "batch", 0) is None


def test_a_replica_that_fell_silent_is_forgotten() -> None:
    ears = Ears()
    ears.hear("g1", service="gateway")
    ears.hear("g2", service="gateway")
    assert ears.fleet.replicas("gateway") == 2
    for _ in range(4):
        ears.clock.now += BEAT_EVERY_S
        ears.hear("g2", service="gateway")
    assert (ears.fleet.replicas("gateway"), ears.fleet.replicas("orchestrator")) == (1, 0)


def test_who_hears_nothing_at_all_keeps_in_mind_who_was_there() -> None:
    ears = Ears()
    ears.hear("g1", service="gateway")
    ears.hear("g2", service="gateway")
    ears.clock.now += 1000
    assert ears.fleet.replicas("gateway") == 2
    # Nor does it take itself for the only one because its own sign of life is the first that it hears again.
    ears.hear("g1", service="gateway")
    assert ears.fleet.replicas("gateway") == 2
    for _ in range(4):
        ears.clock.now += BEAT_EVERY_S
        ears.hear("g1", service="gateway")
    assert ears.fleet.replicas("gateway") == 1


def test_signs_that_are_read_together_late_do_not_look_like_a_burst_of_work() -> None:
    ears = Ears()
    for n in range(6):
        ears.hear("a", queue(100, 10 * n))
        ears.clock.now += 0.01
    ears.clock.now += 1
    ears.hear("a", queue(100, 60))
    assert ears.wait() == pytest.approx(20)


def test_a_replica_that_was_started_again_under_its_name_is_counted_anew() -> None:
    ears = Ears()
    done = itertools.chain(range(0, 60, 10), (0, 4))
    for each in done:
        ears.hear("a", queue(100, each))
        ears.clock.now += BEAT_EVERY_S
    assert ears.wait() == pytest.approx(50)


@pytest.mark.parametrize(
    ("said", "together"),
    [
        ((None, None), None),
        (("down", None), "degraded"),
        (("degraded", "down"), "degraded"),
        (("down", "down"), "down"),
    ],
)
def test_a_model_is_down_when_every_runner_says_so(said: tuple[Health | None, ...], together: Health | None) -> None:
    ears = Ears()
    ears.hear("g", service="gateway")
    ears.hear("other", Queue(stream=MODEL, pool="other"))
    for name, each in zip("ab", said, strict=True):
        ears.hear(name, queue(0, 0), health={"m": each} if each else {})
    assert ears.fleet.health("m", pool="p") == together
    assert ears.fleet.health("m") == (together and "degraded")
    assert ears.fleet.health("n") is None


def test_what_is_no_sign_of_life_is_ignored() -> None:
    ears = Ears()
    ears.fleet.hear("km.v1.beat.x.y", b"\xff nonsense")
    assert ears.fleet.members() == []
