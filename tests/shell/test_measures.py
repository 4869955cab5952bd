"""What workers have done, as Prometheus and those who look on are told."""

import json
import re
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from importlib.resources import files
from typing import Any
from urllib.request import urlopen

import click
import pytest
import yaml
from click.testing import CliRunner
from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector

from hftpipe.cli.main import main
from hftpipe.cli.metrics import metrics_option
from hftpipe.config import METRICS_ASKERS_MAX
from hftpipe.core.entry import encode
from hftpipe.core.transaction import Batch
from hftpipe.errors import LogUnavailable, UsageError
from hftpipe.event import Event
from hftpipe.reception.metrics import Metrics
from hftpipe.status import NO_WORKER
from hftpipe.telemetry import exposition as exposition_module
from hftpipe.telemetry import publishing
from hftpipe.telemetry.door import Door
from hftpipe.telemetry.exported import InboxCollector, ShardCollector, WorkerCollector
from hftpipe.telemetry.exposition import Exposition
from hftpipe.telemetry.measures import Measures
from hftpipe.telemetry.overview import Overview, ServerView, ShardView
from hftpipe.wiring.pipeline import doors_of
from tests.shell.shard_bench import ShardBench, deposits
from tests.system.support import wait_for

VIEW = ShardView(
    shard=3,
    state="running",
    owner="vm pid 7",
    epoch=2,
    standbys=1,
    appended=12,
    applied=10,
    backlog=2,
    backlog_seconds=1.5,
    transactions=100,
    refused=5,
    skipped=1,
    gaps=0,
    dead=4,
    commit_p50_ms=12,
    commit_p99_ms=80,
    reach="1-0",
)
SEEN = Overview(
    time_ms=0,
    pipeline="p",
    shards=[VIEW],
    transactions_in=120,
    refused_by_reason={"account_locked": 5},
    invalid_by_reason={},
    inbox_waiting=9,
    server=ServerView("Valkey 9", 1_000, 2_000, 5, 60),
    hottest=[],
    problem="",
)


def sampled(*collectors: Collector) -> dict[tuple[str, str], float]:
    """Name and labels of each sample, and its value."""
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    return {
        (
            sample.name,
            ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items())),
        ): sample.value
        for family in registry.collect()
        for sample in family.samples
    }


def test_a_workers_commits_are_measured() -> None:
    """Rows by outcome and reason, and times."""
    bench = ShardBench()
    measures = Measures([0], bench.clock)
    bench.append_fields(encode("file", 0, Batch.of("DWW", [0, 0, 0], [1, 2, 3], [10, 20, 30], [1, 2, 3]), 0))
    bench.append_fields(encode("file", 0, deposits(1, 1), 0))
    bench.append_fields({b"hello": b"world"})
    bench.clock.now_ms += 250
    bench.worker(witness=measures).run()
    found = sampled(WorkerCollector(measures))
    assert found["hftpipe_worker_transactions_total", "outcome=applied,shard=0"] == 1
    assert found["hftpipe_worker_transactions_total", "outcome=refused,shard=0"] == 2
    assert found["hftpipe_worker_transactions_total", "outcome=skipped,shard=0"] == 1
    assert found["hftpipe_worker_refused_transactions_total", "reason=insufficient_funds,shard=0"] == 2
    assert found["hftpipe_worker_entries_total", "shard=0"] == 3
    assert found["hftpipe_worker_dead_entries_total", "shard=0"] == 1
    assert found["hftpipe_worker_takeovers_total", "shard=0"] == 1
    assert found["hftpipe_worker_reads_total", "shard=0"] >= 1
    assert found["hftpipe_worker_submit_to_commit_seconds_count", "shard=0"] == 4
    assert found["hftpipe_worker_commit_seconds_count", "shard=0"] == 1


def test_passing_faults_are_counted() -> None:
    """With the time until what failed is tried again."""
    bench = ShardBench()
    bench.store.failing_before = 2
    measures = Measures([0], bench.clock)
    bench.append(1)
    bench.worker(witness=measures).run()
    found = sampled(WorkerCollector(measures))
    assert found["hftpipe_worker_passing_faults_total", "shard=0"] == 2
    assert found["hftpipe_worker_retry_wait_seconds_total", "shard=0"] > 0


def test_who_looks_on_is_told_only_of_what_is_new() -> None:
    """An idle pipeline writes nothing."""
    bench = ShardBench()
    measures = Measures([0], bench.clock)
    assert measures.fresh() == {}
    bench.append(5)
    bench.worker(witness=measures).run()
    assert measures.fresh()[0]["transactions"] == 5
    bench.append(2)
    bench.worker(witness=measures).run()
    assert (
        measures.fresh()[0]["transactions"] == 7
    )  # the five were not taken: they are told again, with the others
    measures.told()
    assert measures.fresh() == {}


