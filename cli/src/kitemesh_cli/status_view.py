"""What `kitemesh status` shows of a cluster, from what `GET /v1/cluster` answers. Pure; what is absent is unknown."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

from kitemesh_cli.tables import length

Mood = Literal["well", "doubtful", "wrong"]

WAIT_MOST_S: Final = 60.0
SKEW_MOST_MS: Final = 1000
_NEEDED: Final = ("gateway", "orchestrator", "model-runner")
"""Without tools a cluster does without tool-executors."""

Part = Mapping[str, Any]


class Row(NamedTuple):
    """A line of a table."""

    cells: tuple[str, ...]
    mood: Mood = "well"


class Table(NamedTuple):
    """A table."""

    header: tuple[str, ...]
    rows: Sequence[Row]


class Word(NamedTuple):
    """What is to be said of it: `wrong` does not work, `doubtful` may be meant."""

    mood: Mood
    text: str


class View(NamedTuple):
    """A cluster at a moment.

    Attributes:
        words: What is to be said of it.

    """

    tables: Sequence[Table]
    words: Sequence[Word]

    @property
    def is_well(self) -> bool:
        """Whether everything works."""
        return all(each.mood != "wrong" for each in self.words)


def view_of(cluster: Part) -> View:
    """Arrange what is known of a cluster."""
    tables = [
        Table(("SERVICE", "REPLICA", "VERSION", "UP", "LOAD", "HEARD", "CLOCK"), list(_replicas(cluster))),
        Table(
            ("STREAM", "POOL", "PRIORITY", "WAITING", "RATE", "WAIT", "WORKERS", "SLOTS"),
            [_queue(each) for each in _list(cluster, "queues")],
        ),
        Table(
            ("MODEL", "POOL", "HEALTH"),
            [
                Row((_text(each.get("model")), _text(each.get("pool")), _text(each.get("health"))), _health_mood(each))
                for each in _list(cluster, "upstreams")
            ],
        ),
        Table(("WHAT", "HOW IT IS"), list(_rest(cluster))),
    ]
    shown = [each for each in tables if each.rows]
    if cluster.get("source") == "gateway":
        return View(shown, list(_words(cluster)))
    # Whether the rest works cannot be told, so nobody may take it that it does.
    silent = Word("wrong", f"no gateway tells: {_text(cluster.get('why'))}")
    return View(shown, [silent, *_words(cluster)])


def _replicas(cluster: Part) -> Iterator[Row]:
    for service in _list(cluster, "services"):
        name = _text(service.get("service"))
        replicas = _list(service, "replicas")
        if not replicas:
            yield Row((name, "none", *("-",) * 5), "wrong" if name in _NEEDED else "well")
        for each in replicas:
            skew_ms, silent = each.get("clock_skew_ms"), each.get("state") == "silent"
            slots = each.get("slots")
            yield Row(
                (
                    name,
                    _text(each.get("replica")),
                    _text(each.get("version")),
                    length(_number(each.get("up_s"))),
                    f"{_text(each.get('load'))}/{slots}" if slots else _text(each.get("load")),
                    f"{_number(each.get('silent_s')):.0f} s ago",
                    "-" if skew_ms is None else _shown_skew(_number(skew_ms)),
                ),
                "doubtful" if silent or abs(_number(skew_ms)) > SKEW_MOST_MS else "well",
            )


def _queue(queue: Part) -> Row:
    waiting, wait_s = queue.get("waiting"), queue.get("predicted_wait_s")
    return Row(
        (
            _text(queue.get("stream")),
            _text(queue.get("pool")),
            _text(queue.get("priority")),
            "?" if waiting is None else f"{waiting:,}",
            f"{_number(queue.get('drain_rate')):.1f}/s",
            "?" if wait_s is None else f"{_number(wait_s):.1f} s",
            _text(queue.get("workers")),
            _text(queue.get("slots")),
        ),
        "wrong" if _is_unattended(queue) else "doubtful" if _number(wait_s) > WAIT_MOST_S else "well",
    )


def _rest(cluster: Part) -> Iterator[Row]:
    holds = cluster.get("holds") or {}
    is_open, oldest_s = holds.get("open"), holds.get("oldest_s")
    if is_open is not None:
        oldest = f", the oldest for {length(_number(oldest_s))}" if is_open and oldest_s is not None else ""
        yield Row(("approvals", f"{is_open} open{oldest}"))
    letters = cluster.get("dead_letters")
    if letters is not None:
        yield Row(("dead letters", str(letters)), "doubtful" if letters else "well")
    for name, state in (cluster.get("dependencies") or {}).items():
        if state is not None:
            yield Row((name, "up" if state.get("up") else _down(state)), "well" if state.get("up") else "wrong")


def _words(cluster: Part) -> Iterator[Word]:
    versions: set[str] = set()
    told = {_text(each.get("service")) for each in _list(cluster, "services")}
    for name in _NEEDED:
        if name not in told:
            yield Word("wrong", f"nothing is said of any {name}")
    for service in _list(cluster, "services"):
        name, replicas = _text(service.get("service")), _list(service, "replicas")
        versions.update(map(str, service.get("versions") or ()))
        silent = [each for each in replicas if each.get("state") == "silent"]
        if len(silent) == len(replicas) and name in _NEEDED:
            yield Word("wrong", f"no {name} gives signs of life")
        for each in silent:
            ago = f"{_number(each.get('silent_s')):.0f} s"
            yield Word("doubtful", f"{name} {each.get('replica')} has not been heard for {ago}")
        for each in replicas:
            skew_ms = _number(each.get("clock_skew_ms"))
            if abs(skew_ms) > SKEW_MOST_MS:
                how = "ahead" if skew_ms > 0 else "behind"
                yield Word(
                    "doubtful", f"the clock of {name} {each.get('replica')} is {abs(skew_ms) / 1000:.1f} s {how}"
                )
    if len(versions) > 1:
        yield Word("doubtful", f"releases are mixed: {', '.join(sorted(versions))}")
    for queue in _list(cluster, "queues"):
        where = "/".join(str(queue[key]) for key in ("stream", "pool", "priority") if queue.get(key))
        if _is_unattended(queue):
            yield Word("wrong", f"{queue['waiting']:,} messages wait in {where}, and nobody takes them")
        elif (wait_s := _number(queue.get("predicted_wait_s"))) > WAIT_MOST_S:
            yield Word("wrong", f"what comes to {where} now waits {wait_s:.0f} s")
    for upstream in _list(cluster, "upstreams"):
        if (mood := _health_mood(upstream)) != "well":
            yield Word(mood, f"the upstream of {upstream.get('model')} is {upstream.get('health')}")
    if letters := cluster.get("dead_letters"):
        yield Word("doubtful", f"{letters} dead letter{'' if letters == 1 else 's'}: `kitemesh dead list` shows them")
    for name, state in (cluster.get("dependencies") or {}).items():
        if state is not None and not state.get("up"):
            yield Word("wrong", f"{name} is {_down(state)}")


def _is_unattended(queue: Part) -> bool:
    return _number(queue.get("waiting")) > 0 and queue.get("workers") == 0


def _health_mood(upstream: Part) -> Mood:
    moods: dict[object, Mood] = {"degraded": "doubtful", "down": "wrong"}
    return moods.get(upstream.get("health"), "well")


def _down(state: Part) -> str:
    return f"down for {length(_number(state.get('since_s')))}: {_text(state.get('reason'))}"


def _shown_skew(skew_ms: float) -> str:
    seconds = round(skew_ms / 1000, 1)
    return f"{seconds:+.1f} s" if seconds else "agrees"


def _list(part: Part, name: str) -> Sequence[Part]:
    found = part.get(name)
    return [each for each in found if isinstance(each, Mapping)] if isinstance(found, Sequence) else []


def _text(value: object) -> str:
    return "-" if value in (None, "") else str(value)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
