"""Another pipeline, that recorded entries are appended to."""

from collections.abc import Iterator, Set
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from hftpipe.errors import PipelineMismatch, UsageError
from hftpipe.log.connection import translated
from hftpipe.log.redis import read_topology
from hftpipe.wiring.pipeline import Pipeline, Place, open_pipeline


@contextmanager
def open_target(source: Place, into: str, shards: int, pipelines: Set[str]) -> Iterator[Pipeline]:
    """A new pipeline of as many shards, or one that was begun before.

    into: the folder of its home, or the URL of its server, where it has the source's prefix.
    pipelines: ids of what is appended.
    Raises UsageError when it is the source itself, PipelineMismatch when it has another number of shards; others as
    `open_pipeline`.
    """
    with TemporaryDirectory(prefix="hftpipe-") as folder:
        # A server alone has no home here; its workers have theirs.
        home = Path(folder) if "://" in into else Path(into).absolute()
        target = replace(source, home=home, redis_url=into if "://" in into else "", is_default=False)
        if "://" not in into and home.resolve() == source.home.resolve():
            raise UsageError(f"{into} is what is replayed. Name another home for --into")
        with open_pipeline(target, None if _has_begun(target) else shards) as pipeline:
            topology = pipeline.topology
            if topology.pipeline in pipelines:
                raise UsageError(
                    f"{target.endpoint()} holds the pipeline that is replayed. Name another for --into"
                )
            if topology.shards != shards:
                raise PipelineMismatch(
                    f"{target.endpoint()} holds a pipeline of {topology.shards} shards, and what is replayed has "
                    f"{shards}: an account's shard depends on their number. Name an empty home or server for --into"
                )
            yield pipeline


def _has_begun(place: Place) -> bool:
    with closing(place.connector("setup")()) as client, translated(place.endpoint()):
        return read_topology(client, place.keys) is not None
