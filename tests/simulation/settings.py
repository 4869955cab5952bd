"""What one seed stands for: sizes, limits and which faults are on (swarm testing: each seed another subset)."""

from dataclasses import dataclass, fields
from random import Random

from hftpipe.config import IngestLimits, WorkerLimits
from hftpipe.retention.setting import Retention


@dataclass(frozen=True, slots=True)
class Faults:
    """How likely each fault is at each point where it can happen; 0 is off.

    Any step of a process: kill, pause. Any request to the log: reply_lost. Appending: append_late (part of a pipeline
    stays under way), append_cut (one entry is refused, those behind it land or not). Store: store_fails (nothing is
    written), store_in_doubt (written, but it raises). Any moment: store_busy (for a while), server_restarts,
    server_down (for a while), group_destroyed, group_set_back, foreign (somebody else appends), tail_lost.
    """

    kill: float = 0.0
    pause: float = 0.0
    reply_lost: float = 0.0
    append_late: float = 0.0
    append_cut: float = 0.0
    store_fails: float = 0.0
    store_in_doubt: float = 0.0
    store_busy: float = 0.0
    server_restarts: float = 0.0
    server_down: float = 0.0
    group_destroyed: float = 0.0
    group_set_back: float = 0.0
    foreign: float = 0.0
    tail_lost: float = 0.0
    stop: float = 0.0


OFTEN = Faults(
    kill=0.012,
    pause=0.012,
    reply_lost=0.03,
    append_late=0.25,
    append_cut=0.2,
    store_fails=0.05,
    store_in_doubt=0.15,
    store_busy=0.003,
    server_restarts=0.006,
    server_down=0.003,
    group_destroyed=0.004,
    group_set_back=0.004,
    foreign=0.003,
    tail_lost=0.0,
    stop=0.003,
)
TAIL_LOST = 0.012
NONE = Faults()
KEEPS_ALL = Retention()
_RETENTIONS = (
    Retention(entries=0),
    Retention(entries=2),
    Retention(age_ms=300),
    Retention(size_bytes=2_000),
    KEEPS_ALL,
    KEEPS_ALL,
)


@dataclass(frozen=True, slots=True)
class Settings:
    """One run.

    has_twin: two ingest processes read the first file at once. is_shared: sources name the same accounts and ids.
    is_strict: a log that loses its tail is also trimmed: what is known to fail, and left out otherwise.
    grows: the files are not complete from the start. knows_dead: a killed owner is known to be gone.
    """

    seed: int
    loses_tail: bool
    is_strict: bool
    shards: int
    files: int
    file_rows_max: int
    has_twin: bool
    live_sources: int
    is_shared: bool
    grows: bool
    workers: int
    knows_dead: bool
    slowness_ms: int
    late_ms: int
    chaos_steps: int
    faults: Faults
    entry_transactions_max: int
    block_bytes_max: int
    pipeline_entries_max: int
    backlog_entries_max: int
    worker_limits: WorkerLimits

    def ingest_limits(self, random: Random) -> IngestLimits:
        """Of one incarnation of an ingest process: the next one cuts otherwise."""
        return IngestLimits(
            entry_transactions_max=random.randint(1, self.entry_transactions_max),
            pipeline_entries_max=random.randint(1, self.pipeline_entries_max),
            backlog_entries_max=self.backlog_entries_max,
            backlog_share_max=random.randint(1, 4),
            backlog_poll_ms=20,
            retry_first_ms=random.choice((1, 20)),
            retry_max_ms=random.choice((20, 200)),
        )

    def __str__(self) -> str:
        on = [
            f"{each.name}={value}"
            for each in fields(self.faults)
            if (value := getattr(self.faults, each.name))
        ]
        plain = [f"{each.name}={getattr(self, each.name)}" for each in fields(self) if each.name != "faults"]
        return f"{', '.join(plain)}\nfaults: {', '.join(on) or 'none'}"


def settings_of(seed: int, *, loses_tail: bool | None = None, is_strict: bool = False) -> Settings:
    """The settings that a seed stands for; every third one has a log that loses its tail, unless told."""
    random = Random(seed)
    loses_tail = seed % 3 == 2 if loses_tail is None else loses_tail
    share = random.choice((0.2, 0.5, 0.5, 0.8))
    chosen = {each.name: getattr(OFTEN, each.name) * (random.random() < share) for each in fields(Faults)}
    if loses_tail:
        chosen["tail_lost"] = TAIL_LOST
    lease_ms = random.choice((30, 100, 400))
    retain = random.choice(_RETENTIONS)
    return Settings(
        seed=seed,
        loses_tail=loses_tail,
        is_strict=is_strict,
        shards=random.choice((1, 1, 2, 3)),
        files=random.choice((1, 1, 2)),
        file_rows_max=random.choice((6, 20, 50)),
        has_twin=random.random() < 0.35,
        live_sources=random.choice((0, 0, 1, 2)),
        is_shared=random.random() < 0.5,
        grows=random.random() < 0.3,
        workers=random.choice((1, 2, 2)),
        knows_dead=random.random() < 0.5,
        slowness_ms=random.choice((0, 0, 3, 30)),
        late_ms=random.choice((20, 200, 2_000)),
        chaos_steps=random.choice((300, 600)),
        faults=Faults(**chosen),
        entry_transactions_max=random.choice((1, 2, 8)),
        block_bytes_max=random.choice((30, 200, 800)),
        pipeline_entries_max=random.choice((1, 4, 16)),
        backlog_entries_max=random.choice((3, 8, 1_000)),
        worker_limits=WorkerLimits(
            read_entries_max=random.choice((1, 3, 64)),
            commit_transactions_max=random.choice((1, 4, 64)),
            read_wait_ms=random.choice((5, 50)),
            lease_ms=lease_ms,
            beat_ms=lease_ms // 5,
            standby_poll_ms=max(1, lease_ms // 10),
            retry_first_ms=random.choice((1, 20)),
            retry_max_ms=random.choice((20, 200)),
            retain=KEEPS_ALL if loses_tail and not is_strict else retain,
        ),
    )
