//! `ceremony`: making a proving key together.

use clap::{Args, Subcommand};
use fluence_types::shape::CircuitId;
use std::path::PathBuf;

/// `ceremony`.
#[derive(Subcommand, Debug, Clone)]
pub(crate) enum Ceremony {
    /// Phase 1 of one's own: powers of tau, for every circuit up to a size
    #[command(subcommand)]
    Phase1(Phase1),
    /// Take a published phase 1 (Zcash, Filecoin), or one's own, for one circuit: check its powers, bring them to Lagrange form
    #[command(after_help = "\
Examples:
  fluence ceremony import response --circuit range_sum/v1/s1-t7 --expect 60d1..9c --out phase1radix2m14
  fluence ceremony import phase1radix2m14 --circuit range_sum/v1/s1-t7 --out checked

The file is a challenge or a response of `powersoftau`, or a phase1radix2m<k>; which, and how many powers it has, follows from its length.
Well-formed powers may still be known to whoever made them: compare the hash with the published one, best by --expect.")]
    Import(CeremonyImport),
    /// Start a ceremony: the initial key of a circuit, by phase 1 alone
    #[command(after_help = "\
Examples:
  fluence ceremony new --phase1 phase1radix2m14 --circuit range_sum/v1/s1-t7 --out 0000.ceremony")]
    New(CeremonyNew),
    /// Contribute a secret that nobody keeps
    #[command(after_help = "\
Examples:
  fluence ceremony contribute 0000.ceremony --out 0001.ceremony --name anna
  fluence ceremony contribute 0000.ceremony --out 0001.ceremony --name anna --text-file -     more randomness, from standard input

The secret comes from the operating system's generator; what you type is mixed in. Publish the hash that is printed.")]
    Contribute(CeremonyContribute),
    /// End a ceremony with a public random value that was announced before it was known
    #[command(after_help = "\
Examples:
  fluence ceremony beacon 0007.ceremony --out final.ceremony --value 7c2f..e1 --iterations-log2 32")]
    Beacon(CeremonyBeacon),
    /// Check a ceremony from its beginning, and a key made of it
    #[command(after_help = "\
Examples:
  fluence ceremony verify final.ceremony --phase1 phase1radix2m14
  fluence ceremony verify final.ceremony --phase1 phase1radix2m14 --keys-dir keys

Exit code 3 if anything is refused.")]
    Verify(CeremonyVerify),
    /// Write the key of a ceremony that has ended; it is not marked insecure
    #[command(after_help = "\
Examples:
  fluence ceremony finalize final.ceremony --phase1 phase1radix2m14 --out keys

Verifies everything first. Writes the proving key, the verification key and the transcript.")]
    Finalize(CeremonyFinalize),
    /// Show who has contributed
    #[command(
        after_help = "Examples:\n  fluence ceremony status 0003.ceremony\n  fluence ceremony status 0003.ceremony --json | jq .hash"
    )]
    Status {
        /// Ceremony file
        file: PathBuf,
    },
    /// Write a circuit's matrices, for another implementation to check a ceremony with
    #[command(after_help = "Examples:\n  fluence ceremony matrices range_sum/v1/s1-t7 --out matrices")]
    Matrices {
        /// Circuit, as circuits/shapes.toml names it
        circuit: CircuitId,
        /// File to write; none is replaced
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

/// `ceremony phase1`.
#[derive(Subcommand, Debug, Clone)]
pub(crate) enum Phase1 {
    /// Write the first challenge
    #[command(after_help = "Examples:\n  fluence ceremony phase1 new --power 14 --out challenge0")]
    New {
        /// log2 of the powers: at least that of the rows of the largest circuit
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=28))]
        power: u32,
        /// File to write; none is replaced
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Answer a challenge with a secret that nobody keeps
    #[command(after_help = "Examples:\n  fluence ceremony phase1 contribute challenge0 --out response0")]
    Contribute {
        /// Challenge
        file: PathBuf,
        /// Response to write; none is replaced
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        #[command(flatten)]
        text: Text,
    },
    /// Check a response, and write the next challenge
    #[command(after_help = "Examples:\n  fluence ceremony phase1 verify challenge0 response0 --out challenge1")]
    Verify {
        /// Challenge
        challenge: PathBuf,
        /// Response to it
        response: PathBuf,
        /// Next challenge to write; none is replaced
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

/// More randomness.
#[derive(Args, Debug, Clone)]
pub(crate) struct Text {
    /// File whose bytes are mixed into the secret, at most 64 KiB; `-` reads standard input. The operating system's randomness is always in it
    #[arg(long, value_name = "FILE")]
    pub(crate) text_file: Option<PathBuf>,
}

/// `ceremony import`.
#[derive(Args, Debug, Clone)]
pub(crate) struct CeremonyImport {
    /// Challenge, response or phase1radix2m<k>
    pub(crate) file: PathBuf,
    /// Circuit it is for, as circuits/shapes.toml names it
    #[arg(long, value_name = "CIRCUIT")]
    pub(crate) circuit: CircuitId,
    /// BLAKE2b-512 that the ceremony published for the file, in hex
    #[arg(long, value_name = "HASH")]
    pub(crate) expect: Option<String>,
    /// File to write; none is replaced
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
}

/// `ceremony new`.
#[derive(Args, Debug, Clone)]
pub(crate) struct CeremonyNew {
    /// What `import` wrote
    #[arg(long, value_name = "FILE")]
    pub(crate) phase1: PathBuf,
    /// Circuit, as circuits/shapes.toml names it
    #[arg(long, value_name = "CIRCUIT")]
    pub(crate) circuit: CircuitId,
    /// File to write; none is replaced
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
}

/// `ceremony contribute`.
#[derive(Args, Debug, Clone)]
pub(crate) struct CeremonyContribute {
    /// Ceremony file to build on
    pub(crate) file: PathBuf,
    /// File to write; none is replaced
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Your name in the transcript, at most 64 bytes
    #[arg(long, value_name = "NAME", default_value = "")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) text: Text,
}

/// `ceremony beacon`.
#[derive(Args, Debug, Clone)]
pub(crate) struct CeremonyBeacon {
    /// Ceremony file to end
    pub(crate) file: PathBuf,
    /// File to write; none is replaced
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// The public value: 32 bytes in hex
    #[arg(long, value_name = "HEX")]
    pub(crate) value: String,
    /// SHA-256 is iterated over it 2^N times, so that nobody could choose it by trying
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=40))]
    pub(crate) iterations_log2: u8,
}

/// `ceremony verify`.
#[derive(Args, Debug, Clone)]
pub(crate) struct CeremonyVerify {
    /// Ceremony file
    pub(crate) file: PathBuf,
    /// The phase 1 it was started from
    #[arg(long, value_name = "FILE")]
    pub(crate) phase1: PathBuf,
    /// Folder with the key made of it, to check that too
    #[arg(long, value_name = "DIR")]
    pub(crate) keys_dir: Option<PathBuf>,
}

/// `ceremony finalize`.
#[derive(Args, Debug, Clone)]
pub(crate) struct CeremonyFinalize {
    /// Ceremony file that a beacon ended
    pub(crate) file: PathBuf,
    /// The phase 1 it was started from
    #[arg(long, value_name = "FILE")]
    pub(crate) phase1: PathBuf,
    /// Folder to write to; made if missing
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}
