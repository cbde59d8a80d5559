//! sqllogictest: files of statements with the answers that are due, run on sessions over real engines in this process.
//!
//! Ours        `files/*.slt`; their answers are PostgreSQL 15's: `tests/sql/slt_oracle.py` fills and compares them there. A record under
//!             `skipif fluence` is one that is known to differ, the comment above it says why; it is run all the same and must still differ.
//! DataFusion  the files inside the crate datafusion-sqllogictest, which `tests/sql/slt_corpus.py` fetches; `datafusion.tsv` says of each
//!             how many records pass at least, or why it is not run.
//! Pushdown    every query outside a transaction is asked twice, with and without, and the answers are compared. How many plans were
//!             pushed down is printed, and has a least number. `planted` shifts what is pushed down by one, which must be noticed.

#[allow(dead_code)]
#[path = "../../../client/tests/network/local.rs"]
mod local;
#[allow(dead_code)]
#[path = "../gateway/real.rs"]
mod real;

mod cells;
mod corpus;
mod datafusion_files;
mod own_files;
mod pair;
mod planted;
