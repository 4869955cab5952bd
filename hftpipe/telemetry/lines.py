"""Events as lines of JSON: what log collectors take in without a rule of their own."""

import json
from datetime import UTC, datetime
from typing import Final

import orjson

from hftpipe.event import Event

UNNAMED: Final = "message"
"""The name of what is said without one."""

_OWN: Final = ("time", "level", "event", "message", "process", "pid")


def as_json(said: str, *, process: str, pid: int, time_ms: int) -> str:
    """One line, whatever was said: `time`, `level`, `event`, the event's own fields, `message`, `process`, `pid`.

    process: the command's name. time_ms: Unix time. A field that would be called as one of those is left out.
    """
    event = said if isinstance(said, Event) else Event(UNNAMED, said)
    head = {"time": _utc(time_ms), "level": event.level.value, "event": event.name}
    fields = {name: value for name, value in event.fields.items() if name not in _OWN}
    tail = {"message": event.discreet or str.__str__(event), "process": process, "pid": pid}
    line = {**head, **fields, **tail}
    try:
        return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # text that is no UTF-8, integers of any size: they are escaped, and written out
        return json.dumps(line, default=str, separators=(",", ":"))


def _utc(time_ms: int) -> str:
    """`2026-11-22T23:08:00.123Z`."""
    moment = datetime.fromtimestamp(time_ms // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{time_ms % 1000:03}Z"
