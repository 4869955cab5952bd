"""The programs that the benchmark compares with do the same work: on one file, the balances of the plain ledger."""

import ast
import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from hftpipe.core.ledger import Facts, Ledger
from hftpipe.core.transaction import Kind
from hftpipe.embedded import starting, wait_until_stopped
from hftpipe.source.generate import generate
from hftpipe.validation import CsvValidator

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parents[2] / "scripts" / "designs"
DESIGNS = sorted(path for path in FOLDER.glob("*.py") if path.name != "common.py")
NAMES = {
    "actor_per_account",
    "channels_per_partition",
    "consumer_group_count_1",
    "consumer_per_stream",
    "faststream_batch",
    "faststream_tuned",
    "lock_free_server_side",
    "lock_per_account",
    "locked_buckets",
    "plain_loop",
    "redis_py_documented",
    "redis_py_tuned",
}
CORRECTNESS_CHARACTERS_MAX = 110
ROWS = 1_200
REPEATED_ROWS = 50
ACCOUNTS = 40
KINDS = {Kind.DEPOSIT: 65.0, Kind.WITHDRAWAL: 35.0}

BY_HAND = b"""\
deposit,9001,1000001,10
withdrawal,9001,1000002,3.5
withdrawal,9001,1000003,6.5001
deposit,9001,1000001,10
deposit,9001,1000003,1
deposit,9002,1000004,0.0001
deposit,9002,1000005,0.02
deposit,9002,1000006,0.300
deposit,9002,1000007,9000000000.1234
withdrawal,9003,1000008,0.1
withdrawal,9003,1000008,0.1
deposit,9004,1000009,0.07
withdrawal,9004,1000010,0.07
"""
"""Every number of decimals, refusals, ids used again after a row that was applied and after one that was refused.

Ids come again on their own account: some designs know the ids of one account only."""
BY_HAND_BALANCES = {9001: 6_5000, 9002: 9_000_000_000_4435, 9003: 0, 9004: 0}


@pytest.fixture(scope="module")
def lines() -> bytes:
    """A file: made-up traffic, with a retry of its first rows in the end, and rows written by hand."""
    made = b"".join(generate(ROWS, ACCOUNTS, seed=7, kinds=KINDS))
    header, *rows = made.splitlines(keepends=True)
    return b"".join([header, *rows, BY_HAND, *rows[:REPEATED_ROWS]])


@pytest.fixture(scope="module")
def balances(lines: bytes) -> dict[int, int]:
    """What each account has, by hftpipe's own rules."""
    header, rows = lines.split(b"\n", 1)
    validated = CsvValidator.from_header(header).validate(rows, 2)
    assert not validated.invalid
    ledger = Ledger()
    ledger.learn(ledger.needs([validated.batch]), Facts({}, set(), {}))
    ledger.apply_all([(1, validated.batch)])
    return {int(account): int(available) for account, available, *_ in ledger.take_changes().balances}


@pytest.fixture(scope="module")
def socket() -> Iterator[Path]:
    """A private server, held for all of these tests."""
    with TemporaryDirectory(prefix="hft-") as folder:
        with starting(Path(folder)) as path:
            yield path
        assert wait_until_stopped(Path(folder), wait_ms=20_000)


@pytest.mark.parametrize("path", DESIGNS, ids=lambda path: path.stem)
def test_a_design_comes_to_the_balances_of_the_plain_ledger(
    path: Path, lines: bytes, balances: dict[int, int], socket: Path, tmp_path: Path
) -> None:
    if path.stem == "faststream_batch":
        pytest.importorskip("faststream")
    file, folder = tmp_path / "transactions.csv", tmp_path / "folder"
    file.write_bytes(lines)
    folder.mkdir()
    done = run(path, file, socket, folder)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said.pop("seconds") > 0
    assert said == {
        "design": path.stem,
        "transactions": lines.count(b"\n") - 1,
        "accounts": len(balances),
        "digest": digest(balances),
    }


def test_a_design_that_cannot_work_says_so(tmp_path: Path) -> None:
    file = tmp_path / "transactions.csv"
    file.write_bytes(b"type,client,tx,amount\ntransfer,1,1,1.0\n")
    done = run(FOLDER / "locked_buckets.py", file, Path("none"), tmp_path)
    assert done.returncode != 0
    assert not done.stdout
    assert "'transfer' is neither a deposit nor a withdrawal" in done.stderr


def test_the_ledger_agrees_with_the_rules_written_down_anew(lines: bytes, balances: dict[int, int]) -> None:
    available: dict[int, Decimal] = {}
    taken: set[str] = set()
    repeated = too_large = 0
    for kind, account, tx, amount in csv.reader(lines.decode().splitlines()[1:]):
        balance = available.setdefault(int(account), Decimal(0))
        change = Decimal(amount) * (1 if kind == "deposit" else -1)
        if tx in taken:
            repeated += 1
        elif balance + change < 0:
            too_large += 1
        else:
            available[int(account)] = balance + change
        taken.add(tx)
    assert balances == {account: int(balance * 10_000) for account, balance in available.items()}
    assert {account: balances[account] for account in BY_HAND_BALANCES} == BY_HAND_BALANCES
    assert repeated == REPEATED_ROWS + 3
    assert too_large > 10


def test_every_design_is_there() -> None:
    assert {path.stem for path in DESIGNS} == NAMES


@pytest.mark.parametrize("path", DESIGNS, ids=lambda path: path.stem)
def test_a_design_says_what_it_costs_and_how_many_rows_it_needs(path: Path) -> None:
    docstring = (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()
    (correctness,) = [line for line in docstring if line.startswith("Correctness: ")]
    assert len(correctness) <= CORRECTNESS_CHARACTERS_MAX
    (rows,) = [line.removeprefix("Rows: ") for line in docstring if line.startswith("Rows: ")]
    assert int(rows) > 0
    assert rows == str(int(rows))


def run(design: Path, file: Path, socket: Path, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Runs a design to its end."""
    command = [sys.executable, str(design), str(file), "--socket", str(socket), "--folder", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def digest(balances: dict[int, int]) -> str:
    """BLAKE2b of all balances, by account."""
    text = "".join(f"{account},{available}\n" for account, available in sorted(balances.items()))
    return blake2b(text.encode(), digest_size=16).hexdigest()
