/** What goes wrong. */

/** Anything of this package: the server is not reached, an answer was cut off or is not as documented. */
export class FluenceError extends Error {
  override name = "FluenceError";
}

/** A proof file that shows nothing; the message says what is wrong with it. */
export class ProofRefused extends FluenceError {
  override name = "ProofRefused";
}

/** A problem of RFC 9457, as the server sends it. */
export interface Problem {
  readonly status: number;
  readonly detail: string;
  readonly sqlstate?: string;
  /** Where in the statement, in characters from 1. */
  readonly position?: number;
  readonly more?: string;
  readonly hint?: string;
}

/** A statement that failed, or a request that was refused. */
export class SqlError extends FluenceError {
  override name = "SqlError";

  constructor(readonly problem: Problem) {
    super(`${problem.sqlstate ?? problem.status}: ${problem.detail}${problem.hint ? ` (${problem.hint})` : ""}`);
  }

  /** The SQLSTATE; undefined where SQL has none for it. */
  get sqlstate(): string | undefined {
    return this.problem.sqlstate;
  }

  /** Whether somebody else committed first (40001): the transaction may be run again, from its beginning. */
  get isConflict(): boolean {
    return this.problem.sqlstate === "40001";
  }
}
