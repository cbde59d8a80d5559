#!/usr/bin/env python3
"""Random statements on the gateway and on SQLite, with the same data: rows, counts of rows and refusals must be the same.

Use     SEED=n STATEMENTS=n random_dml.py; ORACLE=postgres tries the generator against PostgreSQL 15 (what differs there is the generator's fault).
Does    tables with NULLs, duplicates, without a key, with keys of one and two columns, with indexes; INSERT, UPDATE, DELETE, transactions,
        savepoints; after every few statements, queries and whole tables. A mismatch prints the seed, the statements that led there and both
        answers, and ends the run with 1; KEEP_GOING=1 goes on after a query that differs.
Rule    only what means the same in SQLite and PostgreSQL is generated: no division, no overflow, no casts, `ORDER BY` with NULLS and a LIMIT
        only over a total order, one set operation a query, floats and decimals in quarters, so that sums are exact in any order.
"""

import datetime
import decimal
import os
import random
import re
import sqlite3
import sys
import time

import served

served.drivers()

import psycopg  # noqa: E402

SEED = int(os.environ.get("SEED") or 1)
STATEMENTS = int(os.environ.get("STATEMENTS") or 300)
KEEP_GOING = bool(os.environ.get("KEEP_GOING"))
ROWS_MAX = 120

# What the gateway is known to do otherwise: a pattern of its error or of the statement, and the reason.
KNOWN = {
    r"IN \(SELECT \.\.\) below OR or NOT": "IN (SELECT ..) below OR or NOT is refused where a NULL may be in it (DataFusion's mark joins know true and false only)",
}
# What is not generated, because it is refused so often that little else would be tried: take out the line to see it.
AVOID = {
    "null-aware IN": "IN and NOT IN (SELECT ..) that meet NULL under OR, or under NOT with AND: refused, so that they are not answered wrongly",
}
# A transaction that is alone is told of a conflict (40001) where its commit meets the compaction of a table that it read.
COMPACTION = "a transaction that is alone fails with 40001 where its commit meets a compaction"

# Behind the name of a table that a statement changes and reads.
SELF = "/*old*/"
TYPES = {"n": "integer", "m": "bigint", "t": "text", "x": "double precision", "o": "boolean", "d": "date", "y": "numeric(10,2)"}
TEXTS = ["a", "b", "ab", "B", "", "a b", "it''s", "é", "z%", "_"]
DAYS = ["1969-12-31", "2024-02-29", "2024-03-01", "2031-01-01"]


class Table:
    def __init__(self, rng, name, kind):
        self.name = name
        self.columns = rng.sample(list(TYPES), rng.randint(4, 7))
        for needed in ("n", "t"):
            if needed not in self.columns:
                self.columns.append(needed)
        self.not_null = {c for c in self.columns if rng.random() < 0.15}
        # `id` alone; two columns; or none: then rows may stand twice.
        self.key = {"id": ["id"], "pair": ["t", "n"], "none": []}[kind]
        self.not_null |= set(self.key)
        self.all = (["id"] if kind == "id" else []) + self.columns
        self.next_id = 1
        self.indexes = 0

    def create(self):
        parts = []
        for c in self.all:
            kind = "integer" if c == "id" else TYPES[c]
            parts.append(f"{c} {kind}" + (" NOT NULL" if c in self.not_null else ""))
        if self.key:
            parts.append(f"PRIMARY KEY ({', '.join(self.key)})")
        return f"CREATE TABLE {self.name} ({', '.join(parts)})"


