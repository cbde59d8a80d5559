"""What goes wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class FluenceError(Exception):
    """Anything of this package: the server is not reached, an answer was cut off or is not as documented."""


class ProofRefused(FluenceError):
    """A proof file that shows nothing; the message says what is wrong with it."""


class SqlError(FluenceError):
    """A statement that failed, or a request that was refused."""

    def __init__(self, problem: Mapping[str, Any]) -> None:
        self.status: int = int(problem.get("status", 0))
        self.sqlstate: str | None = problem.get("sqlstate")
        self.detail: str = str(problem.get("detail", ""))
        self.more: str | None = problem.get("more")
        self.hint: str | None = problem.get("hint")
        self.position: int | None = problem.get("position")
        code = self.sqlstate or self.status
        super().__init__(f"{code}: {self.detail}" + (f" ({self.hint})" if self.hint else ""))


class Conflict(SqlError):
    """40001: somebody else committed first. The transaction may be run again, from its beginning."""


def of(problem: Mapping[str, Any]) -> SqlError:
    """The error of a problem (RFC 9457)."""
    return (Conflict if problem.get("sqlstate") == "40001" else SqlError)(problem)
