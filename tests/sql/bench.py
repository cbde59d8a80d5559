"""What SQL over a cluster of four costs beside PostgreSQL 15, both on this machine, in one run.

Does    COPY of all flights into a table with a primary key, an index on it, and GROUP BY that index; SELECT of four columns by key; COUNT, SUM
        and AVG over ranges of the key of ROWS rows (default 1,000,000); INSERT and UPDATE of single rows by one and by sixteen sessions. Each
        with the ratio of both.
Needs   PostgreSQL 15's server (POSTGRES_BIN), the flights of `scripts/bootstrap.sh data`, FLUENCE built with `--features sql`.
Says    the losing rows too. Verification, encryption and four nodes on the same cores are what one side pays and the other does not.
"""

import concurrent.futures
import contextlib
import csv
import io
import json
import os
import pathlib
import platform
import random
import statistics
import sys
import tempfile
import time

import served

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROWS = int(os.environ.get("ROWS", "1000000"))
SECONDS = float(os.environ.get("SECONDS_EACH", "5"))
# A transaction writes at most so many rows of a table.
PART = 1_000_000
FLIGHTS = {
    "time_hour": "timestamptz", "carrier": "text", "flight": "integer", "origin": "text", "dest": "text", "tailnum": "text",
    "dep_delay": "integer", "arr_delay": "integer", "air_time": "integer", "distance": "integer",
}


def flights():
    """All flights as a CSV without its header, with a number for each; how many there are."""
    out, count = io.StringIO(), 0
    writer = csv.writer(out)
    with open(ROOT / ".cache/flights/flights.csv", newline="") as source:
        for count, row in enumerate(csv.DictReader(source), 1):
            cells = [row[c] for c in FLIGHTS]
            writer.writerow([count, *("" if cell == "NA" else cell.removesuffix(".0") for cell in cells)])
    return out.getvalue().encode(), count


def numbers(first, count):
    """Rows of `n`: id, a group, a value."""
    lines = (f"{i},{i % 97},{(i * 7919) % 100_003}\n" for i in range(first, first + count))
    return "".join(lines).encode()


def copy(db, statement, data):
    with db.cursor() as cursor, cursor.copy(statement) as out:
        for at in range(0, len(data), 1 << 20):
            out.write(data[at : at + (1 << 20)])


def timed(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def rate(connect, sessions, statement):
    """Statements a second of so many sessions, each with its own rows."""
    stop = time.perf_counter() + SECONDS

    def one(session):
        done = 0
        with connect() as db:
            while time.perf_counter() < stop:
                db.execute(*statement(session, done))
                done += 1
        return done

    start = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(sessions) as pool:
        done = sum(pool.map(one, range(sessions)))
    return done / (time.perf_counter() - start)


def measure(words, data, count, vacuum):
    """The figures of one database, by name."""
    import psycopg

    connect = lambda: psycopg.connect(**words, autocommit=True)  # noqa: E731
    figures = {}
    with connect() as db:
        columns = ", ".join(f"{name} {kind}" for name, kind in FLIGHTS.items())
        db.execute(f"CREATE TABLE flights (id integer PRIMARY KEY, {columns})")
        figures["copy_flights_s"] = timed(lambda: copy(db, "COPY flights FROM STDIN (FORMAT csv)", data))

        figures["create_index_s"] = timed(lambda: db.execute("CREATE INDEX by_carrier ON flights (carrier)"))

        db.execute("CREATE TABLE n (id bigint PRIMARY KEY, g bigint, v bigint)")
        for first in range(0, ROWS, PART):
            copy(db, "COPY n FROM STDIN (FORMAT csv)", numbers(first, min(PART, ROWS - first)))
        if vacuum:
            for table in ("n", "flights"):
                db.execute(f"VACUUM ANALYZE {table}")

        rng = random.Random(7)
        db.prepare_threshold = 0
        times = []
        for _ in range(200):
            key = rng.randrange(1, 300_000)
            times.append(timed(lambda key=key: db.execute("SELECT time_hour, carrier, flight, dest FROM flights WHERE id = %s", (key,)).fetchall()))
        figures["point_select_p50_ms"] = statistics.median(times) * 1e3

        times = []
        for _ in range(7):
            query = "SELECT carrier, count(*), sum(distance) FROM flights GROUP BY carrier ORDER BY carrier"
            times.append(timed(lambda query=query: figures.__setitem__("answer", db.execute(query).fetchall())))
        carriers = figures.pop("answer")
        if sum(rows for _, rows, _ in carriers) != count:
            raise SystemExit(f"groups of {sum(rows for _, rows, _ in carriers)} rows, but there are {count}")
        figures["group_by_p50_ms"] = statistics.median(times) * 1e3

        # Both must say the same; the arithmetic says what.
        for name, low, high in (("tenth", ROWS // 3, ROWS // 3 + ROWS // 10), ("all", 0, ROWS)):
            times = []
            for _ in range(7):
                query = "SELECT count(*), sum(v), avg(v) FROM n WHERE id >= %s AND id < %s"
                times.append(timed(lambda query=query, low=low, high=high: figures.__setitem__("answer", db.execute(query, (low, high)).fetchone())))
            found, total, _ = figures.pop("answer")
            wanted = sum((i * 7919) % 100_003 for i in range(low, high))
            if (found, int(total)) != (high - low, wanted):
                raise SystemExit(f"{name}: {found} rows, sum {total}, but {high - low} and {wanted} are right")
            figures[f"aggregate_{name}_p50_ms"] = statistics.median(times) * 1e3

        db.execute("CREATE TABLE small (id bigint PRIMARY KEY, v bigint)")
    for sessions in (1, 16):
        insert = lambda s, i, sessions=sessions: ("INSERT INTO small VALUES (%s, 0)", (sessions * 10**12 + s * 10**9 + i,))  # noqa: E731
        figures[f"insert_{sessions}_per_s"] = rate(connect, sessions, insert)
        update = lambda s, i, sessions=sessions: ("UPDATE small SET v = v + 1 WHERE id = %s", (sessions * 10**12 + s * 10**9,))  # noqa: E731
        figures[f"update_{sessions}_per_s"] = rate(connect, sessions, update)
    return figures


def main():
    if not (served.POSTGRES / "initdb").exists():
        raise SystemExit(f"no PostgreSQL in {served.POSTGRES}: install postgresql-15, or name its folder in POSTGRES_BIN")
    served.drivers()
    data, count = flights()
    results = {}
    for name, serve in (("postgresql", lambda out: served.postgres(out, fsync="on")), ("fluence", served.fluence)):
        with tempfile.TemporaryDirectory() as out, serve(pathlib.Path(out)) as words:
            results[name] = measure(words, data, count, vacuum=name == "postgresql")
        print(f"{name}: measured", file=sys.stderr)
    print(f"{count} flights, {ROWS} rows, {os.cpu_count()} cores, {platform.machine()}; ratio: Fluence's speed as a part of PostgreSQL's")
    for figure, theirs in results["postgresql"].items():
        ours = results["fluence"][figure]
        ratio = ours / theirs if figure.endswith("per_s") else theirs / ours
        print(f"{figure:26} postgresql {theirs:10.2f}   fluence {ours:10.2f}   ratio {ratio:8.4f}")
    print(json.dumps(results))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