class Generator:
    """Statements by chance."""

    def __init__(self, rng):
        self.rng = rng
        kinds = ["id", rng.choice(["id", "pair"]), "none"]
        self.tables = [Table(rng, name, kind) for name, kind in zip("abc", kinds, strict=True)]

    def chance(self, p):
        return self.rng.random() < p

    def literal(self, column, null=0.2):
        rng = self.rng
        if null and self.chance(null):
            return "NULL"
        if column == "id":
            return str(rng.randint(1, 40))
        if column in ("n", "m"):
            return str(rng.choice([0, 1, 2, 3, 5, 8, -1, -7, 100, rng.randint(-20, 20)]))
        if column in ("x", "y"):
            return str(rng.randint(-40, 40) / 4)
        if column == "o":
            return rng.choice(["TRUE", "FALSE"])
        return f"'{rng.choice(DAYS if column == 'd' else TEXTS)}'"

    def column(self, table, kinds="idnmtxody"):
        """A column of one of the kinds."""
        return self.rng.choice([c for c in table.all if c == "id" and "id" in kinds or c != "id" and c in kinds.replace("id", "", 1)] or ["n"])

    # expressions; `names` are pairs (alias, table) in reach

    def number(self, names, depth=1):
        rng = self.rng
        alias, table = rng.choice(names)
        column = f"{alias}.{self.column(table, 'idnm')}"
        pick = rng.random()
        if depth <= 0 or pick < 0.5:
            return column
        if pick < 0.6:
            return self.literal("n", 0)
        left, right = self.number(names, depth - 1), self.number(names, depth - 1)
        return rng.choice([
            f"({left} + {right})", f"({left} - {right})", f"({left} * 2)", f"({left} % 5)", f"abs({left})", f"coalesce({left}, {rng.randint(0, 9)})",
            f"nullif({left}, {rng.randint(0, 3)})", f"CASE WHEN {self.condition(names, depth - 1)} THEN {left} ELSE {right} END",
            f"length({self.text(names)})", f"(-{column})",
        ])

    def text(self, names):
        rng = self.rng
        alias, table = rng.choice(names)
        t = f"{alias}.t"
        return rng.choice([t, t, t, f"upper({t})", f"({t} || 'x')", f"coalesce({t}, 'none')", f"substr({t}, 1, 1)", f"replace({t}, 'a', 'c')", f"trim({t})"])

    def simple(self, names):
        """A condition on a column."""
        rng = self.rng
        alias, table = rng.choice(names)
        c = self.column(table)
        column = f"{alias}.{c}"
        if c == "o":
            return rng.choice([column, f"NOT {column}", f"{column} IS TRUE", f"{column} IS NOT FALSE", f"{column} = TRUE"])
        lit = lambda: self.literal(c, 0.03)  # noqa: E731
        compare = f"{column} {rng.choice(['=', '<', '<=', '>', '>=', '<>'])} {lit()}"
        return rng.choice([
            compare, compare, compare,
            f"{column} BETWEEN {lit()} AND {lit()}",
            f"{column} NOT BETWEEN {lit()} AND {lit()}",
            f"{column} IN ({', '.join(lit() for _ in range(rng.randint(1, 4)))})",
            f"{column} NOT IN ({lit()}, {lit()})",
            f"{column} IS NULL", f"{column} IS NOT NULL",
            f"({column} IS DISTINCT FROM {lit()})",
            f"{lit()} < {column}",
            f"{column} >= {lit()} AND {column} < {lit()}",
        ])

    def nested(self, names):
        """A condition with a query in it."""
        rng = self.rng
        other = rng.choice(self.tables)
        alias, table = rng.choice(names)
        c = rng.choice([c for c in other.all if c in table.all] or ["n"])
        inner = [("q", other)]
        where = self.condition(inner, 0)
        # A change whose condition reads what it changes: SQLite would read changed rows; it gets a copy.
        source = other.name + (SELF if other.name == alias else "")
        outer, guard = ("", "")
        if "null-aware IN" in AVOID and served.ORACLE != "postgres":
            outer, guard = f"{alias}.{c} IS NOT NULL AND ", f"q.{c} IS NOT NULL AND "
        return rng.choice([
            f"({outer}{alias}.{c} IN (SELECT q.{c} FROM {source} q WHERE {guard}{where}))",
            f"({outer}{alias}.{c} NOT IN (SELECT q.{c} FROM {source} q WHERE {guard}{where}))",
            f"EXISTS (SELECT 1 FROM {source} q WHERE q.{c} = {alias}.{c} AND {where})",
            f"NOT EXISTS (SELECT 1 FROM {source} q WHERE q.{c} = {alias}.{c} AND {where})",
            f"{alias}.n < (SELECT max(q.n) FROM {source} q WHERE {where})",
            f"{alias}.n >= (SELECT count(*) FROM {source} q WHERE q.{c} = {alias}.{c})",
        ])

    def condition(self, names, depth=2):
        rng = self.rng
        pick = rng.random()
        if pick < 0.03:
            return rng.choice(["FALSE", "TRUE", "NULL IS NULL", "1 = 0"])
        if depth > 0:
            if pick < 0.15:
                return self.nested(names)
            if pick < 0.3:
                return f"({self.condition(names, depth - 1)} OR {self.condition(names, depth - 1)})"
            if pick < 0.5:
                return f"({self.condition(names, depth - 1)} AND {self.condition(names, depth - 1)})"
            if pick < 0.6:
                return f"NOT ({self.condition(names, depth - 1)})"
            if pick < 0.7:
                return f"{self.number(names)} {rng.choice(['<', '=', '>='])} {self.number(names)}"
            if pick < 0.76:
                pattern = rng.choice(["a%", "%b", "_", "%", "%s", "A%"])
                return f"{self.text(names)} {rng.choice(['', 'NOT '])}LIKE '{pattern}'"
        return self.simple(names)

    # statements

    def value(self, table, column):
        if column == "id":
            if self.chance(0.9):
                table.next_id += 1
                return str(table.next_id)
            return self.literal("id", 0)
        return self.literal(column, (0.02 if column in table.not_null else 0.25))

    def insert(self):
        rng = self.rng
        table = rng.choice(self.tables)
        columns = list(table.all)
        if self.chance(0.3):
            columns = [c for c in columns if c in table.not_null or self.chance(0.6)] or columns
            rng.shuffle(columns)
        named = f" ({', '.join(columns)})" if columns != table.all or self.chance(0.5) else ""
        if self.chance(0.25):
            source = rng.choice(self.tables)
            items = []
            for c in columns:
                if c == "id":
                    base = f"(SELECT coalesce(max(i.id), 0) FROM {table.name} i)"
                    items.append(f"{base} + {'s.id' if 'id' in source.all else 'coalesce(s.n, 0)'}")
                elif c in source.all and self.chance(0.8):
                    items.append(f"s.{c}")
                else:
                    items.append(self.literal(c, 0 if c in table.not_null else 0.2))
            return f"INSERT INTO {table.name} ({', '.join(columns)}) SELECT {', '.join(items)} FROM {source.name} s WHERE {self.condition([('s', source)])}"
        rows = [f"({', '.join(self.value(table, c) for c in columns)})" for _ in range(rng.choice([1, 1, 2, 5, 12]))]
        statement = f"INSERT INTO {table.name}{named} VALUES {', '.join(rows)}"
        if table.key and self.chance(0.2):
            if self.chance(0.6):
                return f"{statement} ON CONFLICT DO NOTHING"
            # One row: PostgreSQL refuses to change one twice.
            free = [c for c in columns if c not in table.key]
            if free and set(table.key) <= set(columns):
                changes = ", ".join(f"{c} = excluded.{c}" for c in free[:2])
                return f"INSERT INTO {table.name}{named} VALUES {rows[0]} ON CONFLICT ({', '.join(table.key)}) DO UPDATE SET {changes}"
        return statement

    def update(self):
        rng = self.rng
        table = rng.choice(self.tables)
        name = [(table.name, table)]
        if table.key == ["id"] and self.chance(0.1):
            # Each row to a number that no row has that is changed too: the order of the changes is nobody's business.
            return f"UPDATE {table.name} SET id = -id - 1 WHERE id > 0 AND {self.condition(name)}"
        sets = []
        for c in rng.sample(table.columns, rng.randint(1, 2)):
            if c in table.key and self.chance(0.9):
                continue
            if c in ("n", "m") and self.chance(0.5) and c not in table.key:
                sets.append(f"{c} = CASE WHEN abs({table.name}.{c}) > 1000 THEN 0 ELSE {self.number(name)} END")
            elif c == "t" and self.chance(0.3) and c not in table.key:
                sets.append(f"t = substr({self.text(name)}, 1, 3)")
            elif self.chance(0.1) and c in ("n", "m") and c not in table.key:
                other = rng.choice(self.tables)
                sets.append(f"{c} = (SELECT max(q.n) FROM {other.name}{SELF if other is table else ''} q WHERE {self.condition([('q', other)], 0)})")
            elif self.chance(0.15) and TYPES[c] in ("double precision",):
                sets.append(f"{c} = {c} + 0.25")
            else:
                sets.append(f"{c} = {self.value(table, c)}")
        if not sets:
            sets = ["n = n"]
        where = f" WHERE {self.condition(name)}" if self.chance(0.95) else ""
        joined = [t for t in self.tables if t.key == ["id"] and t is not table]
        if joined and table.key and where and self.chance(0.12):
            other = rng.choice(joined)
            column = next((c for c in table.columns if c in other.all and c not in table.key and c != "id"), None)
            if column:
                at = "id" if "id" in table.all else "n"
                return f"UPDATE {table.name} SET {column} = q.{column} FROM {other.name} AS q WHERE {table.name}.{at} = q.id AND {self.condition([('q', other)], 1)}"
        return f"UPDATE {table.name} SET {', '.join(sets)}{where}"

    def delete(self):
        table = self.rng.choice(self.tables)
        keep = f" AND {self.condition([(table.name, table)], 1)}" if self.chance(0.6) else ""
        return f"DELETE FROM {table.name} WHERE {self.condition([(table.name, table)])}{keep}"

    def shrink(self, table):
        return f"DELETE FROM {table.name} WHERE n > 0 OR n IS NULL OR n % 2 = 0"

    def index(self):
        table = self.rng.choice(self.tables)
        table.indexes += 1
        columns = self.rng.sample(table.columns, self.rng.randint(1, 2))
        return f"CREATE INDEX {table.name}_i{table.indexes} ON {table.name} ({', '.join(columns)})"

    # queries

    def source(self):
        """FROM, and what is in reach."""
        rng = self.rng
        first = rng.choice(self.tables)
        names = [("p", first)]
        text = f"{first.name} p"
        for alias in ("r", "s")[: rng.choice([0, 0, 1, 1, 2])]:
            other = rng.choice(self.tables)
            to, table = rng.choice(names)
            c = rng.choice([c for c in other.all if c in table.all] or ["n"])
            join = rng.choice(["JOIN", "JOIN", "LEFT JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"])
            on = f"{to}.{c} = {alias}.{c}"
            if join != "FULL JOIN" and self.chance(0.3):
                on += f" AND {self.condition([(alias, other), (to, table)], 0)}"
            text += f" {join} {other.name} {alias} ON {on}"
            names.append((alias, other))
        return text, names

    def where(self, names):
        return f" WHERE {self.condition(names)}" if self.chance(0.75) else ""

    def items(self, names):
        out = []
        for _ in range(self.rng.randint(1, 4)):
            alias, table = self.rng.choice(names)
            pick = self.rng.random()
            out.append(f"{alias}.{self.column(table)}" if pick < 0.7 else self.number(names, 2) if pick < 0.9 else self.text(names))
        return out

    def aggregate(self, names):
        rng = self.rng
        alias, table = rng.choice(names)
        c = self.column(table, "idnmxy")
        of = rng.choice([f"{alias}.{c}", f"{alias}.{c}", self.number(names)])
        any_column = f"{alias}.{self.column(table, 'idnmtxdy')}"
        return rng.choice([
            "count(*)", f"count({any_column})", f"count(DISTINCT {any_column})", f"sum({of})", f"sum({alias}.{c})", f"avg({alias}.{c})",
            f"min({any_column})", f"max({any_column})", f"sum(DISTINCT {alias}.n)", f"count(*) FILTER (WHERE {self.condition(names, 0)})",
            f"sum(CASE WHEN {self.condition(names, 0)} THEN 1 ELSE 0 END)",
        ])

    def query(self):
        rng = self.rng
        pick = rng.random()
        if pick < 0.15:
            # What is pushed down: sums and counts over a range of a key, and its ends.
            table = rng.choice([t for t in self.tables if t.key])
            c = table.key[0]
            low, high = self.literal(c, 0), self.literal(c, 0)
            where = rng.choice([f"p.{c} >= {low} AND p.{c} < {high}", f"p.{c} BETWEEN {low} AND {high}", f"p.{c} = {low}", f"p.{c} > {low}", "TRUE"])
            if len(table.key) > 1 and self.chance(0.5):
                where = f"p.{c} = {low} AND p.n >= {self.literal('n', 0)}"
            if self.chance(0.3):
                where += f" AND {self.condition([('p', table)], 0)}"
            numbers = [x for x in table.all if x in ("id", "n", "m", "y")]
            of = rng.choice(numbers)
            what = rng.sample(["count(*)", f"sum(p.{of})", f"avg(p.{of})", f"min(p.{c})", f"max(p.{c})", f"count(p.{rng.choice(table.all)})"], rng.randint(1, 3))
            return f"SELECT {', '.join(what)} FROM {table.name} p WHERE {where}"
        if pick < 0.25:
            # The first rows by a key or an index.
            table = rng.choice([t for t in self.tables if t.key])
            order = ", ".join(f"p.{c}{rng.choice([''] * 3 + [' DESC'])}" for c in table.key)
            return f"SELECT {', '.join(f'p.{c}' for c in table.all)} FROM {table.name} p{self.where([('p', table)])} ORDER BY {order} LIMIT {rng.randint(0, 8)} OFFSET {rng.choice([0, 0, 3])}"
        source, names = self.source()
        if pick < 0.45:
            return f"SELECT {', '.join(self.aggregate(names) for _ in range(rng.randint(1, 3)))} FROM {source}{self.where(names)}"
        if pick < 0.62:
            keys = [f"{a}.{self.column(t)}" for a, t in [rng.choice(names) for _ in range(rng.randint(1, 2))]]
            having = f" HAVING count(*) > {rng.randint(0, 2)}" if self.chance(0.3) else ""
            aggregates = ", ".join(self.aggregate(names) for _ in range(rng.randint(1, 2)))
            return f"SELECT {', '.join(keys)}, {aggregates} FROM {source}{self.where(names)} GROUP BY {', '.join(keys)}{having}"
        if pick < 0.72:
            items = [f"{a}.{self.column(t, 'idnmt')}" for a, t in [rng.choice(names) for _ in range(rng.randint(1, 3))]]
            places = ", ".join(f"{i + 1}{rng.choice([' NULLS FIRST', ' DESC NULLS LAST', ' NULLS LAST'])}" for i in range(len(items)))
            return f"SELECT {rng.choice(['', 'DISTINCT '])}{', '.join(items)} FROM {source}{self.where(names)} ORDER BY {places} LIMIT {rng.randint(0, 10)}"
        if pick < 0.82:
            one, two = rng.choice(self.tables), rng.choice(self.tables)
            shared = [c for c in one.all if c in two.all]
            columns = rng.sample(shared, min(len(shared), rng.randint(1, 2)))
            half = lambda t: f"SELECT {', '.join(f'p.{c}' for c in columns)} FROM {t.name} p{self.where([('p', t)])}"  # noqa: E731
            return f"{half(one)} {rng.choice(['UNION', 'UNION ALL', 'EXCEPT', 'INTERSECT'])} {half(two)}"
        if pick < 0.9:
            alias, table = names[0]
            if table.key:
                order = ", ".join(f"{alias}.{c}" for c in table.key)
                window = rng.choice([
                    f"row_number() OVER (ORDER BY {order})", f"sum({alias}.n) OVER (PARTITION BY {alias}.t)", f"count(*) OVER (PARTITION BY {alias}.n)",
                    f"lag({alias}.n) OVER (ORDER BY {order})", f"sum({alias}.n) OVER (ORDER BY {order})", f"rank() OVER (ORDER BY {alias}.t NULLS FIRST)",
                ])
                return f"SELECT {', '.join(f'{alias}.{c}' for c in table.key)}, {window} FROM {table.name} {alias}{self.where(names[:1])}"
        if pick < 0.95:
            inner = f"SELECT p.t AS t, count(*) AS c, sum(p.n) AS s FROM {names[0][1].name} p GROUP BY p.t"
            other = rng.choice(self.tables)
            return f"WITH g AS ({inner}) SELECT o.n, g.c, g.s FROM {other.name} o {rng.choice(['JOIN', 'LEFT JOIN'])} g ON g.t = o.t WHERE g.c > 1 OR g.s IS NULL"
        return f"SELECT {rng.choice(['', 'DISTINCT '])}{', '.join(self.items(names))} FROM {source}{self.where(names)}"


