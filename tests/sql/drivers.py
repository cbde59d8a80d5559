#!/usr/bin/env python3
"""Drivers for real: psycopg 3, SQLAlchemy 2, asyncpg and psql do with a database of Fluence what they do with PostgreSQL.

Use     drivers.py [word ..]: checks whose names hold a word; TRACE=1 shows where they fail; ORACLE=postgres asks PostgreSQL 15 instead.
Rule    what is expected here holds in PostgreSQL 15; what Fluence is known not to do stands in KNOWN, with the reason, and fails nothing.
"""

import asyncio
import contextlib
import datetime
import decimal
import itertools
import os
import subprocess
import sys
import threading
import uuid

import checks
import served

served.drivers()

import asyncpg  # noqa: E402
import psycopg  # noqa: E402
import sqlalchemy as sa  # noqa: E402
from psycopg import sql  # noqa: E402
from psycopg.rows import dict_row  # noqa: E402
from sqlalchemy import orm  # noqa: E402

KNOWN = {
    # Wrong answers.
    "is_distinct_from_binds_more_tightly_than_and": "sqlparser reads `a IS DISTINCT FROM b AND c` as `a IS DISTINCT FROM (b AND c)`",
    "not_in_a_query_with_nulls_is_never_true_beside_or": "DataFusion's mark joins take NULL for false: too many rows, also for DELETE",
    # Transactions.
    "a_transaction_sees_one_moment": "a table that somebody else changed since is 40001, not read as it was",
    # What is missing.
    "in_a_query_is_a_value": "DataFusion plans IN (SELECT ..) only in filters",
    "in_a_correlated_query_with_nulls_is_not_true": "DataFusion: null-aware anti joins have one key",
    "asyncpg_chooses_by_an_array": "it looks bigint[] up by a query whose answer has int4[] here, oid[] in PostgreSQL, and looks that up again, without end",
    "errors_have_the_codes_of_postgresql": "some of twenty-one have a neighbouring code",
}

CHECKS = []
PLACE = {}
UTC = datetime.timezone.utc
NUMBERS = itertools.count(1)


def check(function):
    CHECKS.append(function)
    return function


def connect(**words):
    return psycopg.connect(**(PLACE | {"connect_timeout": 20} | words))


def rows(db, statement, parameters=None, **words):
    return db.execute(statement, parameters, **words).fetchall()


def same(got, wanted):
    assert got == wanted, f"{got!r} instead of {wanted!r}"


def state_of(act):
    """The SQLSTATE with which `act` fails."""
    try:
        got = act()
    except psycopg.Error as error:
        return error.sqlstate
    raise AssertionError(f"no error, but {got!r}")


@contextlib.contextmanager
def table(columns, data=(), **words):
    """A connection, and the name of a table of its own with `data`; the table ends with the block."""
    name = f"t{next(NUMBERS)}"
    with connect(autocommit=True, **words) as db:
        db.execute(f"CREATE TABLE {name} ({columns})")
        data = list(data)
        if data:
            places = ", ".join(f"({', '.join(['%s'] * len(row))})" for row in data)
            db.execute(f"INSERT INTO {name} VALUES {places}", [value for row in data for value in row])
        try:
            yield db, name
        finally:
            db.close()
            with connect(autocommit=True) as other:
                other.execute(f"DROP TABLE IF EXISTS {name}")


# psycopg: values


