"""A database for the tests of this folder: a cluster of four nodes, served by `fluence sql`; or a PostgreSQL, to see what is expected of one.

Does    `drivers()` installs requirements.txt into $FLUENCE_CACHE/python where that is not what is there; `served()` starts and ends the rest.
Place   $FLUENCE is the binary (its absolute path; built with `--features sql`). ORACLE=postgres starts PostgreSQL 15 instead of Fluence: the
        same checks must hold there, or they expect the wrong thing.
Ends    every process that it started, whatever happens: nodes and the server are children that end with their standard input.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
CACHE = pathlib.Path(os.environ.get("FLUENCE_CACHE") or pathlib.Path.home() / ".cache/fluence")
POSTGRES = pathlib.Path(os.environ.get("POSTGRES_BIN", "/usr/lib/postgresql/15/bin"))
ORACLE = os.environ.get("ORACLE", "")


def drivers(requirements=HERE / "requirements.txt"):
    """Has the pinned packages where Python finds them; does nothing where they are there already. Gives their folder."""
    wanted = requirements.read_bytes()
    into = CACHE / "python" / hashlib.sha256(wanted).hexdigest()[:16]
    if not into.exists():
        into.parent.mkdir(parents=True, exist_ok=True)
        half = pathlib.Path(tempfile.mkdtemp(dir=into.parent, prefix="half-"))
        try:
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--root-user-action", "ignore"]
            subprocess.run([*pip, "--target", str(half), "--requirement", str(requirements)], check=True)
            half.chmod(0o755)
            with contextlib.suppress(OSError):  # another run was first
                half.rename(into)
        finally:
            shutil.rmtree(half, ignore_errors=True)
    sys.path.insert(0, str(into))
    return into


def start(command, env):
    """A child that ends with its standard input, and the JSON line by which it says that it is ready."""
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, text=True)
    line = child.stdout.readline()
    if not line:
        stop(child)
        raise SystemExit(f"{' '.join(command[:2])} did not start")
    return child, json.loads(line)


def stop(child):
    """Ends a child by its standard input; by force where a minute did not do."""
    with contextlib.suppress(OSError):
        child.stdin.close()
    try:
        child.wait(timeout=60)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


@contextlib.contextmanager
def fluence(out, *more):
    """The words by which libpq reaches a fresh database of four nodes, as a dictionary. `more` goes to `fluence sql`; with --http, `http` is its URL."""
    binary = os.environ.get("FLUENCE") or str(CACHE / "target/debug/fluence")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "FLUENCE_HOME", "FLUENCE_PASS"))}
    children = []
    try:
        up, ready = start([binary, "up", "-n", "4", "--dir", str(out / "up"), "--json", "--stop-with-stdin"], env)
        children.append(up)
        env |= {"FLUENCE_HOME": ready["home"], "FLUENCE_PASSPHRASE_FILE": ready["passphrase_file"]}
        nodes = [word for node in ready["nodes"] for word in ("--node", node["address"])]
        subprocess.run([binary, "cluster", "create", "main", "--quiet", *nodes], env=env, check=True, stdout=subprocess.DEVNULL)
        server, ready = start([binary, "sql", "--listen", "127.0.0.1:0", *more, "--json", "--stop-with-stdin"], env)
        children.append(server)
        host, port = ready["listening"].rsplit(":", 1)
        secret = pathlib.Path(ready["passfile"]).read_text().strip().split(":")[-1]
        place = {"host": host, "port": int(port), "user": "fluence", "dbname": "main", "password": secret}
        yield place | ({"http": ready["http"]} if "http" in ready else {})
    finally:
        for child in reversed(children):
            stop(child)


@contextlib.contextmanager
def postgres(out, fsync="off"):
    """The same of a PostgreSQL, serializable as Fluence is."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data, secret = out / "data", out / "secret"
    secret.write_text("oracle\n")
    data.mkdir()
    as_user = []
    if os.geteuid() == 0:
        as_user = ["runuser", "-u", "postgres", "--"]
        out.chmod(0o755)
        shutil.chown(data, "postgres")
        shutil.chown(secret, "postgres")
    init = [POSTGRES / "initdb", "-D", data, "-U", "fluence", "-A", "scram-sha-256", f"--pwfile={secret}", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
    subprocess.run([*as_user, *init], check=True, stdout=subprocess.DEVNULL, cwd=data)
    options = f"-p {port} -k {data} -c listen_addresses=127.0.0.1 -c fsync={fsync} -c timezone=UTC -c default_transaction_isolation=serializable"
    control = [*as_user, POSTGRES / "pg_ctl", "-D", data, "-s", "-w"]
    subprocess.run([*control, "-l", data / "log", "-o", options, "start"], check=True, cwd=data)
    try:
        where = {"host": "127.0.0.1", "port": port, "user": "fluence", "password": "oracle"}
        make = [POSTGRES / "createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "fluence", "main"]
        subprocess.run(make, check=True, env=os.environ | {"PGPASSWORD": "oracle"})
        yield where | {"dbname": "main"}
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=False, cwd=data)


@contextlib.contextmanager
def over_http():
    """The same with an HTTP server beside."""
    with tempfile.TemporaryDirectory(prefix="fluence-http-") as out, fluence(pathlib.Path(out), "--http", "127.0.0.1:0") as where:
        yield where


@contextlib.contextmanager
def served():
    """Where a fresh database listens, until the end of the block."""
    with tempfile.TemporaryDirectory(prefix="fluence-sql-") as out:
        with (postgres if ORACLE == "postgres" else fluence)(pathlib.Path(out)) as where:
            yield where


if __name__ == "__main__":
    # By hand: serves until its input ends.
    with served() as place:
        print(json.dumps(place), flush=True)
        sys.stdin.read()
