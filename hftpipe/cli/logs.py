"""--log-format: how the long-running commands write what they tell."""

import logging
import os
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import click

from hftpipe.cli.options import Command, option

LOG_FORMAT_VARIABLE: Final = "HFTPIPE_LOG_FORMAT"


def log_format_option(function: Command) -> Command:
    """--log-format, in force from the moment that it is read to the end of the command."""
    return option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        expose_value=False,
        is_eager=True,
        callback=_begin,
        help="What is told on stderr: sentences, or a JSON object for each event.",
    )(function)


def log_format() -> str:
    """The format of the running command, for processes that it starts."""
    return str(click.get_current_context().meta.get(LOG_FORMAT_VARIABLE, "text"))


def _begin(context: click.Context, _: click.Parameter, value: str) -> str:
    context.meta[LOG_FORMAT_VARIABLE] = value
    if value == "json":
        context.find_root().with_resource(_as_json(context.info_name or ""))
    return value


@contextmanager
def _as_json(process: str) -> Iterator[None]:
    """What is said, what libraries log, and what no one has caught, as one object a line."""
    from hftpipe.cli.output import spoken_as
    from hftpipe.telemetry.lines import as_json

    def render(said: str) -> str:
        return as_json(said, process=process, pid=os.getpid(), time_ms=time.time_ns() // 1_000_000)

    root, handler, hook = logging.getLogger(), _Handler(), threading.excepthook
    root.addHandler(handler)
    threading.excepthook = _say_thread_crash
    try:
        with spoken_as(render), _bugs_told():
            yield
    finally:
        root.removeHandler(handler)
        threading.excepthook = hook


@contextmanager
def _bugs_told() -> Iterator[None]:
    """An error that no command knows ends it as ever, but for its traceback: that is a field of an event."""
    try:
        yield
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except Exception as error:
        _say_crash(error, "")
        raise SystemExit(1) from error


class _Handler(logging.Handler):
    """Says what a library logs: uvicorn, asyncio."""

    def emit(self, record: logging.LogRecord) -> None:
        from hftpipe.cli.output import say
        from hftpipe.event import Event, Level

        level = Level.ERROR if record.levelno >= logging.ERROR else Level.WARNING
        fields = {"logger": record.name}
        if record.exc_info and record.exc_info[1] is not None:
            fields["traceback"] = "".join(traceback.format_exception(record.exc_info[1]))
        if record.levelno >= logging.WARNING:
            say(Event("library_log", record.getMessage(), level, **fields))


def _say_crash(error: BaseException, thread: str) -> None:
    from hftpipe.cli.output import say
    from hftpipe.event import Event, Level

    kind = type(error).__name__
    told = f"a bug ended {thread or 'the process'}: {kind}: {error}"
    trace = "".join(traceback.format_exception(error))
    say(Event("crashed", told, Level.ERROR, error=kind, thread=thread, traceback=trace))


def _say_thread_crash(told: threading.ExceptHookArgs) -> None:
    if told.exc_value is not None:
        _say_crash(told.exc_value, told.thread.name if told.thread is not None else "")
