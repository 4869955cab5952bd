"""Every bound of the program in one table: each queue, batch, wait, retry and line has its maximum here."""

from dataclasses import dataclass
from typing import Final

from hftpipe.retention.setting import Retention

LINE_BYTES_MAX: Final = 4_096
"""Longest line of input without its line end; a longer one is `line_too_long`."""

SHARDS_MAX: Final = 1_024
"""Most shards of a pipeline."""

METRICS_ASKERS_MAX: Final = 8
"""Requests at a time for the metrics of a worker or validator."""

METRICS_TIMEOUT_S: Final = 5.0
"""How long one who asks for them may be silent."""

METRICS_REQUEST_S: Final = 30.0
"""How long one may take in all, from his connection to the last byte of the answer."""

BLOCK_BYTES: Final = 1 << 20
"""How much of a file is read, validated and appended at a time."""

FOLLOW_POLL_MS: Final = 100
"""Time between two looks at a followed file that has not grown, or at whether the process was told to stop."""

SOURCE_CHARACTERS_MAX: Final = 255
"""Longest name that a user may give a source."""

_RETAIN: Final = Retention(entries=1_000)

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
    retain: Retention = _RETAIN
    """What stays of the applied entries in the log of each shard, for replay; what is older is trimmed."""


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


@dataclass(frozen=True, slots=True)
class ServeLimits:
    """Bounds of the reception service; all of them hold before anything is allocated for what is beyond."""

    connections_max: int = 10_000
    """Open connections, of each transport."""
    message_ms: int = 10_000
    """From the first byte of a message (line, head, body) to its last."""
    idle_ms: int = 300_000
    """A connection without a message is closed after so long."""
    read_ahead_bytes_max: int = 1 << 18
    """Bytes of one TCP connection that were read and not yet taken; then it is not read."""
    pending_bytes_max: int = 64 << 20
    """The same of all connections, and bodies of HTTP requests; then no one is read."""
    write_buffer_bytes_max: int = 1 << 18
    """Replies of one connection that its client has not read; then it is not read either."""
    unread_ms: int = 30_000
    """A TCP connection whose client reads none of them for so long is closed."""
    reply_ms: int = 10_000
    """A submission not acknowledged after so long is given up by its connection: it is in doubt."""
    applied_ms: int = 10_000
    """Longest wait for the commit of what is durable."""
    applied_poll_ms: int = 5
    """Time between two looks at the checkpoints while somebody waits for them."""
    stall_ms: int = 1_000
    """An append that takes longer shows that the log is away: others are refused at once."""
    stop_ms: int = 10_000
    """How long the service has to answer what it has taken when told to stop."""

    group_transactions_max: int = 65_536
    """Transactions appended at a time."""
    queue_transactions_max: int = 1 << 18
    """Transactions that wait for the append under way; then submitters wait."""
    recent_transactions_max: int = 1 << 20
    """Latest transactions whose ids are remembered, applied or not; older ones are found in the stores."""
    warm_entries_max: int = 512
    """Newest entries of each shard, not applied yet, whose ids are read when the service begins."""
    warm_page_entries: int = 64
    """Entries of them read at a time."""

    block_lines_max: int = 8_192
    """Lines of one TCP connection that are validated, and submitted, at a time."""
    wary_lines_max: int = 256
    """The same of a connection that is new, or has just sent many invalid lines: they cost most."""
    blocks_max: int = 2
    """Blocks of one TCP connection that are taken before the first one is answered."""
    linger_ms: int = 1_000
    """After the last reply, what a client still sends is read and dropped for so long: to close with unread bytes
    would be a reset, which may overtake the reply."""
    accept_pause_ms: int = 1_000
    """Pause after a connection that could not be accepted for want of descriptors."""

    body_bytes_max: int = 1 << 20
    body_transactions_max: int = 10_000
    """Of one HTTP request."""
    head_bytes_max: int = 32 << 10
    headers_max: int = 100
    request_line_bytes_max: int = 8 << 10
    """Of the head of one HTTP request."""
    history_rows_max: int = 1_000
    """Transactions that are told of one id: a deposit can be disputed and resolved without end."""
    token_poll_ms: int = 1_000
    """Time between two looks at whether the token file has changed."""


@dataclass(frozen=True, slots=True)
class ValidateLimits:
    """Bounds of the validation service."""

    read_entries_max: int = 4_096
    """Entries taken from the inbox at a time."""
    read_wait_ms: int = 100
    """How long one read waits for an entry."""
    lease_ms: int = 10_000
    """A standby takes the inbox over when its owner has not renewed its lease for so long."""
    standby_poll_ms: int = 200
    """Time between two looks of a standby."""
    invalid_entries_max: int = 100_000
    """Newest reports of invalid entries that stay in the log; all are counted."""
