"""Values: Python's, and what stands for them in JSON."""

from __future__ import annotations

import datetime
import math
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Union

#: What a row holds, and what a parameter may be. Arrays are lists of these; as parameters they go as text with a cast.
Value = Union[None, bool, int, float, Decimal, str, bytes, datetime.date, datetime.datetime, uuid.UUID, list["Value"]]

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


@dataclass(frozen=True)
class Column:
    """A column of an answer."""

    name: str
    #: Its SQL type: bigint, text, numeric, timestamp with time zone, bigint[], ..
    type: str
    precision: int | None = None
    scale: int | None = None


@dataclass(frozen=True)
class Verified:
    """What the rows of an answer rest on: verified by the gateway at a certified height."""

    height: int
    rows: int
    proven_sums: int
    openings: int
    bytes: int
    requests: int
    ms: float


@dataclass(frozen=True)
class Result:
    """What a statement answers."""

    columns: list[Column]
    rows: list[tuple[Value, ...]]
    #: The command tag: SELECT 2, INSERT 0 1, CREATE TABLE.
    command: str
    #: Rows that came, or were written.
    row_count: int
    #: None where nothing was read.
    verified: Verified | None
    #: Where the session stands: idle, open or failed.
    transaction: str
    notices: list[str] = field(default_factory=list)

    def one(self) -> tuple[Value, ...]:
        """The one row. ValueError where there is another number of them."""
        if len(self.rows) != 1:
            raise ValueError(f"{len(self.rows)} rows, expected one")
        return self.rows[0]

    def dicts(self) -> list[dict[str, Value]]:
        """The rows by the names of their columns."""
        names = [column.name for column in self.columns]
        return [dict(zip(names, row)) for row in self.rows]


def parameter(value: Value) -> Any:
    """A parameter as the server reads it. Text goes without a type, which the statement gives it."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return {"type": "boolean", "value": value}
    if isinstance(value, int):
        return {"type": "bigint" if INT64_MIN <= value <= INT64_MAX else "numeric", "value": str(value)}
    if isinstance(value, float):
        text = repr(value) if math.isfinite(value) else {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
        return {"type": "double precision", "value": text}
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise ValueError("a numeric is a finite number")
        return {"type": "numeric", "value": format(value, "f")}
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"type": "bytea", "value": "\\x" + bytes(value).hex()}
    if isinstance(value, datetime.datetime):
        if value.tzinfo is None:
            return {"type": "timestamp", "value": value.isoformat(sep=" ")}
        return {"type": "timestamptz", "value": value.astimezone(datetime.timezone.utc).isoformat()}
    if isinstance(value, datetime.date):
        return {"type": "date", "value": value.isoformat()}
    if isinstance(value, uuid.UUID):
        return {"type": "uuid", "value": str(value)}
    raise TypeError(f"a parameter of type {type(value).__name__} has no SQL type")


def _instant(text: Any) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text)


_READ: dict[str, Callable[[Any], Value]] = {
    "smallint": int,
    "integer": int,
    "bigint": int,
    "real": float,
    "double precision": float,
    "numeric": Decimal,
    "bytea": lambda text: bytes.fromhex(text[2:]),
    "date": datetime.date.fromisoformat,
    "timestamp": _instant,
    "timestamp with time zone": _instant,
}


def reader(type_name: str) -> Callable[[Any], Value]:
    """What turns a JSON value of a column into Python's."""
    if type_name.endswith("[]"):
        item = reader(type_name[:-2])
        return lambda values: None if values is None else [item(value) for value in values]
    read = _READ.get(type_name)
    if read is None:
        return lambda value: value
    known = read
    return lambda value: None if value is None else known(value)


def columns(described: Sequence[dict[str, Any]]) -> tuple[list[Column], Callable[[Sequence[Any]], tuple[Value, ...]]]:
    """The columns of an answer, and what reads a row of them."""
    found = [Column(c["name"], c["type"], c.get("precision"), c.get("scale")) for c in described]
    readers = [reader(column.type) for column in found]
    return found, lambda row: tuple(read(value) for read, value in zip(readers, row, strict=True))


def ending(
    said: dict[str, Any], described: list[Column], rows: list[tuple[Value, ...]]
) -> Result:
    """The result that a statement's ending makes."""
    verified = said.get("verified")
    return Result(
        columns=described,
        rows=rows,
        command=said["command"],
        row_count=said["row_count"],
        verified=Verified(**verified) if verified else None,
        transaction=said["transaction"],
        notices=[notice["message"] for notice in said["notices"]],
    )
