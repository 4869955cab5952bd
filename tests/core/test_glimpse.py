"""A few rows cut out of a payload are those that reading all of it gives."""

import json
from collections.abc import Sequence

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftpipe.core.glimpse import Glimpse
from hftpipe.core.payload import read_columns
from hftpipe.core.transaction import INT64_MAX, Column

numbers = st.sampled_from([0, 1, 4, 11, 14, 41, 44, 141, 411, 2**32, INT64_MAX]) | st.integers(0, INT64_MAX)


def payload_of(accounts: Sequence[int], txs: Sequence[int] | None) -> dict[str, object]:
    count = len(accounts)
    return {
        "kind": "D" * count,
        "account": list(accounts),
        "tx": None if txs is None else list(txs),
        "amount": [7 * place + 1 for place in range(count)],
        "row": [1] * count,
    }


def listed(column: Column | None) -> list[int] | None:
    return None if column is None else column.tolist()


@settings(deadline=None, max_examples=60)
@given(st.lists(numbers, min_size=1, max_size=12), st.booleans(), st.sampled_from([1, 9]), st.data())
def test_a_glimpse_sees_what_reading_sees(
    accounts: list[int], has_ids: bool, times: int, data: st.DataObject
) -> None:
    """Whatever the shape of the JSON, and whether a value is there seldom or often."""
    accounts = accounts * times
    columns = payload_of(accounts, range(len(accounts)) if has_ids else None)
    wanted = data.draw(st.sampled_from(accounts) | numbers)
    turned = {name: columns[name] for name in ("row", "amount", "kind", "tx", "account")}
    texts = [orjson.dumps(columns).decode(), json.dumps(columns), orjson.dumps(turned).decode()]
    batch = read_columns(texts[0].encode(), 0, len(accounts))
    places = np.flatnonzero(batch.accounts == wanted)
    for text in texts:
        glimpse = Glimpse(text)
        assert glimpse.kinds == batch.kinds
        assert glimpse.places_of(wanted).tolist() == places.tolist()
        assert listed(glimpse.picked("amount", places)) == batch.amounts[places].tolist()
        assert listed(glimpse.picked("tx", places)) == (places.tolist() if has_ids else None)


@pytest.mark.parametrize("text", ["", "x", '{"kind":"D"', "[]", '{"account":[1]}'])
def test_what_is_no_payload_is_said(text: str) -> None:
    """As an error that can be told from a bug."""
    with pytest.raises((ValueError, KeyError, TypeError)):
        Glimpse(text).places_of(1)