def plain(value):
    """A value as both say it."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, (float, decimal.Decimal)):
        return round(float(value), 6)
    if isinstance(value, datetime.date):
        return value.isoformat()
    return value


def sorted_rows(rows):
    return sorted((tuple(plain(v) for v in row) for row in rows), key=lambda row: [(v is not None, str(type(v)) if isinstance(v, str) else "", v) for v in row])


def equal(one, two):
    def close(a, b):
        if isinstance(a, (int, float)) and isinstance(b, (int, float)):
            return abs(a - b) <= 1e-6 * max(1, abs(a))
        return a == b
    return len(one) == len(two) and all(len(r) == len(s) and all(map(close, r, s)) for r, s in zip(one, two, strict=True))


class Mismatch(Exception):
    pass


# Refusals that are the same: the code of PostgreSQL, and what SQLite says.
REFUSALS = {"23505": "UNIQUE constraint failed", "23502": "NOT NULL constraint failed"}


class Both:
    """One statement after another, here and there."""

    def __init__(self, db, lite):
        self.db, self.lite = db, lite
        self.done = []
        self.known = {}
        self.ended = False
        self.counts = {"query": 0, "dml": 0, "refused": 0, "ddl": 0}

    def one(self, act):
        try:
            cursor = act()
            rows = sorted_rows(cursor.fetchall()) if cursor.description else None
            return rows, cursor.rowcount, None
        except (psycopg.Error, sqlite3.Error) as error:
            return None, None, error

    def is_known(self, statement, error):
        """Whether a difference is one of KNOWN; then it is counted."""
        for pattern, reason in KNOWN.items():
            if served.ORACLE != "postgres" and (re.search(pattern, statement) or error is not None and re.search(pattern, str(error))):
                self.known[reason] = self.known.get(reason, 0) + 1
                return True
        return False

    def on_sqlite(self, statement):
        for name in set(re.findall(rf"(\w+){re.escape(SELF)}", statement)):
            self.lite.execute(f"DROP TABLE IF EXISTS temp.old_{name}")
            self.lite.execute(f"CREATE TEMP TABLE old_{name} AS SELECT * FROM {name}")
            statement = statement.replace(name + SELF, f"temp.old_{name}")
        return self.lite.execute(statement)

    def run(self, statement, kind):
        """Whether it went through. A difference ends the run, or for a known one, nothing but the comparison."""
        rows, count, error = self.one(lambda: self.db.execute(statement))
        if error is not None and error.sqlstate == "40001":
            # SQLite goes back too; the transaction counts for nothing.
            self.known[COMPACTION] = self.known.get(COMPACTION, 0) + 1
            self.done.append(f"{statement}; ROLLBACK")
            self.counts[kind] += 1
            if self.lite.in_transaction:
                self.lite.execute("ROLLBACK")
                self.db.execute("ROLLBACK")
            self.ended = True
            return False
        if kind == "dml" and error is not None and self.is_known(statement, error):
            # Not run there either.
            self.counts[kind] += 1
            return False
        lite_rows, lite_count, lite_error = self.one(lambda: self.on_sqlite(statement))
        self.counts[kind] += 1
        if kind != "query":
            self.done.append(statement)
        if error is not None and lite_error is not None:
            # Which of two rules is broken first is nobody's business.
            if error.sqlstate in REFUSALS and any(said in str(lite_error) for said in REFUSALS.values()):
                self.counts["refused"] += 1
                return False
        elif error is None and lite_error is None:
            same = equal(rows, lite_rows) if rows is not None else kind != "dml" or count == lite_count
            if same:
                return True
        mine = f"error {error.sqlstate}: {error}" if error is not None else rows if rows is not None else f"{count} rows"
        theirs = f"error: {lite_error}" if lite_error is not None else lite_rows if lite_rows is not None else f"{lite_count} rows"
        if kind == "query" and self.is_known(statement, error):
            return False
        where = f"SEED={SEED}, statement {sum(self.counts.values())}"
        text = f"MISMATCH {where}\n  {statement};\n  gateway: {mine}\n  SQLite:  {theirs}"
        if kind == "query" and KEEP_GOING:
            print(text, flush=True)
            return False
        raise Mismatch(text)


def go(db, both, generator, rng):
    def size(table):
        return both.lite.execute(f"SELECT count(*) FROM {table.name}").fetchone()[0]

    for table in generator.tables:
        both.run(table.create(), "ddl")
    open_block = savepoint = False
    while sum(both.counts.values()) < STATEMENTS:
        pick = rng.random()
        if both.ended:
            open_block = savepoint = both.ended = False
        if not open_block and pick < 0.25:
            both.run("BEGIN", "ddl")
            open_block = True
        elif open_block and pick < 0.12:
            both.run(rng.choice(["COMMIT", "COMMIT", "ROLLBACK"]), "ddl")
            open_block = savepoint = False
        elif open_block and pick < 0.17:
            both.run("ROLLBACK TO sp" if savepoint and rng.random() < 0.5 else "SAVEPOINT sp", "ddl")
            savepoint = True
        elif not open_block and pick < 0.28:
            both.run(generator.index(), "ddl")
        elif pick < 0.65:
            large = next((t for t in generator.tables if size(t) > ROWS_MAX), None)
            statement = generator.shrink(large) if large else rng.choice([generator.insert, generator.insert, generator.update, generator.delete])()
            went = both.run(statement, "dml")
            if not went and open_block and not both.ended:
                # PostgreSQL's transaction has failed, SQLite's has not.
                both.run("ROLLBACK", "ddl")
                open_block = savepoint = False
            elif went:
                table = next(t for t in generator.tables if re.search(rf"(INTO|UPDATE|FROM) {t.name}\b", statement.split(" SELECT")[0]))
                both.run(f"SELECT * FROM {table.name}", "query")
        else:
            went = both.run(generator.query(), "query")
            if not went and open_block and db.info.transaction_status == psycopg.pq.TransactionStatus.INERROR:
                both.run("ROLLBACK", "ddl")
                open_block = savepoint = False
    if open_block and not both.ended:
        both.run("COMMIT", "ddl")
    for table in generator.tables:
        both.run(f"SELECT * FROM {table.name}", "query")


def main():
    rng = random.Random(SEED)
    print(f"SEED={SEED} STATEMENTS={STATEMENTS}", flush=True)
    begun = time.monotonic()
    with served.served() as place, psycopg.connect(**place, autocommit=True, prepare_threshold=None) as db:
        lite = sqlite3.connect(":memory:", isolation_level=None)
        lite.execute("PRAGMA case_sensitive_like = ON")
        # SQLite's own knows ASCII alone.
        lite.create_function("upper", 1, lambda text: text and text.upper(), deterministic=True)
        both = Both(db, lite)
        try:
            go(db, both, Generator(rng), rng)
        except Mismatch as mismatch:
            print("\nThe statements that led there:")
            print("\n".join(f"  {statement};" for statement in both.done))
            print(f"\n{mismatch}")
            return 1
        for reason in AVOID.values():
            print(f"KNOWN not generated: {reason}")
        for reason, times in both.known.items():
            print(f"KNOWN {reason}: {times} times")
        print(f"{sum(both.counts.values())} statements the same on both: {both.counts}, in {time.monotonic() - begun:.0f} s")
        return 0


if __name__ == "__main__":
    sys.exit(main())
