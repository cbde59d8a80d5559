"""The client: statements, transactions, streams and uploads over HTTP.

Rule    a request has a connection of its own, so that one that is given up is cut off, and its statement stops.
Rule    a password does not go over an unencrypted connection, unless that ends on this machine or the caller says so; never in a URL.
"""

from __future__ import annotations

import base64
import http.client
import ipaddress
import json
import ssl
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import IO, Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from . import errors
from .errors import Conflict, FluenceError
from .values import Column, Result, Value, columns, ending, parameter

T = TypeVar("T")


def connect(
    url: str,
    user: str,
    password: str,
    *,
    timeout: float = 300.0,
    context: ssl.SSLContext | None = None,
    allow_plaintext: bool = False,
) -> Client:
    """A client of the server at `url` (http://127.0.0.1:8433); asks nothing yet."""
    return Client(url, user, password, timeout=timeout, context=context, allow_plaintext=allow_plaintext)


def _on_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Http:
    """Where requests go, and how."""

    def __init__(self, url: str, timeout: float, context: ssl.SSLContext | None, allow_plaintext: bool) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
            raise ValueError("a server's URL is http://HOST:PORT or https://HOST:PORT")
        if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
            raise ValueError("a server's URL holds no user, no password and nothing after the port")
        if parts.scheme == "http" and not allow_plaintext and not _on_this_machine(parts.hostname):
            raise ValueError(f"{parts.hostname} is not this machine: use https, or allow_plaintext=True")
        self._host, self._port, self._timeout = parts.hostname, parts.port, timeout
        self._context = (context or ssl.create_default_context()) if parts.scheme == "https" else None

    def send(
        self,
        method: str,
        path: str,
        authorization: str,
        body: bytes | Iterable[bytes] | IO[bytes] | None = None,
        kind: str = "application/json",
        accept: str = "application/json",
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """An answer whose status is good, and the connection it comes by."""
        connection: http.client.HTTPConnection
        if self._context is None:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
        else:
            connection = http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout, context=self._context)
        headers = {"Authorization": authorization, "Accept": accept, "Connection": "close"}
        if body is not None:
            headers["Content-Type"] = kind
        try:
            whole = isinstance(body, bytes) or body is None
            try:
                connection.request(method, path, body, headers, encode_chunked=not whole)
            except (BrokenPipeError, ConnectionResetError):
                pass  # The server said why before it had taken all.
            response = connection.getresponse()
            if response.status >= 400:
                raise _problem(response)
            return connection, response
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise FluenceError(f"{method} {path}: {error}") from error
        except BaseException:
            connection.close()
            raise

    def ask(self, method: str, path: str, authorization: str, **more: Any) -> Any:
        """A JSON answer; None where it has no body."""
        connection, response = self.send(method, path, authorization, **more)
        try:
            text = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise FluenceError(f"{method} {path}: the answer was cut off: {error}") from error
        finally:
            connection.close()
        return json.loads(text) if text else None


def _problem(response: http.client.HTTPResponse) -> FluenceError:
    text = response.read(1 << 20)
    try:
        problem = json.loads(text)
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        problem = {"status": response.status, "detail": response.reason}
    return errors.of(problem)


class _Statements:
    """Statements, alone or in a session."""

    def __init__(self, http_: _Http, authorization: str, prefix: str) -> None:
        self._http, self._authorization, self._prefix = http_, authorization, prefix

    def query(self, sql: str, params: Sequence[Value] = ()) -> Result:
        """Runs one statement; `$1`, `$2`, .. stand for the parameters."""
        answer = self._http.ask("POST", f"{self._prefix}/query", self._authorization, body=_statement(sql, params))
        described, read = columns(answer["columns"])
        return ending(answer, described, [read(row) for row in answer["rows"]])

    def stream(self, sql: str, params: Sequence[Value] = ()) -> Stream:
        """Runs one statement and gives its rows as they come. Close the stream, or read it to its end."""
        connection, response = self._http.send(
            "POST", f"{self._prefix}/query", self._authorization, _statement(sql, params), accept="application/x-ndjson"
        )
        return Stream(connection, response)

    def copy(
        self,
        table: str,
        rows: bytes | Iterable[bytes] | IO[bytes],
        *,
        columns: Sequence[str] = (),
        header: bool = False,
        delimiter: str | None = None,
        null: str | None = None,
    ) -> Result:
        """Adds the rows of a CSV, piece by piece: all, or none where an error is raised."""
        words = {"header": "true"} if header else {}
        words |= {"columns": ",".join(columns)} if columns else {}
        words |= {"delimiter": delimiter} if delimiter is not None else {}
        words |= {"null": null} if null is not None else {}
        path = f"{self._prefix}/copy/{quote(table, safe='')}" + (f"?{urlencode(words)}" if words else "")
        return ending(self._http.ask("POST", path, self._authorization, body=rows, kind="text/csv"), [], [])


