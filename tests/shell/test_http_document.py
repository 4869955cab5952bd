"""The document is true: requests made of it, right and wrong ones, are answered as it says."""

import asyncio
import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis.strategies import randoms
from schemathesis.config import SchemathesisConfig

from hftpipe.reception.http.document import tree
from tests.shell.http_hall import LIMITS_OF_HTTP, HttpHall, guarded

# Imported by hypothesis when it is first drawn, deep in a call: Python 3.11 at times fails to compile there.
randoms(use_true_random=True).validate()

LIMITS = replace(LIMITS_OF_HTTP, applied_ms=1)

REJECTING = [200, 400, 401, 403, 404, 405, 406, 413, 415, 417, 422]
"""What a wrong request is answered with: 200 where a batch has wrong rows, each with a result of its own."""

CONFIG = {"checks": {"negative_data_rejection": {"expected-statuses": REJECTING}}}

SCHEMA = schemathesis.openapi.from_dict(tree(LIMITS), config=SchemathesisConfig.from_dict(CONFIG))
EXAMPLES = 20
"""Requests made for each operation."""


@SCHEMA.hook
def filter_body(_: schemathesis.HookContext, body: object) -> bool:
    """To JSON Schema 1.0 is an integer; to us it is none, for others are told from it by their rounding only."""
    return not has_float(body)


def has_float(value: object) -> bool:
    """Whether there is one anywhere."""
    if isinstance(value, dict):
        return any(map(has_float, value.values()))
    return isinstance(value, float) or (isinstance(value, list) and any(map(has_float, value)))


@schemathesis.serializer("application/x-ndjson")
def json_lines(_: schemathesis.SerializationContext, value: object) -> bytes:
    """A body of lines: text as it is."""
    return value.encode("utf-8", "replace") if isinstance(value, str) else orjson.dumps(value)


class Door:
    """The server in a thread of its own."""

    def __init__(self, home: Path) -> None:
        self.hall = HttpHall(home)
        gate, tokens = guarded(home, scopes=("all",))
        self.token = tokens["all"]
        self._gate = gate
        self._is_open = threading.Event()
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.bugs: list[str] = []
        self._log = logging.getLogger("uvicorn.error")
        self._log.addFilter(self._note)
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(),))

    def __enter__(self) -> "Door":
        self._thread.start()
        assert self._is_open.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()
        self._log.removeFilter(self._note)

    def _note(self, record: logging.LogRecord) -> bool:
        self.bugs.append(record.getMessage())
        return True

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._loop.set_exception_handler(lambda _, context: self.bugs.append(repr(context)))
        async with self.hall.serving(LIMITS, gate=self._gate):
            self._is_open.set()
            await self._stop.wait()


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with Door(tmp_path_factory.mktemp("home")) as door:
        yield door
    assert not door.bugs


REQUESTS = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
SUBMISSIONS = {"path": "/v1/transactions", "method": "POST"}


@SCHEMA.exclude(**SUBMISSIONS).parametrize()
@REQUESTS
def test_requests_made_of_the_document_are_answered_as_it_says(case: schemathesis.Case, door: Door) -> None:
    validate(case, door)


@pytest.mark.slow
@SCHEMA.include(**SUBMISSIONS).parametrize()
@REQUESTS
def test_submissions_made_of_the_document_are_answered_as_it_says(
    case: schemathesis.Case, door: Door
) -> None:
    """Their bodies take a while to think of."""
    validate(case, door)


def validate(case: schemathesis.Case, door: Door) -> None:
    """Sends a request, and looks whether the answer is one of the document."""
    case.call_and_validate(
        base_url=f"http://127.0.0.1:{door.hall.port}", headers={"Authorization": door.token}, timeout=10
    )
