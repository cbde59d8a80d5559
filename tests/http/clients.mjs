// The TypeScript client against a served cluster, and proof files; started by clients.py, which says where the server is.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { FluenceError, ProofRefused, SqlError, connect, verifyProofFile } from "../../clients/typescript/dist/index.js";

const place = JSON.parse(process.env.FLUENCE_HTTP);
const db = connect(place.http, place.user, place.password);
const state = (sqlstate) => (error) => error instanceof SqlError && error.sqlstate === sqlstate;
const rows = async (sql, params) => (await db.query(sql, params)).rows;

async function statements() {
  assert.equal((await db.query("CREATE TABLE t (id bigint PRIMARY KEY, name text NOT NULL, w numeric(5,1))")).command, "CREATE TABLE");
  assert.equal((await db.query("INSERT INTO t VALUES ($1, $2, $3), (2, 'Grace', NULL)", [1, "Ada", "61.5"])).row_count, 2);
  const read = await db.query("SELECT * FROM t ORDER BY id");
  assert.deepEqual(read.rows, [[1n, "Ada", "61.5"], [2n, "Grace", null]]);
  assert.deepEqual(read.columns.map((column) => column.type), ["bigint", "text", "numeric"]);
  assert.ok(read.verified.height > 0 && read.verified.rows >= 2);
  assert.ok((await db.tables()).includes("t"));
  const described = await db.table("t");
  assert.deepEqual([described.rows, described.primary_key], [2, ["id"]]);
}

async function values() {
  await db.query("CREATE TABLE w (id bigint PRIMARY KEY, n numeric(20,4), f double precision, b boolean, d date, z timestamptz, y bytea, s text)");
  const row = [2n ** 63n - 1n, "12345678901234.5678", 0.1, true, "2013-05-01", "2013-05-01T10:00:00.123000Z", new Uint8Array([0, 255]), 'é"\n\\'];
  const given = row.map((value, i) => (i === 5 ? new Date("2013-05-01T12:00:00.123+02:00") : value));
  await db.query("INSERT INTO w VALUES ($1, $2, $3, $4, $5, $6, $7, $8)", given);
  assert.deepEqual(await rows("SELECT * FROM w"), [row]);
  const told = await rows("SELECT $1 a, $2 b, $3 c, $4 d", [Infinity, 10n ** 20n, { type: "date", value: "2013-05-01" }, null]);
  assert.deepEqual(told, [[Infinity, "100000000000000000000", "2013-05-01", null]]);
}

async function errors() {
  await assert.rejects(db.query("SELECT ("), (error) => state("42601")(error) && error.problem.position > 0);
  await assert.rejects(db.query("INSERT INTO t VALUES (1, 'again', NULL)"), state("23505"));
  await assert.rejects(connect(place.http, place.user, "wrong").query("SELECT 1"), state("28P01"));
  await assert.rejects(connect("http://127.0.0.1:9", place.user, "secret").query("SELECT 1"), (error) => error instanceof FluenceError && !String(error).includes("secret"));
  for (const url of ["ftp://x", "http://user:secret@127.0.0.1:1", "http://127.0.0.1:1/path", "http://db.example:1"]) {
    assert.throws(() => connect(url, "fluence", "secret"), (error) => error instanceof TypeError && !error.message.includes("secret"));
  }
}

async function streams() {
  let sum = 0n;
  const all = await db.stream("SELECT value FROM generate_series(1, 50000)");
  for await (const [value] of all) sum += value;
  assert.deepEqual([sum, all.ending.row_count], [(50000n * 50001n) / 2n, 50000]);
  for await (const [value] of await db.stream("SELECT value FROM generate_series(1, 1000000000000)")) {
    assert.equal(value, 1n);
    break;
  }
  await assert.rejects(async () => {
    for await (const _ of await db.stream("SELECT 1 / (value - 3000000) FROM generate_series(1, 4000000)"));
  }, state("22012"));
}

async function transactions() {
  const count = async (on = db) => (await on.query("SELECT count(*) FROM t")).rows[0][0];
  const seen = await db.transaction(async (tx) => {
    await tx.query("INSERT INTO t VALUES (3, 'Mary', 50)");
    return [await count(tx), await count()];
  });
  assert.deepEqual([...seen, await count()], [3n, 2n, 3n]);
  await assert.rejects(db.transaction(async (tx) => {
    await tx.query("INSERT INTO t VALUES (4, 'x', 1)");
    throw new RangeError("given up");
  }), RangeError);
  await assert.rejects(db.transaction(async (tx) => {
    await tx.query("INSERT INTO t VALUES (4, 'x', 1)");
    await tx.query("SELECT nosuch").catch(() => undefined);
  }), state("25P02"));
  assert.equal(await count(), 3n);
  // Somebody else is first, once; it is done again.
  let runs = 0;
  await db.transaction(async (tx) => {
    runs += 1;
    await tx.query("UPDATE t SET w = w + 1 WHERE id = 1");
    if (runs === 1) await db.query("UPDATE t SET w = w + 1 WHERE id = 1");
  });
  assert.deepEqual([runs, await rows("SELECT w FROM t WHERE id = 1")], [2, [["63.5"]]]);
  await assert.rejects(db.transaction(async (tx) => {
    await tx.query("UPDATE t SET w = w + 1 WHERE id = 1");
    await db.query("UPDATE t SET w = w + 1 WHERE id = 1");
  }, { attempts: 1 }), (error) => error.isConflict);
}

async function uploads() {
  await db.query("CREATE TABLE u (id bigint PRIMARY KEY, v text)");
  assert.equal((await db.copy("u", "id;v\n1;a\n2;-\n", { header: true, delimiter: ";", null: "-" })).row_count, 2);
  const pieces = new ReadableStream({
    start(controller) {
      for (let n = 10; n < 1010; n += 1) controller.enqueue(new TextEncoder().encode(`${n},x\n`));
      controller.close();
    },
  });
  assert.equal((await db.copy("u", pieces, { columns: ["id", "v"] })).command, "COPY 1000");
  await assert.rejects(db.copy("u", "5000,x\n1,y\n"), state("23505"));
  assert.deepEqual(await rows("SELECT count(*), count(v) FROM u"), [[1002n, 1001n]]);
}

function proofs() {
  const vector = JSON.parse(readFileSync(new URL("../vectors/proof_file.json", import.meta.url), "utf8"));
  const verify = (files) => verifyProofFile(JSON.stringify(files.proof_file), JSON.stringify(files.key_file));
  const proven = verify(vector);
  assert.deepEqual([proven.statement.kind, proven.statement.ranges, proven.insecureDevKey], ["range_sum", [[28353, 57136]], true]);
  for (const { file, at, to, what } of vector.spoilt) {
    const files = structuredClone(vector);
    at.slice(0, -1).reduce((value, step) => value[step], files[file])[at.at(-1)] = to;
    assert.throws(() => verify(files), ProofRefused, what);
  }
  for (const form of ["", "{", "[]", "{}", " ".repeat(1 << 21), new Uint8Array([255])]) assert.throws(() => verifyProofFile(form, form), ProofRefused);
  for (const [file, key] of JSON.parse(process.env.FLUENCE_PROOFS)) verifyProofFile(readFileSync(file), readFileSync(key));
}

for (const check of [proofs, statements, values, errors, streams, transactions, uploads]) {
  await check();
  console.log(`typescript: ${check.name} hold`);
}