def _statement(sql: str, params: Sequence[Value]) -> bytes:
    return json.dumps({"sql": sql, "params": [parameter(value) for value in params]}).encode()


class Client(_Statements):
    """A database. Each statement is its own transaction, unless it is one of a `transaction`."""

    def __init__(
        self,
        url: str,
        user: str,
        password: str,
        *,
        timeout: float = 300.0,
        context: ssl.SSLContext | None = None,
        allow_plaintext: bool = False,
    ) -> None:
        if ":" in user:
            raise ValueError("a user's name has no colon")
        basic = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        super().__init__(_Http(url, timeout, context, allow_plaintext), basic, "/v1")

    def __repr__(self) -> str:
        return "Client(..)"

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def transaction(self) -> Transaction:
        """A transaction, to be used with `with`: committed at its end, rolled back where an exception leaves it."""
        return Transaction(self._http, self._authorization)

    def run(self, work: Callable[[Transaction], T], attempts: int = 8) -> T:
        """Does `work` in a transaction, again where somebody else committed first."""
        for left in reversed(range(attempts)):
            try:
                with self.transaction() as transaction:
                    return work(transaction)
            except Conflict:
                if left == 0:
                    raise
        raise ValueError("attempts is 1 or more")

    def tables(self) -> list[str]:
        """Names of tables and views."""
        return [table["name"] for table in self._http.ask("GET", "/v1/tables", self._authorization)["tables"]]

    def table(self, name: str) -> dict[str, Any]:
        """Columns, keys, indexes and rows of a table, as the server describes them."""
        described: dict[str, Any] = self._http.ask("GET", f"/v1/tables/{quote(name, safe='')}", self._authorization)
        return described


class Transaction(_Statements):
    """Statements that happen together, in a session of the server."""

    def __init__(self, http_: _Http, basic: str) -> None:
        super().__init__(http_, "", "")
        self._basic = basic

    def __enter__(self) -> Transaction:
        session = self._http.ask("POST", "/v1/sessions", self._basic)
        self._authorization, self._prefix = "Bearer " + session["token"], "/v1/sessions/" + session["id"]
        try:
            self.query("BEGIN")
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                said = self.query("COMMIT")
                if said.command != "COMMIT":
                    failed = {"status": 409, "sqlstate": "25P02", "detail": "a statement had failed: nothing was committed"}
                    raise errors.of(failed)
        finally:
            self._close()

    def _close(self) -> None:
        try:
            self._http.ask("DELETE", self._prefix, self._authorization)
        except FluenceError:
            pass  # It ends by itself when it is idle.


class Stream(Iterator[tuple[Value, ...]]):
    """Rows as they come. `result` is there once they have ended; a stream that was cut off raises."""

    def __init__(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> None:
        self._connection, self._response = connection, response
        #: How the statement ended; None while rows may come.
        self.result: Result | None = None
        try:
            head = self._line()
            self.columns: list[Column]
            self.columns, self._read = columns(head["columns"])
        except BaseException:
            self.close()
            raise

    def _line(self) -> Any:
        try:
            line = self._response.readline()
        except (OSError, http.client.HTTPException) as error:
            raise FluenceError(f"the answer was cut off: {error}") from error
        if not line.endswith(b"\n"):
            raise FluenceError("the answer was cut off")
        return json.loads(line)

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> tuple[Value, ...]:
        if self.result is not None or self._response.closed:
            raise StopIteration
        try:
            line = self._line()
            if isinstance(line, list):
                return self._read(line)
            if "error" in line:
                raise errors.of(line["error"])
            self.result = ending(line, self.columns, [])
        except BaseException:
            self.close()
            raise
        self.close()
        raise StopIteration

    def close(self) -> None:
        """Gives up the rest; the statement stops."""
        self._response.close()
        self._connection.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
