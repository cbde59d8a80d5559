// node-postgres does with a database of Fluence what it does with PostgreSQL; pg-cursor and pg-copy-streams with it.
//
// Use     ../others.py node starts the database and judges; alone: PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE
// Prints  a line a check: `CHECK`, its name, and nothing or why it failed, between tabs

import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import pg from 'pg'
import copy from 'pg-copy-streams'
import Cursor from 'pg-cursor'

const CHECK_MS_MAX = 60_000
const checks = []
const check = (name, act) => checks.push([name.replaceAll(' ', '_'), act])
let tables = 0

/** A client for the length of `act`. */
async function client(act, words = {}) {
  const db = new pg.Client({ connectionTimeoutMillis: 20_000, ...words })
  await db.connect()
  try {
    return await act(db)
  } finally {
    await db.end()
  }
}

/** A client and the name of a table of its own. */
const table = (columns, act) =>
  client(async (db) => {
    const t = `js${++tables}`
    await db.query(`CREATE TABLE ${t} (${columns})`)
    try {
      return await act(db, t)
    } finally {
      await db.query('ROLLBACK').catch(() => {})
      await db.query(`DROP TABLE ${t}`)
    }
  })

/** The SQLSTATE with which something fails. */
async function stateOf(promise) {
  try {
    await promise
  } catch (error) {
    return error.code
  }
  assert.fail('no error')
}

const rowsOf = async (db, text, values) => (await db.query({ text, values, rowMode: 'array' })).rows

check('the server is asked and answers', () =>
  client(async (db) => {
    assert.deepEqual((await db.query('SELECT 1::integer AS one, $1::text AS two', ['zwei'])).rows, [{ one: 1, two: 'zwei' }])
  }))

check('a wrong password is refused', async () => {
  assert.equal(await stateOf(client(() => {}, { password: 'wrong' })), '28P01')
})

const TYPED =
  'id integer PRIMARY KEY, s smallint, b bigint, r real, f double precision, n numeric(12,3), o boolean, t text, v varchar(9), y bytea, d date, z timestamptz'
const ROW = [1, -7, '9007199254740993', 1.5, -1e300, '123456789.125', true, 'Ä\'\\\n"€', 'neun', Buffer.from([0, 255, 1]), '2024-02-29', new Date('2024-02-29T23:59:59.999Z')]
const NULLS = [2, ...Array(11).fill(null)]
const READ = TYPED.split(', ').map((c) => c.split(' ')[0]).map((c) => (c === 'd' ? 'd::text' : c)).join(', ')

async function typed(db, t) {
  const places = ROW.map((_, i) => `$${i + 1}`).join(', ')
  for (const row of [ROW, NULLS]) await db.query(`INSERT INTO ${t} VALUES (${places})`, row)
}

check('values of all types come back as they went', () =>
  table(TYPED, async (db, t) => {
    await typed(db, t)
    assert.deepEqual(await rowsOf(db, `SELECT ${READ} FROM ${t} ORDER BY id`), [ROW, NULLS])
  }))

check('values come back in binary', () =>
  table(TYPED, async (db, t) => {
    await typed(db, t)
    const got = await db.query({ text: `SELECT id, s, b, f, o, t, y, z FROM ${t} ORDER BY id`, values: [], binary: true, rowMode: 'array' })
    assert.deepEqual(got.rows, [[ROW[0], ROW[1], ROW[2], ROW[4], ROW[6], ROW[7], ROW[9], ROW[11]], [2, ...Array(7).fill(null)]])
  }))

check('a parameter of each type finds its row', () =>
  table(TYPED, async (db, t) => {
    await typed(db, t)
    for (const [i, column] of TYPED.split(', ').map((c) => c.split(' ')[0]).entries()) {
      assert.deepEqual(await rowsOf(db, `SELECT id FROM ${t} WHERE ${column} = $1`, [ROW[i]]), [[1]], column)
    }
  }))

check('a timestamp without time zone and a uuid come back', () =>
  table('id uuid PRIMARY KEY, ts timestamp', async (db, t) => {
    const row = ['550e8400-e29b-41d4-a716-446655440000', new Date(Date.UTC(2024, 1, 29, 12, 30, 1, 5))]
    await db.query(`INSERT INTO ${t} VALUES ($1, $2)`, row)
    assert.deepEqual(await rowsOf(db, `SELECT * FROM ${t} WHERE id = $1`, [row[0]]), [row])
  }))

