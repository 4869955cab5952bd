"""The lines of BAD_INPUT, as data for every transport that takes them: the line, its outcome, the field named.

The outcome is `ACCEPTED`, `SKIPPED`, or the reason why the line is invalid.
"""

from typing import Final, NamedTuple

from hftpipe.config import LINE_BYTES_MAX

ACCEPTED: Final = "accepted"
SKIPPED: Final = "skipped"


class Case(NamedTuple):
    """One line without its end, and what becomes of it."""

    line: bytes
    outcome: str
    field: str = ""


OTHER_DIGITS: Final = ("１２", "١٢٣", "²", "१")
BAD_IDENTIFIERS: Final = (
    *("-1", "+1", "007", "00", "1.0", "1e2", "0x10", "1_000", "9223372036854775808", "9" * 400, "", "-0"),
    *OTHER_DIGITS,
)
BAD_AMOUNTS: Final = (
    *("-0", "-5", "+5", "1e3", "1E+2", "NaN", "sNaN", "inf", "Infinity", "1e400", "1e999999999", "9" * 3_000),
    *(
        "1_000",
        "0x10",
        "1L",
        "$5",
        "5 EUR",
        "1..0",
        "--5",
        "1.2.3",
        ".",
        "",
        "\u200b12",
        "1,000.00",
        "1" * 33,
    ),
    *("0." + "1" * 33, "1 000", "'5'", "=5"),
    *OTHER_DIGITS,
)
LARGEST: Final = "10000000000000"
TOO_LARGE: Final = ("10000000000000.0001", "10000000000001", "9" * 32, "10000000000000.00001")
TOO_PRECISE: Final = ("0.00001", "1.23456", "1.000010")
NOT_POSITIVE: Final = ("0", "0.0000", "0.0", "0.00000")
FRAGMENTS: Final = (
    *("'; DROP TABLE", "${jndi:ldap://x}", "%s", "{0.__class__}", "`id`", "../../etc/passwd", "<script>"),
    "=1+1",
)
CONTROLS: Final = (
    *(
        "\0",
        "\x01",
        "\x0b",
        "\x0c",
        "\x1c",
        "\x1b[2J",
        "\x7f",
        "\x80",
        "\x85",
        "\x9f",
        "\u2028",
        "\u2029",
        "\ufeff",
    ),
    "a\rb",
)
NOT_UTF_8: Final = (b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xe2\x82")


def _quoted(text: str) -> bytes:
    return b'"' + text.encode() + b'"'


def csv_cases() -> list[Case]:
    """Under the header `type,client,tx,amount,note`."""
    return [
        *_csv_lines(),
        *(Case(f"deposit,1,1,1,{text}".encode(), "bad_encoding") for text in CONTROLS),
        *(Case(b"deposit,1,1,1," + octets, "bad_encoding") for octets in NOT_UTF_8),
        *(
            Case(f"{kind},1,1,1,".encode(), ACCEPTED)
            for kind in ("Deposit", "DEPOSIT", "withdrawal", "ChargeBack")
        ),
        *(
            Case(f"{kind},1,1,1,".encode(), "bad_kind", "kind")
            for kind in ("depositt", "", "transfer", "D", "CHARGEBAC\u212a", *FRAGMENTS)
        ),
        *(
            Case(b"deposit,%b,1,1," % _quoted(text), "bad_account", "account")
            for text in (*BAD_IDENTIFIERS, *FRAGMENTS)
        ),
        *(
            Case(b"deposit,1,%b,1," % _quoted(text), "bad_tx", "tx")
            for text in (*BAD_IDENTIFIERS, *FRAGMENTS)
        ),
        *(
            Case(b"deposit,1,1,%b," % _quoted(text), "bad_amount", "amount")
            for text in (*BAD_AMOUNTS, *FRAGMENTS)
        ),
        *(
            Case(f"{amount}".join(("deposit,1,1,", ",")).encode(), "amount_too_large", "amount")
            for amount in TOO_LARGE
        ),
        *(Case(f"withdrawal,1,1,{amount},".encode(), "too_precise", "amount") for amount in TOO_PRECISE),
        *(
            Case(f"deposit,1,1,{amount},".encode(), "amount_not_positive", "amount")
            for amount in NOT_POSITIVE
        ),
        *(
            Case(f"deposit,1,1,{amount},".encode(), ACCEPTED)
            for amount in (
                "1.",
                ".5",
                "01",
                "00.10",
                LARGEST,
                "10000000000000.0000",
                "20.000000",
                "0" * 20 + "1.5",
                '"1"',
            )
        ),
        *(
            Case(f"{kind},1,1,{amount},".encode(), ACCEPTED)
            for kind in ("dispute", "resolve", "chargeback")
            for amount in ("", "0", "5", "0.00001", "9" * 32)
        ),
        *(Case(b"dispute,1,1,%b," % _quoted(text), "bad_amount", "amount") for text in BAD_AMOUNTS if text),
    ]


def _csv_lines() -> list[Case]:
    note = LINE_BYTES_MAX - len("deposit,1,1,1,")
    return [
        Case(b"deposit,1,1,10.00,", ACCEPTED),
        Case(b"deposit,1,1,10.00,\r", ACCEPTED),
        Case(b"deposit,1,1,10.00,\r\r", "bad_encoding"),
        Case(b" deposit\t, 1 , 1 ,\t2.0 , note ", ACCEPTED),
        Case(b'"deposit","1","1","2.0","a ""note"", with comma"', ACCEPTED),
        Case(b' "deposit" ,1,1,2.0,', ACCEPTED),
        Case("deposit,1,1,1,Käse → 1".encode(), ACCEPTED),
        Case(b"deposit,9223372036854775807,9223372036854775807,1,", ACCEPTED),
        Case(b"deposit,0,0,1,", ACCEPTED),
        Case(b"", SKIPPED),
        Case(b" \t ", SKIPPED),
        Case(b"\r", SKIPPED),
        Case("\u00a0".encode(), "missing_field", "account"),
        Case("deposit,1,1,1,".encode("utf-16-le"), "bad_encoding"),
        Case(b"deposit,1,1,1," + b"x" * note, ACCEPTED),
        Case(b"deposit,1,1,1," + b"x" * note + b"\r", ACCEPTED),
        Case(b"deposit,1,1,1," + b"x" * (note + 1), "line_too_long"),
        Case(b"deposit,1,1,1," + "€".encode() * (note // 3 + 1), "line_too_long"),
        Case(b"x" * 200_000, "line_too_long"),
        Case(b"\xff" * 200_000, "line_too_long"),
        Case(b"deposit", "missing_field", "account"),
        Case(b"deposit,1", "missing_field", "tx"),
        Case(b"deposit,1,1", "missing_field", "amount"),
        Case(b"transfer,1,1", "bad_kind", "kind"),
        Case(b"dispute,1,1", ACCEPTED),
        Case(b"dispute,1", "missing_field", "tx"),
        Case(b"deposit,1,1,1", ACCEPTED),
        Case(b"deposit,1,1,1,,", "too_many_fields"),
        Case(b"deposit,1,1,1,000.00,", "too_many_fields"),
        Case(b"deposit,1,1,1\x1b[2J,", "bad_encoding"),
        Case(b'dep"osit,1,1,1,', "bad_kind", "kind"),
        Case(b'"deposit"x,1,1,1,', "bad_kind", "kind"),
        Case(b'deposit,"1"y,2,1,', "bad_account", "account"),
        Case(b'deposit,1,"1,1,', "missing_field", "amount"),
        Case(b'"deposit,1,1,1,', "missing_field", "account"),
        Case(b'deposit,1,1,"1', "bad_amount", "amount"),
        Case(b'dispute,1,1,"1', "bad_amount", "amount"),
        Case(b'deposit,1,1,1,"note', "missing_field", "note"),
        Case(b'deposit,1,1,1,a "note"', "missing_field", "note"),
        Case(b'"deposit,1,1,1,' + b"x" * 100_000, "line_too_long"),
        Case(b'"' * 4_000, "missing_field", "account"),
        Case(b"," * 4_000, "too_many_fields"),
    ]


def json_line(
    kind: str = '"deposit"', account: str = "1", tx: str = "1", amount: str = '"1"', more: str = ""
) -> bytes:
    """An object whose values are given as JSON text."""
    return f'{{"type":{kind},"account":{account},"tx":{tx},"amount":{amount}{more}}}'.encode()


def json_cases() -> list[Case]:
    """Lines of JSON Lines."""
    texts = [
        text.replace("\\", "\\\\")
        for text in (*BAD_AMOUNTS, *FRAGMENTS, "1.", ".5", "01", "00.10", " 1", "1 ")
    ]
    not_numbers = (
        "10.1",
        "1e2",
        "1.0",
        "true",
        "null",
        "[]",
        "{}",
        "NaN",
        "-Infinity",
        "1e400",
        "-0",
        "-5",
        "[[1]]",
    )
    not_integers = (
        *(
            "18446744073709551616",
            "9223372036854775808",
            "true",
            "null",
            '"1"',
            "1.0",
            "-0",
            "-1",
            "[]",
            "1e2",
        ),
        *('""', "{}", "9" * 400),
    )
    return [
        *_json_lines(),
        *(
            Case(json_line(kind=f'"{kind}"'), ACCEPTED)
            for kind in ("deposit", "withdrawal", "dispute", "chargeback")
        ),
        *(
            Case(json_line(kind=kind), "bad_kind", "kind")
            for kind in ('"Deposit"', '" deposit"', '""', "1", "null", "[]")
        ),
        *(Case(json_line(account=text), "bad_account", "account") for text in not_integers),
        *(Case(json_line(tx=text), "bad_tx", "tx") for text in not_integers),
        *(Case(json_line(amount=f'"{text}"'), "bad_amount", "amount") for text in texts),
        *(Case(json_line(amount=text), "bad_amount", "amount") for text in not_numbers),
        *(Case(json_line(amount=f'"{text}"'), "amount_too_large", "amount") for text in TOO_LARGE),
        *(Case(json_line(amount=f'"{text}"'), "too_precise", "amount") for text in TOO_PRECISE),
        *(Case(json_line(amount=text), "amount_not_positive", "amount") for text in ("0", '"0"', '"0.0000"')),
        *(
            Case(json_line(amount=text), ACCEPTED)
            for text in ("10", '"10.00"', '"0.5"', '"20.000000"', LARGEST)
        ),
        *(
            Case(json_line(kind='"dispute"', amount=text), ACCEPTED)
            for text in ('""', "0", '"0"', "5", '"0.00001"')
        ),
        *(
            Case(json_line(kind='"resolve"', amount=text), "bad_amount", "amount")
            for text in ("null", "-1", '"01"', "[]", "1.5")
        ),
        *(
            Case(json_line(more=f',"{key}":1'), "bad_json", key)
            for key in ("amuont", "amount", "id", "client", "Type")
        ),
    ]


def _json_lines() -> list[Case]:
    return [
        Case(b'{"type":"deposit","account":1,"tx":1,"amount":"10.00"}', ACCEPTED),
        Case(b' { "amount" : 10 ,\t"tx_id" : 1, "client":1, "kind":"withdrawal" } \r', ACCEPTED),
        Case(b'{"type":"dispute","account":1,"tx":1}', ACCEPTED),
        Case(b'{"\\u0074ype":"dispute","account":1,"tx":1}', ACCEPTED),
        Case(b" ", SKIPPED),
        Case(b"", SKIPPED),
        Case(b'{"account":1,"tx":1,"amount":"1"}', "missing_field", "kind"),
        Case(b'{"type":"deposit","tx":1,"amount":"1"}', "missing_field", "account"),
        Case(b'{"type":"deposit","account":1,"amount":"1"}', "missing_field", "tx"),
        Case(b'{"type":"deposit","account":1,"tx":1}', "missing_field", "amount"),
        Case(b"{}", "missing_field", "kind"),
        Case(json_line(more=',"\\u0061mount":"2"'), "bad_json", "amount"),
        Case(json_line(amount='"1","amount":"1"'), "bad_json", "amount"),
        Case(json_line(amount='{"a":1,"a":2}'), "bad_amount", "amount"),
        Case(json_line(amount='"\\u0000"'), "bad_json"),
        Case(json_line(amount='"\\ud800"'), "bad_json"),
        Case(json_line(more=","), "bad_json"),
        Case(json_line() + json_line(), "bad_json"),
        Case(json_line() + b"x", "bad_json"),
        Case(json_line().replace(b'"', b"'"), "bad_json"),
        Case(b"[" * 4_000, "bad_json"),
        Case(b"[" * 100_000, "line_too_long"),
        Case(b'{"a":' * 800, "bad_json"),
        Case(b'{"a":' * 5_000, "line_too_long"),
        Case(json_line(amount="[" * 1_000 + "]" * 1_000), "bad_amount", "amount"),
        Case(b'{"a":' * 600 + b"1" + b"}" * 600, "bad_json", "a"),
        Case(b'[{"type":"deposit"}]', "bad_json"),
        Case(b"null", "bad_json"),
        Case(b"deposit,1,1,1", "bad_json"),
        Case("\ufeff".encode() + json_line(), "bad_encoding"),
        Case(json_line(amount='"\x00"'), "bad_encoding"),
        Case(json_line(amount='"\u2028"'), "bad_encoding"),
        Case(json_line() + b"\xff", "bad_encoding"),
        Case(b'{"type":"deposit",\r"account":1}', "bad_encoding"),
        Case(json_line(amount='"\\u001b[2J"'), "bad_amount", "amount"),
    ]
