/** SQL on a Fluence database over HTTP, and proof files checked. */

export { Client, type ClientOptions, type CopyOptions, connect, RowStream, Statements, type TransactionOptions } from "./client.js";
export { FluenceError, type Problem, ProofRefused, SqlError } from "./errors.js";
export { type Proven, type RangeSum, type Storage, verifyProofFile } from "./proof.js";
export { type Column, type Ending, type Parameter, type Result, type Typed, type Value, type Verified } from "./values.js";
