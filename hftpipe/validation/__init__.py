r"""The validation service: lines of bytes in, transactions and reports of invalid rows out.

Stateless and pure, so any number of them may run side by side, in this program or as a library of another:

    validator = CsvValidator.from_header(b"type,client,tx,amount")
    validated = validator.validate(b"deposit,1,1,10.0\ndeposit,1,2,ten\n", first_line=2)
    validated.batch      # one deposit: columns of integers, with line numbers
    validated.invalid    # [Invalid(line=3, field='amount', reason='bad_amount', content='ten')]

A row is reported once, with the first rule that it breaks, in this order: `line_too_long`, `bad_encoding`;
`bad_json`; `too_many_fields`, `missing_field`; kind; account; tx; amount; rules about the row as a whole.

To add a rule

* for one deployment or library user, about rows as a whole: pass `extra_rules=[rule]`, where a rule is a pure function
  `Row -> Broken | None`; the reason is a word of its own:

      def no_house_account(row: Row) -> Broken | None:
          return Broken("account", "house_account") if row.account == 0 else None

* for everyone: the same function, put into `rows.ROW_RULES`.
* about how a field is named, written or needed: the table `fields.FIELDS` and the readers below it. A new reason
  joins `InvalidReason`.
"""

from hftpipe.validation.columnar import ColumnarCsvValidator
from hftpipe.validation.columnar_jsonl import ColumnarJsonlValidator
from hftpipe.validation.csv import CsvValidator
from hftpipe.validation.fields import Rounding
from hftpipe.validation.jsonl import JsonlValidator
from hftpipe.validation.reasons import Broken, Invalid, InvalidReason, shown
from hftpipe.validation.rows import Row, RowRule, Validated

__all__ = [
    "Broken",
    "ColumnarCsvValidator",
    "ColumnarJsonlValidator",
    "CsvValidator",
    "Invalid",
    "InvalidReason",
    "JsonlValidator",
    "Rounding",
    "Row",
    "RowRule",
    "Validated",
    "shown",
]
