"""The words in which `kitemesh doctor` judges: findings, and what cannot be told."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias


class Finding(NamedTuple):
    """Something that is wrong.

    Attributes:
        level: `fail`: something does not work, or will not. `warn`: it may be meant.
        about: What it is about: a stream, an index, a replica, a service.
        problem: What is wrong.
        advice: What to do.

    """

    level: Literal["warn", "fail"]
    about: str
    problem: str
    advice: str


class Untold(NamedTuple):
    """A check that could not be made, because of another one or for lack of something."""

    why: str


Judgement: TypeAlias = Sequence[Finding] | Untold


def failed(about: str, problem: str, advice: str) -> Finding:
    """Make a finding that is a failure."""
    return Finding("fail", about, problem, advice)


def doubted(about: str, problem: str, advice: str) -> Finding:
    """Make a finding that is a warning."""
    return Finding("warn", about, problem, advice)
