"""Clients of a real server: what they never do by themselves, whom they refuse, and what they never tell."""

import hashlib
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis
from redis import exceptions

from hftpipe import embedded
from hftpipe.embedded import Health, ServerLimits, knock
from hftpipe.errors import HftpipeError, LogUnavailable, ServerRefused, UsageError
from hftpipe.log.connection import (
    ConnectionLimits,
    HomeEndpoint,
    UrlEndpoint,
    check_server,
    redacted,
    settings_problems,
    translate,
    version_problem,
)

WAIT_S = 20.0
SECRET = "correct-horse"  # noqa: S105  (of the tests' own servers)


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for: {what}"
        time.sleep(0.005)


def run(commands: redis.Redis, *words: str) -> Any:
    """One command as it is written, on a client or into a pipeline."""
    return commands.execute_command(*words)  # type: ignore[no-untyped-call]  # redis-py leaves it so


class Server:
    """A server with our redis.conf and other settings over it."""

    def __init__(self, folder: Path, settings: tuple[str, ...], program: Path) -> None:
        folder.mkdir()
        self.socket = folder / "s"
        self.url = f"unix://{self.socket}"
        words = ["--dir", str(folder), "--unixsocket", str(self.socket), "--port", "0", *settings]
        command = [str(program), str(embedded.server_configuration()), *words]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_for(lambda: knock(self.socket).health is Health.READY, "a server")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(*settings: str, program: Path | None = None) -> Server:
        folder = tmp_path / str(len(servers))
        servers.append(Server(folder, settings, program or embedded.server_binary()))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


# --- Connecting ----------------------------------------------------------------------------------------------


def test_a_home_is_started_and_its_client_is_greeted_by_name(tmp_path: Path) -> None:
    home = tmp_path / "home"
    endpoint = HomeEndpoint(home, server_limits=ServerLimits(linger_ms=0))
    with closing(endpoint.connect("hftpipe-test")) as client:
        assert client.client_getname() == "hftpipe-test"
        check_server(client, trust=False)
    assert embedded.wait_until_stopped(home, wait_ms=10_000)


def test_a_home_without_a_server_is_left_so_on_request(tmp_path: Path) -> None:
    with pytest.raises(LogUnavailable, match="no server runs"):
        HomeEndpoint(tmp_path / "home", start=False).connect("status")
    assert not (tmp_path / "home").exists()


def test_replies_are_bytes_in_the_shapes_of_the_old_protocol(serve: Callable[..., Server]) -> None:
    with closing(UrlEndpoint(serve().url).connect("test")) as client:
        run(client, "XADD", "stream", "1-*", "field", "value")
        reply = run(client, "XREAD", "STREAMS", "stream", "0")
        assert reply == [[b"stream", [(b"1-0", {b"field": b"value"})]]]
        assert run(client, "CLIENT LIST")[0]["resp"] == "2"


def test_commands_and_pipelines_share_one_connection(serve: Callable[..., Server]) -> None:
    with closing(UrlEndpoint(serve().url).connect("test")) as client:
        with client.pipeline(transaction=False) as pipeline:
            pipeline.set("key", 1)
            pipeline.client_id()
            assert pipeline.execute() == [True, client.client_id()]
        assert len(client.client_list()) == 1


def test_a_client_whose_server_restarted_stays_broken(tmp_path: Path) -> None:
    home = tmp_path / "home"
    endpoint = HomeEndpoint(home, server_limits=ServerLimits(linger_ms=500))
    with closing(endpoint.connect("test")) as client:
        pid = client.info("server")["process_id"]
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: embedded.is_running(home), "the server again")
        for _ in range(3):
            with pytest.raises(exceptions.ConnectionError) as caught:
                client.ping()
            assert isinstance(translate(caught.value), LogUnavailable)
            with client.pipeline(transaction=False) as pipeline:
                pipeline.ping()
                with pytest.raises(exceptions.ConnectionError):
                    pipeline.execute()
        with closing(endpoint.connect("again")) as again:
            assert again.ping()
    assert embedded.wait_until_stopped(home, wait_ms=10_000)


