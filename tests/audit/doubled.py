"""A task for processes of its own; apart, so that they begin fast."""

import sys

from hftpipe.audit.parallel import Progress, Tell
from hftpipe.errors import UsageError


class Doubled:
    """Twice the shard's number; of 99 it fails, with 98 its process dies."""

    def __call__(self, shard: int, tell: Tell) -> int:
        tell(Progress(shard, 1, 2, 1))
        if shard == 99:
            raise UsageError("not this one")
        if shard == 98:
            sys.exit(3)
        return shard * 2
