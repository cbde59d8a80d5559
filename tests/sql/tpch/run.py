#!/usr/bin/env python3
"""TPC-H: its tables loaded into a database of a cluster of four by COPY, its 22 queries asked of `fluence sql`, each answer compared with DuckDB's.

Does    makes the tables with tpchgen, loads them into both, asks q01.sql .. q22.sql (specification 2.4, validation parameters) and their EXPLAIN.
Equal   the same columns of the same kinds and as many rows; in the order that ORDER BY says, ties as bags, and at a LIMIT any of those that
        tie there. Decimals equal to the digit; of a decimal and a double (DuckDB divides into doubles), less than one unit of the decimal's
        last digit apart; doubles to 1e-9 of themselves. "few digits" counts the decimals that were cut off before 1e-9 of the double.
Counts  by EXPLAIN: scans whose range is not all, and aggregates that nodes prove.
Needs   argument 1, or $CARGO_TARGET_DIR/debug/fluence: the binary with SQL; requirements.txt, which `served.drivers` installs, once. SF says the scale (0.01), QUERY_SECONDS the longest that one may take (300), QUERIES which ("1 6 15").
Ends    every process that it started, and its folder, whatever happens. Exits 1 unless all are equal, or named in KNOWN.
"""

import collections
import decimal
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from served import CACHE, drivers, stop  # noqa: E402

PACKAGES = drivers(HERE / "requirements.txt")
import duckdb  # noqa: E402
import psycopg  # noqa: E402

SCALE = decimal.Decimal(os.environ.get("SF", "0.01"))
QUERY_SECONDS = float(os.environ.get("QUERY_SECONDS", "300"))
# Rows of one COPY, below what a transaction may write to a table.
COPY_ROWS = 1_000_000
TABLES = ["region", "nation", "supplier", "customer", "part", "partsupp", "orders", "lineitem"]
# Queries that are not equal, and why that is known: {number: reason}.
KNOWN: dict[int, str] = {}

Answer = collections.namedtuple("Answer", "names rows")


def start(command, env, log):
    """A child that ends with its standard input, and the JSON line by which it says that it is ready."""
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=env, text=True)
    line = child.stdout.readline()
    if not line:
        stop(child)
        raise SystemExit(f"{' '.join(map(str, command[:2]))} did not start")
    return child, json.loads(line)


def statements(path):
    """A file's statements. None of them has a semicolon in a string."""
    text = re.sub(r"^--.*\n", "", path.read_text(), flags=re.M)
    text = text.replace(":fraction", f"{decimal.Decimal('0.0001') / SCALE:f}")
    return [s.strip() for s in text.split(";") if s.strip()]


def order_of(query):
    """The columns that a query is sorted by, and its LIMIT."""
    found = re.search(r"\border by ((?:\w+(?: desc)?,? ?)+)\s*(?:limit (\d+))?\s*$", query)
    if not found:
        return [], None
    return [word.split()[0] for word in found[1].split(",")], found[2] and int(found[2])


def same(ours, theirs):
    """Whether a value of the gateway's is DuckDB's."""
    if ours is None or theirs is None:
        return ours is theirs
    number = (int, float, decimal.Decimal)
    if not isinstance(ours, number) or not isinstance(theirs, number):
        return type(ours) is type(theirs) and ours == theirs
    if isinstance(ours, float) and isinstance(theirs, float):
        return abs(ours - theirs) <= 1e-9 * max(abs(ours), abs(theirs))
    if isinstance(ours, float) or isinstance(theirs, float):
        exact, double = (theirs, ours) if isinstance(ours, float) else (ours, theirs)
        exact, double = decimal.Decimal(exact), decimal.Decimal(double)
        unit = decimal.Decimal(1).scaleb(exact.as_tuple().exponent)
        return abs(exact - double) < unit + abs(double) * decimal.Decimal("1e-9")
    return ours == theirs


def is_cut(value, other):
    """Whether a decimal that stands for a double has fewer digits than 1e-9 of it takes."""
    mixed = isinstance(value, decimal.Decimal) and isinstance(other, float)
    return mixed and abs(value - decimal.Decimal(other)) > abs(decimal.Decimal(other)) * decimal.Decimal("1e-9")


def same_row(ours, theirs):
    return len(ours) == len(theirs) and all(map(same, ours, theirs))


