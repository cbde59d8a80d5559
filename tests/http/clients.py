#!/usr/bin/env python3
"""The clients against a served cluster: Python here, TypeScript by clients.mjs; and proof files, whole and spoilt, by both.

Does    type-checks both clients, serves a fresh cluster of four over HTTP, and runs the checks of this file and of clients.mjs there.
Needs   $FLUENCE, the binary with `--features sql`; node, and the packages that clients/typescript pins (scripts/bootstrap.sh node).
Place   tests/vectors/proof_file.json has a proof file, its key file, and how each may be spoilt. Proofs of a demo, where there are any in
        target/demo, are checked too.
"""

import copy
import datetime
import json
import os
import pathlib
import subprocess
import sys
import threading
import uuid
from decimal import Decimal

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/sql"), str(ROOT / "clients/python/src")]
import served  # noqa: E402

PACKAGES = served.drivers(pathlib.Path(__file__).parent / "requirements.txt")
import fluence_db  # noqa: E402

TYPESCRIPT = ROOT / "clients/typescript"


def refused(work, error, **like):
    """Whether `work` raises the error, with such attributes."""
    try:
        work()
    except error as found:
        assert all(getattr(found, name) == value for name, value in like.items()), (found, like)
        return found
    raise AssertionError(f"{error.__name__} expected")


def statements(db):
    made = db.query("CREATE TABLE patients (id bigint PRIMARY KEY, name text NOT NULL, weight numeric(5,1))")
    assert (made.command, made.rows, made.verified) == ("CREATE TABLE", [], None), made
    wrote = db.query("INSERT INTO patients VALUES ($1, $2, $3), (2, 'Grace', NULL)", [1, "Ada", Decimal("61.5")])
    assert wrote.row_count == 2, wrote
    read = db.query("SELECT id, name, weight FROM patients ORDER BY id")
    assert read.rows == [(1, "Ada", Decimal("61.5")), (2, "Grace", None)], read
    assert [column.type for column in read.columns] == ["bigint", "text", "numeric"], read
    assert read.verified and read.verified.height > 0 and read.verified.rows >= 2, read
    assert db.query("SELECT count(*) FROM patients WHERE name = $1", ["Ada"]).one() == (1,)
    assert db.query("SELECT 1 AS a").dicts() == [{"a": 1}]
    assert "patients" in db.tables()
    assert db.table("patients")["primary_key"] == ["id"] and db.table("patients")["rows"] == 2
    assert "Client(..)" == repr(db)


def values(db):
    db.query("CREATE TABLE v (id bigint PRIMARY KEY, n numeric(20,4), f double precision, b boolean, d date, z timestamptz, y bytea, s text)")
    moment = datetime.datetime(2013, 5, 1, 12, 0, 0, 123456, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))
    row = (2**63 - 1, Decimal("12345678901234.5678"), 0.1, True, datetime.date(2013, 5, 1), moment, b"\0\xff", 'é"\n\\')
    db.query("INSERT INTO v VALUES ($1, $2, $3, $4, $5, $6, $7, $8)", row)
    db.query("INSERT INTO v VALUES ($1, $2, $3, $4, $5, $6, $7, $8)", [-(2**63), *[None] * 7])
    assert db.query("SELECT * FROM v ORDER BY id DESC").rows == [row, (-(2**63), *[None] * 7)]
    unique = uuid.UUID(int=7)
    told = db.query("SELECT $1 a, $2 b, $3 c, $4 d, $5 e", [float("inf"), datetime.datetime(2013, 5, 1, 12), unique, 10**20, "x"])
    assert told.one() == (float("inf"), datetime.datetime(2013, 5, 1, 12), str(unique), Decimal(10**20), "x"), told
    refused(lambda: db.query("SELECT $1", [object()]), TypeError)


def errors(db):
    found = refused(lambda: db.query("SELECT (", []), fluence_db.SqlError, sqlstate="42601", status=400)
    assert found.position, found
    refused(lambda: db.query("INSERT INTO patients VALUES (1, 'again', NULL)"), fluence_db.SqlError, sqlstate="23505", status=409)
    refused(lambda: db.query("SELECT * FROM patients WHERE id = $1", ["x"]), fluence_db.SqlError, sqlstate="22P02")
    refused(lambda: db.table("nosuch"), fluence_db.SqlError, sqlstate="42P01", status=404)


def doors(db, place):
    wrong = fluence_db.connect(place["http"], "fluence", place["password"] + "x")
    refused(lambda: wrong.query("SELECT 1"), fluence_db.SqlError, sqlstate="28P01", status=401)
    for url in ("ftp://x", "http://user:secret@127.0.0.1:1", "http://127.0.0.1:1/path", "http://db.example:1", "127.0.0.1:1"):
        error = refused(lambda: fluence_db.connect(url, "fluence", "secret"), ValueError)
        assert "secret" not in str(error)
    nobody = fluence_db.connect("http://127.0.0.1:9", "fluence", "secret")
    error = refused(lambda: nobody.query("SELECT 1"), fluence_db.FluenceError)
    assert "secret" not in str(error)


def streams(db):
    with db.stream("SELECT value, 'x' FROM generate_series(1, 50000)") as rows:
        assert [column.name for column in rows.columns][:1] == ["value"]
        assert sum(row[0] for row in rows) == 50000 * 50001 // 2
        assert rows.result is not None and rows.result.row_count == 50000
    # One that is given up: the server goes on.
    with db.stream("SELECT value FROM generate_series(1, 1000000000000)") as rows:
        assert next(rows) == (1,)
    assert db.query("SELECT 1").one() == (1,)
    late = db.stream("SELECT 1 / (value - 3000000) FROM generate_series(1, 4000000)")
    refused(lambda: list(late), fluence_db.SqlError, sqlstate="22012")


