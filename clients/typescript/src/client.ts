/**
 * The client: statements, transactions, streams and uploads over HTTP.
 *
 * Rule    a password does not go over an unencrypted connection, unless that ends on this machine or the caller says so; never in a URL.
 * Rule    a stream that is given up is cut off, and its statement stops.
 */

import { FluenceError, type Problem, SqlError } from "./errors.js";
import { type Column, type Ending, type Parameter, type Result, type Value, parameter, rowReader } from "./values.js";

export interface ClientOptions {
  /** Send the password to another machine without encryption. */
  readonly allowPlaintext?: boolean;
  /** Instead of the global one. */
  readonly fetch?: typeof fetch;
}

export interface CopyOptions {
  readonly columns?: readonly string[];
  /** Whether the first line names the columns, and is left out. */
  readonly header?: boolean;
  readonly delimiter?: string;
  readonly null?: string;
}

export interface TransactionOptions {
  /** How often the work is done where somebody else commits first. */
  readonly attempts?: number;
}

interface Asked {
  readonly body?: BodyInit;
  readonly kind?: string;
  readonly accept?: string;
  readonly signal?: AbortSignal;
}

type Send = (method: string, path: string, authorization: string, asked?: Asked) => Promise<Response>;

/** A client of the server at `url` (http://127.0.0.1:8433); asks nothing yet. */
export function connect(url: string, user: string, password: string, options: ClientOptions = {}): Client {
  return new Client(url, user, password, options);
}

function sender(url: string, options: ClientOptions): Send {
  const base = new URL(url);
  if (base.protocol !== "http:" && base.protocol !== "https:") throw new TypeError("a server's URL begins with http:// or https://");
  if (base.username !== "" || base.password !== "" || base.search !== "" || base.hash !== "" || base.pathname !== "/") {
    throw new TypeError("a server's URL holds no user, no password and nothing after the port");
  }
  const here = base.hostname === "localhost" || base.hostname === "[::1]" || /^127(\.\d+){3}$/.test(base.hostname);
  if (base.protocol === "http:" && !here && options.allowPlaintext !== true) {
    throw new TypeError(`${base.hostname} is not this machine: use https, or allowPlaintext`);
  }
  const ask = options.fetch ?? fetch;
  return async (method, path, authorization, { body, kind = "application/json", accept = "application/json", signal } = {}) => {
    const headers: Record<string, string> = { Authorization: authorization, Accept: accept };
    if (body !== undefined) headers["Content-Type"] = kind;
    const init: RequestInit & { duplex?: "half" } = { method, headers, redirect: "error" };
    if (body !== undefined) init.body = body;
    if (body instanceof ReadableStream) init.duplex = "half";
    if (signal !== undefined) init.signal = signal;
    let response: Response;
    try {
      response = await ask(new URL(path, base), init);
    } catch (error) {
      throw new FluenceError(`${method} ${path}: ${String(error)}`, { cause: error });
    }
    if (response.ok) return response;
    throw new SqlError(await problem(response));
  };
}

async function problem(response: Response): Promise<Problem> {
  const plain = { status: response.status, detail: response.statusText };
  try {
    const found: unknown = await response.json();
    return typeof found === "object" && found !== null ? { ...plain, ...found } : plain;
  } catch {
    return plain;
  }
}

async function json<T>(response: Response): Promise<T> {
  try {
    return (await response.json()) as T;
  } catch (error) {
    throw new FluenceError("the answer was cut off", { cause: error });
  }
}

/** Statements, alone or in a session. */
export class Statements {
  /** @internal */
  constructor(
    protected readonly send: Send,
    protected readonly authorization: string,
    protected readonly prefix: string,
  ) {}

  /** Runs one statement; `$1`, `$2`, .. stand for the parameters. */
  async query<Row extends readonly Value[] = Value[]>(sql: string, params: readonly Parameter[] = []): Promise<Result<Row>> {
    const response = await this.send("POST", `${this.prefix}/query`, this.authorization, { body: statement(sql, params) });
    const answer = await json<Ending & { columns: Column[]; rows: unknown[] }>(response);
    return { ...answer, rows: answer.rows.map(rowReader<Row>(answer.columns)) };
  }

  /** Runs one statement and gives its rows as they come: for `for await`. Leaving the loop stops the statement. */
  async stream<Row extends readonly Value[] = Value[]>(sql: string, params: readonly Parameter[] = []): Promise<RowStream<Row>> {
    const abort = new AbortController();
    const asked = { body: statement(sql, params), accept: "application/x-ndjson", signal: abort.signal };
    const response = await this.send("POST", `${this.prefix}/query`, this.authorization, asked);
    return await RowStream.of<Row>(response, abort);
  }

