"""Programs that do the same work in other ways, as the folder of designs holds them.

A design is called as `python NAME.py FILE --socket SOCKET --folder FOLDER`: it brings FILE through a server at SOCKET
into balances on disk, below FOLDER, and prints one line of JSON: `design`, `transactions`, `seconds` (its own, without
the start of the interpreter), `accounts`, and `digest` of its balances (see `digest`). Its docstring has a line
`Correctness: …` (what it gives up) and a line `Rows: N` (what it manages in some seconds).
"""

import ast
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final

import orjson

from hftpipe.bench.ground import Ground, Server
from hftpipe.errors import HftpipeError, UsageError

_CORRECTNESS: Final = re.compile(r"^Correctness:\s*(.+?)(?=\n\s*\n|\n\w+:|\Z)", re.MULTILINE | re.DOTALL)
_ROWS: Final = re.compile(r"^Rows:\s*([0-9][0-9_,]*)", re.MULTILINE)

_QUICK_SHARE: Final = 5
_QUICK_SIZES: Final = (1_000, 20_000, 100_000)
"""Few, as our own balances of each have to be found out too."""


@dataclass(frozen=True, slots=True)
class Design:
    """A program to compare with. rows: how many it gets; correctness: what it gives up."""

    path: Path
    rows: int
    correctness: str = ""

    @property
    def name(self) -> str:
        """What it is called."""
        return self.path.stem

    def rows_given(self, rows_max: int, *, quick: bool) -> int:
        """How many rows it gets in a run that gives ours `rows_max`."""
        rows = self.rows
        if quick:
            fitting = [size for size in _QUICK_SIZES if size <= rows // _QUICK_SHARE]
            rows = max(fitting, default=_QUICK_SIZES[0])
        return min(rows, rows_max)


@dataclass(frozen=True, slots=True)
class Result:
    """What a design came to. uses_server: whether it connected to the server at all."""

    transactions: int
    seconds: float
    accounts: int
    digest: str
    uses_server: bool

    @property
    def rate(self) -> float:
        """Transactions a second."""
        return self.transactions / self.seconds


def designs_in(folder: Path) -> tuple[list[Design], list[str]]:
    """The designs of a folder, by name, and the names of programs in it that are none (they have no `Rows:` line).

    Raises UsageError when there is no design.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; name the one with the designs to compare with")
    found: list[Design] = []
    others: list[str] = []
    for path in sorted(folder.glob("*.py")):
        design = read_design(path)
        if design is not None:
            found.append(design)
        elif not path.name.startswith("_"):
            others.append(path.name)
    if not found:
        raise UsageError(f"{folder} holds no design: no program with a line `Rows: N` in its docstring")
    return found, others


def read_design(path: Path) -> Design | None:
    """What a program's docstring says of it; None when it is no design. Raises UsageError when it is no Python."""
    try:
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    except (OSError, SyntaxError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as a design: {error}") from error
    rows = _ROWS.search(text)
    number = int(re.sub("[_,]", "", rows[1])) if rows else 0
    if not number:
        return None
    told = _CORRECTNESS.search(text)
    return Design(path.resolve(), number, " ".join(told[1].split()) if told else "")


def measured(ground: Ground, design: Design, file: Path, server: Server) -> Result:
    """Runs a design once. Raises HftpipeError when it fails, or answers with anything but its result."""
    folder = ground.home()
    before = _connections(server)
    words = [str(file), "--socket", str(server.socket), "--folder", str(folder)]
    finished = ground.run([sys.executable, str(design.path), *words])
    uses_server = _connections(server) - before > 1  # ours, to ask, is one
    ground.discard(folder)
    return _result(design, finished.output, uses_server=uses_server)


def _connections(server: Server) -> int:
    return int(server.told("stats")["total_connections_received"])


def _result(design: Design, output: bytes, *, uses_server: bool) -> Result:
    line = (output.strip().splitlines() or [b""])[-1]
    try:
        told = orjson.loads(line)
        result = Result(
            int(told["transactions"]),
            float(told["seconds"]),
            int(told["accounts"]),
            str(told["digest"]),
            uses_server,
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise HftpipeError(f"{design.name} did not print its result but {line[:200]!r}") from error
    if result.seconds <= 0:
        raise HftpipeError(f"{design.name} says that it took {result.seconds} s")
    return result


def digest(balances: Iterable[tuple[int, int]]) -> str:
    """Of every account that occurs, ascending, and what it has available in ten-thousandths."""
    hashed = blake2b(digest_size=16)
    for account, available in balances:
        hashed.update(b"%d,%d\n" % (account, available))
    return hashed.hexdigest()


def digest_of_csv(output: bytes) -> str:
    """The digest of balances as `hftpipe run` prints them."""
    rows = (line.split(b",") for line in output.splitlines()[1:])
    return digest((int(account), int(available.replace(b".", b""))) for account, available, *_ in rows)
