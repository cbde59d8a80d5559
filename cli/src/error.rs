//! What a command says when it fails: the cause, the next step, and one of four exit codes.
//!
//! Rule    0 ok, 1 failure, 2 usage, 3 verification refused. Scripts branch on the code, people read `help:`.
//! Rule    an error never holds a secret: passphrases and phrases are read, used and wiped before anything can fail on their value.

use std::fmt;
use std::process::ExitCode;

/// Result of a command.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// Which exit code a failure ends in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Something did not work: 1.
    Failed,
    /// The command was asked for something it cannot mean: 2 (clap uses the same code).
    Usage,
    /// A proof or an answer did not verify: 3.
    Refused,
}

impl Kind {
    /// The process exit code.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Refused => 3,
        }
    }
}

/// A failed command: what was attempted, why it failed, what to do next.
#[derive(Debug)]
pub(crate) struct Failure {
    what: String,
    causes: Vec<String>,
    help: Option<String>,
    kind: Kind,
}

impl Failure {
    /// A failure of the given kind.
    pub(crate) fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self { what: what.into(), causes: Vec::new(), help: None, kind }
    }

    /// Exit code 1.
    pub(crate) fn failed(what: impl Into<String>) -> Self {
        Self::new(Kind::Failed, what)
    }

    /// Exit code 2.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self::new(Kind::Usage, what)
    }

    /// Exit code 3.
    pub(crate) fn refused(what: impl Into<String>) -> Self {
        Self::new(Kind::Refused, what)
    }

    /// Adds the next step.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds to the next step.
    pub(crate) fn help_more(mut self, more: impl AsRef<str>) -> Self {
        self.help = Some(match self.help {
            Some(help) => format!("{help}; {}", more.as_ref()),
            None => more.as_ref().to_owned(),
        });
        self
    }

    /// Adds a cause below the message.
    pub(crate) fn because(mut self, cause: impl fmt::Display) -> Self {
        self.causes.push(cause.to_string());
        self
    }

    /// The exit code.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.kind.code())
    }

    /// What did not work, without its causes.
    pub(crate) fn what(&self) -> &str {
        &self.what
    }

    /// One line: what, then each cause.
    pub(crate) fn one_line(&self) -> String {
        std::iter::once(&self.what).chain(&self.causes).cloned().collect::<Vec<_>>().join(": ")
    }

    /// Prints to stderr: as JSON for programs, else as a miette report.
    pub(crate) fn print(&self, json: bool) {
        if json {
            let value = serde_json::json!({
                "error": self.what, "causes": self.causes, "help": self.help, "kind": self.kind, "exit_code": self.kind.code(),
            });
            eprintln!("{value}");
        } else {
            eprintln!("{:?}", miette::Report::new(Shown::of(self)));
        }
    }
}

/// The view of a failure that miette renders.
struct Shown {
    message: String,
    causes: Option<Box<Link>>,
    help: Option<String>,
}

#[derive(Debug)]
struct Link {
    message: String,
    next: Option<Box<Self>>,
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Link {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.next.as_deref().map(|n| n as _)
    }
}

impl Shown {
    fn of(f: &Failure) -> Self {
        let causes = f.causes.iter().rev().fold(None, |next, m| Some(Box::new(Link { message: m.clone(), next })));
        Self { message: f.what.clone(), causes, help: f.help.clone() }
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Shown {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.causes.as_deref().map(|n| n as _)
    }
}

impl miette::Diagnostic for Shown {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|h| Box::new(h) as _)
    }
}

/// Turns a library's error into a [`Failure`] with the act that met it and the next step.
pub(crate) trait Context<T> {
    /// Exit code 1.
    fn doing(self, what: impl Into<String>) -> Result<T>;
    /// Exit code 2.
    fn usage(self, what: impl Into<String>) -> Result<T>;
    /// Exit code 3.
    fn refused(self, what: impl Into<String>) -> Result<T>;
}

impl<T, E: Into<anyhow::Error>> Context<T> for std::result::Result<T, E> {
    fn doing(self, what: impl Into<String>) -> Result<T> {
        self.map_err(|e| wrap(Kind::Failed, what, e))
    }
    fn usage(self, what: impl Into<String>) -> Result<T> {
        self.map_err(|e| wrap(Kind::Usage, what, e))
    }
    fn refused(self, what: impl Into<String>) -> Result<T> {
        self.map_err(|e| wrap(Kind::Refused, what, e))
    }
}

/// Adds the next step to a failed result.
pub(crate) trait Help<T> {
    /// The text after `help:`.
    fn or_help(self, help: impl Into<String>) -> Result<T>;
}

impl<T> Help<T> for Result<T> {
    fn or_help(self, help: impl Into<String>) -> Result<T> {
        self.map_err(|f| if f.help.is_none() { f.help(help) } else { f })
    }
}

fn wrap(kind: Kind, what: impl Into<String>, error: impl Into<anyhow::Error>) -> Failure {
    let error = error.into();
    let mut failure = Failure::new(kind, what);
    for cause in error.chain() {
        let text = cause.to_string();
        // Errors that print their source in their own message would say it twice.
        if failure.causes.last().is_none_or(|last| !last.ends_with(&text)) {
            failure.causes.push(text);
        }
    }
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_listed_once_and_codes_differ_by_kind() {
        let io = std::io::Error::other("disk is full");
        let failure = Err::<(), _>(io).doing("cannot write config").or_help("free some space").unwrap_err();
        assert_eq!(failure.one_line(), "cannot write config: disk is full");
        assert_eq!(failure.help.as_deref(), Some("free some space"));
        assert_eq!([Kind::Failed, Kind::Usage, Kind::Refused].map(Kind::code), [1, 2, 3]);
    }
}
