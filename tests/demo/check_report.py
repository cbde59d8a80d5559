#!/usr/bin/env python3
"""Checks target/demo/report.json against what the demo promises, and against the CSV once more.

Rule    takes nothing from the program but the report: fields, answers, who was slashed, and that every proof file is there.
Run     python3 tests/demo/check_report.py target/demo/report.json [flights.csv]
"""

import json
import math
import pathlib
import subprocess
import sys

FIELDS = {
    "ok", "steps", "proofs", "queries", "damaged", "refused_answers", "slashed", "balances", "peak_memory_mib", "machine",
}
PROOF = {"file", "statement", "shape", "constraints", "prove_seconds", "verify_ms", "bytes", "gas", "tx"}
QUERY = {"sql_like", "answer", "expected", "rows", "native_bytes", "native_ms"}
GAS_MAX = 260_000
wrong = []


def must(held, what):
    if not held:
        wrong.append(what)


def same(a, b):
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))
    if isinstance(a, float) or isinstance(b, float):
        return isinstance(a, (int, float)) and isinstance(b, (int, float)) and math.isclose(a, b, rel_tol=1e-12)
    return a == b and type(a) is type(b)


def main():
    path = pathlib.Path(sys.argv[1])
    report = json.loads(path.read_text())
    must(set(report) == FIELDS, f"fields are {sorted(report)}")
    must(report["ok"] is True, "ok is not true")
    must(len(report["steps"]) > 0, "there are no steps")
    for step in report["steps"]:
        must({"name", "ok", "seconds"} <= set(step), f"step {step.get('name')} lacks a field")
        must(step["ok"] is True, f"step {step['name']} did not hold")

    by_name = {step["name"]: step for step in report["steps"]}
    replaced = by_name.get("replace by a fifth", {})
    must(replaced.get("rows_written_meanwhile", 0) > 0, f"no row was written while a member was replaced: {replaced}")
    must(replaced.get("by") not in (None, replaced.get("replaced")), f"who replaced whom: {replaced}")
    must(replaced.get("since_consensus_epoch", 0) > 0, f"the seat changed at no epoch's end: {replaced}")
    must(replaced.get("votes_at_height", 0) >= 64 * replaced.get("since_consensus_epoch", 0), f"it votes before it has a seat: {replaced}")
    must(len(by_name.get("handover on chain", {}).get("committee", "")) == 64, "the chain does not know the committee with the fifth")
    must(by_name.get("the killed node comes back", {}).get("killed") == replaced.get("replaced"), "another node came back than was killed")

    statements = []
    for proof in report["proofs"]:
        must(set(proof) == PROOF, f"proof fields are {sorted(proof)}")
        file = path.parent / proof["file"]
        must(file.is_file(), f"{proof['file']} is missing")
        must(proof["bytes"] == 192, f"{proof['file']} is of {proof['bytes']} bytes")
        must(proof["gas"] is None or proof["gas"] <= GAS_MAX, f"{proof['file']} cost {proof['gas']} gas")
        statements.append(proof["statement"])
        if file.is_file():
            on_disk = json.loads(file.read_text())
            must(on_disk["circuit"] == proof["shape"], f"{proof['file']} is of circuit {on_disk['circuit']}")
            must(on_disk["protocol"] == "groth16" and on_disk["curve"] == "bls12381", f"{proof['file']} names another system")
    must("range_sum" in statements, "there is no range_sum proof")
    # Five nodes, three epochs.
    must(statements.count("storage") >= 15, f"{statements.count('storage')} storage proofs")

    must(len(report["queries"]) > 0, "there are no queries")
    for query in report["queries"]:
        must(set(query) == QUERY, f"query fields are {sorted(query)}")
        must(same(query["answer"], query["expected"]), f"{query['sql_like']}: {query['answer']} is not {query['expected']}")
    if len(sys.argv) > 2:
        script = pathlib.Path(__file__).with_name("expected.py")
        plain = json.loads(subprocess.run([sys.executable, script, sys.argv[2]], check=True, capture_output=True).stdout)
        by_sql = {q["sql_like"]: q for q in report["queries"]}
        for want in plain["queries"]:
            got = by_sql.get(want["sql_like"])
            must(got is not None, f"{want['sql_like']} was not asked")
            if got is not None:
                must(same(got["answer"], want["expected"]) and got["rows"] == want["rows"], f"{want['sql_like']} differs")

    damaged, balances = report["damaged"], report["balances"]
    must(len(balances) == 5, f"{len(balances)} nodes have a balance")
    for node, balance in balances.items():
        lost = int(balance["before"]) - int(balance["after"])
        must((lost > 0) == (node == damaged), f"{node} lost {lost}")
    if damaged is None:
        must(report["slashed"] == [], f"slashed {report['slashed']} though nothing was damaged")
        must(report["refused_answers"] == 0, "answers were refused though nothing was damaged")
    else:
        must(report["slashed"] == [damaged], f"slashed {report['slashed']}, damaged {damaged}")
        must(damaged in balances, "the damaged node has no balance")
        must(report["refused_answers"] > 0, "the lying node was never refused")

    for line in wrong:
        print("wrong:", line, file=sys.stderr)
    if wrong:
        sys.exit(1)
    print(f"report: {len(report['steps'])} steps, {len(report['proofs'])} proofs, {len(report['queries'])} queries hold")


if __name__ == "__main__":
    main()