class SilentAfterGreeting:
    """A server that greets, then takes every command and never answers; it counts connections and XADDs."""

    def __init__(self, path: Path) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.connections = 0
        self.commands: list[bytes] = []
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            with connection:
                while received := connection.recv(65_536):
                    self.commands.append(received)
                    if b"XADD" not in received:
                        connection.sendall(b"+PONG\r\n" if b"PING" in received else b"+OK\r\n")

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(WAIT_S)


def append_alone(client: redis.Redis) -> None:
    run(client, "XADD", "s", "1-*", "f", "v")


def append_in_a_pipeline(client: redis.Redis) -> None:
    with client.pipeline(transaction=False) as pipeline:
        run(pipeline, "XADD", "s", "1-*", "f", "v")
        pipeline.execute()


@pytest.mark.parametrize("append", [append_alone, append_in_a_pipeline])
def test_a_command_that_timed_out_is_not_sent_again(
    tmp_path: Path, append: Callable[[redis.Redis], None]
) -> None:
    path = tmp_path / "s"
    with closing(SilentAfterGreeting(path)) as server:
        endpoint = UrlEndpoint(f"unix://{path}", ConnectionLimits(reply_ms=200))
        with closing(endpoint.connect("test", wait_ms=50)) as client:
            begun = time.monotonic()
            with pytest.raises(exceptions.TimeoutError) as caught:
                append(client)
            assert time.monotonic() - begun >= 0.25
            assert isinstance(translate(caught.value), LogUnavailable)
        assert server.connections == 1
        assert sum(received.count(b"XADD") for received in server.commands) == 1


def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(LogUnavailable, match="nothing"):
        UrlEndpoint(f"unix://{tmp_path}/nothing").connect("test")


# --- Who is let in -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["redis://user:{}@h/x", "redis://:{}/@h", "http://u:{}@h", "redis://:12#{}@h"]
)
@pytest.mark.parametrize("form", ["{}?retry_on_timeout=1", "{}", "{}?db=1&protocol=3&password=" + SECRET])
def test_a_url_that_cannot_be_used_is_refused_without_its_secret(url: str, form: str) -> None:
    with pytest.raises(UsageError, match="cannot be used") as caught:
        UrlEndpoint(form.format(url.format(SECRET)))
    assert SECRET not in "".join(map(repr, (caught.value, caught.value.__cause__, caught.value.__context__)))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h", "redis://h"),
        (f"redis://user:{SECRET}@h:1234/5", "redis://user:***@h:1234/5"),
        (f"rediss://:{SECRET}@[::1]:1/0", "rediss://:***@[::1]:1/0"),
        (f"unix://user:{SECRET}@/run/s?db=2", "unix://user:***@/run/s"),
        (f"unix:///run/s?password={SECRET}", "unix:///run/s"),
    ],
)
def test_a_url_is_shown_without_its_secret(url: str, shown: str) -> None:
    endpoint = UrlEndpoint(url)
    assert redacted(url) == shown
    assert shown in str(endpoint)
    assert SECRET not in repr(endpoint) + str(endpoint)


def test_a_wrong_password_is_refused_without_showing_it(serve: Callable[..., Server]) -> None:
    server = serve("--requirepass", "another")
    for user in ("", "default", "nobody"):
        with pytest.raises(ServerRefused, match="password") as caught:
            UrlEndpoint(f"unix://{user}:{SECRET}@{server.socket}").connect("test")
        assert SECRET not in str(caught.value) + repr(caught.value.__cause__)
    with pytest.raises(ServerRefused, match="NOAUTH"):
        UrlEndpoint(server.url).connect("test")
    with closing(UrlEndpoint(f"unix://:another@{server.socket}").connect("test")) as client:
        assert "another" not in repr(client)


PROGRAMS = {"valkey": embedded.server_binary, "redis": lambda: Path("/usr/bin/redis-server")}


