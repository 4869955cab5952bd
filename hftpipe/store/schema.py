"""The tables of a shard's database, made with sqlite-utils.

| table        | holds                                                                                          |
|--------------|------------------------------------------------------------------------------------------------|
| shard        | one row: pipeline, epoch, owner, beat, checkpoint, totals                                      |
| balances     | a row per account, ten-thousandths                                                             |
| entries      | the journal: a row per entry of the log, hash-chained                                          |
| transactions | transaction id → number of the entry that took it                                              |
| disputes     | every deposit that was ever disputed                                                           |
| sources      | source → last position applied                                                                 |
| dead         | entries that no producer of ours can have made                                                 |

Views: `transaction_log` (the journal, a row per transaction) and `refusals`.
"""

from typing import Final

from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

SCHEMA_VERSION: Final = 1
"""Kept in SQLite's `user_version`; a file of another version is refused by name."""

migrations = Migrations("hftpipe")

_TRANSACTION_LOG = """
WITH cells AS (
    SELECT entries.number, columns.key AS name, cell.key AS place, cell.value
    FROM entries,
         json_each(entries.payload) AS columns,
         json_each(CASE columns.type WHEN 'array' THEN columns.value ELSE '[]' END) AS cell
    WHERE entries.payload <> ''
),
lines AS (
    SELECT number, place,
           MAX(value) FILTER (WHERE name = 'account') AS account,
           MAX(value) FILTER (WHERE name = 'tx') AS tx,
           MAX(value) FILTER (WHERE name = 'amount') AS amount,
           MAX(value) FILTER (WHERE name = 'row') AS increment
    FROM cells GROUP BY number, place
),
heads AS (
    SELECT number, entry, source, previous, json_extract(payload, '$.kind') AS kinds,
           ifnull(json_extract(outcomes, '$.skipped'), 0) AS skipped,
           json_extract(outcomes, '$.gap') AS gap
    FROM entries WHERE payload <> ''
),
refused AS (
    SELECT entries.number, place.value AS place, reason.key AS reason
    FROM entries, json_each(entries.outcomes, '$.refused') AS reason, json_each(reason.value) AS place
)
SELECT lines.number, heads.entry, heads.source,
       heads.previous + SUM(lines.increment) OVER (PARTITION BY lines.number ORDER BY lines.place) AS row,
       CASE substr(heads.kinds, lines.place + 1, 1)
           WHEN 'D' THEN 'deposit' WHEN 'W' THEN 'withdrawal' WHEN 'P' THEN 'dispute'
           WHEN 'R' THEN 'resolve' WHEN 'C' THEN 'chargeback' END AS kind,
       lines.account, lines.tx, lines.amount,
       CASE WHEN heads.gap THEN 'gap' WHEN lines.place < heads.skipped THEN 'skipped'
            ELSE ifnull(refused.reason, 'applied') END AS outcome
FROM lines
JOIN heads ON heads.number = lines.number
LEFT JOIN refused ON refused.number = lines.number AND refused.place = lines.place
"""

_REFUSALS = "SELECT * FROM transaction_log WHERE outcome NOT IN ('applied', 'skipped', 'gap')"


@migrations()
def version_1(database: Database) -> None:
    """Everything a shard holds."""
    text, integer = str, int
    database.table("shard").create(
        {
            "id": integer,
            "pipeline": text,
            "shard": integer,
            "shards": integer,
            "epoch": integer,
            "owner": text,
            "beat": integer,
            "stopped": text,
            "incarnation": integer,
            "checkpoint": text,
            "digest": text,
            "number": integer,
            "hash": text,
            "highest_tx": integer,
            "applied": integer,
            "refused": integer,
            "skipped": integer,
            "gaps": integer,
            "dead": integer,
        },
        pk="id",
        not_null={"pipeline", "shard", "shards", "epoch", "owner", "beat", "checkpoint", "number"},
        strict=True,
    )
    database.table("balances").create(
        {"account": integer, "available": integer, "held": integer, "locked": integer, "last_entry": integer},
        pk="account",
        not_null={"available", "held", "locked", "last_entry"},
        strict=True,
    )
    database.table("entries").create(
        {
            "number": integer,
            "entry": text,
            "source": text,
            "previous": integer,
            "position": integer,
            "time_ms": integer,
            "count": integer,
            "payload": text,
            "outcomes": text,
            "digest": text,
            "hash": text,
        },
        pk="number",
        not_null={"entry", "source", "payload", "outcomes", "digest", "hash"},
        strict=True,
    )
    database.table("transactions").create(
        {"tx": integer, "entry": integer}, pk="tx", not_null={"entry"}, strict=True
    )
    database.table("disputes").create(
        {"tx": integer, "account": integer, "amount": integer, "state": text},
        pk="tx",
        not_null={"account", "amount", "state"},
        strict=True,
    )
    database.table("sources").create(
        {"source": text, "position": integer}, pk="source", not_null={"position"}, strict=True
    )
    database.table("dead").create(
        {"number": integer, "entry": text, "reason": text, "fields": text},
        pk="number",
        not_null={"entry", "reason", "fields"},
        strict=True,
    )
    database.create_view("transaction_log", _TRANSACTION_LOG)
    database.create_view("refusals", _REFUSALS)