def test_what_could_not_be_written_is_measured_anew_and_written_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A log that is away for a second loses nobody's times."""
    monkeypatch.setattr(publishing, "PERIOD_S", 0.01)
    bench = ShardBench()
    measures = Measures([0], bench.clock)
    bench.append(5)
    bench.worker(witness=measures).run()
    written: list[Mapping[int, Mapping[str, int]]] = []
    arrived = threading.Event()

    class AwayAtFirst:
        is_away = True

        def write(self, stats: Mapping[int, Mapping[str, int]]) -> None:
            if self.is_away:
                self.is_away = False
                raise LogUnavailable("it is away")
            written.append(stats)
            arrived.set()

    with publishing.published(None, AwayAtFirst(), measures):
        assert arrived.wait(10)
    assert [stats[0]["transactions"] for stats in written] == [5]


def test_a_shards_gauges_are_what_a_look_says() -> None:
    """Seconds, not milliseconds."""
    found = sampled(ShardCollector(lambda: SEEN))
    assert found["hftpipe_shard_backlog_entries", "shard=3"] == 2
    assert found["hftpipe_shard_backlog_seconds", "shard=3"] == 1.5
    assert found["hftpipe_shard_checkpoint_sequence", "shard=3"] == 9
    assert found["hftpipe_shard_commit_p99_seconds", "shard=3"] == 0.08
    assert found["hftpipe_shard_transactions_total", "outcome=refused,shard=3"] == 5
    assert found["hftpipe_inbox_waiting_entries", ""] == 9
    assert found["hftpipe_log_up", ""] == 1


@pytest.mark.parametrize(
    ("state", "owned", "stopped"),
    [
        ("running", 1, 0),
        ("standby", 0, 0),
        (NO_WORKER, 0, 0),
        ("stopped: a gap", 0, 1),
        ("failed: killed", 0, 1),
    ],
)
def test_a_state_is_two_gauges(state: str, owned: int, stopped: int) -> None:
    """Who owns nothing may go on at any time; who is stopped may not."""
    found = sampled(ShardCollector(lambda: replace(SEEN, shards=[replace(VIEW, state=state)])))
    assert found["hftpipe_shard_owned", "shard=3"] == owned
    assert found["hftpipe_shard_stopped", "shard=3"] == stopped


def test_what_is_unknown_is_not_told() -> None:
    """A zero would be a lie."""
    unknown = replace(
        VIEW, state="unreadable: locked", applied=None, transactions=None, backlog=None, commit_p50_ms=None
    )
    found = sampled(ShardCollector(lambda: replace(SEEN, shards=[unknown], server=None)))
    assert ("hftpipe_shard_backlog_entries", "shard=3") not in found
    assert ("hftpipe_shard_commit_p50_seconds", "shard=3") not in found
    assert ("hftpipe_shard_owned", "shard=3") not in found
    assert ("hftpipe_shard_checkpoint_sequence", "shard=3") not in found
    assert ("hftpipe_shard_transactions_total", "outcome=applied,shard=3") not in found
    assert ("hftpipe_shard_stopped", "shard=3") not in found
    assert found["hftpipe_log_up", ""] == 0


# --- what comes with it ---------------------------------------------------------------------------------------------


def exported() -> set[str]:
    """Every name that Prometheus may find."""
    registry = Metrics().registry
    for collector in (
        ShardCollector(lambda: SEEN),
        WorkerCollector(Measures([0], ShardBench().clock)),
        InboxCollector(lambda: (0, 0, {})),
    ):
        registry.register(collector)
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}
    return {family.name + suffix for family in registry.collect() for suffix in suffixes[family.type]}


def shipped(name: str) -> str:
    """What `hftpipe monitoring` prints, which is the file in the package."""
    result = CliRunner().invoke(main, ["monitoring", name])
    assert result.exit_code == 0
    file = {"grafana": "grafana.json", "alerts": "alerts.yml"}[name]
    assert result.stdout == files("hftpipe.telemetry").joinpath(file).read_text(encoding="utf-8")
    return result.stdout