@pytest.fixture(params=PROGRAMS)
def program(request: pytest.FixtureRequest) -> Path:
    found = PROGRAMS[request.param]()
    if not found.exists():
        pytest.skip(f"{found} is not installed")
    return found


def users_shown() -> str:
    """The users in the comments of redis.conf, with a password."""
    text = embedded.server_configuration().read_text()
    digest = hashlib.sha256(SECRET.encode()).hexdigest()
    lines = [line[2:] for line in text.splitlines() if line.startswith("# user ")]
    return "\n".join(re.sub("#0{64}", f"#{digest}", line) for line in lines) + "\n"


def test_each_role_shown_in_the_configuration_can_do_its_work_and_no_more(
    serve: Callable[..., Server], program: Path, tmp_path: Path
) -> None:
    users = tmp_path / "users.acl"
    users.write_text(users_shown())
    server = serve("--aclfile", str(users), program=program)
    with pytest.raises(ServerRefused):
        UrlEndpoint(server.url).connect("nobody")
    stream, dead = "{hft:3}:log", "{hft:3}:dead"
    work = {
        "ingest": [
            ("XADD", stream, "1-*", "f", "v"),
            ("XRANGE", stream, "-", "+"),
            ("HSETNX", "hft:topology", "shards", "4"),
            ("HSET", "{hft:3}:sources", "a", "1"),
            ("HGETALL", "hft:topology"),
            ("XINFO", "STREAM", stream),
        ],
        "worker": [
            ("XGROUP", "CREATE", stream, "g", "0"),
            ("XREADGROUP", "GROUP", "g", "c", "STREAMS", stream, ">"),
            ("XAUTOCLAIM", stream, "g", "c", "0", "0"),
            ("XACK", stream, "g", "1-0"),
            ("XADD", dead, "*", "f", "v"),
            ("XINFO", "CONSUMERS", stream, "g"),
            ("XINFO", "GROUPS", stream),
            ("XGROUP", "SETID", stream, "g", "1-0"),
            ("XGROUP", "DELCONSUMER", stream, "g", "c"),
            ("XTRIM", stream, "MINID", "1-0"),
        ],
        "observer": [
            ("XLEN", stream),
            ("XINFO", "STREAM", stream),
            ("XPENDING", stream, "g"),
            ("CLIENT", "LIST"),
            ("HGETALL", "hft:topology"),
        ],
    }
    forbidden = [
        ("FLUSHALL",),
        ("CONFIG", "SET", "appendonly", "no"),
        ("DEL", stream),
        ("GET", "other"),
        ("KEYS", "*"),
    ]
    forbidden += [("EVAL", "return 1", "0"), ("XADD", "other", "*", "f", "v"), ("ACL", "LIST"), ("SHUTDOWN",)]
    for role, commands in work.items():
        url = f"unix://{role}:{SECRET}@{server.socket}"
        with closing(UrlEndpoint(url).connect(role)) as client:
            check_server(client, trust=False)
            for command in commands:
                run(client, *command)
            for command in forbidden:
                with pytest.raises(exceptions.NoPermissionError) as caught:
                    run(client, *command)
                assert isinstance(translate(caught.value), ServerRefused)


# --- What the server must be ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "value", "right"),
    [
        ("appendfsync", "everysec", "always"),
        ("appendonly", "no", "yes"),
        ("maxmemory-policy", "allkeys-lru", "noeviction"),
        ("no-appendfsync-on-rewrite", "yes", "no"),
    ],
)
def test_a_setting_that_may_lose_transactions_is_refused_by_name(
    serve: Callable[..., Server], setting: str, value: str, right: str
) -> None:
    with closing(UrlEndpoint(serve(f"--{setting}", value).url).connect("test")) as client:
        with pytest.raises(ServerRefused) as caught:
            check_server(client, trust=False)
        assert f"{setting} is {value}, must be {right}: CONFIG SET {setting} {right}" in str(caught.value)
        assert "--trust-server" in str(caught.value)
        check_server(client, trust=True)
        client.config_set(setting, right)
        check_server(client, trust=False)


