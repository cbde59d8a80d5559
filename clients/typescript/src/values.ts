/** Values: JavaScript's, and what stands for them in JSON. */

/** What a row holds. Integers of 64 bits are `bigint`; numeric, dates and timestamps are strings, so that no digit is lost. */
export type Value = null | boolean | number | bigint | string | Uint8Array | Value[];

/** A value with its SQL type. */
export interface Typed {
  readonly type: string;
  readonly value: null | boolean | number | string;
}

/** What a parameter may be. A string goes without a type, which the statement gives it. */
export type Parameter = null | boolean | number | bigint | string | Uint8Array | Date | Typed;

/** A column of an answer. */
export interface Column {
  readonly name: string;
  /** Its SQL type: bigint, text, numeric, timestamp with time zone, bigint[], .. */
  readonly type: string;
  readonly precision?: number;
  readonly scale?: number;
}

/** What the rows of an answer rest on: verified by the gateway at a certified height. */
export interface Verified {
  readonly height: number;
  readonly rows: number;
  readonly proven_sums: number;
  readonly openings: number;
  readonly bytes: number;
  readonly requests: number;
  readonly ms: number;
}

/** How a statement ended. */
export interface Ending {
  /** The command tag: SELECT 2, INSERT 0 1, CREATE TABLE. */
  readonly command: string;
  /** Rows that came, or were written. */
  readonly row_count: number;
  /** Null where nothing was read. */
  readonly verified: Verified | null;
  readonly notices: readonly { readonly severity: string; readonly message: string }[];
  /** Where the session stands. */
  readonly transaction: "idle" | "open" | "failed";
}

/** What a statement answers. */
export interface Result<Row extends readonly Value[] = Value[]> extends Ending {
  readonly columns: readonly Column[];
  readonly rows: readonly Row[];
}

const INT64_MAX = 2n ** 63n - 1n;

const hex = (bytes: Uint8Array): string => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

const integer = (value: bigint): Typed => ({
  type: value <= INT64_MAX && value >= -INT64_MAX - 1n ? "bigint" : "numeric",
  value: value.toString(),
});

/** A parameter as the server reads it. */
export function parameter(value: Parameter): unknown {
  if (value === null || typeof value === "string") return value;
  if (typeof value === "boolean") return { type: "boolean", value };
  if (typeof value === "bigint") return integer(value);
  if (typeof value === "number") {
    return Number.isSafeInteger(value) ? integer(BigInt(value)) : { type: "double precision", value: String(value) };
  }
  if (value instanceof Uint8Array) return { type: "bytea", value: `\\x${hex(value)}` };
  if (value instanceof Date) return { type: "timestamptz", value: value.toISOString() };
  return { type: value.type, value: value.value };
}

const bytes = (text: string): Uint8Array =>
  Uint8Array.from({ length: text.length / 2 - 1 }, (_, i) => Number.parseInt(text.slice(2 * i + 2, 2 * i + 4), 16));

type Reader = (json: any) => Value;

function reader(type: string): Reader {
  if (type.endsWith("[]")) {
    const item = reader(type.slice(0, -2));
    return (values) => (values === null ? null : values.map(item));
  }
  const known: Record<string, Reader> = { bigint: BigInt, real: Number, "double precision": Number, bytea: bytes };
  const read = known[type];
  return read === undefined ? (value) => value : (value) => (value === null ? null : read(value));
}

/** What reads a row of these columns. */
export function rowReader<Row extends readonly Value[]>(columns: readonly Column[]): (row: unknown) => Row {
  const readers = columns.map((column) => reader(column.type));
  return (row) => {
    if (!Array.isArray(row) || row.length !== readers.length) throw new TypeError("a row has another number of values than there are columns");
    return readers.map((read, i) => read(row[i])) as unknown as Row;
  };
}
