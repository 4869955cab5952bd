"""The tables that SQL finds, in a snapshot and in a live query alike.

Amounts are integers of ten-thousandths, times Unix milliseconds; the views of `DECIMAL_VIEWS` show both for people.

| relation     | a row for each                                                                                 |
|--------------|------------------------------------------------------------------------------------------------|
| shards       | shard: how far it was applied, and its totals                                                  |
| balances     | account                                                                                        |
| transactions | transaction that was decided: applied, or refused and why                                      |
| entries      | entry of the journal, without its payload                                                      |
| disputes     | deposit that was ever disputed                                                                 |
| sources      | source of a shard: the last position applied                                                   |
| dead         | entry that no producer of ours can have made, or that was given up                             |
| decisions    | decision of an operator about a dead letter or a loss                                          |
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Relation:
    """A table of all shards.

    columns: name → type. key: of its primary key; empty for none. references: column → table and column.
    select: its rows in a shard's database, which is called {database}; empty for what is decoded from the journal.
    """

    name: str
    columns: Mapping[str, type]
    key: Sequence[str]
    references: Mapping[str, tuple[str, str]]
    select: str = ""


_OF_SHARD: Final = {"shard": ("shards", "shard")}

SHARDS: Final = Relation(
    "shards",
    {
        "shard": int,
        "pipeline": str,
        "shards": int,
        "epoch": int,
        "owner": str,
        "stopped": str,
        "incarnation": int,
        "checkpoint": str,
        "records": int,
        "highest_tx": int,
        "applied": int,
        "refused": int,
        "skipped": int,
        "gaps": int,
        "dead": int,
    },
    ("shard",),
    {},
    "SELECT shard, pipeline, shards, epoch, owner, stopped, incarnation, checkpoint, number AS records, highest_tx, "
    "applied, refused, skipped, gaps, dead FROM {database}.shard",
)

BALANCES: Final = Relation(
    "balances",
    {
        "shard": int,
        "account": int,
        "available": int,
        "held": int,
        "total": int,
        "locked": int,
        "last_entry": int,
    },
    ("account",),
    _OF_SHARD,
    "SELECT {shard} AS shard, account, available, held, available + held AS total, locked, last_entry "
    "FROM {database}.balances",
)

TRANSACTIONS: Final = Relation(
    "transactions",
    {
        "shard": int,
        "number": int,
        "entry": str,
        "source": str,
        "row": int,
        "time_ms": int,
        "kind": str,
        "account": int,
        "tx": int,
        "amount": int,
        "outcome": str,
    },
    (),
    {**_OF_SHARD, "account": ("balances", "account")},
)

ENTRIES: Final = Relation(
    "entries",
    {
        "shard": int,
        "number": int,
        "entry": str,
        "source": str,
        "previous": int,
        "position": int,
        "time_ms": int,
        "count": int,
        "outcome": str,
        "skipped": int,
        "refused": int,
        "digest": str,
        "hash": str,
    },
    ("shard", "number"),
    _OF_SHARD,
    "SELECT {shard} AS shard, number, entry, source, previous, position, time_ms, count, "
    "CASE WHEN payload = '' THEN CASE WHEN json_extract(outcomes, '$.lost') IS NULL THEN 'dead' ELSE 'lost' END "
    "WHEN json_extract(outcomes, '$.gap') THEN 'gap' ELSE 'decided' END AS outcome, "
    "ifnull(json_extract(outcomes, '$.skipped'), 0) AS skipped, "
    "(SELECT ifnull(sum(json_array_length(value)), 0) FROM json_each(outcomes, '$.refused')) AS refused, "
    "digest, hash FROM {database}.entries",
)

DISPUTES: Final = Relation(
    "disputes",
    {"shard": int, "tx": int, "account": int, "amount": int, "state": str},
    ("shard", "tx"),
    {**_OF_SHARD, "account": ("balances", "account")},
    "SELECT {shard} AS shard, tx, account, amount, state FROM {database}.disputes",
)

SOURCES: Final = Relation(
    "sources",
    {"shard": int, "source": str, "position": int},
    ("shard", "source"),
    _OF_SHARD,
    "SELECT {shard} AS shard, source, position FROM {database}.sources",
)

DEAD: Final = Relation(
    "dead",
    {"shard": int, "number": int, "entry": str, "reason": str, "fields": str},
    ("shard", "number"),
    _OF_SHARD,
    "SELECT {shard} AS shard, number, entry, reason, fields FROM {database}.dead",
)

DECISIONS: Final = Relation(
    "decisions",
    {
        "shard": int,
        "number": int,
        "time_ms": int,
        "action": str,
        "entry": str,
        "record": int,
        "who": str,
        "note": str,
        "epoch": int,
    },
    ("shard", "number"),
    _OF_SHARD,
    "SELECT {shard} AS shard, number, time_ms, action, entry, record, who, note, epoch FROM {database}.decisions",
)

RELATIONS: Final = (SHARDS, BALANCES, ENTRIES, DISPUTES, SOURCES, DEAD, DECISIONS, TRANSACTIONS)
"""Those that others refer to come first."""

INDEXES: Final = {
    "transactions": (("account",), ("tx",)),
    "entries": (("entry",),),
    "disputes": (("account",),),
}
"""Of a snapshot, beside the keys."""


def _decimal(column: str) -> str:
    """Ten-thousandths as text with four decimals, exactly."""
    sign = f"CASE WHEN {column} < 0 THEN '-' ELSE '' END"
    return f"printf('%s%d.%04d', {sign}, abs({column} / 10000), abs({column} % 10000)) AS {column}"


def _shown(relation: Relation, **instead: str) -> str:
    """A view of all columns, some of them made otherwise."""
    columns = (instead.get(name, name) for name in relation.columns)
    return f"SELECT {', '.join(columns)} FROM {relation.name}"  # noqa: S608 - all of it are constants


DECIMAL_VIEWS: Final = {
    "balances_decimal": _shown(
        BALANCES, available=_decimal("available"), held=_decimal("held"), total=_decimal("total")
    ),
    "transactions_decimal": _shown(
        TRANSACTIONS,
        time_ms="strftime('%Y-%m-%dT%H:%M:%fZ', time_ms / 1000.0, 'unixepoch') AS time",
        amount=_decimal("amount"),
    ),
    "disputes_decimal": _shown(DISPUTES, amount=_decimal("amount")),
}
"""The same for people."""


# --- statements: all that is put into them is a name of a constant above, or a number -----------------------------


def selection(relation: Relation, shard: int, database: str, columns: Sequence[str]) -> str:
    """Reads some columns, one at least, of a relation in one shard's database."""
    rows = relation.select.format(shard=shard, database=database)
    return f"SELECT {', '.join(columns) or 'shard'} FROM ({rows})"  # noqa: S608 - see above


def insertion(relation: Relation, columns: Sequence[str], values: Sequence[str]) -> str:
    """Writes some columns; values: one text for each row, with as many placeholders in brackets."""
    return f"INSERT INTO {relation.name} ({', '.join(columns)}) VALUES {', '.join(values)}"  # noqa: S608 - see above


def temporary_table(relation: Relation, columns: Sequence[str]) -> str:
    """Makes a table of some columns."""
    typed = (f"{name} {'INTEGER' if relation.columns[name] is int else 'TEXT'}" for name in columns)
    return f"CREATE TEMP TABLE {relation.name} ({', '.join(typed)}) STRICT"


def temporary_view(name: str, query: str) -> str:
    """Makes a view."""
    return f"CREATE TEMP VIEW {name} AS {query}"


def attachment(database: str) -> str:
    """Attaches the database that is bound."""
    return f"ATTACH DATABASE ? AS {database}"