def test_every_wrong_setting_is_named_at_once() -> None:
    assert len(settings_problems({"appendonly": "no", "appendfsync": "everysec"})) == 4


@pytest.mark.parametrize(("permission", "command"), [("-config|get", "CONFIG GET"), ("-info", "INFO")])
def test_a_server_that_does_not_tell_can_only_be_trusted(
    serve: Callable[..., Server], permission: str, command: str
) -> None:
    server = serve()
    with closing(UrlEndpoint(server.url).connect("test")) as client:
        run(client, "ACL", "SETUSER", "mute", "on", "nopass", "~*", "+@all", permission)
    with closing(UrlEndpoint(f"unix://mute:any@{server.socket}").connect("test")) as client:
        with pytest.raises(ServerRefused, match=f"(?s){command}.*--trust-server"):
            check_server(client, trust=False)
        check_server(client, trust=True)


def test_a_server_with_our_configuration_is_accepted(serve: Callable[..., Server], program: Path) -> None:
    with closing(UrlEndpoint(serve(program=program).url).connect("test")) as client:
        check_server(client, trust=False)


@pytest.mark.parametrize(
    ("section", "is_enough"),
    [
        ({"redis_version": "7.0.0"}, True),
        ({"redis_version": "6.2.14"}, False),
        ({"redis_version": "10.0"}, True),
        ({"redis_version": 7.0}, True),
        ({"redis_version": "7.2.4", "valkey_version": "9.1.2", "server_name": "valkey"}, True),
        ({"redis_version": "7.2.4", "valkey_version": "7.2.0-rc1"}, True),
        ({"redis_version": "7.2.4", "valkey_version": "7.1.9"}, False),
        ({}, True),
    ],
)
def test_the_version_floor(section: dict[str, object], is_enough: bool) -> None:
    assert (version_problem(section) is None) == is_enough


# --- Errors --------------------------------------------------------------------------------------------------


def test_a_full_server_is_unavailable_and_can_be_used_again(serve: Callable[..., Server]) -> None:
    with closing(UrlEndpoint(serve().url).connect("test")) as client:
        client.config_set("maxmemory", 1)
        with pytest.raises(exceptions.ResponseError) as caught:
            run(client, "XADD", "s", "1-*", "f", "v")
        error = translate(caught.value)
        assert isinstance(error, LogUnavailable)
        assert "OOM" in str(error)
        client.config_set("maxmemory", 0)
        assert run(client, "XADD", "s", "1-*", "f", "v") == b"1-0"


def test_a_server_with_too_many_clients_is_unavailable(serve: Callable[..., Server]) -> None:
    endpoint = UrlEndpoint(serve("--maxclients", "1").url)
    with closing(endpoint.connect("first")), pytest.raises(LogUnavailable):
        endpoint.connect("second")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (exceptions.BusyLoadingError("loading", status_code="LOADING"), LogUnavailable),
        (exceptions.ReadOnlyError("read only", status_code="READONLY"), LogUnavailable),
        (exceptions.ResponseError("MISCONF no disk"), LogUnavailable),
        (exceptions.ClusterDownError("down", status_code="CLUSTERDOWN"), LogUnavailable),
        (exceptions.TryAgainError("again", status_code="TRYAGAIN"), LogUnavailable),
        (exceptions.ResponseError("NOREPLICAS Not enough good replicas to write."), LogUnavailable),
        (exceptions.ResponseError("DENIED Redis is running in protected mode"), ServerRefused),
        (exceptions.ResponseError("WRONGTYPE Operation against a key"), HftpipeError),
        (exceptions.ResponseError("ERR unknown command"), HftpipeError),
        (exceptions.InvalidResponse("not a server of this kind"), HftpipeError),
        (exceptions.MaxConnectionsError("too many"), HftpipeError),
    ],
)
def test_an_error_of_the_server_becomes_one_of_ours(
    error: exceptions.RedisError, kind: type[HftpipeError]
) -> None:
    translated = translate(error, "the server at redis://h")
    assert type(translated) is kind
    assert str(translated).startswith("the server at redis://h: ")
