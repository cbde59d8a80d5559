#!/usr/bin/env python3
"""Asks PostgreSQL 15 what the files of gateway/tests/slt/files expect, so that it is PostgreSQL's word and not our own output.

Use     slt_oracle.py [word ..]: compares, in files whose names hold a word; slt_oracle.py --write [word ..]: fills in what PostgreSQL says.
Form    sqllogictest: `statement ok`, `statement count N`, `statement error (SQLSTATE)`, `query LETTERS [rowsort]`, `connection NAME`,
        `skipif fluence`. A query's letters are I, R and T: integers, numbers with a fraction, all else; a cell is PostgreSQL's text, NULL is
        `NULL`, a text of no characters `(empty)`.
"""

import os
import pathlib
import sys

os.environ["ORACLE"] = "postgres"

import served  # noqa: E402

served.drivers()

import psycopg  # noqa: E402

FILES = served.HERE.parents[1] / "gateway/tests/slt/files"
LETTERS = {20: "I", 21: "I", 23: "I", 700: "R", 701: "R", 1700: "R"}
DONE = (psycopg.pq.ExecStatus.COMMAND_OK, psycopg.pq.ExecStatus.TUPLES_OK, psycopg.pq.ExecStatus.EMPTY_QUERY)


def cell(value):
    return "NULL" if value is None else value.decode() or "(empty)"


class Asked:
    """What PostgreSQL says of a statement: letters and rows, how many rows it wrote, or an SQLSTATE."""

    def __init__(self, db, statement):
        said = db.pgconn.exec_(statement.encode())
        self.state = None if said.status in DONE else said.error_field(psycopg.pq.DiagnosticField.SQLSTATE).decode()
        self.count = int(said.command_tuples or 0) if self.state is None else None
        columns = range(said.nfields)
        self.letters = "".join(LETTERS.get(said.ftype(c), "T") for c in columns)
        self.rows = [[cell(said.get_value(r, c)) for c in columns] for r in range(said.ntuples)]


def answered(block, connect):
    """The lines of a record as PostgreSQL has it."""
    at = next(i for i, line in enumerate(block) if line.startswith(("statement", "query")))
    name = next((line.split()[1] for line in block[:at] if line.startswith("connection")), "")
    words = block[at].split()
    body = block[at + 1:]
    statement = "\n".join(body[:body.index("----")] if "----" in body else body)
    asked = Asked(connect(name), statement)
    head = block[:at]
    if asked.state:
        return [*head, f"{words[0]} error ({asked.state})", *statement.split("\n")]
    if words[0] == "statement":
        wanted = f"statement count {asked.count}" if words[1] == "count" else "statement ok"
        return [*head, wanted, *statement.split("\n")]
    rows = sorted(asked.rows) if "rowsort" in words else asked.rows
    form = ["query", asked.letters, *(["rowsort"] if "rowsort" in words else [])]
    return [*head, " ".join(form), *statement.split("\n"), "----", *(" ".join(row) for row in rows)]


def blocks(text):
    """Runs of lines between empty ones."""
    block = []
    for line in [*text.split("\n"), ""]:
        if line:
            block.append(line)
        elif block:
            yield block
            block = []


def asked(path, place):
    """A file as PostgreSQL has it."""
    with psycopg.connect(**place, autocommit=True) as db:
        db.execute("DROP SCHEMA public CASCADE")
        db.execute("CREATE SCHEMA public")
    connections = {}

    def connect(name):
        if name not in connections:
            connections[name] = psycopg.connect(**place, autocommit=True)
        return connections[name]

    try:
        out = []
        for block in blocks(path.read_text()):
            is_record = any(line.startswith(("statement", "query")) for line in block)
            out.append("\n".join(answered(block, connect) if is_record else block))
        return "\n\n".join(out) + "\n"
    finally:
        for db in connections.values():
            db.close()


def main():
    words = [word for word in sys.argv[1:] if word != "--write"]
    wrong = []
    with served.served() as place:
        for path in sorted(FILES.glob("*.slt")):
            if words and not any(word in path.name for word in words):
                continue
            got, there = asked(path, place), path.read_text()
            if got == there:
                print(f"ok    {path.name}: {got.count(chr(10) + 'query ')} queries, {got.count(chr(10) + 'statement ')} statements")
            elif "--write" in sys.argv:
                path.write_text(got)
                print(f"wrote {path.name}")
            else:
                wrong.append(path.name)
                pairs = zip(got.split("\n"), there.split("\n"), strict=False)
                line, (said, stands) = next((i, p) for i, p in enumerate(pairs, 1) if p[0] != p[1])
                print(f"FAIL  {path.name}:{line}: PostgreSQL says {said!r}, the file {stands!r}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