def transactions(db):
    with db.transaction() as tx:
        tx.query("INSERT INTO patients VALUES (3, 'Mary', 50)")
        assert tx.query("SELECT count(*) FROM patients").one() == (3,)
        assert db.query("SELECT count(*) FROM patients").one() == (2,)
    assert db.query("SELECT count(*) FROM patients").one() == (3,)

    def broken():
        with db.transaction() as tx:
            tx.query("INSERT INTO patients VALUES (4, 'x', 1)")
            raise KeyError("given up")

    def failed():
        with db.transaction() as tx:
            tx.query("INSERT INTO patients VALUES (4, 'x', 1)")
            refused(lambda: tx.query("SELECT nosuch"), fluence_db.SqlError, sqlstate="42703")

    refused(broken, KeyError)
    refused(failed, fluence_db.SqlError, sqlstate="25P02")
    assert db.query("SELECT count(*) FROM patients").one() == (3,)

    # Two at once: the second is told, and `run` does it again.
    def conflict():
        with db.transaction() as tx:
            tx.query("UPDATE patients SET weight = weight + 1 WHERE id = 1")
            db.query("UPDATE patients SET weight = weight + 1 WHERE id = 1")

    refused(conflict, fluence_db.Conflict, status=409)
    threads = []
    add = lambda tx: tx.query("UPDATE patients SET weight = weight + 1 WHERE id = 1")  # noqa: E731
    for _ in range(3):
        threads.append(threading.Thread(target=lambda: db.run(add, attempts=50)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    assert db.query("SELECT weight FROM patients WHERE id = 1").one() == (Decimal("65.5"),)


def uploads(db):
    db.query("CREATE TABLE c (id bigint PRIMARY KEY, v text)")
    assert db.copy("c", b"id;v\n1;a\n2;-\n", header=True, delimiter=";", null="-").row_count == 2
    pieces = (f"{n},x\n".encode() for n in range(10, 2010))
    assert db.copy("c", pieces, columns=["id", "v"]).command == "COPY 2000"
    assert db.query("SELECT count(*), count(v) FROM c").one() == (2002, 2001)
    refused(lambda: db.copy("c", (piece for piece in [b"5000,x\n", b"1,y\n"])), fluence_db.SqlError, sqlstate="23505")
    assert db.query("SELECT count(*) FROM c").one() == (2002,)
    with db.transaction() as tx:
        tx.copy("c", b"5000,in a transaction\n")
    assert db.query("SELECT v FROM c WHERE id = 5000").one() == ("in a transaction",)


def proofs():
    """A proof file is accepted as it is, and refused however it is spoilt."""
    vector = json.loads((ROOT / "tests/vectors/proof_file.json").read_text())

    def verify(files):
        return fluence_db.verify_proof_file(*(json.dumps(files[name]).encode() for name in ("proof_file", "key_file")))

    proven = verify(vector)
    assert isinstance(proven.statement, fluence_db.RangeSum) and proven.insecure_dev_key, proven
    assert proven.statement.ranges == ((28353, 57136),), proven
    for spoilt in vector["spoilt"]:
        files = copy.deepcopy(vector)
        place = files[spoilt["file"]]
        for step in spoilt["at"][:-1]:
            place = place[step]
        place[spoilt["at"][-1]] = spoilt["to"]
        try:
            verify(files)
        except fluence_db.ProofRefused:
            continue
        raise AssertionError(f"accepted: {spoilt['what']}")
    for form in (b"", b"{", b"[]", b"\xff", b"{" + b" " * (1 << 20) + b"}", b'{"format": 1, "format": 2}', b"[" * 100000):
        refused(lambda: fluence_db.verify_proof_file(form, form), fluence_db.ProofRefused)
    demo = demo_proofs()
    for file, key in demo:
        fluence_db.verify_proof_file(file, key)
    return len(vector["spoilt"]), len(demo)


def demo_proofs():
    """Proof files that a demo left, each with its key file."""
    found = []
    for file in sorted((ROOT / "target/demo").glob("*.json")):
        head = json.loads(file.read_text())
        if isinstance(head, dict) and head.get("format") == "fluence-proof/1":
            key = file.parent / (head["circuit"].replace("/", "_") + ".vkey.json")
            if key.exists():
                found.append((file, key))
    return found


def main():
    env = os.environ | {"PYTHONPATH": str(PACKAGES)}
    subprocess.run([sys.executable, "-m", "mypy", "--strict", "--no-error-summary", ROOT / "clients/python/src"], env=env, check=True, cwd=served.CACHE)
    subprocess.run([TYPESCRIPT / "node_modules/.bin/tsc", "-p", TYPESCRIPT], check=True)
    print("both clients: types hold")
    spoilt, demo = proofs()
    print(f"python: a proof file is accepted, {spoilt} spoilt ones are refused; {demo} of a demo are accepted")
    with served.over_http() as place:
        with fluence_db.connect(place["http"], place["user"], place["password"]) as db:
            for check in (statements, values, errors, streams, transactions, uploads):
                check(db)
                print(f"python: {check.__name__} hold")
            doors(db, place)
            print("python: doors hold")
        env = os.environ | {"FLUENCE_HTTP": json.dumps(place), "FLUENCE_PROOFS": json.dumps([[str(p) for p in pair] for pair in demo_proofs()])}
        subprocess.run(["node", ROOT / "tests/http/clients.mjs"], env=env, check=True)


if __name__ == "__main__":
    main()