check('json goes in and comes out as an object', () =>
  table('id integer PRIMARY KEY, j jsonb', async (db, t) => {
    await db.query(`INSERT INTO ${t} VALUES (1, $1)`, [{ a: [1, null, 'x'] }])
    assert.deepEqual(await rowsOf(db, `SELECT j FROM ${t}`), [[{ a: [1, null, 'x'] }]])
  }))

check('columns say their names and types', () =>
  table(TYPED, async (db, t) => {
    const { fields } = await db.query(`SELECT * FROM ${t}`)
    assert.deepEqual(fields.map((f) => f.name), TYPED.split(', ').map((c) => c.split(' ')[0]))
    assert.deepEqual(fields.map((f) => f.dataTypeID), [23, 21, 20, 700, 701, 1700, 16, 25, 1043, 17, 1082, 1184])
  }))

check('a named statement is prepared once and runs often', () =>
  table('id integer PRIMARY KEY, t text', async (db, t) => {
    for (let n = 0; n < 8; n++) await db.query({ name: 'put', text: `INSERT INTO ${t} VALUES ($1, $2)`, values: [n, `n${n}`] })
    for (let n = 0; n < 8; n++) {
      const { rows } = await db.query({ name: 'get', text: `SELECT t FROM ${t} WHERE id = $1`, values: [n] })
      assert.deepEqual(rows, [{ t: `n${n}` }])
    }
  }))

check('a small number is an integer', () =>
  client(async (db) => {
    assert.deepEqual(await rowsOf(db, 'SELECT 1, 2147483648'), [[1, '2147483648']])
  }))

check('a parameter that is cast to an integer comes back as one', () =>
  client(async (db) => {
    assert.deepEqual(await rowsOf(db, 'SELECT $1::integer', [7]), [[7]])
  }))

check('several statements of one string answer one after the other', () =>
  client(async (db) => {
    const all = await db.query("SELECT 'x' AS a; SELECT 'y' AS b; SELECT 'z' AS c")
    assert.deepEqual(all.map((r) => r.rows[0]), [{ a: 'x' }, { b: 'y' }, { c: 'z' }])
  }))

check('counts and commands are those of PostgreSQL', () =>
  table('id integer PRIMARY KEY, n integer', async (db, t) => {
    const said = async (text) => {
      const { command, rowCount } = await db.query(text)
      return [command, rowCount]
    }
    assert.deepEqual(await said(`INSERT INTO ${t} VALUES (1, 1), (2, 2)`), ['INSERT', 2])
    assert.deepEqual(await said(`UPDATE ${t} SET n = 5`), ['UPDATE', 2])
    assert.deepEqual(await said(`SELECT * FROM ${t}`), ['SELECT', 2])
    assert.deepEqual(await said(`DELETE FROM ${t} WHERE id = 2`), ['DELETE', 1])
    assert.deepEqual((await db.query(`INSERT INTO ${t} VALUES (9, 9) RETURNING id, n AS m`)).rows, [{ id: 9, m: 9 }])
  }))

check('a transaction happens or does not', () =>
  table('id integer PRIMARY KEY', async (db, t) => {
    await db.query('BEGIN')
    await db.query(`INSERT INTO ${t} VALUES (1)`)
    assert.deepEqual(await rowsOf(db, `SELECT count(*)::integer FROM ${t}`), [[1]])
    await db.query('ROLLBACK')
    await db.query('BEGIN')
    await db.query(`INSERT INTO ${t} VALUES (2)`)
    await db.query('SAVEPOINT s')
    assert.equal(await stateOf(db.query(`INSERT INTO ${t} VALUES (2)`)), '23505')
    assert.equal(await stateOf(db.query('SELECT 1')), '25P02')
    await db.query('ROLLBACK TO SAVEPOINT s')
    await db.query('COMMIT')
    assert.deepEqual(await rowsOf(db, `SELECT id FROM ${t}`), [[2]])
  }))

check('errors have the codes of PostgreSQL and the connection goes on', () =>
  table('id integer PRIMARY KEY, n integer NOT NULL CHECK (n > 0)', async (db, t) => {
    await db.query(`INSERT INTO ${t} VALUES (1, 1)`)
    for (const [text, code, values] of [
      [`INSERT INTO ${t} VALUES (1, 1)`, '23505'],
      [`INSERT INTO ${t} VALUES (2, NULL)`, '23502'],
      [`INSERT INTO ${t} VALUES (2, 0)`, '23514'],
      [`INSERT INTO ${t} VALUES (3000000000, 1)`, '22003'],
      [`SELECT * FROM ${t} WHERE id = $1`, '22P02', ['x']],
      ['SELECT * FROM nowhere', '42P01'],
      [`SELECT nothing FROM ${t}`, '42703'],
      ['SELEC', '42601'],
      ['SELECT 1 / $1::integer', '22012', [0]],
    ]) {
      assert.equal(await stateOf(db.query(text, values)), code, text)
    }
    assert.deepEqual(await rowsOf(db, `SELECT n FROM ${t}`), [[1]])
  }))