  /** Adds the rows of a CSV: all, or none where it throws. */
  async copy(table: string, rows: string | Uint8Array<ArrayBuffer> | ReadableStream<Uint8Array>, options: CopyOptions = {}): Promise<Ending> {
    const words = new URLSearchParams();
    if (options.header === true) words.set("header", "true");
    if (options.columns !== undefined) words.set("columns", options.columns.join(","));
    if (options.delimiter !== undefined) words.set("delimiter", options.delimiter);
    if (options.null !== undefined) words.set("null", options.null);
    const path = `${this.prefix}/copy/${encodeURIComponent(table)}?${words}`;
    return await json<Ending>(await this.send("POST", path, this.authorization, { body: rows, kind: "text/csv" }));
  }
}

function statement(sql: string, params: readonly Parameter[]): string {
  return JSON.stringify({ sql, params: params.map(parameter) });
}

/** A database. Each statement is its own transaction, unless it is one of `transaction`. */
export class Client extends Statements {
  constructor(url: string, user: string, password: string, options: ClientOptions = {}) {
    if (user.includes(":")) throw new TypeError("a user's name has no colon");
    const pair = new TextEncoder().encode(`${user}:${password}`);
    super(sender(url, options), `Basic ${btoa(String.fromCharCode(...pair))}`, "/v1");
  }

  /** Does `work` in a transaction: committed at its end, rolled back where it throws, done again where somebody else committed first. */
  async transaction<T>(work: (tx: Statements) => Promise<T>, { attempts = 8 }: TransactionOptions = {}): Promise<T> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.#once(work);
      } catch (error) {
        if (!(error instanceof SqlError && error.isConflict) || attempt >= attempts) throw error;
      }
    }
  }

  async #once<T>(work: (tx: Statements) => Promise<T>): Promise<T> {
    const session = await json<{ id: string; token: string }>(await this.send("POST", "/v1/sessions", this.authorization));
    const prefix = `/v1/sessions/${session.id}`;
    const bearer = `Bearer ${session.token}`;
    try {
      const tx = new Statements(this.send, bearer, prefix);
      await tx.query("BEGIN");
      const made = await work(tx);
      const said = await tx.query("COMMIT");
      if (said.command !== "COMMIT") {
        throw new SqlError({ status: 409, sqlstate: "25P02", detail: "a statement had failed: nothing was committed" });
      }
      return made;
    } finally {
      // Where this fails the session ends by itself when it is idle.
      await this.send("DELETE", prefix, bearer).catch(() => undefined);
    }
  }

  /** Names of tables and views. */
  async tables(): Promise<string[]> {
    const list = await json<{ tables: { name: string }[] }>(await this.send("GET", "/v1/tables", this.authorization));
    return list.tables.map((table) => table.name);
  }

  /** Columns, keys, indexes and rows of a table, as the server describes them. */
  async table(name: string): Promise<{ columns: (Column & { nullable: boolean })[]; primary_key: string[] | null; rows: number | null }> {
    return await json(await this.send("GET", `/v1/tables/${encodeURIComponent(name)}`, this.authorization));
  }
}

/** The lines of a body; the last is whole, or it is an error. */
async function* lines(body: ReadableStream<Uint8Array>): AsyncGenerator<string, void, undefined> {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  const reader = body.getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      const parts = (rest + decoder.decode(value, { stream: true })).split("\n");
      rest = parts.pop() ?? "";
      yield* parts;
    }
  } catch (error) {
    throw new FluenceError("the answer was cut off", { cause: error });
  } finally {
    await reader.cancel().catch(() => undefined);
  }
  if (rest !== "") throw new FluenceError("the answer was cut off");
}

/** Rows as they come. `ending` is there once they have ended; a stream that was cut off throws. */
export class RowStream<Row extends readonly Value[] = Value[]> implements AsyncIterable<Row> {
  /** How the statement ended; undefined while rows may come. */
  ending: Ending | undefined;

  private constructor(
    readonly columns: readonly Column[],
    private readonly rest: AsyncGenerator<string, void, undefined>,
    private readonly abort: AbortController,
  ) {}

  /** @internal */
  static async of<Row extends readonly Value[]>(response: Response, abort: AbortController): Promise<RowStream<Row>> {
    if (response.body === null) throw new FluenceError("the answer has no body");
    const rest = lines(response.body);
    const head = await rest.next();
    if (head.done === true) throw new FluenceError("the answer was cut off");
    return new RowStream<Row>((JSON.parse(head.value) as { columns: Column[] }).columns, rest, abort);
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Row, void, undefined> {
    const read = rowReader<Row>(this.columns);
    try {
      for await (const text of this.rest) {
        const line: unknown = JSON.parse(text);
        if (Array.isArray(line)) {
          yield read(line);
        } else if (typeof line === "object" && line !== null && "error" in line) {
          throw new SqlError(line.error as Problem);
        } else {
          this.ending = line as Ending;
          return;
        }
      }
      throw new FluenceError("the answer was cut off");
    } finally {
      if (this.ending === undefined) this.close();
    }
  }

  /** Gives up the rest; the statement stops. */
  close(): void {
    this.abort.abort();
  }
}
