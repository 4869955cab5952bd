"""Clients of a real server: what they never do by themselves, whom they refuse, and what they never tell."""

import hashlib
import os
import re
import select
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from redis import exceptions

from hftpipe import embedded
from hftpipe.config import ConnectionLimits
from hftpipe.embedded import Health, ServerLimits, knock
from hftpipe.errors import HftpipeError, LogUnavailable, ServerRefused, UsageError
from hftpipe.log.connection import (
    HomeEndpoint,
    UrlEndpoint,
    check_server,
    redacted,
    settings_problems,
    translate,
    version_problem,
)
from tests.tools import needed

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


@pytest.mark.parametrize("option", ["ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile"])
def test_a_url_that_names_a_missing_file_is_refused(option: str) -> None:
    with pytest.raises(UsageError, match=f"the file of its {option} is not there"):
        UrlEndpoint(f"rediss://h?{option}=/nowhere/at/all.pem")


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
    looks = [
        ("HGETALL", "hft:topology"),
        ("CLIENT", "LIST"),
        ("EXISTS", "hft:inbox"),
        ("XLEN", "hft:inbox"),
        ("XREVRANGE", "hft:invalid", "+", "-", "COUNT", "9"),
        ("HGETALL", "{hft:3}:stats"),
    ]
    work = {
        "ingest": [
            ("XADD", stream, "1-*", "f", "v"),
            ("XRANGE", stream, "-", "+"),
            ("HSETNX", "hft:topology", "shards", "4"),
            ("HSET", "{hft:3}:sources", "a", "1"),
            ("HGETALL", "hft:topology"),
            ("XINFO", "STREAM", stream),
        ],
        "serve": [*looks, ("XADD", stream, "2-*", "f", "v"), ("XDEL", dead, "1-0")],
        "worker": [
            *looks,
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
        "validate": [
            *looks,
            ("XADD", "hft:inbox", "7-7", "f", "v"),
            ("XGROUP", "CREATE", "hft:inbox", "v", "0"),
            ("XREADGROUP", "GROUP", "v", "c", "STREAMS", "hft:inbox", ">"),
            ("SET", "hft:inbox:owner", "me", "NX", "PX", "60000"),
            ("PEXPIRE", "hft:inbox:owner", "60000"),
            ("XADD", "hft:invalid", "MAXLEN", "~", "9", "7-7", "f", "v"),
            ("XACK", "hft:inbox", "v", "7-7"),
            ("XTRIM", "hft:inbox", "MINID", "7-8"),
        ],
        "feeder": [("XADD", "hft:inbox", "*", "type", "deposit")],
        "observer": [
            ("GET", "hft:inbox:owner"),
            ("XLEN", "hft:invalid"),
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
        ("DEL", "other"),
        ("GET", "other"),
        ("KEYS", "*"),
    ]
    forbidden += [("EVAL", "return 1", "0"), ("XADD", "other", "*", "f", "v"), ("ACL", "LIST"), ("SHUTDOWN",)]
    for role, commands in work.items():
        url = f"unix://{role}:{SECRET}@{server.socket}"
        with closing(UrlEndpoint(url).connect(role)) as client:
            if role != "feeder":  # one of any language, that asks for nothing
                check_server(client, trust=False)
            for command in commands:
                run(client, *command)
            for command in forbidden:
                with pytest.raises(exceptions.NoPermissionError) as caught:
                    run(client, *command)
                assert isinstance(translate(caught.value), ServerRefused)


# --- TLS -----------------------------------------------------------------------------------------------------

CERTIFICATE_FORMS = """
[req]
distinguished_name = name
prompt = no
[name]
CN = hftpipe test
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
subjectAltName = DNS:localhost
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two authorities of the same name, `right` and `wrong`; `right` vouches for `localhost`."""
    openssl = needed("openssl")
    folder = tmp_path_factory.mktemp("certificates")
    (folder / "forms").write_text(CERTIFICATE_FORMS)
    request = "req -config forms -newkey rsa:2048 -nodes"
    for command in (
        f"{request} -x509 -extensions authority -days 2 -keyout right.key -out right.pem",
        f"{request} -x509 -extensions authority -days 2 -keyout wrong.key -out wrong.pem",
        f"{request} -keyout server.key -out server.request",
        "x509 -req -in server.request -CA right.pem -CAkey right.key -set_serial 1 -days 2 "
        "-extfile forms -extensions server -out server.pem",
    ):
        made = subprocess.run(
            [openssl, *command.split()], cwd=folder, capture_output=True, text=True, check=False
        )
        assert made.returncode == 0, made.stderr
    return folder


class TlsProxy:
    """Speaks TLS on 127.0.0.1 and passes what it hears on to a server's unix socket."""

    def __init__(self, target: Path, certificates: Path) -> None:
        self._target = target
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self.bytes_heard = 0
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._threads.append(threading.Thread(target=self._serve, args=(connection,), daemon=True))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(WAIT_S)
        # A client that does not trust us hangs up, which is an SSLError here.
        with (
            suppress(OSError),
            connection,
            self._context.wrap_socket(connection, server_side=True) as outside,
            socket.socket(socket.AF_UNIX) as inside,
        ):
            inside.connect(str(self._target))
            while True:
                readable = [outside] if outside.pending() else select.select([outside, inside], [], [])[0]
                if outside in readable:
                    if not (heard := outside.recv(65_536)):
                        return
                    self.bytes_heard += len(heard)
                    inside.sendall(heard)
                if inside in readable:
                    if not (told := inside.recv(65_536)):
                        return
                    outside.sendall(told)

    def close(self) -> None:
        """Stop listening; ends when every client has gone."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(WAIT_S)
            assert not thread.is_alive()


def test_a_server_is_reached_through_tls_if_its_authority_is_trusted(
    serve: Callable[..., Server], certificates: Path
) -> None:
    server = serve("--requirepass", SECRET)
    with closing(TlsProxy(server.socket, certificates)) as proxy:
        url = f"rediss://:{SECRET}@localhost:{proxy.port}/1?ssl_ca_certs={certificates}/right.pem"
        with closing(UrlEndpoint(url).connect("test")) as client:
            check_server(client, trust=False)
            run(client, "XADD", "stream", "1-*", "field", "v" * 100_000)
            ((_, fields),) = run(client, "XRANGE", "stream", "-", "+")
            assert fields == {b"field": b"v" * 100_000}
            assert run(client, "CLIENT LIST")[0]["db"] == "1"
    assert proxy.connections == 1


@pytest.mark.parametrize(
    ("host", "option", "reason"),
    [
        ("localhost", "?ssl_ca_certs={}/wrong.pem", "certificate verify failed"),
        ("localhost", "", "certificate verify failed"),
        ("127.0.0.1", "?ssl_ca_certs={}/right.pem", "not valid for '127.0.0.1'"),
    ],
    ids=["another authority", "no authority named", "another host"],
)
def test_a_server_that_cannot_prove_who_it_is_is_refused_and_told_nothing(
    serve: Callable[..., Server], certificates: Path, host: str, option: str, reason: str
) -> None:
    with closing(TlsProxy(serve().socket, certificates)) as proxy:
        url = f"rediss://:{SECRET}@{host}:{proxy.port}/{option.format(certificates)}"
        with pytest.raises(ServerRefused, match=reason) as caught:
            UrlEndpoint(url).connect("test")
        assert SECRET not in str(caught.value) + repr(caught.value.__cause__)
    assert proxy.connections == 1
    assert proxy.bytes_heard == 0


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