check('a violation names its table and constraint', () =>
  table('id integer PRIMARY KEY', async (db, t) => {
    await db.query(`INSERT INTO ${t} VALUES (1)`)
    const error = await db.query(`INSERT INTO ${t} VALUES (1)`).then(() => assert.fail('no error'), (e) => e)
    assert.deepEqual([error.table, error.constraint, error.schema], [t, `${t}_pkey`, 'public'])
  }))

check('an array as a parameter chooses rows', () =>
  table('id integer PRIMARY KEY', async (db, t) => {
    await db.query(`INSERT INTO ${t} VALUES (1), (2), (3)`)
    assert.deepEqual(await rowsOf(db, `SELECT id FROM ${t} WHERE id = ANY($1) ORDER BY id`, [[1, 3]]), [[1], [3]])
  }))

check('a cursor gives its rows in portions', () =>
  client(async (db) => {
    const cursor = db.query(new Cursor('SELECT i::integer AS i FROM generate_series(1, $1::integer) AS s(i) ORDER BY i', [25]))
    const sizes = []
    for (let rows; (rows = await cursor.read(10)).length > 0; ) sizes.push(rows.length)
    await cursor.close()
    assert.deepEqual(sizes, [10, 10, 5])
    assert.deepEqual(await rowsOf(db, 'SELECT 1::integer'), [[1]])
  }))

check('copy goes in and out', () =>
  table('id integer PRIMARY KEY, t text', async (db, t) => {
    const lines = Array.from({ length: 500 }, (_, i) => `${i}\t${i % 2 ? `n${i}` : '\\N'}\n`)
    await pipeline(Readable.from(lines.join('').match(/[^]{1,777}/g)), db.query(copy.from(`COPY ${t} FROM STDIN`)))
    assert.deepEqual(await rowsOf(db, `SELECT count(*)::integer, count(t)::integer FROM ${t}`), [[500, 250]])
    const out = []
    for await (const piece of db.query(copy.to(`COPY (SELECT * FROM ${t} ORDER BY id LIMIT 3) TO STDOUT`))) out.push(piece)
    assert.equal(Buffer.concat(out).toString(), '0\t\\N\n1\tn1\n2\t\\N\n')
    await assert.rejects(pipeline(Readable.from(['x\ty\tz\n']), db.query(copy.from(`COPY ${t} FROM STDIN`))))
    assert.deepEqual(await rowsOf(db, 'SELECT 1::integer'), [[1]])
  }))

check('a pool of connections works at once', async () => {
  await table('id integer PRIMARY KEY, n integer', async (_, t) => {
    const pool = new pg.Pool({ max: 4, connectionTimeoutMillis: 20_000 })
    try {
      await Promise.all(Array.from({ length: 12 }, (_, i) => pool.query(`INSERT INTO ${t} VALUES ($1, $2)`, [i, i * i])))
      const { rows } = await pool.query(`SELECT count(*)::integer AS c, sum(n)::integer AS s FROM ${t}`)
      assert.deepEqual(rows, [{ c: 12, s: 506 }])
    } finally {
      await pool.end()
    }
  })
})

check('information_schema names columns in order', () =>
  table('id integer PRIMARY KEY, "Big Name" text NOT NULL', async (db, t) => {
    const text = 'SELECT column_name, is_nullable, data_type FROM information_schema.columns WHERE table_name = $1 ORDER BY ordinal_position'
    assert.deepEqual(await rowsOf(db, text, [t]), [['id', 'NO', 'integer'], ['Big Name', 'NO', 'text']])
  }))

for (const [name, act] of checks) {
  let timer
  const late = new Promise((_, fail) => (timer = setTimeout(() => fail(new Error(`more than ${CHECK_MS_MAX} ms`)), CHECK_MS_MAX)))
  const why = await Promise.race([act(), late]).then(() => '', (error) => String(error?.message ?? error))
  clearTimeout(timer)
  console.log(`CHECK\t${name}\t${why.replace(/\s+/g, ' ')}`)
}
process.exit(0)
