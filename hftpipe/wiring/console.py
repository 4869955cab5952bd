"""What the page of the service asks, put together."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path

from hftpipe.mending.dead import LETTERS_MAX, Mending, dead_letters, drop, retry
from hftpipe.reception.console import Letters
from hftpipe.telemetry.overview import Overview
from hftpipe.telemetry.recent import Recent, Samples


class PipelineConsole:
    """See `reception.console.Console`.

    overview: looks at the pipeline, for any thread. mend: what a person of that name decides with.
    """

    def __init__(self, home: Path, overview: Callable[[], Overview], mend: Callable[[str], Mending]) -> None:
        self._home = home
        self._overview = overview
        self._mend = mend
        self._recent = Recent()

    def overview(self) -> Mapping[str, object]:
        seen = self._overview()
        self._recent.see(seen)
        return {field.name: getattr(seen, field.name) for field in fields(seen)}

    def recent(self) -> Samples:
        return self._recent.samples()

    def dead_letters(self) -> Letters:
        faults: dict[int, str] = {}
        found = dead_letters(self._home, count_max=LETTERS_MAX + 1, faulty=faults.__setitem__)
        return Letters(found[:LETTERS_MAX], len(found) > LETTERS_MAX, faults)

    def retry(self, shard: int, entry: str, who: str) -> str:
        return retry(self._mend(who), shard, entry)

    def drop(self, shard: int, entry: str, who: str) -> None:
        drop(self._mend(who), shard, entry)
