"""What happened: a sentence for people, a record for programs."""

import json
import logging
import threading
from collections.abc import Callable

import click
import pytest
from click.testing import CliRunner

from hftpipe.cli.logs import log_format_option
from hftpipe.cli.output import say
from hftpipe.errors import LogUnavailable
from hftpipe.event import Event, Level, passing
from hftpipe.invalid_report import InvalidLines
from hftpipe.telemetry.lines import as_json
from hftpipe.validation import Invalid
from tests.shell.shard_bench import ShardBench

SENTENCE = "shard 3: stopped: entry 3/1-7 is damaged"


def recorded(said: str) -> dict[str, object]:
    """The line of a process `worker`, taken apart."""
    line = as_json(said, process="worker", pid=7, time_ms=1_700_000_000_123)
    assert "\n" not in line
    found: dict[str, object] = json.loads(line)
    return found


def test_an_event_is_its_sentence() -> None:
    """Whoever takes text takes it."""
    event = Event("shard_stopped", SENTENCE, Level.ERROR, shard=3)
    assert event == SENTENCE
    assert f"{event}" == SENTENCE
    assert (event.name, event.level, event.fields) == ("shard_stopped", Level.ERROR, {"shard": 3})


def test_a_record_says_all_that_is_known() -> None:
    """Time in UTC, name, level, fields, sentence, process."""
    event = Event("shard_stopped", SENTENCE, Level.ERROR, shard=3, entry="1-7")
    assert recorded(event) == {
        "time": "2023-11-14T22:13:20.123Z",
        "level": "error",
        "event": "shard_stopped",
        "shard": 3,
        "entry": "1-7",
        "message": SENTENCE,
        "process": "worker",
        "pid": 7,
    }


def test_plain_text_is_a_message() -> None:
    """What nobody has given a name."""
    found = recorded("hello\nthere")
    assert (found["event"], found["level"], found["message"]) == ("message", "info", "hello\nthere")


@pytest.mark.parametrize("told", ["h\udcff", 2**70, {"a": "\udc80"}])
def test_whatever_is_told_can_be_written(told: object) -> None:
    """A name of a file that is no UTF-8, an integer of any size."""
    line = as_json(Event("some", f"about {told}", home=told), process="up", pid=1, time_ms=0)
    assert json.loads(line)["home"] == told


def test_a_field_never_takes_the_place_of_a_records_own() -> None:
    """Whatever it is called."""
    assert recorded(Event("odd", "told", pid=99, message="no", source="s"))["pid"] == 7


def test_a_passing_fault_says_when_it_is_tried_again() -> None:
    """As a sentence and as a number."""
    event = passing(LogUnavailable("the log is away"), 40, "shard 1: ", shard=1)
    assert event == "shard 1: the log is away. Trying again in 40 ms"
    assert event.fields == {"fault": "LogUnavailable", "wait_ms": 40, "shard": 1}


def test_what_a_client_has_sent_is_not_logged() -> None:
    """People at a terminal see the row; a record says where it stands and why it is invalid."""
    said: list[str] = []
    lines = InvalidLines(said.append, 5)
    lines.begin("file.csv", 0)
    lines.add([Invalid(7, "amount", "bad_amount", "deposit,1,2,12.34567")])
    assert said == ["file.csv:7: bad_amount amount: deposit,1,2,12.34567"]
    found = recorded(said[0])
    assert "12.34567" not in json.dumps(found)
    assert (found["line"], found["reason"]) == (7, "bad_amount")


def test_a_worker_names_what_it_tells() -> None:
    """Foreign entries, gaps, and why it stops."""
    bench = ShardBench()
    bench.append_fields({b"hello": b"world"})
    bench.append(1)
    del bench.entries[bench.append(1)[0]]
    bench.append(1)
    with pytest.raises(Exception, match="missing"):
        bench.worker().run()
    events = [line for line in bench.lines if isinstance(line, Event)]
    assert [(event.name, event.level.value) for event in events] == [
        ("entry_dead_lettered", "warning"),
        ("shard_stopped", "error"),
    ]
    assert events[0].fields["entry"] == "1-0"
    assert all(event.fields["shard"] == 0 for event in events)


# --- the command line ---------------------------------------------------------------------------------------------


def run(body: Callable[[], None], *words: str) -> tuple[int, list[str]]:
    """A command that does that; its exit code, and the lines that it has told."""

    @click.group()
    def group() -> None:
        """Commands."""

    @group.command()
    @log_format_option
    def work() -> None:
        """One of them."""
        body()

    result = CliRunner().invoke(group, ["work", *words], env={"HFTPIPE_LOG_FORMAT": None})
    return result.exit_code, result.stderr.splitlines()


def test_text_is_the_default() -> None:
    """As people have always read it."""
    assert run(lambda: say(Event("named", "hello"))) == (0, ["hello"])


def test_json_on_request_and_only_for_that_command() -> None:
    """The next one in the same process speaks as it is told."""
    code, (line,) = run(lambda: say(Event("named", "hello")), "--log-format", "json")
    assert (code, json.loads(line)["event"], json.loads(line)["process"]) == (0, "named", "work")
    assert run(lambda: say("hello")) == (0, ["hello"])


def test_what_a_library_logs_is_a_record_too() -> None:
    """With its traceback as a field, not as lines."""

    def log() -> None:
        try:
            raise ValueError("odd")
        except ValueError:
            logging.getLogger("uvicorn.error").exception("Exception in ASGI application\n")

    _, (line,) = run(log, "--log-format", "json")
    found = json.loads(line)
    assert (found["event"], found["level"], found["logger"]) == ("library_log", "error", "uvicorn.error")
    assert "ValueError: odd" in found["traceback"]


def test_a_bug_is_a_record_too() -> None:
    """It ends the command as ever."""

    def fail() -> None:
        raise RuntimeError("odd")

    code, (line,) = run(fail, "--log-format", "json")
    assert code == 1
    assert (json.loads(line)["event"], json.loads(line)["error"]) == ("crashed", "RuntimeError")


def test_a_bug_in_a_thread_is_a_record_too() -> None:
    """Its name is told."""

    def fail() -> None:
        def work() -> None:
            raise RuntimeError("odd")

        thread = threading.Thread(target=work, name="shard-3")
        thread.start()
        thread.join()

    _, (line,) = run(fail, "--log-format", "json")
    assert (json.loads(line)["event"], json.loads(line)["thread"]) == ("crashed", "shard-3")
