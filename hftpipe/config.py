"""Every bound of the program in one table: each queue, batch, wait, retry and line has its maximum here."""

from dataclasses import dataclass
from typing import Final

LINE_BYTES_MAX: Final = 4_096
"""Longest line of input without its line end; a longer one is `line_too_long`."""

BLOCK_BYTES: Final = 1 << 20
"""How much of a file is read, validated and appended at a time."""

FOLLOW_POLL_MS: Final = 100
"""Time between two looks at a followed file that has not grown, or at whether the process was told to stop."""

SOURCE_CHARACTERS_MAX: Final = 255
"""Longest name that a user may give a source."""

INVALID_SHOWN_MAX: Final = 20
"""Invalid rows that are shown to people when no file takes them."""


@dataclass(frozen=True, slots=True)
class IngestLimits:
    """Bounds of an ingest process."""

    entry_transactions_max: int = 2_048
    """Transactions in one stream entry."""
    pipeline_entries_max: int = 256
    """Entries sent before their replies are awaited."""
    backlog_entries_max: int = 5_000
    """Entries of one shard appended but not applied; at this cap the source waits."""
    backlog_share_max: int = 500
    """Entries appended before the backlog is looked at again: so far may each of many producers pass the cap."""
    backlog_poll_ms: int = 50
    """Wait between two looks at a full backlog."""
    retry_first_ms: int = 20
    retry_max_ms: int = 2_000
    """First and longest wait between two attempts to append."""


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """Bounds of a worker process."""

    read_entries_max: int = 512
    """Entries taken from the log with one read."""
    accounts_max: int = 1_500_000
    """Accounts of one shard kept in memory; with more, all are read again when they are needed."""
    commit_transactions_max: int = 131_072
    """Transactions in one commit."""
    commit_interval_ms: int = 10
    """Time from one commit to the next read, at the least: more commits would keep the disk from syncing the log."""
    gather_ms: int = 400
    """The same while a queue comes in: a balance is then written once for many transactions of its account."""
    full_entry_transactions: int = IngestLimits().entry_transactions_max
    full_entries_min: int = 4
    """So many entries of so many transactions in one commit show that their producer has a queue."""
    read_wait_ms: int = 100
    """How long one read waits for an entry; a worker told to stop is not later than this."""
    lease_ms: int = 10_000
    """A stalled owner may be replaced when its beat has not moved for so long."""
    beat_ms: int = 2_000
    """Time between two beats of an idle owner."""
    standby_poll_ms: int = 200
    """Time between two looks of a standby at the owner."""
    retry_first_ms: int = 20
    retry_max_ms: int = 5_000
    """First and longest wait after a passing fault."""
    retain_entries: int = 1_000
    """Applied entries that stay in the log of each shard for replay; older ones are trimmed."""


@dataclass(frozen=True, slots=True)
class SupervisorLimits:
    """Bounds of the supervisor of worker processes."""

    tick_ms: int = 50
    """Time between two looks at the processes."""
    retry_first_ms: int = 100
    retry_max_ms: int = 10_000
    """First and longest wait before a process that has ended again is started again."""
    failures_max: int = 5
    window_ms: int = 120_000
    """So many ends within this time: the shards are tried one by one; a lone one is given up."""
    stop_ms: int = 10_000
    """How long workers have to end when asked; then they are killed."""
    stall_grace_ms: int = 5_000
    """How much longer than its lease a beat may stand still before its process is killed."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Bounds of one connection to the log."""

    connect_ms: int = 5_000
    """Longest wait for a connection."""
    reply_ms: int = 30_000
    """Longest wait for a reply, beyond the time that the command itself may block."""


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Bounds of the private server and its keeper."""

    start_ms: int = 30_000
    """Longest wait for a server that neither answers nor loads any further."""
    linger_ms: int = 5_000
    """A server that was started by itself is stopped so long after its last client left."""
    stop_ms: int = 15_000
    """Longest wait for a server that was told to stop."""
    restart_first_ms: int = 100
    restart_max_ms: int = 5_000
    """First and longest wait before a server that died is started again."""
    restarts_max: int = 5
    """Deaths in a row, each within `healthy_ms` of its start, after which the keeper gives up."""
    healthy_ms: int = 10_000
    server_log_bytes_max: int = 1 << 20
    """At a start, a longer `server.log` is moved to `server.log.1`."""