def unknown_names(expressions: Iterable[str]) -> set[str]:
    """Metrics in expressions that nobody exports."""
    asked = {name for text in expressions for name in re.findall(r"\bhftpipe_[a-z0-9_]+", text)}
    assert asked
    return asked - exported()


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    """Each panel has its own id and place, and the data source that the user chooses."""
    dashboard = json.loads(shipped("grafana"))
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    targets = [target for panel in panels for target in panel["targets"]]
    assert unknown_names(target["expr"] for target in targets) == set()
    assert {target["datasource"]["uid"] for target in targets} == {"${datasource}"}
    assert dashboard["templating"]["list"][0]["query"] == "prometheus"
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    places = [
        (x, y)
        for panel in dashboard["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(places)) == len(places)
    assert max(x for x, _ in places) < 24


def test_the_alerts_ask_for_metrics_that_there_are() -> None:
    """Each says what is wrong and what to do."""
    (group,) = yaml.safe_load(shipped("alerts"))["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    assert unknown_names(rule["expr"] for rule in rules) == set()
    assert all(rule.keys() <= {"alert", "expr", "for", "labels", "annotations"} for rule in rules)
    assert all(rule["labels"]["severity"] in {"critical", "warning"} for rule in rules)
    assert all(rule["annotations"].keys() == {"summary", "description"} for rule in rules)
    assert len({rule["alert"] for rule in rules}) == len(rules)


# --- where it is offered --------------------------------------------------------------------------------------------


def test_every_process_of_up_has_a_port_of_its_own() -> None:
    """Also the shards that are tried alone when their process keeps failing."""
    told = doors_of(Door("127.0.0.1", 9_100), [(0, 2), (1, 3)], 4)
    groups = [(0, 2), (1, 3), (0,), (1,), (2,), (3,)]
    assert [told(group)[1] for group in groups] == [f"127.0.0.1:{port}" for port in range(9_100, 9_106)]


def test_ports_that_do_not_reach_are_refused() -> None:
    """Before anything is started."""
    with pytest.raises(UsageError, match="begin lower"):
        doors_of(Door("127.0.0.1", 65_533), [(0, 2), (1, 3)], 4)


def test_without_metrics_no_process_offers_any() -> None:
    """Not even where the environment asks for them: two would want the same port."""
    assert doors_of(None, [(0,)], 1)((0,)) == ("--metrics", "off")


def test_a_port_that_is_taken_is_told_once_and_tried_again() -> None:
    """The pipeline is worth more than what it tells of itself."""
    told: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as holder:
        door = Door(*holder.getsockname())
        exposition = Exposition(door, [InboxCollector(lambda: (3, 2, {"bad_id": 1}))], told.append)
        exposition.tend()
        exposition.tend()
    exposition.tend()
    with urlopen(f"http://{door}/metrics") as page:
        text = page.read().decode()
    exposition.close()
    assert [event.name for event in told if isinstance(event, Event)] == ["metrics_away", "metrics_listening"]
    assert "hftpipe_validate_taken_entries_total 3.0" in text
    assert 'hftpipe_validate_invalid_entries_total{reason="bad_id"} 1.0' in text


def test_those_who_connect_and_say_nothing_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is a thread of a process that has other work: one more is sent away, until they are."""
    monkeypatch.setattr(exposition_module._Handler, "timeout", 0.2)
    told: list[Event] = []
    exposition = Exposition(Door("127.0.0.1", 0), [], told.append)
    exposition.tend()
    address = str(told[0].fields["address"])
    host, port = address.split(":")
    with ExitStack() as stack:
        silent = [
            stack.enter_context(socket.create_connection((host, int(port)), 10))
            for _ in range(METRICS_ASKERS_MAX + 1)
        ]
        assert silent[-1].recv(1) == b""
        assert silent[0].recv(1) == b""  # it was waited for, and not for ever
    wait_for(lambda: "process_" in urlopen(f"http://{address}/metrics").read().decode(), "metrics again")
    exposition.close()


def test_one_who_never_ends_his_question_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """He is not silent: eight of them would keep everybody else out."""
    monkeypatch.setattr(exposition_module, "METRICS_REQUEST_S", 0.1)
    told: list[Event] = []
    exposition = Exposition(Door("127.0.0.1", 0), [], told.append)
    exposition.tend()
    address = str(told[0].fields["address"])
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), 10) as slow:

        def is_cut_off() -> bool:
            slow.setblocking(False)
            with suppress(BlockingIOError):
                slow.send(b"G")
                return slow.recv(1) == b""
            return False

        wait_for(lambda: _holds(is_cut_off), "the end of one who drips")
    assert "process_" in urlopen(f"http://{address}/metrics").read().decode()
    exposition.close()


def _holds(condition: Callable[[], bool]) -> bool:
    """Also where the other side has gone."""
    try:
        return condition()
    except ConnectionError:
        return True


@pytest.mark.parametrize(
    ("given", "taken"), [("9100", "127.0.0.1:9100"), ("0.0.0.0:0", "0.0.0.0:0"), ("off", "off"), ("x", "")]
)
def test_a_port_alone_is_on_this_machine_only(given: str, taken: str) -> None:
    """Unless told otherwise."""

    @click.command()
    @metrics_option
    def work(door: Door | None) -> None:
        """A command."""
        click.echo(door or "off")

    result = CliRunner().invoke(work, ["--metrics", given])
    assert result.stdout.strip() == taken