@check
def the_server_is_asked_and_answers():
    with connect() as db:
        same(rows(db, "SELECT 1"), [(1,)])
        same(db.info.dbname, PLACE["dbname"])
        same(db.info.encoding, "utf-8")
        same(db.info.server_version // 10000, 15)


TYPED = "id bigint PRIMARY KEY, b boolean, i integer, f double precision, d numeric(12,3), t text, y bytea, day date, ts timestamptz"
ROWS = [
    (1, True, -5, 0.1, decimal.Decimal("123456789.125"), "Ä'\\\n\t\"€", bytes(range(256)), datetime.date(1969, 12, 31),
     datetime.datetime(2024, 2, 29, 23, 59, 59, 999999, UTC)),
    (2, False, 0, -1e300, decimal.Decimal("-0.001"), "", b"", datetime.date(2100, 1, 1), datetime.datetime(1900, 1, 1, tzinfo=UTC)),
    (3, None, None, None, None, None, None, None, None),
]


@check
def values_of_all_types_come_back_as_they_went():
    with table(TYPED, ROWS) as (db, t):
        same(rows(db, f"SELECT * FROM {t} ORDER BY id"), ROWS)


@check
def values_of_all_types_come_back_in_binary():
    with table(TYPED, ROWS) as (db, t):
        same(rows(db, f"SELECT * FROM {t} ORDER BY id", binary=True), ROWS)


@check
def parameters_in_binary_are_read():
    with table(TYPED) as (db, t):
        for row in ROWS:
            db.execute(f"INSERT INTO {t} VALUES (%b, %b, %b, %b, %b, %b, %b, %b, %b)", row)
        same(rows(db, f"SELECT * FROM {t} ORDER BY id"), ROWS)


@check
def parameters_of_each_type_find_their_row():
    with table(TYPED, ROWS) as (db, t):
        for column, value in zip(["id", "b", "i", "f", "d", "t", "y", "day", "ts"], ROWS[0], strict=True):
            got = rows(db, f"SELECT id FROM {t} WHERE {column} = %s", [value])
            assert got == [(1,)], f"{column} = {value!r}: {got!r}"


@check
def a_column_says_its_type():
    with table(TYPED) as (db, t):
        names = [db.adapters.types[c.type_code].name for c in db.execute(f"SELECT * FROM {t}").description]
        same(names, ["int8", "bool", "int4", "float8", "numeric", "text", "bytea", "date", "timestamptz"])


@check
def a_timestamp_without_time_zone_is_one():
    when = datetime.datetime(2024, 2, 29, 12, 30, 1, 5)
    with table("id bigint PRIMARY KEY, ts timestamp", [(1, when)]) as (db, t):
        same(rows(db, f"SELECT ts FROM {t} WHERE ts = %s", [when]), [(when,)])


@check
def a_uuid_is_one():
    key = uuid.UUID(int=77)
    with table("id uuid PRIMARY KEY", [(key,)]) as (db, t):
        same(rows(db, f"SELECT id FROM {t} WHERE id = %s", [key]), [(key,)])


@check
def an_integer_too_large_for_its_column_is_refused():
    with table("id integer PRIMARY KEY") as (db, t):
        same(state_of(lambda: db.execute(f"INSERT INTO {t} VALUES (3000000000)")), "22003")


@check
def a_number_too_large_for_its_column_is_refused():
    with table("id integer PRIMARY KEY, d numeric(4,2)") as (db, t):
        same(state_of(lambda: db.execute(f"INSERT INTO {t} VALUES (1, 100.00)")), "22003")


@check
def a_number_is_rounded_to_its_column_half_away_from_zero():
    with table("id integer PRIMARY KEY, d numeric(4,2)") as (db, t):
        db.execute(f"INSERT INTO {t} VALUES (1, 1.005), (2, -1.005), (3, 1.004), (4, %s)", [decimal.Decimal("2.675")])
        same([str(d) for d, in rows(db, f"SELECT d FROM {t} ORDER BY id")], ["1.01", "-1.01", "1.00", "2.68"])


@check
def dividing_by_zero_is_an_error():
    with connect(autocommit=True) as db:
        same(state_of(lambda: db.execute("SELECT 1 / %s", [0]).fetchall()), "22012")


@check
def integers_that_overflow_are_an_error():
    with table("id bigint PRIMARY KEY", [(2**63 - 1,)]) as (db, t):
        same(state_of(lambda: rows(db, f"SELECT id + 1 FROM {t}")), "22003")


@check
def text_that_is_no_number_is_an_error():
    with connect(autocommit=True) as db:
        same(state_of(lambda: rows(db, "SELECT CAST('x' AS integer)")), "22P02")


@check
def aggregates_have_the_types_that_postgresql_gives():
    with table("id integer PRIMARY KEY, n bigint, d numeric(8,2)", [(1, 10, 1), (2, 15, 2)]) as (db, t):
        got = db.execute(f"SELECT count(*), sum(id), sum(n), avg(n), sum(d), avg(d), max(n) FROM {t}").fetchone()
        same(got, (2, 3, 25, decimal.Decimal("12.5"), decimal.Decimal(3), decimal.Decimal("1.5"), 15))
        same([type(x).__name__ for x in got], ["int", "int", "Decimal", "Decimal", "Decimal", "Decimal", "int"])


@check
def aggregates_of_no_rows_are_null_and_zero():
    with table("id integer PRIMARY KEY, n bigint") as (db, t):
        same(rows(db, f"SELECT count(*), count(n), sum(n), avg(n), min(n), max(n) FROM {t}"), [(0, 0, None, None, None, None)])
        same(rows(db, f"SELECT count(*) FROM {t} WHERE id > 5 AND id < 3"), [(0,)])


@check
def nulls_are_last_unless_asked_otherwise():
    with table("id integer PRIMARY KEY, n integer", [(1, None), (2, 7), (3, 5)]) as (db, t):
        same(rows(db, f"SELECT n FROM {t} ORDER BY n"), [(5,), (7,), (None,)])
        same(rows(db, f"SELECT n FROM {t} ORDER BY n DESC"), [(None,), (7,), (5,)])
        same(rows(db, f"SELECT n FROM {t} ORDER BY n NULLS FIRST LIMIT 1"), [(None,)])


@check
def an_array_parameter_chooses_rows():
    with table("id integer PRIMARY KEY", [(1,), (2,), (3,)]) as (db, t):
        same(rows(db, f"SELECT id FROM {t} WHERE id = ANY(%s) ORDER BY id", [[1, 3]]), [(1,), (3,)])


@check
def json_goes_in_and_out():
    with table("id integer PRIMARY KEY, j jsonb") as (db, t):
        db.execute(f"INSERT INTO {t} VALUES (1, %s)", [psycopg.types.json.Jsonb({"a": [1, None]})])
        same(rows(db, f"SELECT j FROM {t}"), [({"a": [1, None]},)])


@check
def rows_come_as_dictionaries_with_the_names_of_columns():
    with table("id integer PRIMARY KEY, n integer", [(1, 5)]) as (db, t):
        got = db.cursor(row_factory=dict_row).execute(f'SELECT id, n AS "Big Name", count(*), n + 1, upper(\'a\') FROM {t} GROUP BY id, n')
        same(got.fetchall(), [{"id": 1, "Big Name": 5, "count": 1, "?column?": 6, "upper": "A"}])


@check
def names_in_quotes_keep_their_letters():
    with connect(autocommit=True) as db:
        name = sql.Identifier("Odd \"Table\" é")
        column = sql.Identifier("Select")
        db.execute(sql.SQL("CREATE TABLE {} (id integer PRIMARY KEY, {} text)").format(name, column))
        db.execute(sql.SQL("INSERT INTO {} ({}, id) VALUES ('x', 1)").format(name, column))
        db.execute(sql.SQL("UPDATE {} SET {} = 'y' WHERE {} = 'x'").format(name, column, column))
        same(rows(db, sql.SQL("SELECT {} FROM {}").format(column, name)), [("y",)])
        db.execute(sql.SQL("DROP TABLE {}").format(name))


@check
def a_statement_of_many_parameters_runs():
    with table("id integer PRIMARY KEY") as (db, t):
        db.execute(f"INSERT INTO {t} VALUES {', '.join(['(%s)'] * 2000)}", list(range(2000)))
        same(rows(db, f"SELECT count(*), min(id), max(id) FROM {t}"), [(2000, 0, 1999)])


# psycopg: statements


@check
def a_statement_is_prepared_on_the_server():
    with table("id integer PRIMARY KEY, t text") as (db, t):
        for n in range(8):
            db.execute(f"INSERT INTO {t} VALUES (%s, %s)", [n, f"n{n}"], prepare=True)
        for n in range(8):
            same(rows(db, f"SELECT t FROM {t} WHERE id = %s", [n], prepare=True), [(f"n{n}",)])


@check
def a_prepared_statement_outlives_a_change_of_the_table():
    with table("id integer PRIMARY KEY, t text", [(1, "a")]) as (db, t):
        same(rows(db, f"SELECT id FROM {t} WHERE t = %s", ["a"], prepare=True), [(1,)])
        db.execute(f"ALTER TABLE {t} ADD COLUMN u integer DEFAULT 9")
        same(rows(db, f"SELECT id FROM {t} WHERE t = %s", ["a"], prepare=True), [(1,)])
        same(rows(db, f"SELECT u FROM {t}"), [(9,)])


@check
def executemany_writes_all_and_counts():
    with table("id integer PRIMARY KEY, t text") as (db, t):
        with db.transaction():
            cursor = db.cursor()
            cursor.executemany(f"INSERT INTO {t} VALUES (%s, %s)", [(n, str(n)) for n in range(20)])
            same(cursor.rowcount, 20)
        same(rows(db, f"SELECT count(*) FROM {t}"), [(20,)])


@check
def executemany_gives_rows_of_returning():
    with table("id integer PRIMARY KEY, t text") as (db, t):
        cursor = db.cursor()
        cursor.executemany(f"INSERT INTO {t} VALUES (%s, 'x') RETURNING id", [(1,), (2,)], returning=True)
        got = [cursor.fetchone()]
        while cursor.nextset():
            got.append(cursor.fetchone())
        same(got, [(1,), (2,)])


@check
def counts_and_tags_are_those_of_postgresql():
    with table("id integer PRIMARY KEY, n integer") as (db, t):
        said = []
        for statement in [
            f"INSERT INTO {t} VALUES (1, 1), (2, 2), (3, NULL)",
            f"UPDATE {t} SET n = 5 WHERE n > 0",
            f"UPDATE {t} SET n = 5 WHERE false",
            f"DELETE FROM {t} WHERE n IS NULL",
            f"SELECT * FROM {t}",
            "BEGIN",
            "SAVEPOINT s",
            "ROLLBACK TO s",
            "RELEASE s",
            "COMMIT",
            "SET application_name = 'x'",
            "RESET application_name",
            f"TRUNCATE {t}",
            f"CREATE INDEX {t}_n ON {t} (n)",
            f"DROP INDEX {t}_n",
            f"CREATE VIEW {t}_v AS SELECT id FROM {t}",
            f"DROP VIEW {t}_v",
            f"ALTER TABLE {t} ADD COLUMN x text",
        ]:
            cursor = db.execute(statement)
            said.append((cursor.statusmessage, cursor.rowcount))
        same(said, [
            ("INSERT 0 3", 3), ("UPDATE 2", 2), ("UPDATE 0", 0), ("DELETE 1", 1), ("SELECT 2", 2), ("BEGIN", -1), ("SAVEPOINT", -1),
            ("ROLLBACK", -1), ("RELEASE", -1), ("COMMIT", -1), ("SET", -1), ("RESET", -1), ("TRUNCATE TABLE", -1), ("CREATE INDEX", -1),
            ("DROP INDEX", -1), ("CREATE VIEW", -1), ("DROP VIEW", -1), ("ALTER TABLE", -1),
        ])


@check
def several_statements_in_one_string_are_one_transaction():
    with table("id integer PRIMARY KEY") as (db, t):
        same(state_of(lambda: db.execute(f"INSERT INTO {t} VALUES (1); INSERT INTO {t} VALUES (2); INSERT INTO {t} VALUES (1)")), "23505")
        same(rows(db, f"SELECT count(*) FROM {t}"), [(0,)])


@check
def each_answer_of_a_string_of_statements_is_a_set():
    with connect(autocommit=True) as db:
        cursor = db.execute("SELECT 1; SELECT 'x', 2")
        same(cursor.fetchall(), [(1,)])
        assert cursor.nextset(), "there is no second set"
        same(cursor.fetchall(), [("x", 2)])


@check
def returning_gives_defaults_and_old_rows():
    with table("id serial PRIMARY KEY, t text DEFAULT 'd', at timestamptz DEFAULT now()") as (db, t):
        got = db.execute(f"INSERT INTO {t} (t) VALUES (DEFAULT), ('e') RETURNING id, t").fetchall()
        same(got, [(1, "d"), (2, "e")])
        assert rows(db, f"SELECT at FROM {t} WHERE id = 1")[0][0].tzinfo is not None
        same(rows(db, f"UPDATE {t} SET t = upper(t) RETURNING t"), [("D",), ("E",)])
        same(rows(db, f"DELETE FROM {t} WHERE id = 1 RETURNING *")[0][:2], (1, "D"))


@check
def on_conflict_does_what_it_says():
    with table("id integer PRIMARY KEY, n integer", [(1, 1)]) as (db, t):
        same(db.execute(f"INSERT INTO {t} VALUES (1, 9), (2, 2) ON CONFLICT DO NOTHING").rowcount, 1)
        upsert = f"INSERT INTO {t} VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET n = {t}.n + excluded.n RETURNING n"
        same(rows(db, upsert, [1, 10]), [(11,)])
        same(rows(db, upsert, [3, 10]), [(10,)])


# psycopg: what queries mean


@check
def is_distinct_from_binds_more_tightly_than_and():
    with table("id integer PRIMARY KEY, b boolean, n integer", [(1, True, 1), (2, False, 9), (3, None, 9)]) as (db, t):
        same(rows(db, f"SELECT id FROM {t} WHERE b IS DISTINCT FROM true AND n > 5 ORDER BY id"), [(2,), (3,)])
        same(rows(db, f"SELECT id FROM {t} WHERE b IS NOT DISTINCT FROM true OR n > 5 ORDER BY id"), [(1,), (2,), (3,)])


@contextlib.contextmanager
def with_nulls():
    """Two tables in which `y` is NULL somewhere."""
    columns = "id integer PRIMARY KEY, y integer"
    with table(columns, [(1, 1), (2, 5), (3, None)]) as (db, one), table(columns, [(1, 1), (2, None)]) as (_, two):
        yield db, one, two


@check
def not_in_a_query_with_nulls_is_never_true():
    with with_nulls() as (db, one, two):
        same(rows(db, f"SELECT id FROM {one} WHERE y NOT IN (SELECT y FROM {two})"), [])


@check
def not_in_a_query_with_nulls_is_never_true_beside_or():
    with with_nulls() as (db, one, two):
        same(rows(db, f"SELECT id FROM {one} WHERE y NOT IN (SELECT y FROM {two}) OR id = 99"), [])
        same(rows(db, f"SELECT id FROM {one} WHERE NOT (y IN (SELECT y FROM {two}) AND id > 0)"), [])
        same(db.execute(f"DELETE FROM {one} WHERE y NOT IN (SELECT y FROM {two}) OR id = 99").rowcount, 0)


@check
def in_a_correlated_query_with_nulls_is_not_true():
    with with_nulls() as (db, one, two):
        wanted = [(3,)]
        same(rows(db, f"SELECT id FROM {one} WHERE y NOT IN (SELECT y FROM {two} q WHERE q.id = {one}.id)"), wanted)


@check
def in_a_query_is_a_value():
    with with_nulls() as (db, one, two):
        same(rows(db, f"SELECT id, y IN (SELECT y FROM {two}) FROM {one} ORDER BY id"), [(1, True), (2, None), (3, None)])


@check
def an_expression_may_stand_twice_in_a_select():
    with table("id integer PRIMARY KEY, n integer", [(1, 5)]) as (db, t):
        same(rows(db, f"SELECT n, n FROM {t}"), [(5, 5)])
        same(rows(db, f"SELECT count(*), count(*) FROM {t}"), [(1, 1)])
        same(rows(db, "SELECT 1, 1, NULL, NULL"), [(1, 1, None, None)])


@check
def an_insert_of_a_query_may_name_a_value_twice():
    with table("id integer PRIMARY KEY, m integer, n integer", [(1, 5, 6)]) as (db, t):
        db.execute(f"INSERT INTO {t} SELECT 2, NULL, NULL FROM {t}")
        same(rows(db, f"SELECT * FROM {t} WHERE id = 2"), [(2, None, None)])


@check
def a_column_may_be_named_like_the_table_around_a_query():
    with with_nulls() as (db, one, two):
        same(rows(db, f"SELECT count(*) FROM {one} AS y WHERE EXISTS (SELECT 1 FROM {two} q WHERE q.id = y.id)"), [(2,)])


# psycopg: errors


@check
def errors_have_the_codes_of_postgresql():
    with table("id integer PRIMARY KEY, n integer NOT NULL CHECK (n > 0), u text UNIQUE, v varchar(3)", [(1, 1, "a", "x")]) as (db, t):
        got = {statement: state_of(lambda: db.execute(statement)) for statement in [
            f"INSERT INTO {t} VALUES (1, 1, 'b', 'x')",
            f"INSERT INTO {t} VALUES (2, 1, 'a', 'x')",
            f"INSERT INTO {t} VALUES (2, NULL, 'b', 'x')",
            f"INSERT INTO {t} VALUES (2, 0, 'b', 'x')",
            f"INSERT INTO {t} VALUES (2, 1, 'b', 'long')",
            "SELEC 1",
            "SELECT * FROM nowhere",
            f"SELECT nothing FROM {t}",
            "SELECT nofunction(1)",
            f"CREATE TABLE {t} (id integer)",
            "DROP TABLE nowhere",
            f"INSERT INTO {t} (id, nothing) VALUES (1, 1)",
            f"INSERT INTO {t} (id, n) VALUES (1, 1, 1)",
            f"SELECT n FROM {t} GROUP BY id + 1",
            "SELECT 1 + 'x'",
            f"SELECT id FROM {t} a, {t} b",
            f"SELECT id FROM {t} WHERE n",
            "SELECT (SELECT 1 UNION SELECT 2)",
            "SELECT CAST('2024-02-30' AS date)",
            "ROLLBACK TO nothing",
            f"SELECT '{t}'::nosuchtype",
        ]}
        wanted = dict(zip(got, ["23505", "23505", "23502", "23514", "22001", "42601", "42P01", "42703", "42883", "42P07", "42P01",
                                "42703", "42601", "42803", "22P02", "42702", "42804", "21000", "22008", "25P01", "42704"], strict=True))
        wrong = {statement: f"{got[statement]}, not {wanted[statement]}" for statement in got if got[statement] != wanted[statement]}
        assert not wrong, str(wrong)


@check
def a_violation_names_table_and_constraint():
    with table("id integer PRIMARY KEY, n integer NOT NULL", [(1, 1)]) as (db, t):
        for statement, constraint, column in [("(1, 1)", f"{t}_pkey", None), ("(2, NULL)", None, "n")]:
            try:
                db.execute(f"INSERT INTO {t} VALUES {statement}")
            except psycopg.Error as error:
                same((error.diag.table_name, error.diag.constraint_name, error.diag.column_name), (t, constraint, column))


@check
def an_error_leaves_the_connection_usable():
    with connect(autocommit=True) as db:
        same(state_of(lambda: db.execute("SELECT * FROM nowhere WHERE id = %s", [1])), "42P01")
        same(rows(db, "SELECT %s::integer", [4]), [(4,)])


@check
def a_wrong_password_is_refused():
    same(state_of_connect(password="wrong"), True)


@check
def another_user_is_refused():
    same(state_of_connect(user="somebody"), True)


def state_of_connect(**words):
    """Whether connecting fails because of the password."""
    try:
        connect(**words).close()
    except psycopg.OperationalError as error:
        return "password authentication failed" in str(error)
    return False


# psycopg: transactions


@check
def a_block_that_fails_is_rolled_back():
    with table("id integer PRIMARY KEY") as (db, t):
        with contextlib.suppress(ZeroDivisionError), db.transaction():
            db.execute(f"INSERT INTO {t} VALUES (1)")
            same(rows(db, f"SELECT count(*) FROM {t}"), [(1,)])
            raise ZeroDivisionError
        same(rows(db, f"SELECT count(*) FROM {t}"), [(0,)])
        same(db.info.transaction_status, psycopg.pq.TransactionStatus.IDLE)


@check
def a_nested_block_is_a_savepoint():
    with table("id integer PRIMARY KEY, n integer") as (db, t):
        with db.transaction():
            db.execute(f"INSERT INTO {t} VALUES (1, 1)")
            with contextlib.suppress(psycopg.errors.UniqueViolation), db.transaction():
                db.execute(f"INSERT INTO {t} VALUES (2, 2)")
                db.execute(f"UPDATE {t} SET n = 9")
                db.execute(f"INSERT INTO {t} VALUES (1, 1)")
            with db.transaction():
                db.execute(f"INSERT INTO {t} VALUES (3, 3)")
                with contextlib.suppress(psycopg.Rollback), db.transaction() as inner:
                    db.execute(f"DELETE FROM {t}")
                    raise psycopg.Rollback(inner)
        same(rows(db, f"SELECT * FROM {t} ORDER BY id"), [(1, 1), (3, 3)])


@check
def a_failed_transaction_takes_nothing_but_its_end():
    with table("id integer PRIMARY KEY") as (db, t):
        db.autocommit = False
        db.execute(f"INSERT INTO {t} VALUES (1)")
        same(state_of(lambda: db.execute("SELECT * FROM nowhere")), "42P01")
        same(db.info.transaction_status, psycopg.pq.TransactionStatus.INERROR)
        same(state_of(lambda: db.execute("SELECT 1")), "25P02")
        db.rollback()
        same(rows(db, f"SELECT count(*) FROM {t}"), [(0,)])


@check
def a_commit_of_a_failed_transaction_says_rollback():
    with table("id integer PRIMARY KEY") as (db, t):
        db.execute("BEGIN")
        state_of(lambda: db.execute("SELECT * FROM nowhere"))
        same(db.execute("COMMIT").statusmessage, "ROLLBACK")


@check
def a_transaction_reads_what_it_wrote_and_nobody_else_does():
    with table("id integer PRIMARY KEY, n integer", [(1, 1), (2, 2)]) as (db, t), connect(autocommit=True) as other:
        with db.transaction():
            db.execute(f"UPDATE {t} SET n = n * 10")
            db.execute(f"DELETE FROM {t} WHERE n = 20")
            db.execute(f"INSERT INTO {t} VALUES (3, 30)")
            same(rows(db, f"SELECT * FROM {t} ORDER BY id"), [(1, 10), (3, 30)])
            same(rows(db, f"SELECT count(*), sum(n) FROM {t} WHERE id >= 1 AND id < 9"), [(2, 40)])
            same(rows(other, f"SELECT * FROM {t} ORDER BY id"), [(1, 1), (2, 2)])
        same(rows(other, f"SELECT * FROM {t} ORDER BY id"), [(1, 10), (3, 30)])


@check
def a_transaction_sees_one_moment():
    with table("id integer PRIMARY KEY, n integer", [(1, 1)]) as (db, t), connect(autocommit=True) as other:
        with db.transaction():
            same(rows(db, f"SELECT n FROM {t}"), [(1,)])
            other.execute(f"UPDATE {t} SET n = 2")
            same(rows(db, f"SELECT n FROM {t}"), [(1,)])
        same(rows(db, f"SELECT n FROM {t}"), [(2,)])


@check
def the_second_of_two_that_change_a_row_fails_with_40001():
    with table("id integer PRIMARY KEY, n integer", [(1, 1)]) as (db, t), connect() as one, connect() as two:
        for session in (one, two):
            same(rows(session, f"SELECT n FROM {t} WHERE id = 1"), [(1,)])
        one.execute(f"UPDATE {t} SET n = n + 1 WHERE id = 1")
        one.commit()

        def second():
            two.execute(f"UPDATE {t} SET n = n + 1 WHERE id = 1")
            two.commit()

        same(state_of(second), "40001")
        two.rollback()
        same(rows(db, f"SELECT n FROM {t}"), [(2,)])
        second()
        same(rows(db, f"SELECT n FROM {t}"), [(3,)])


@check
def writes_skewed_across_two_rows_are_refused():
    with table("id integer PRIMARY KEY, n integer", [(1, 1), (2, 1)]) as (db, t), connect() as one, connect() as two:
        for session in (one, two):
            same(rows(session, f"SELECT sum(n) FROM {t}"), [(2,)])

        def both():
            one.execute(f"UPDATE {t} SET n = 0 WHERE id = 1")
            two.execute(f"UPDATE {t} SET n = 0 WHERE id = 2")
            one.commit()
            two.commit()

        same(state_of(both), "40001")


@check
def counters_raised_by_many_connections_lose_nothing():
    with table("id integer PRIMARY KEY, n integer", [(1, 0)]) as (db, t):
        failed = []

        def raise_it():
            try:
                with connect(autocommit=True) as session:
                    for _ in range(3):
                        session.execute(f"UPDATE {t} SET n = n + 1 WHERE id = 1")
            except BaseException as error:  # noqa: BLE001
                failed.append(error)

        threads = [threading.Thread(target=raise_it) for _ in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        if served.ORACLE != "postgres":  # a statement alone is tried again by itself, which PostgreSQL leaves to the client
            same(failed, [])
            same(rows(db, f"SELECT n FROM {t}"), [(12,)])


@check
def ddl_is_rolled_back_with_its_transaction():
    with connect() as db:
        db.execute("CREATE TABLE ephemeral (id integer PRIMARY KEY)")
        db.execute("INSERT INTO ephemeral VALUES (1)")
        same(rows(db, "SELECT count(*) FROM ephemeral"), [(1,)])
        db.rollback()
        same(state_of(lambda: db.execute("SELECT * FROM ephemeral")), "42P01")


@check
def a_table_is_made_again_after_a_rollback():
    with connect() as db:
        for _ in range(3):
            db.execute("CREATE TABLE again (id integer PRIMARY KEY)")
            db.rollback()
            db.execute("SELECT 1")


@check
def transactions_of_one_session_meet_no_conflict():
    with table("id integer PRIMARY KEY, n integer", [(1, 0)]) as (db, t):
        for _ in range(40):
            with db.transaction():
                db.execute(f"UPDATE {t} SET n = n + 1 WHERE id = 1")
        same(rows(db, f"SELECT n FROM {t}"), [(40,)])


# psycopg: COPY, pipeline, cursors, cancel, notices


@check
def copy_takes_rows_and_gives_them_back():
    with table(TYPED) as (db, t):
        cursor = db.cursor()
        with cursor.copy(f"COPY {t} FROM STDIN") as copy:
            for row in ROWS:
                copy.write_row(row)
        same(cursor.rowcount, 3)
        same(rows(db, f"SELECT * FROM {t} ORDER BY id"), ROWS)
        with db.cursor().copy(f"COPY (SELECT * FROM {t} ORDER BY id) TO STDOUT") as copy:
            copy.set_types(["int8", "bool", "int4", "float8", "numeric", "text", "bytea", "date", "timestamptz"])
            same(list(copy.rows()), ROWS)


@check
def copy_reads_and_writes_csv():
    with table("id integer PRIMARY KEY, t text, n integer") as (db, t):
        text = 'id,t,n\n1,"a ""quoted"", cell",5\n2,,\n3,"",7\n4,"two\nlines",0\n'
        with db.cursor().copy(f"COPY {t} FROM STDIN (FORMAT csv, HEADER)") as copy:
            copy.write(text)
        same(rows(db, f"SELECT * FROM {t} ORDER BY id"), [(1, 'a "quoted", cell', 5), (2, None, None), (3, "", 7), (4, "two\nlines", 0)])
        with db.cursor().copy(f"COPY (SELECT * FROM {t} ORDER BY id) TO STDOUT WITH (FORMAT csv, HEADER true)") as copy:
            same(b"".join(copy).decode(), text)


@check
def copy_in_binary_goes_both_ways():
    with table("id integer PRIMARY KEY, t text, d numeric(8,2)") as (db, t):
        data = [(1, "a", decimal.Decimal("1.50")), (2, None, None)]
        types = ["int4", "text", "numeric"]
        with db.cursor().copy(f"COPY {t} FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(types)
            for row in data:
                copy.write_row(row)
        with db.cursor().copy(f"COPY (SELECT * FROM {t} ORDER BY id) TO STDOUT (FORMAT binary)") as copy:
            copy.set_types(types)
            same(list(copy.rows()), data)


@check
def a_copy_of_many_rows_is_whole():
    with table("id integer PRIMARY KEY, n bigint, t text") as (db, t):
        count = 40_000
        cursor = db.cursor()
        with cursor.copy(f"COPY {t} (n, id, t) FROM STDIN") as copy:
            for n in range(count):
                copy.write_row((n * n, n, f"row {n}"))
        same(cursor.rowcount, count)
        same(rows(db, f"SELECT count(*), sum(n), max(t) FROM {t}"), [(count, sum(n * n for n in range(count)), "row 9999")])


@check
def a_copy_with_a_bad_row_leaves_nothing():
    with table("id integer PRIMARY KEY, n integer") as (db, t):
        def bad():
            with db.cursor().copy(f"COPY {t} FROM STDIN") as copy:
                copy.write("1\t1\n2\tx\n")
        same(state_of(bad), "22P02")
        same(rows(db, f"SELECT count(*) FROM {t}"), [(0,)])


@check
def a_copy_that_the_client_gives_up_leaves_nothing():
    with table("id integer PRIMARY KEY") as (db, t):
        with contextlib.suppress(ZeroDivisionError):
            with db.cursor().copy(f"COPY {t} FROM STDIN") as copy:
                copy.write_row((1,))
                raise ZeroDivisionError
        same(rows(db, f"SELECT count(*) FROM {t}"), [(0,)])


@check
def a_pipeline_gives_answers_in_order():
    with table("id integer PRIMARY KEY, n integer") as (db, t):
        with db.pipeline():
            cursors = [db.execute(f"INSERT INTO {t} VALUES (%s, %s) RETURNING n", [n, n * n]) for n in range(5)]
            last = db.execute(f"SELECT count(*) FROM {t}")
        same([cursor.fetchone() for cursor in cursors], [(n * n,) for n in range(5)])
        same(last.fetchone(), (5,))


@check
def a_pipeline_between_syncs_is_one_transaction():
    with table("id integer PRIMARY KEY") as (db, t):
        def failing():
            with db.pipeline():
                db.execute(f"INSERT INTO {t} VALUES (1)")
                db.execute(f"INSERT INTO {t} VALUES (1)")
        same(state_of(failing), "23505")
        same(rows(db, f"SELECT count(*) FROM {t}"), [(0,)])


@check
def a_pipeline_in_a_transaction_goes_on_after_its_error():
    with table("id integer PRIMARY KEY") as (db, t):
        with contextlib.suppress(psycopg.errors.UniqueViolation), db.pipeline(), db.transaction():
            db.execute(f"INSERT INTO {t} VALUES (1)")
            db.execute(f"INSERT INTO {t} VALUES (1)")
            db.execute(f"INSERT INTO {t} VALUES (2)")
        same(rows(db, f"SELECT count(*) FROM {t}"), [(0,)])


@check
def rows_are_streamed_one_by_one():
    with table("id integer PRIMARY KEY", [(n,) for n in range(100)]) as (db, t):
        same([n for n, in db.cursor().stream(f"SELECT id FROM {t} ORDER BY id")], list(range(100)))


@check
def a_cursor_on_the_server_is_fetched_in_parts():
    with table("id integer PRIMARY KEY", [(n,) for n in range(50)]) as (db, t):
        with db.transaction(), db.cursor("part") as cursor:
            cursor.execute(f"SELECT id FROM {t} ORDER BY id")
            same(cursor.fetchmany(3), [(0,), (1,), (2,)])
            same(len(cursor.fetchall()), 47)


@check
def a_cursor_on_the_server_scrolls():
    with table("id integer PRIMARY KEY", [(n,) for n in range(50)]) as (db, t):
        with db.transaction(), db.cursor("scrolled", scrollable=True) as cursor:
            cursor.execute(f"SELECT id FROM {t} ORDER BY id")
            cursor.scroll(10)
            same(cursor.fetchone(), (10,))
            cursor.scroll(0, mode="absolute")
            same(cursor.fetchone(), (0,))


@check
def a_statement_is_cancelled():
    with table("id integer PRIMARY KEY", [(n,) for n in range(2000)]) as (db, t):
        begun = threading.Event()
        ended = []

        def cancel():
            begun.wait()
            while not ended:
                db.cancel_safe(timeout=10)

        thread = threading.Thread(target=cancel)
        thread.start()
        try:
            begun.set()
            heavy = f"SELECT count(*) FROM {t} a, {t} b, {t} c WHERE (a.id + b.id + c.id) % 7 = 3"
            same(state_of(lambda: db.execute(heavy).fetchall()), "57014")
        finally:
            ended.append(True)
            thread.join()
        # A cancel that came late may hit this one.
        with contextlib.suppress(psycopg.errors.QueryCanceled):
            db.execute("SELECT 1")
        same(rows(db, "SELECT 2"), [(2,)])


@check
def a_statement_timeout_is_kept():
    with table("id integer PRIMARY KEY", [(n,) for n in range(2000)]) as (db, t):
        db.execute("SET statement_timeout = '100ms'")
        heavy = f"SELECT count(*) FROM {t} a, {t} b, {t} c WHERE (a.id + b.id + c.id) % 7 = 3"
        same(state_of(lambda: db.execute(heavy).fetchall()), "57014")


@check
def notices_reach_the_client():
    with connect(autocommit=True) as db:
        said = []
        db.add_notice_handler(lambda notice: said.append((notice.severity, notice.sqlstate, notice.message_primary)))
        db.execute("DROP TABLE IF EXISTS nowhere")
        same(said, [("NOTICE", "00000", 'table "nowhere" does not exist, skipping')])


@check
def a_line_of_the_proof_follows_where_it_is_asked_for():
    if served.ORACLE == "postgres":
        return
    with table("id integer PRIMARY KEY", [(1,)]) as (db, t):
        said = []
        db.add_notice_handler(lambda notice: said.append(notice.message_primary))
        rows(db, f"SELECT * FROM {t}")
        same(said, [])
        db.execute("SET fluence.notices = on")
        rows(db, f"SELECT * FROM {t}")
        same(len(said), 1)


@check
def settings_are_shown_and_reset():
    with connect(autocommit=True) as db:
        db.execute("SET application_name = 'tests'")
        same(rows(db, "SHOW application_name"), [("tests",)])
        same(db.info.parameter_status("application_name"), "tests")
        same(rows(db, "SELECT current_setting('application_name')"), [("tests",)])
        db.execute("RESET application_name")
        same(rows(db, "SHOW application_name"), [("",)])
        same(rows(db, "SHOW transaction_isolation"), [("serializable",)])


@check
def a_setting_is_rolled_back_with_its_transaction():
    with connect(autocommit=True) as db:
        db.execute("BEGIN")
        db.execute("SET application_name = 'tests'")
        db.execute("ROLLBACK")
        same(rows(db, "SHOW application_name"), [("",)])


@check
def functions_that_say_who_and_where_answer():
    with connect() as db:
        same(rows(db, "SELECT current_user, current_database(), current_schema()"), [("fluence", PLACE["dbname"], "public")])
        assert rows(db, "SELECT pg_backend_pid()")[0][0] == db.info.backend_pid


@check
def a_recursive_query_counts():
    with connect() as db:
        same(rows(db, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5) SELECT sum(i) FROM n"), [(15,)])


@check
def a_column_of_a_user_table_may_be_named_like_the_catalogue():
    with table("id integer PRIMARY KEY, t text", [(1, "pg_catalog.x"), (2, "pg_type")]) as (db, t):
        same(rows(db, f"SELECT id FROM {t} WHERE t = 'pg_catalog.x'"), [(1,)])
        same(rows(db, f"SELECT t, 'pg_class' FROM {t} WHERE id = 2"), [("pg_type", "pg_class")])


# psycopg, async


def run_async(act):
    asyncio.run(act())


@check
def async_connections_do_the_same():
    async def act():
        async with await psycopg.AsyncConnection.connect(**PLACE, autocommit=True) as db:
            await db.execute("CREATE TABLE awaited (id integer PRIMARY KEY, t text)")
            try:
                async with db.transaction():
                    await db.execute("INSERT INTO awaited VALUES (%s, %s)", [1, "a"])
                async with db.cursor().copy("COPY awaited FROM STDIN") as copy:
                    await copy.write_row((2, "b"))
                async with db.pipeline():
                    cursors = [await db.execute("SELECT t FROM awaited WHERE id = %s", [n]) for n in (1, 2)]
                same([await cursor.fetchone() for cursor in cursors], [("a",), ("b",)])
                got = [row async for row in db.cursor().stream("SELECT id FROM awaited ORDER BY id")]
                same(got, [(1,), (2,)])
            finally:
                await db.execute("DROP TABLE awaited")
    run_async(act)


@check
def many_connections_work_side_by_side():
    async def act():
        async def one(n):
            async with await psycopg.AsyncConnection.connect(**PLACE) as db:
                return await (await db.execute("SELECT %s::integer + 1", [n])).fetchone()
        same(await asyncio.gather(*(one(n) for n in range(16))), [(n + 1,) for n in range(16)])
    run_async(act)


# SQLAlchemy


@contextlib.contextmanager
def engine(**words):
    """An engine that does not ask for the extension `hstore`, unless it is told to: so that all else is tested too."""
    address = sa.URL.create("postgresql+psycopg", *(PLACE[word] for word in ("user", "password", "host", "port", "dbname")))
    made = sa.create_engine(address, **({"use_native_hstore": False} | words))
    try:
        yield made
    finally:
        made.dispose()


class Base(orm.DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "authors"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    name: orm.Mapped[str] = orm.mapped_column(sa.String(50), nullable=False)
    born: orm.Mapped[datetime.date | None]
    books: orm.Mapped[list["Book"]] = orm.relationship(back_populates="author", cascade="all, delete-orphan")


class Book(Base):
    __tablename__ = "books"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    title: orm.Mapped[str]
    price: orm.Mapped[decimal.Decimal | None] = orm.mapped_column(sa.Numeric(8, 2))
    author_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey("authors.id"), index=True)
    author: orm.Mapped[Author] = orm.relationship(back_populates="books")


@contextlib.contextmanager
def library():
    """An engine, with the two tables and a few rows in them."""
    with engine() as made:
        # DDL in statements of their own: sqlalchemy_makes_tables_once_and_drops_them has it in transactions.
        alone = made.execution_options(isolation_level="AUTOCOMMIT")
        Base.metadata.create_all(alone)
        try:
            with orm.Session(made) as session, session.begin():
                ada = Author(name="Ada", born=datetime.date(1815, 12, 10))
                ada.books = [Book(title="Notes", price=decimal.Decimal("9.50")), Book(title="Letters")]
                session.add_all([ada, Author(name="Bob")])
            yield made
        finally:
            Base.metadata.drop_all(alone)


@check
def sqlalchemy_connects_as_it_does_by_default():
    with engine(use_native_hstore=True) as made, made.connect() as db:
        same(db.execute(sa.text("SELECT 1")).scalar(), 1)


@check
def sqlalchemy_connects_and_selects():
    with engine() as made, made.connect() as db:
        same(db.execute(sa.text("SELECT 1")).scalar(), 1)
        same(db.dialect.default_schema_name, "public")


@check
def sqlalchemy_makes_tables_once_and_drops_them():
    with engine() as made:
        Base.metadata.create_all(made)
        Base.metadata.create_all(made)
        names = sa.inspect(made).get_table_names()
        Base.metadata.drop_all(made)
        same((set(names) >= {"authors", "books"}, sa.inspect(made).has_table("authors")), (True, False))


@check
def sqlalchemy_orm_selects_across_a_relationship():
    with library() as made, orm.Session(made) as session:
        found = session.scalars(sa.select(Book).join(Book.author).where(Author.name == "Ada").order_by(Book.title)).all()
        same([(b.title, b.price, b.author.name) for b in found], [("Letters", None, "Ada"), ("Notes", decimal.Decimal("9.50"), "Ada")])
        counted = sa.select(Author.name, sa.func.count(Book.id)).outerjoin(Book).group_by(Author.name).order_by(Author.name)
        same(session.execute(counted).all(), [("Ada", 2), ("Bob", 0)])
        for load in (orm.selectinload, orm.joinedload):
            session.expire_all()
            same(sorted(len(a.books) for a in session.scalars(sa.select(Author).options(load(Author.books))).unique()), [0, 2])


@check
def sqlalchemy_orm_updates_and_deletes():
    with library() as made:
        with orm.Session(made) as session, session.begin():
            session.scalars(sa.select(Book).where(Book.title == "Letters")).one().price = decimal.Decimal("3.25")
            session.execute(sa.update(Author).where(Author.name == "Bob").values(born=datetime.date(2000, 1, 1)))
        with orm.Session(made) as session, session.begin():
            same(session.scalar(sa.select(sa.func.sum(Book.price))), decimal.Decimal("12.75"))
            session.delete(session.scalars(sa.select(Author).where(Author.name == "Ada")).one())
        with orm.Session(made) as session:
            same(session.execute(sa.select(Author.name, Author.born)).all(), [("Bob", datetime.date(2000, 1, 1))])
            same(session.scalar(sa.select(sa.func.count()).select_from(Book)), 0)


@check
def sqlalchemy_rolls_back():
    with library() as made, orm.Session(made) as session:
        session.add(Author(name="Eve"))
        session.flush()
        with contextlib.suppress(ZeroDivisionError), session.begin_nested():
            session.add(Author(name="Fay"))
            session.flush()
            raise ZeroDivisionError
        same(session.scalar(sa.select(sa.func.count()).select_from(Author)), 3)
        session.rollback()
        same(session.scalar(sa.select(sa.func.count()).select_from(Author)), 2)


@check
def sqlalchemy_core_selects():
    a, b = Author.__table__, Book.__table__
    with library() as made, made.connect() as db:
        where = sa.select(b.c.author_id).where(b.c.price.is_not(None))
        same(db.execute(sa.select(a.c.name).where(a.c.id.in_(where))).all(), [("Ada",)])
        same(db.execute(sa.select(a.c.name).where(a.c.id.in_([1, 2, 3])).order_by(sa.desc("name")).limit(1).offset(1)).all(), [("Ada",)])
        same(db.execute(sa.select(sa.func.coalesce(b.c.price, 0)).order_by(b.c.title)).all(), [(0,), (decimal.Decimal("9.50"),)])
        ranked = sa.select(b.c.title, sa.func.row_number().over(order_by=b.c.title)).order_by(b.c.title)
        same(db.execute(ranked).all(), [("Letters", 1), ("Notes", 2)])
        many = [{"name": f"n{n}", "born": None} for n in range(30)]
        same(len(db.execute(sa.insert(a).returning(a.c.id), many).all()), 30)
        same(db.execute(sa.delete(a).where(a.c.name.like("n%"))).rowcount, 30)


@check
def sqlalchemy_upserts():
    from sqlalchemy.dialects.postgresql import insert
    a = Author.__table__
    with library() as made, made.begin() as db:
        put = insert(a).values(id=1, name="Ida")
        db.execute(put.on_conflict_do_update(index_elements=[a.c.id], set_={"name": put.excluded.name}))
        same(db.execute(sa.select(a.c.name).where(a.c.id == 1)).scalar(), "Ida")


@check
def sqlalchemy_reflects_columns_and_types():
    with library() as made:
        columns = sa.inspect(made).get_columns("books")
        same([(c["name"], str(c["type"]), c["nullable"]) for c in columns],
             [("id", "INTEGER", False), ("title", "VARCHAR", False), ("price", "NUMERIC(8, 2)", True), ("author_id", "INTEGER", False)])


@check
def sqlalchemy_reflects_the_length_of_a_varchar():
    with library() as made:
        same(str({c["name"]: c["type"] for c in sa.inspect(made).get_columns("authors")}["name"]), "VARCHAR(50)")


@check
def sqlalchemy_reflects_primary_keys():
    with library() as made:
        same(sa.inspect(made).get_pk_constraint("books")["constrained_columns"], ["id"])


@check
def sqlalchemy_reflects_indexes():
    with library() as made:
        same([(i["name"], i["column_names"], i["unique"]) for i in sa.inspect(made).get_indexes("books")], [("ix_books_author_id", ["author_id"], False)])


@check
def sqlalchemy_reflects_unique_and_check_constraints():
    with table("id integer PRIMARY KEY, u text UNIQUE, n integer CHECK (n > 0)") as (_, t), engine() as made:
        look = sa.inspect(made)
        same([u["column_names"] for u in look.get_unique_constraints(t)], [["u"]])
        same(len(look.get_check_constraints(t)), 1)


@check
def sqlalchemy_reflects_views():
    with library() as made:
        with made.begin() as db:
            db.execute(sa.text("CREATE VIEW titles AS SELECT title FROM books"))
        try:
            same(sa.inspect(made).get_view_names(), ["titles"])
            assert "title" in sa.inspect(made).get_view_definition("titles")
        finally:
            with made.begin() as db:
                db.execute(sa.text("DROP VIEW titles"))


@check
def sqlalchemy_reflects_a_table_that_works():
    with library() as made:
        books = sa.Table("books", sa.MetaData(), autoload_with=made)
        with made.connect() as db:
            same(db.execute(sa.select(books.c.title).order_by(books.c.title)).all(), [("Letters",), ("Notes",)])


# asyncpg: everything in binary


@contextlib.asynccontextmanager
async def pg():
    db = await asyncpg.connect(host=PLACE["host"], port=PLACE["port"], user=PLACE["user"], password=PLACE["password"],
                               database=PLACE["dbname"], timeout=20, ssl=False)
    try:
        yield db
    finally:
        await db.close(timeout=10)


@check
def asyncpg_writes_and_reads_all_types():
    async def act():
        async with pg() as db:
            await db.execute(f"CREATE TABLE fast ({TYPED})")
            try:
                await db.executemany("INSERT INTO fast VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)", ROWS)
                same([tuple(r) for r in await db.fetch("SELECT * FROM fast ORDER BY id")], ROWS)
                same(await db.fetchval("SELECT d FROM fast WHERE ts = $1", ROWS[0][8]), ROWS[0][4])
            finally:
                await db.execute("DROP TABLE fast")
    run_async(act)


@check
def asyncpg_rolls_back_and_nests():
    async def act():
        async with pg() as db:
            await db.execute("CREATE TABLE nested (id integer PRIMARY KEY)")
            try:
                with contextlib.suppress(asyncpg.UniqueViolationError):
                    async with db.transaction():
                        await db.execute("INSERT INTO nested VALUES ($1)", 1)
                        async with db.transaction():
                            await db.execute("INSERT INTO nested VALUES ($1)", 1)
                same(await db.fetchval("SELECT count(*) FROM nested"), 0)
            finally:
                await db.execute("DROP TABLE nested")
    run_async(act)


@check
def asyncpg_fetches_with_a_cursor_in_parts():
    async def act():
        async with pg() as db, db.transaction():
            cursor = await db.cursor("SELECT i FROM generate_series(1, 25) AS s(i)")
            same([r[0] for r in await cursor.fetch(3)], [1, 2, 3])
            same([r[0] for r in await cursor.fetch(99)], list(range(4, 26)))
    run_async(act)


@check
def asyncpg_copies_records_in_and_out():
    async def act():
        async with pg() as db:
            await db.execute("CREATE TABLE copied (id integer PRIMARY KEY, t text)")
            try:
                await db.copy_records_to_table("copied", records=[(1, "a"), (2, None)])
                same([tuple(r) for r in await db.fetch("SELECT * FROM copied ORDER BY id")], [(1, "a"), (2, None)])
            finally:
                await db.execute("DROP TABLE copied")
    run_async(act)


@check
def asyncpg_chooses_by_an_array():
    async def act():
        async with pg() as db:
            same(await db.fetchval("SELECT 2 = ANY($1::bigint[])", [1, 2]), True)
    run_async(act)


# psql: what it asks of the catalogue


def psql(command):
    """What psql prints for a command, unaligned."""
    names = {"PGHOST": "host", "PGPORT": "port", "PGUSER": "user", "PGPASSWORD": "password", "PGDATABASE": "dbname"}
    env = os.environ | {name: str(PLACE[word]) for name, word in names.items()}
    ran = subprocess.run(["psql", "-X", "-A", "-c", command], env=env, capture_output=True, text=True, timeout=60)
    # An empty list is said where errors are.
    said = [line for line in ran.stderr.splitlines() if not line.startswith("Did not find any")]
    assert not said, f"{command}: {said}"
    return ran.stdout


DESCRIBED = "id integer PRIMARY KEY, t varchar(9) NOT NULL, n numeric(8,2) DEFAULT 1.5, m bigint CHECK (m > 0)"


@check
def psql_describes_a_table_an_index_and_a_view():
    with table(DESCRIBED) as (db, t):
        db.execute(f"CREATE INDEX {t}_i ON {t} (t, n)")
        db.execute(f"CREATE VIEW {t}_v AS SELECT t FROM {t}")
        try:
            same(psql(f"\\d {t}").splitlines(), [
                f'Table "public.{t}"', "Column|Type|Collation|Nullable|Default", "id|integer||not null|", "t|character varying(9)||not null|",
                "n|numeric(8,2)|||1.5", "m|bigint|||", "Indexes:", f'    "{t}_pkey" PRIMARY KEY, btree (id)', f'    "{t}_i" btree (t, n)',
                "Check constraints:", f'    "{t}_m_check" CHECK (m > 0)',
            ])
            same(psql(f"\\d {t}_i").splitlines(), [
                f'Index "public.{t}_i"', "Column|Type|Key?|Definition", "t|character varying(9)|yes|t", "n|numeric(8,2)|yes|n",
                f'btree, for table "public.{t}"',
            ])
            same(psql(f"\\d {t}_v").splitlines(),
                 [f'View "public.{t}_v"', "Column|Type|Collation|Nullable|Default", "t|character varying(9)|||"])
            same(psql(f"\\dv {t}*").splitlines(), ["List of relations", "Schema|Name|Type|Owner", f"public|{t}_v|view|fluence", "(1 row)"])
            same(psql(f"\\di {t}*").splitlines(), [
                "List of relations", "Schema|Name|Type|Owner|Table", f"public|{t}_i|index|fluence|{t}", f"public|{t}_pkey|index|fluence|{t}", "(2 rows)",
            ])
            same(psql(f"\\dp {t}").splitlines(), [
                "Access privileges", "Schema|Name|Type|Access privileges|Column privileges|Policies", f"public|{t}|table|||", "(1 row)",
            ])
        finally:
            db.execute(f"DROP VIEW {t}_v")


@check
def psql_lists_roles_schemas_types_and_functions():
    assert "fluence|Superuser" in psql("\\du"), psql("\\du")
    same(psql("\\dn").splitlines()[1], "Name|Owner")
    assert "int4" in psql("\\dTS+ integer") and "pg_catalog|integer|" in psql("\\dTS integer")
    assert "pg_catalog|lower|text|text|func" in psql("\\df lower")
    same(psql("\\df").splitlines(), ["List of functions", "Schema|Name|Result data type|Argument data types|Type", "(0 rows)"])
    assert f"{PLACE['dbname']}|fluence|UTF8|C.UTF-8|C.UTF-8||libc|" in psql("\\l"), psql("\\l")


@check
def psql_lists_relations_roles_and_settings_without_an_error():
    with table("id serial PRIMARY KEY, t text") as (db, t):
        db.execute(f"CREATE VIEW {t}_v AS SELECT t FROM {t}")
        try:
            for command in ["d", "d+", "dt+", "di+", "dv+", "ds", "ds+", "dn+", "l+", "du+", "ddp", "dp", "drds", "dconfig", "dconfig+",
                            f"d+ {t}", f"d+ {t}_v", f"sv {t}_v", f"d {t}_id_seq"]:
                psql(f"\\{command}")
        finally:
            db.execute(f"DROP VIEW {t}_v")


@check
def psql_lists_types_functions_and_what_is_not_there_without_an_error():
    for command in ["dT", "dT+", "dTS+ int4", "df+", "dfS+ lower", "da", "do ~~", "dC integer", "dD", "dO", "db", "dx", "dA", "dL", "dy", "des", "deu",
                    "dew", "det", "dF", "dRp", "dRs", "dP", "dX", "dd"]:
        psql(f"\\{command}")


def main():
    with served.served() as place:
        PLACE.update(place)
        return checks.run(CHECKS, {} if served.ORACLE == "postgres" else KNOWN, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
