#!/usr/bin/env python3
"""Drivers of other languages for real: node-postgres, and PostgreSQL's own for Java, do with Fluence what they do with PostgreSQL.

Use     others.py node|jdbc [word ..]: checks whose names hold a word; ORACLE=postgres asks PostgreSQL 15 instead, where all must hold.
Rule    as in drivers.py: what Fluence is known not to do stands in KNOWN with its reason, and one that holds by now is said to.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import checks
import served

HERE = pathlib.Path(__file__).resolve().parent
JAR = pathlib.Path(os.environ.get("JDBC_JAR", "/usr/share/java/postgresql.jar"))
RUN_S_MAX = 900

KNOWN = {
    "node": {
        "a_small_number_is_an_integer": "a literal without a column to go to is bigint, which this driver gives as text",
        "a_cursor_gives_its_rows_in_portions": "DataFusion's generate_series takes literals, not parameters",
    },
    "jdbc": {},
}


def node(env):
    """The words that run the checks of Node.js, with its packages as its lock file has them."""
    wanted = HERE / "node/package-lock.json"
    stamp = HERE / "node/node_modules/.fluence-lock"
    if not stamp.exists() or stamp.read_bytes() != wanted.read_bytes():
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"], cwd=HERE / "node", check=True, stdout=subprocess.DEVNULL)
        shutil.copyfile(wanted, stamp)
    return ["node", str(HERE / "node/drivers.mjs")], env | {"TZ": "UTC"}


def jdbc(env):
    """The words that run the checks of Java: one source file, the driver beside it."""
    if not JAR.exists():
        raise SystemExit(f"{JAR} is missing: scripts/bootstrap.sh sql installs libpostgresql-jdbc-java")
    return ["java", "-Xmx256m", "-Duser.timezone=UTC", "-cp", str(JAR), str(HERE / "jdbc/Drivers.java")], env


def outcome(name, why):
    """A check that has run already."""

    def check():
        assert not why, why

    check.__name__ = name
    return check


def main():
    which, words = sys.argv[1], sys.argv[2:]
    with served.served() as place, tempfile.TemporaryDirectory() as empty:
        env = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
        names = {"PGHOST": "host", "PGPORT": "port", "PGUSER": "user", "PGPASSWORD": "password", "PGDATABASE": "dbname"}
        env |= {name: str(place[word]) for name, word in names.items()}
        command, env = {"node": node, "jdbc": jdbc}[which](env)
        ran = subprocess.run(command, env=env, cwd=empty, stdout=subprocess.PIPE, text=True, timeout=RUN_S_MAX)
    said = [line.split("\t") for line in ran.stdout.splitlines() if line.startswith("CHECK\t")]
    judged = checks.run([outcome(name, why) for _, name, why in said], {} if served.ORACLE == "postgres" else KNOWN[which], words)
    if ran.returncode:
        print(f"{command[0]} ended with {ran.returncode}")
    return judged or ran.returncode


if __name__ == "__main__":
    sys.exit(main())
