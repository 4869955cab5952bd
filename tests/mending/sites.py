"""Pipelines with homes of their own on one real server; commands run in this process, but for those that are killed."""

import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import redis
from click.testing import CliRunner

from hftpipe.cli.main import main
from hftpipe.config import WorkerLimits
from hftpipe.core.snapshot import Snapshot
from hftpipe.invariants import violations
from hftpipe.store.reading import ShardSummary, snapshot, store_paths, summarise
from hftpipe.wiring.pipeline import Place, open_pipeline
from tests.system.support import Finished, Running


@dataclass
class Site:
    """A home, and the server that it is on. client: of that server, which holds nothing else."""

    folder: Path
    url: str
    client: "redis.Redis"
    started: list[Running] = field(default_factory=list)

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def run(self, *words: object, code: int = 0) -> Finished:
        """Runs a command; it must end with that code, and never with a traceback."""
        done = CliRunner().invoke(main, list(map(str, words)), env=self._variables())
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == code, f"{words}: {done.output}"
        return Finished(done.exit_code, done.stdout, done.stderr)

    def start(
        self, *words: object, stdin: "IO[bytes] | int" = subprocess.DEVNULL, fault: str = ""
    ) -> Running:
        """Starts a process, which is killed, at the latest, when the test is over."""
        said = self.folder / f"said-{len(self.started)}.txt"
        with said.open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "hftpipe", *map(str, words)],
                stdin=stdin,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env=os.environ | self._variables() | {"HFTPIPE_FAULT": fault},
                cwd=self.folder,
            )
        self.started.append(Running(process, said))
        return self.started[-1]

    def work(self, code: int = 0) -> str:
        """Applies all that was appended, and must end with that code; returns what was said."""
        said: list[str] = []
        with open_pipeline(Place(self.home, self.url)) as pipeline:
            crew = pipeline.crew(
                range(pipeline.topology.shards),
                stop=threading.Event(),
                report=said.append,
                reach=lambda _: None,
                limits=WorkerLimits(),
                until_idle=True,
            )
            assert crew.run() == code, said
        return "\n".join(said)

    def summaries(self) -> dict[int, ShardSummary]:
        return {summary.shard: summary for summary in map(summarise, store_paths(self.home))}

    def applied(self) -> int:
        """Rows of shard 0 that took effect."""
        return self.summaries()[0].checkpoint.totals.applied

    def check(self, *, log: bool = True) -> list[Snapshot]:
        """All shards, after each was found to hold every invariant; shard 0 is verified, too, with its log."""
        shards = [snapshot(path) for path in store_paths(self.home)]
        assert not [line for shard in shards for line in violations(shard)]
        told = self.run("verify", "--shard", 0, *([] if log else ["--no-log"]))
        assert not told.code, told
        return shards

    def close(self) -> None:
        """Kills what was started."""
        for running in self.started:
            running.kill()

    def _variables(self) -> dict[str, str]:
        return {"HFTPIPE_HOME": str(self.home), "HFTPIPE_REDIS_URL": self.url}
