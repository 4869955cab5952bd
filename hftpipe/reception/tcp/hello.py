"""The first line of a TCP connection: a hello, lines of ours, or the protocol of somebody else."""

import re
from dataclasses import dataclass, field
from typing import Final

import orjson

from hftpipe.reception.tcp.replies import VERSION, ReplyMode
from hftpipe.validation import shown
from hftpipe.validation.csv import BYTE_ORDER_MARK
from hftpipe.validation.lines import clean_text

_HINT: Final = "this port takes lines of CSV (its header first) or JSON"

_HTTP: Final = re.compile(
    rb"(?:GET|HEAD|POST|PUT|DELETE|CONNECT|OPTIONS|TRACE|PATCH|PRI) |[A-Za-z]+ [^ ]+ HTTP/[0-9]"
)
_FOREIGN_BYTES: Final = {0x16: "TLS", ord("*"): "RESP", ord("$"): "RESP"}
_LINE_BYTES: Final = frozenset(b"\t\n\r")

_KEYS: Final = ("hello", "replies", "token")
_MODES: Final = {mode.value: mode for mode in ReplyMode}


@dataclass(frozen=True, slots=True)
class Hello:
    """What a client says of itself."""

    replies: ReplyMode
    secret: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class NotHello:
    """A line that is no hello; why: empty when it does not seem to be meant as one."""

    why: str


def read_hello(line: bytes) -> Hello | NotHello:
    """The hello on a line, if it is one."""
    if not line.startswith(b"{") or b'"hello"' not in line:
        return NotHello("")
    try:
        members = orjson.loads(line)
    except orjson.JSONDecodeError:
        return NotHello("the hello is not a JSON object in UTF-8")
    if "hello" not in members:
        return NotHello("")
    return _hello(members)


def _hello(members: dict[str, object]) -> Hello | NotHello:
    unknown = next((key for key in members if key not in _KEYS), None)
    if unknown is not None:
        return NotHello(f"the hello has an unknown key, {shown(unknown)!r}; known are {', '.join(_KEYS)}")
    version = members["hello"]
    if type(version) is not int or version != VERSION:
        return NotHello(f"the hello asks for another version than {VERSION}, the only one there is")
    replies = members.get("replies", ReplyMode.LINE.value)
    mode = _MODES.get(replies) if isinstance(replies, str) else None
    if mode is None:
        return NotHello(f"the hello's replies are none of {', '.join(_MODES)}")
    token = members.get("token")
    if "token" in members and not isinstance(token, str):
        return NotHello("the hello's token is not a string")
    return Hello(mode, token.encode() if isinstance(token, str) else None)


def garbage_byte(first: int) -> str:
    """Why the first byte of a line shows that the stream is not for us; empty when it does not."""
    if name := _FOREIGN_BYTES.get(first):
        return f"{_HINT}, not {name}"
    return f"{_HINT}, not binary data" if first < 0x20 and first not in _LINE_BYTES else ""


def garbage(line: bytes) -> str:
    """The same of a first line; one that begins an object is judged as any other line is."""
    text = line.removeprefix(BYTE_ORDER_MARK)
    if text.startswith(b"{"):
        return ""
    if _HTTP.match(line):
        return f"{_HINT}, not HTTP"
    return (
        f"{_HINT}, not binary data"
        if clean_text(text.removesuffix(b"\n").removesuffix(b"\r")) is None
        else ""
    )
