"""Statements of people, judged before they see any data."""

import pytest

from hftpipe.errors import UsageError
from hftpipe.export.relations import BALANCES, TRANSACTIONS
from hftpipe.export.statement import judge, parse_parameters

ALL_OF_TRANSACTIONS = frozenset(TRANSACTIONS.columns)


@pytest.mark.parametrize(
    ("text", "used"),
    [
        ("select 1", {}),
        ("select count(*) from balances", {"balances": set()}),
        ("SELECT kind, sum(amount) FROM transactions GROUP BY kind", {"transactions": {"kind", "amount"}}),
        ("select * from transactions", {"transactions": ALL_OF_TRANSACTIONS}),
        (
            "select t.kind from transactions as t where t.account in (select account from balances where locked)",
            {"transactions": {"kind", "account"}, "balances": {"account", "locked"}},
        ),
        ("with x(a) as (select tx from disputes) select count(*) from x", {"disputes": {"tx"}}),
        ("select outcome from transactions order by row desc", {"transactions": {"outcome", "row"}}),
        (
            "select count(*) from transactions join balances using (account)",
            {"transactions": ALL_OF_TRANSACTIONS, "balances": set(BALANCES.columns)},
        ),
        (
            "select count(*) from transactions natural join balances",
            {"transactions": ALL_OF_TRANSACTIONS, "balances": set(BALANCES.columns)},
        ),
        ("select amount from disputes_decimal", {"disputes": {"shard", "tx", "account", "amount", "state"}}),
        ("explain query plan select account from balances", {"balances": {"account"}}),
        ("-- a comment\n/* another */ values (1), (2);", {}),
        ("select value from json_each('[1]')", {}),
        ("with recursive c(x) as (select 1 union all select x + 1 from c) select count(*) from c", {}),
    ],
)
def test_what_a_statement_reads_is_known(text: str, used: dict[str, set[str]]) -> None:
    """Relations and columns; it is not run for that, though it may never end."""
    assert judge(text, {}).used == used


@pytest.mark.parametrize(
    "text",
    [
        "delete from balances",
        "insert into balances values (1)",
        "with x as (select 1) delete from balances",
        "explain delete from balances",
        "create table x (y)",
        "attach 'x.db' as x",
        "vacuum into 'x.db'",
        "pragma query_only = off",
        "begin",
        "select 1; select 2",
        "select 1; drop table balances",
        "select load_extension('x')",
        "select * from sqlite_master",
        "select * from pragma_table_info('balances')",
        "select * from hidden_balances; delete from balances",
        "select rowid from balances",
        "",
        " -- nothing",
        ";",
    ],
)
def test_what_would_do_more_than_read_is_refused(text: str) -> None:
    """One statement, that reads the relations and nothing else."""
    with pytest.raises(UsageError):
        judge(text, {})


@pytest.mark.parametrize(
    ("text", "message", "line", "column"),
    [
        ("select * FORM balances", 'near "FORM": syntax error', 1, 10),
        ("select 'FORM', /* FORM */ 2 FORM\n FORM balances", 'near "FORM": syntax error', 2, 2),
        ("select\n  acount from balances", "no such column: acount", 2, 3),
        ("select 'acount', b . acount from balances b", "no such column: b.acount", 1, 18),
        ("select 1 from balance", "no such table: balance", 1, 15),
        ("select account\nfrom balances a,\n balances b", "ambiguous column name: account", 1, 8),
        ("select b.account, account from balances a, balances b", "ambiguous column name: account", 1, 19),
        ("select nothing_like(1)", "no such function: nothing_like", 1, 8),
        ("select abs(1, 2)", "wrong number of arguments to function abs", 1, 8),
        ("select (1", "incomplete input", 1, 10),
        ("select 'x", "unrecognized token", 1, 8),
        ("select\t1 2", 'near "2": syntax error', 1, 10),
    ],
)
def test_an_error_is_told_with_its_place(text: str, message: str, line: int, column: int) -> None:
    """And a mark below it."""
    with pytest.raises(UsageError) as refused:
        judge(text, {})
    told, shown, mark = str(refused.value).split("\n")
    assert message in told
    assert told.endswith(f"in line {line}, column {column}")
    assert shown == f"  {text.splitlines()[line - 1]}"
    assert len(mark) == 2 + column
    assert mark.endswith("^")


def test_parameters_are_integers_where_they_look_like_it() -> None:
    """Else text, with anything in it."""
    given = parse_parameters(("a=42", "b=-1", "c=x=y", "d=9223372036854775808", "e=", "f=1.5"))
    assert given == {"a": 42, "b": -1, "c": "x=y", "d": "9223372036854775808", "e": "", "f": "1.5"}


@pytest.mark.parametrize("texts", [("a",), ("1=2",), ("a=1", "a=2"), ("a b=1",)])
def test_a_parameter_that_is_none_is_refused(texts: tuple[str, ...]) -> None:
    """Or is there twice."""
    with pytest.raises(UsageError, match="--param"):
        parse_parameters(texts)


def test_parameters_and_statement_belong_together() -> None:
    """None is left over, and none is missing."""
    assert judge("select :a, @b, $c", {"a": 1, "b": 2, "c": "x"}).parameters == {"a": 1, "b": 2, "c": "x"}
    with pytest.raises(UsageError, match="no parameter :b"):
        judge("select :a, ':b'", {"a": 1, "b": 2})
    with pytest.raises(UsageError, match="did not supply a value"):
        judge("select :a", {})
