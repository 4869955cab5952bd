"""The tables of a shard's database, made with sqlite-utils.

| table        | holds                                                                                          |
|--------------|------------------------------------------------------------------------------------------------|
| shard        | one row: pipeline, epoch, owner, beat, checkpoint, totals                                      |
| balances     | a row per account, ten-thousandths                                                             |
| entries      | the journal: a row per entry of the log, hash-chained                                          |
| id_ranges    | for each entry, the lowest and highest id that it took above all earlier ones                  |
| taken_ids    | for each entry, the ids that it took, with account and disputable amount, and the accounts of  |
|              | all its other rows, as packed columns: see `core.taken`                                        |
| late_ids     | an id that was taken below an earlier one → number of the entry that took it                   |
| mentions     | id and number of each entry that named it without taking it: disputes, refused repeats         |
| disputes     | every deposit that was ever disputed                                                           |
| sources      | source → last position applied                                                                 |
| dead         | entries that no producer of ours can have made                                                 |
| decisions    | what operators have decided about dead letters and losses; does not follow from the journal    |

Views: `transaction_log` (the journal, a row per transaction) and `refusals`.
"""

from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

migrations = Migrations("hftpipe")

_TRANSACTION_LOG = """
WITH cells AS (
    SELECT entries.number, columns.key AS name, cell.key AS place, cell.value
    FROM entries,
         json_each(entries.payload) AS columns,
         json_each(CASE columns.type WHEN 'array' THEN columns.value ELSE '[]' END) AS cell
    WHERE entries.payload <> ''
    UNION ALL
    SELECT entries.number, 'refused', place.value, reason.key
    FROM entries, json_each(entries.outcomes, '$.refused') AS reason, json_each(reason.value) AS place
),
lines AS (
    SELECT number, place,
           MAX(value) FILTER (WHERE name = 'account') AS account,
           MAX(value) FILTER (WHERE name = 'tx') AS tx,
           MAX(value) FILTER (WHERE name = 'amount') AS amount,
           MAX(value) FILTER (WHERE name = 'row') AS increment,
           MAX(value) FILTER (WHERE name = 'refused') AS reason
    FROM cells GROUP BY number, place
),
heads AS (
    SELECT number, entry, source, previous, json_extract(payload, '$.kind') AS kinds,
           ifnull(json_extract(outcomes, '$.skipped'), 0) AS skipped,
           json_extract(outcomes, '$.gap') AS gap
    FROM entries WHERE payload <> ''
)
SELECT lines.number, heads.entry, heads.source,
       heads.previous + SUM(lines.increment) OVER (PARTITION BY lines.number ORDER BY lines.place) AS row,
       CASE substr(heads.kinds, lines.place + 1, 1)
           WHEN 'D' THEN 'deposit' WHEN 'W' THEN 'withdrawal' WHEN 'P' THEN 'dispute'
           WHEN 'R' THEN 'resolve' WHEN 'C' THEN 'chargeback' END AS kind,
       lines.account, lines.tx, lines.amount,
       CASE WHEN heads.gap THEN 'gap' WHEN lines.place < heads.skipped THEN 'skipped'
            ELSE ifnull(lines.reason, 'applied') END AS outcome
FROM lines
JOIN heads ON heads.number = lines.number
"""

_REFUSALS = "SELECT * FROM transaction_log WHERE outcome NOT IN ('applied', 'skipped', 'gap')"


_MENTIONS = """
CREATE TABLE mentions (tx INTEGER NOT NULL, entry INTEGER NOT NULL, PRIMARY KEY (tx, entry)) STRICT, WITHOUT ROWID
"""
"""sqlite-utils makes no table without a row id; with one, every row would be there twice."""

_SHARD = {
    "id": int,
    "pipeline": str,
    "shard": int,
    "shards": int,
    "epoch": int,
    "owner": str,
    "beat": int,
    "stopped": str,
    "incarnation": int,
    "checkpoint": str,
    "digest": str,
    "number": int,
    "hash": str,
    "highest_tx": int,
    "applied": int,
    "refused": int,
    "skipped": int,
    "gaps": int,
    "dead": int,
}
_BALANCES = {"account": int, "available": int, "held": int, "locked": int, "last_entry": int}
_ENTRIES = {
    "number": int,
    "entry": str,
    "source": str,
    "previous": int,
    "position": int,
    "time_ms": int,
    "count": int,
    "payload": str,
    "outcomes": str,
    "digest": str,
    "hash": str,
}
_ID_RANGES = {"highest": int, "lowest": int, "entry": int}
_TAKEN_IDS = {
    "entry": int,
    "count": int,
    "accounts": bytes,
    "others": bytes,
    "txs": bytes,
    "amounts": bytes,
}
_LATE_IDS = {"tx": int, "entry": int}
_DISPUTES = {"tx": int, "account": int, "amount": int, "state": str}
_SOURCES = {"source": str, "position": int}
_DEAD = {"number": int, "entry": str, "reason": str, "fields": str}
_DECISIONS = {
    "number": int,
    "time_ms": int,
    "action": str,
    "entry": str,
    "record": int,
    "who": str,
    "note": str,
    "epoch": int,
}

_LOSSES = "CREATE INDEX losses ON entries (number) WHERE substr(outcomes, 1, 8) = '{\"lost\":'"
"""Finds the few records of losses, without a look at the others; sqlite-utils makes no index of some rows."""


@migrations()
def version_4(database: Database) -> None:
    """Everything a shard holds; the first column of a table is its key, of `mentions` both; no cell is ever empty."""
    for name, columns in (
        ("shard", _SHARD),
        ("balances", _BALANCES),
        ("entries", _ENTRIES),
        ("id_ranges", _ID_RANGES),
        ("late_ids", _LATE_IDS),
        ("taken_ids", _TAKEN_IDS),
        ("disputes", _DISPUTES),
        ("sources", _SOURCES),
        ("dead", _DEAD),
        ("decisions", _DECISIONS),
    ):
        key, *others = columns
        database.table(name).create(columns, pk=key, not_null=set(others), strict=True)
    database.execute(_MENTIONS)
    database.execute(_LOSSES)
    database.create_view("transaction_log", _TRANSACTION_LOG)
    database.create_view("refusals", _REFUSALS)
