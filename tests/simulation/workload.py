"""What the sources say: seeded rows of transactions as CSV, good ones and invalid ones, and readers over them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

from hftpipe.core.transaction import SCALE
from hftpipe.source.framing import Block, BlockFramer, Mark, Prefix
from hftpipe.source.stream import by_offset, changed, prove
from hftpipe.validation import CsvValidator, Invalid

Row = tuple[str, int, int | None, int]
"""Kind letter, account, tx, amount in ten-thousandths."""

_WORDS = {"D": "deposit", "W": "withdrawal", "P": "dispute", "R": "resolve", "C": "chargeback"}
_INVALID = (
    "transfer,1,1,1.0",
    "deposit,x,1,1.0",
    "deposit,1,1,-5",
    "withdrawal,1,1,",
    "deposit,1,1,1.00000001",
)


@dataclass(slots=True)
class Text:
    """A source's lines; `rows` and `invalid` say what is on them, by line number."""

    header: str
    lines: list[str] = field(default_factory=list)
    rows: dict[int, Row] = field(default_factory=dict)
    invalid: set[int] = field(default_factory=set)

    def validator(self) -> CsvValidator:
        """The rules for these lines."""
        return CsvValidator.from_header(self.header.encode())


def text_of(random: Random, count: int, *, first_line: int, account: int, tx: int, has_tx: bool) -> Text:
    """So many random lines about a few accounts from `account` on, with transaction ids from `tx` on."""
    text = Text("type,client,tx,amount" if has_tx else "type,client,amount")
    used = [tx]
    for line in range(first_line, first_line + count):
        if random.random() < 0.08:
            invalid = random.choice(_INVALID)
            text.lines.append(invalid if has_tx else invalid.replace(",1,", ",", 1))
            text.invalid.add(line)
            continue
        text.rows[line] = row = _row(random, account, used, has_tx=has_tx)
        text.lines.append(_written(row))
    return text


def _row(random: Random, account: int, used: list[int], *, has_tx: bool) -> Row:
    kind = random.choice("DDDDWWPPRC") if has_tx else random.choice("DDW")
    chosen = account + random.randrange(4)
    if kind not in "DW":
        return kind, chosen, random.choice(used), 0
    amount = random.randint(1, 60) * SCALE // 4
    if not has_tx:
        return kind, chosen, None, amount
    tx = random.choice(used) if random.random() < 0.1 else used[-1] + random.randint(1, 3)
    used.append(tx)
    return kind, chosen, tx, amount


def _written(row: Row) -> str:
    kind, account, tx, amount = row
    cells = [_WORDS[kind], str(account)]
    cells += [] if tx is None else [str(tx)]
    cells.append(f"{amount // SCALE}.{amount % SCALE:04}" if kind in "DW" else "")
    return ",".join(cells)


class SimulatedFile:
    """Bytes that many readers share; of the lines, `visible` are there so far."""

    def __init__(self, name: str, text: Text, *, visible: int, is_finished: bool) -> None:
        self.name = name
        self.text = text
        self.visible = visible
        self._last_end = "\n" if is_finished else ""

    @property
    def is_whole(self) -> bool:
        """Whether all lines are there."""
        return self.visible == len(self.text.lines)

    def content(self) -> bytes:
        """All bytes that are there now."""
        shown = "\n".join([self.text.header, *self.text.lines[: self.visible]])
        return (shown + (self._last_end if self.is_whole else "\n")).encode()


class FileReader:
    """A `Source` over a simulated file, read in blocks of random sizes.

    step: called before each read.
    """

    def __init__(
        self, file: SimulatedFile, random: Random, block_bytes_max: int, step: Callable[[str], None]
    ) -> None:
        self.name = file.name
        self.header = file.text.header.encode()
        self.size = None
        self.bytes_read = 0
        self._file = file
        self._random = random
        self._block_bytes_max = block_bytes_max
        self._step = step

    def close(self) -> None:
        """Nothing to let go of."""

    def blocks(self, after: Mark | None = None, known: Sequence[Mark] = ()) -> Iterator[Block]:
        content = self._file.content()
        first = len(self.header) + 1
        begin = Prefix()
        begin.extend(content[:first])
        start = after if after is not None and after.offset >= first else begin.mark(1)
        for mark in by_offset([start, *known]):
            self._prove(content, mark)
        prefix = Prefix()
        prefix.extend(content[: start.offset])
        framer, offset = BlockFramer(prefix, start.line), start.offset
        while offset < len(content):
            size = self._random.randint(1, self._block_bytes_max)
            self._step("source.read")
            block = framer.feed(content[offset : offset + size])
            offset += size
            if block is not None:
                yield block
        if (last := framer.finish()) is not None:
            yield last

    def _prove(self, content: bytes, mark: Mark) -> None:
        if mark.offset > len(content):
            raise changed(self.name, "it is shorter")
        read = iter([content[: mark.offset]])
        prove(lambda _: next(read, b""), [mark], Prefix(), self.name)


class LiveReader:
    """A `Source` that cannot be read again: what was not acknowledged to it before, as a new stream.

    `acknowledged` counts the lines of the text that were durable when the reader was asked for more.
    """

    def __init__(self, name: str, text: Text, random: Random, wait: Callable[[], None]) -> None:
        self.name = name
        self.header = None
        self.size = None
        self.bytes_read = 0
        self.acknowledged = 0
        self._lines = text.lines
        self._random = random
        self._wait = wait

    def close(self) -> None:
        """Nothing to let go of."""

    def blocks(self, after: Mark | None = None, known: Sequence[Mark] = ()) -> Iterator[Block]:
        assert after is None
        assert not known
        while self.acknowledged < len(self._lines):
            self._wait()
            first = self.acknowledged
            taken = self._lines[first : first + self._random.randint(1, 6)]
            line = first + len(taken)
            yield Block(("\n".join(taken) + "\n").encode(), first + 1, Mark(line, 0, "", unfinished=False))
            self.acknowledged = line


class Report:
    """Invalid rows that one ingest command has reported, by line; as `InvalidFile`, it survives its process.

    step: called before each effect.
    """

    def __init__(self, step: Callable[[str], None]) -> None:
        self.lines: list[int] = []
        self._step = step

    def begin(self, source: str, after_line: int) -> None:
        self._step("report.begin")
        self.lines = [line for line in self.lines if line <= after_line]

    def add(self, invalid: Sequence[Invalid]) -> None:
        if invalid:
            self._step("report.add")
            self.lines += [row.line for row in invalid]
