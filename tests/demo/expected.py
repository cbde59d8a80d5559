#!/usr/bin/env python3
"""What the demo's queries must answer, computed plainly from the CSV and from nothing else.

Rule    reads only the file named on the command line, with the standard library; knows nothing of Fluence.
Output  one JSON object on stdout: rows of the file, rows of each quarter, and for each query its name, how it would read in
        SQL, the answer, and how many rows it is about. Sums are integers; averages and variances are exact fractions
        rounded once, to the nearest double.
Run     python3 tests/demo/expected.py .cache/flights/flights.csv
"""

import csv
import json
import sys
from fractions import Fraction

NULL = "NA"
# A quarter starts at this hour, UTC; each node holds one.
QUARTERS = ["", "2013-04-01T00:00:00Z", "2013-07-01T00:00:00Z", "2013-10-01T00:00:00Z"]
INTEGERS = {"flight", "dep_delay", "arr_delay", "air_time", "distance", "year", "month", "day"}


def value(row, column):
    text = row[column]
    if text == NULL:
        return None
    return int(text) if column in INTEGERS else text


def between(lo, hi):
    return lambda row: lo <= row["time_hour"] < hi


def rows_where(rows, keep, columns):
    """SELECT columns WHERE keep, in key order: time, carrier, flight number as a number."""
    found = sorted((r for r in rows if keep(r)), key=lambda r: (r["time_hour"], r["carrier"], int(r["flight"])))
    return [[value(r, c) for c in columns] for r in found], len(found)


def aggregate(rows, keep, function, column):
    found = [r for r in rows if keep(r)]
    if column == "*":
        return len(found), len(found)
    values = [v for v in (value(r, column) for r in found) if v is not None]
    n, total = len(values), sum(values)
    answer = {
        "count": lambda: n,
        "sum": lambda: total,
        "avg": lambda: float(Fraction(total, n)),
        # The sample variance, as VAR in SQL.
        "var": lambda: float((sum(v * v for v in values) - Fraction(total * total, n)) / (n - 1)),
        "min": lambda: min(values),
        "max": lambda: max(values),
    }[function]()
    return answer, len(found)


def main():
    with open(sys.argv[1], newline="") as source:
        rows = list(csv.DictReader(source))
    quarters = [0] * len(QUARTERS)
    for row in rows:
        quarters[max(i for i, start in enumerate(QUARTERS) if row["time_hour"] >= start)] += 1

    everything = lambda row: True
    storm = ("2013-02-08T18:00:00Z", "2013-02-08T20:00:00Z")
    may = ("2013-05-01T00:00:00Z", "2013-06-01T00:00:00Z")
    july = ("2013-07-01T00:00:00Z", "2013-08-01T00:00:00Z")
    holidays = ("2013-12-20T11:00:00Z", "2013-12-27T05:00:00Z")
    columns = ["time_hour", "carrier", "flight", "origin", "dest", "arr_delay"]
    span = lambda r: f"time_hour >= '{r[0]}' AND time_hour < '{r[1]}'"
    queries = []

    def ask(name, sql, answer_and_rows):
        answer, count = answer_and_rows
        queries.append({"name": name, "sql_like": sql, "expected": answer, "rows": count})

    ask(
        "storm_rows",
        f"SELECT {', '.join(columns)} FROM flights WHERE {span(storm)}",
        rows_where(rows, between(*storm), columns),
    )
    hour, carrier = "2013-07-04T13:00:00Z", "UA"
    ask(
        "prefix_rows",
        f"SELECT flight, dest, dep_delay FROM flights WHERE time_hour = '{hour}' AND carrier = '{carrier}'",
        rows_where(rows, lambda r: r["time_hour"] == hour and r["carrier"] == carrier, ["flight", "dest", "dep_delay"]),
    )
    for name, function, column, span_of in [
        ("storm_count", "count", "*", storm),
        ("storm_arrived", "count", "arr_delay", storm),
        ("may_distance", "sum", "distance", may),
        ("july_average", "avg", "arr_delay", july),
        ("holidays_variance", "var", "arr_delay", holidays),
        ("holidays_best", "min", "arr_delay", holidays),
        ("holidays_worst", "max", "arr_delay", holidays),
    ]:
        sql = f"SELECT {function.upper()}({column}) FROM flights WHERE {span(span_of)}"
        ask(name, sql, aggregate(rows, between(*span_of), function, column))
    for name, function, column in [
        ("year_count", "count", "*"),
        ("year_distance", "sum", "distance"),
        ("year_average", "avg", "arr_delay"),
        ("year_variance", "var", "arr_delay"),
    ]:
        ask(name, f"SELECT {function.upper()}({column}) FROM flights", aggregate(rows, everything, function, column))
    json.dump({"rows": len(rows), "quarters": quarters, "queries": queries}, sys.stdout)


if __name__ == "__main__":
    main()