def difference(ours, theirs, order, limit):
    """What is not the same in two answers, or None. `theirs` is not cut at the limit."""
    if [n.lower() for n in ours.names] != [n.lower() for n in theirs.names]:
        # A column without a name has another in each.
        if len(ours.names) != len(theirs.names) or any(o != t for o, t in zip(ours.names, theirs.names) if "(" not in t):
            return f"columns {ours.names}, not {theirs.names}"
    rows = len(theirs.rows) if limit is None else min(limit, len(theirs.rows))
    if len(ours.rows) != rows:
        return f"{len(ours.rows)} rows, not {rows}"
    places = [theirs.names.index(name) for name in order]
    keys = lambda row: [row[p] for p in places]
    begin = 0
    while begin < rows:
        # Rows that tie may stand in any order, and at the limit be any of those that tie.
        end = begin + 1
        while end < len(theirs.rows) and same_row(keys(theirs.rows[end]), keys(theirs.rows[begin])):
            end += 1
        left = list(theirs.rows[begin:end])
        for at in range(begin, min(end, rows)):
            row = ours.rows[at]
            found = next((i for i, other in enumerate(left) if same_row(row, other)), None)
            if found is None:
                return f"row {at}: {row}, not {left[0] if left else 'there'}"
            del left[found]
        begin = end
    return None


