"""Where Prometheus may ask a process."""

from dataclasses import dataclass
from typing import Final

from hftpipe.errors import UsageError

_PORT_MAX: Final = 65_535


@dataclass(frozen=True, slots=True)
class Door:
    """Where Prometheus may ask, unprotected. port: 0 for any free one."""

    host: str
    port: int

    def moved(self, steps: int) -> "Door":
        """So many ports further. Raises UsageError when there is none."""
        if not self.port:
            return self
        if self.port + steps > _PORT_MAX:
            raise UsageError(f"--metrics {self}: {steps + 1} ports are needed from there on; begin lower")
        return Door(self.host, self.port + steps)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
