"""Results as JSON: the quick way for batches that are durable says what the plain way says."""

import numpy as np
import orjson
from hypothesis import given
from hypothesis import strategies as st

from hftpipe.core.transaction import Batch
from hftpipe.reception.http.results import all_durable_results, many_results, results_of
from hftpipe.reception.receipts import Receipts
from hftpipe.validation import Validated

addresses = st.tuples(st.integers(0, 1_023), st.integers(0, 2**40))


@given(st.lists(addresses, min_size=1, max_size=20), st.integers(0, 9), st.integers(1, 9))
def test_the_quick_way_says_what_the_plain_way_says(
    rows: list[tuple[int, int]], blank_lines: int, generation: int
) -> None:
    count = len(rows)
    numbers = range(1 + blank_lines, 1 + blank_lines + count)
    batch = Batch.of("D" * count, [1] * count, range(count), [1] * count, numbers)
    shards, sequences = np.array(rows, dtype=np.int64).T
    receipts = Receipts(generation, np.zeros(count, dtype=np.uint8), shards, sequences, batch.rows)
    quick = all_durable_results(batch.rows, receipts)
    plain = many_results(Validated(batch, [], count), results_of(receipts))
    assert orjson.loads(quick) == orjson.loads(plain)
    assert [result["entry"] for result in orjson.loads(plain)["results"]] == [
        receipts.address(row) for row in range(count)
    ]