class Gateway:
    """The server, over one connection; a new one where that broke."""

    def __init__(self, place):
        self.place, self.db = place, None

    def ask(self, text):
        if self.db is None or self.db.closed:
            self.db = psycopg.connect(self.place, autocommit=True)
        timer = threading.Timer(QUERY_SECONDS, self.db.cancel)
        timer.start()
        try:
            cursor = self.db.execute(text)
            names = [c.name for c in cursor.description or ()]
            return Answer(names, [tuple(row) for row in cursor.fetchall()] if names else [])
        finally:
            timer.cancel()

    def load(self, table, path):
        """One COPY, or one for each so many rows."""
        copied = 0
        with open(path, newline="") as source:
            header = source.readline()
            while first := source.readline():
                cursor = self.db.cursor()
                with cursor.copy(f"COPY {table} FROM STDIN WITH (FORMAT csv, HEADER true)") as copy:
                    copy.write(header)
                    copy.write(first)
                    for _ in range((COPY_ROWS - 1) // 1000):
                        piece = "".join(line for _, line in zip(range(1000), source))
                        if not piece:
                            break
                        copy.write(piece)
                copied += cursor.rowcount
        return copied


def duck(data):
    """DuckDB with the tables, and how many rows each has."""
    db = duckdb.connect()
    rows = {}
    for statement in statements(HERE / "schema.sql"):
        db.execute(statement)
    for table in TABLES:
        db.execute(f"COPY {table} FROM '{data / table}.csv' (FORMAT csv, HEADER true)")
        rows[table] = db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    return db, rows


def duck_ask(db, text):
    cursor = db.execute(text)
    return Answer([c[0] for c in cursor.description], cursor.fetchall())


def pushed(plan):
    """Of an EXPLAIN: scans, those of them with a range, and proven aggregates."""
    scans = [line for line in plan if "VerifiedScan:" in line]
    ranged = [line for line in scans if not re.search(r", range=all\b", line)]
    return len(scans), len(ranged), sum("ProvenAggregate:" in line for line in plan)


def ask_both(gateway, db, number):
    """Asks one query of both: what differs (or None), rows, seconds, and what was pushed down."""
    before, query, after = [], None, []
    for statement in statements(HERE / f"q{number:02}.sql"):
        if statement.startswith("select"):
            query = statement
        else:
            (before if query is None else after).append(statement)
    order, limit = order_of(query)
    for statement in before:
        db.execute(statement)
    theirs = duck_ask(db, re.sub(r"\blimit \d+$", "", query))
    for statement in after:
        db.execute(statement)
    made = []
    try:
        for statement in before:
            gateway.ask(statement)
            made.append(statement)
        begun = time.monotonic()
        ours = gateway.ask(query)
        seconds = time.monotonic() - begun
        plan = [row[0] for row in gateway.ask(f"EXPLAIN {query}").rows]
    finally:
        if made:
            for statement in after:
                gateway.ask(statement)
    cut = sum(is_cut(value, other) for row, there in zip(ours.rows, theirs.rows) for value, other in zip(row, there))
    return difference(ours, theirs, order, limit), len(ours.rows), seconds, pushed(plan), cut, plan


def run(fluence, out, children):
    data = out / "data"
    tool = PACKAGES / "bin/tpchgen-cli"
    subprocess.run([tool, "csv", "-s", str(SCALE), "-o", data, "-q"], check=True)
    db, rows = duck(data)
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "FLUENCE_HOME", "FLUENCE_PASS"))}
    log = open(out / "log", "w")
    up, ready = start([fluence, "up", "-n", "4", "--dir", out / "up", "--json", "--stop-with-stdin"], env, log)
    children.append(up)
    env |= {"FLUENCE_HOME": ready["home"], "FLUENCE_PASSPHRASE_FILE": ready["passphrase_file"]}
    nodes = [word for node in ready["nodes"] for word in ("--node", node["address"])]
    subprocess.run([fluence, "cluster", "create", "main", "--quiet", *nodes], env=env, check=True, stdout=subprocess.DEVNULL)
    server, ready = start([fluence, "sql", "--listen", "127.0.0.1:0", "--json", "--stop-with-stdin"], env, log)
    children.append(server)
    host, port = ready["listening"].rsplit(":", 1)
    gateway = Gateway(f"host={host} port={port} user=fluence dbname=main passfile={ready['passfile']}")

    # Indexes of lineitem are there before its rows, as CREATE INDEX takes at most 524,288 rows; the others are made of rows.
    schema = statements(HERE / "schema.sql")
    late = [s for s in schema if s.startswith("create index") and " on lineitem " not in s]
    for statement in schema:
        if statement not in late:
            gateway.ask(statement)
    for table in TABLES:
        begun = time.monotonic()
        copied = gateway.load(table, data / f"{table}.csv")
        print(f"copied {table}: {copied} rows, {time.monotonic() - begun:.1f} s", flush=True)
        if copied != rows[table]:
            raise SystemExit(f"{table}: COPY says {copied} rows, the file has {rows[table]}")
    begun = time.monotonic()
    for statement in late:
        gateway.ask(statement)
    print(f"indexes: {time.monotonic() - begun:.1f} s", flush=True)

    numbers = [int(n) for n in os.environ.get("QUERIES", "").split()] or range(1, 23)
    count, bad, plans = collections.Counter(), [], 0
    for number in numbers:
        why = None
        try:
            why, found, seconds, (scans, ranged, proven), cut, plan = ask_both(gateway, db, number)
            verdict = "DIFFERENT" if why else "equal"
            plans += bool(ranged or proven)
            few = f", {cut} values with few digits" if cut else ""
            asked = f"{ranged} of {scans} scans ranged, {proven} proven"
            print(f"q{number:02} {verdict:9} {found:5} rows {seconds:7.2f} s  {asked}{few}", flush=True)
            if os.environ.get("PLANS"):
                print("\n".join(f"      {line}" for line in plan))
        except psycopg.Error as error:
            verdict, state = "ERROR", getattr(error, "sqlstate", None)
            why = f"{state}: {str(error).strip()}"
            print(f"q{number:02} {verdict}", flush=True)
        count[verdict] += 1
        if why:
            print(f"      {why}")
            if number in KNOWN:
                print(f"      known: {KNOWN[number]}")
            else:
                bad.append(number)
        elif number in KNOWN:
            print(f"      KNOWN says that it is not equal: {KNOWN[number]}")
    print(f"{len(numbers)} queries: {count['equal']} equal, {count['DIFFERENT']} different, {count['ERROR']} errors; {plans} plans pushed down")
    return 1 if bad else 0


def ended(*_):
    raise SystemExit("ended by a signal")


def main():
    signal.signal(signal.SIGTERM, ended)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or CACHE / "target")
    fluence = sys.argv[1] if len(sys.argv) > 1 else target / "debug/fluence"
    out, children = pathlib.Path(tempfile.mkdtemp(prefix="fluence-tpch-")), []
    try:
        return run(fluence, out, children)
    except BaseException:
        log = out / "log"
        if log.exists():
            sys.stderr.write("".join(log.read_text().splitlines(keepends=True)[-20:]))
        raise
    finally:
        for child in reversed(children):
            stop(child)
        shutil.rmtree(out, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
