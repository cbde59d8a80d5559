#!/usr/bin/env python3
"""The demo's last act: a cluster of four used as a common database, by a real psql.

Does    starts `fluence up`, makes a database, serves it with `fluence sql`, copies January's flights in and runs five statements; what two
        of them say is computed from the CSV too, and must be the same.
Needs   psql; the binary built with `--features sql` (argument 1); the flights of scripts/bootstrap.sh data.
Ends    every process that it started, whatever happens.
"""

import csv
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BOLD, DIM, PLAIN = ("\033[1m", "\033[2m", "\033[0m") if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else ("", "", "")
COLUMNS = {
    "time_hour": "timestamptz", "carrier": "text", "flight": "bigint", "origin": "text", "dest": "text",
    "distance": "bigint", "arr_delay": "bigint",
}
MONTH = ("2013-01-01", "2013-02-01")


def start(command, env):
    """A child that ends with its standard input, and the JSON line by which it says that it is ready."""
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, text=True)
    line = child.stdout.readline()
    if not line:
        raise SystemExit(f"{' '.join(command[:2])} did not start")
    return child, json.loads(line)


def stop(child):
    child.stdin.close()
    child.wait(timeout=60)


def january(out):
    """Writes January's flights; how many there are, how many of them left in January by UTC, and how far those flew."""
    rows = within = miles = 0
    with open(ROOT / ".cache/flights/flights.csv", newline="") as source, open(out, "w", newline="") as target:
        writer = csv.writer(target)
        writer.writerow(COLUMNS)
        for row in csv.DictReader(source):
            if row["month"] == "1":
                rows += 1
                if row["time_hour"] < MONTH[1]:
                    within, miles = within + 1, miles + int(float(row["distance"]))
                cells = [row[c] for c in COLUMNS]
                writer.writerow("" if cell == "NA" else cell for cell in cells)
    return rows, within, miles


def main():
    fluence = sys.argv[1]
    out = ROOT / "target/demo-sql"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "FLUENCE_HOME", "FLUENCE_PASS"))}
    children = []
    try:
        up, ready = start([fluence, "up", "-n", "4", "--dir", str(out / "up"), "--json", "--stop-with-stdin"], env)
        children.append(up)
        env |= {"FLUENCE_HOME": ready["home"], "FLUENCE_PASSPHRASE_FILE": ready["passphrase_file"]}
        nodes = [word for node in ready["nodes"] for word in ("--node", node["address"])]
        subprocess.run([fluence, "cluster", "create", "main", "--quiet", *nodes], env=env, check=True, stdout=subprocess.DEVNULL)
        server, ready = start([fluence, "sql", "--listen", "127.0.0.1:0", "--json", "--stop-with-stdin"], env)
        children.append(server)
        print(f"\n{BOLD}SQL: a cluster of four as a common database{PLAIN}\n  {ready['url']}\n  {ready['psql']}")
        host, port = ready["listening"].rsplit(":", 1)
        place = f"host={host} port={port} user=fluence dbname=main passfile={ready['passfile']}"

        def psql(statement, show=True):
            begun = time.monotonic()
            command = ["psql", place, "-X", "-v", "ON_ERROR_STOP=1", "-P", "footer=off", "-c", statement]
            done = subprocess.run(command, env=env, capture_output=True, text=True)
            if done.returncode != 0:
                raise SystemExit(f"{statement}\n{done.stderr}")
            print(f"\n{BOLD}{statement}{PLAIN}  {DIM}{time.monotonic() - begun:.1f} s{PLAIN}")
            if show:
                print("\n".join("  " + line for line in done.stdout.rstrip().splitlines()))
            return done.stdout

        rows, within, miles = january(out / "january.csv")
        columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
        psql(f"CREATE TABLE flights ({columns}, PRIMARY KEY (time_hour, carrier, flight, origin))")
        copied = psql(f"\\copy flights FROM '{out / 'january.csv'}' WITH (FORMAT csv, HEADER true)")
        total = psql(f"SELECT count(*), sum(distance) FROM flights WHERE time_hour >= '{MONTH[0]}' AND time_hour < '{MONTH[1]}'")
        plan = psql(f"EXPLAIN SELECT count(*), sum(distance) FROM flights WHERE time_hour >= '{MONTH[0]}' AND time_hour < '{MONTH[1]}'")
        psql("SELECT carrier, count(*) AS flights, round(avg(arr_delay), 1) AS late FROM flights GROUP BY carrier ORDER BY flights DESC LIMIT 3")
        changed = psql("UPDATE flights SET arr_delay = 0 WHERE time_hour = '2013-01-01 05:00:00+00' AND arr_delay IS NULL RETURNING carrier, flight")
        assert changed is not None
        counted = [int(x) for x in total.split("\n")[2].split("|")]
        held = [
            ("every row of the file was copied", copied.strip() == f"COPY {rows}"),
            ("COUNT and SUM are those of the file", counted == [within, miles]),
            ("they were proven, not summed over fetched rows", "ProvenAggregate" in plan),
        ]
        print()
        for what, holds in held:
            print(f"  {'held' if holds else 'BROKEN'}  {what}")
        if not all(holds for _, holds in held):
            raise SystemExit(f"expected {within} of {rows} rows and {miles} miles, got {counted} and {copied!r}")
    finally:
        for child in reversed(children):
            stop(child)


if __name__ == "__main__":
    main()
