"""What happened, as a sentence for people that programs can tell by its name."""

from collections.abc import Mapping
from enum import StrEnum


class Level(StrEnum):
    """How much an event matters."""

    INFO = "info"
    WARNING = "warning"
    """It may pass by itself."""
    ERROR = "error"
    """Somebody has to do something."""


class Event(str):
    """The sentence itself, wherever text is wanted; beside it what a program needs to know what it says.

    name: never changes, in snake_case. fields: numbers, ids and names; no secret, no amount. discreet: what is logged
    in place of a sentence that repeats what a client has sent; empty for the sentence.
    """

    __slots__ = ("discreet", "fields", "level", "name")

    name: str
    level: Level
    discreet: str
    fields: Mapping[str, object]

    def __new__(
        cls, name: str, sentence: str, level: Level = Level.INFO, discreet: str = "", /, **fields: object
    ) -> "Event":
        event = super().__new__(cls, sentence)
        event.name, event.level, event.discreet, event.fields = name, level, discreet, fields
        return event


def passing(fault: Exception, wait_ms: int, before: str = "", /, **fields: object) -> Event:
    """A passing fault: what was tried is tried again after `wait_ms`. before: what the sentence begins with."""
    sentence = f"{before}{fault}. Trying again in {wait_ms} ms"
    return Event(
        "passing_fault", sentence, Level.WARNING, fault=type(fault).__name__, wait_ms=wait_ms, **fields
    )
