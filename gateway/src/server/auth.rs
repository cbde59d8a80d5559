//! Who may come in: SCRAM-SHA-256, or everybody on a loopback listener that says so.
//!
//! ```text
//! SASL mechanisms ──> client-first ──> server-first (salt, iterations) ──> client-final ──> server-final
//! ```
//! Rule    a user that does not exist goes through the same exchange: a salt that stays the same, a password that never matches, the
//!         same error (28P01) at the same step.
//! Rule    a client that saw the binding offered and says it did not is refused: somebody stands between [RFC 5802, section 6].
//! Holds   salted passwords, wiped on drop. Whoever reads them can log in, so they stay in memory only; pgwire copies one for the time of
//!         an exchange.
//! Source  RFC 5802, RFC 7677; PostgreSQL 15, "SASL Authentication"

use super::errors::{Failure, Fault, code};
use super::frontend::Fields;
use super::tls::Tls;
use super::wire::Wire;
use bytes::Bytes;
use pgwire::api::auth::Password;
use pgwire::api::auth::sasl::scram::{SCRAM_ITERATIONS, ScramServerAuth, gen_salted_password};
use pgwire::api::auth::sasl::{SCRAM_SHA_256_METHOD, SCRAM_SHA_256_PLUS_METHOD};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::startup::Authentication;
use std::collections::HashMap;
use std::io;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Hash rounds of a password: PostgreSQL's default and the least that RFC 7677 allows.
pub const ITERATIONS: usize = SCRAM_ITERATIONS;
const SALT_BYTES: usize = 16;

struct Verifier {
    salt: Vec<u8>,
    salted_password: Zeroizing<Vec<u8>>,
}

/// The users of a server. Prints nothing.
pub struct Users {
    /// `None`: everybody is trusted.
    verifiers: Option<HashMap<String, Verifier>>,
    /// Makes the salts of users that do not exist.
    mock: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.verifiers.is_some() { "Users(SCRAM-SHA-256)" } else { "Users(trust)" })
    }
}

impl Users {
    /// Nobody yet; each comes with a password.
    #[must_use]
    pub fn scram() -> Self {
        Self { verifiers: Some(HashMap::new()), mock: Zeroizing::new(rand::random()) }
    }

    /// Everybody without a password. A server with these listens on loopback only, or does not start.
    #[must_use]
    pub fn trust_on_loopback() -> Self {
        Self { verifiers: None, mock: Zeroizing::new([0; 32]) }
    }

    /// With a user and the password in clear; costs [`ITERATIONS`] hashes.
    #[must_use]
    pub fn with_password(self, user: &str, password: &Zeroizing<String>) -> Self {
        let salt = rand::random::<[u8; SALT_BYTES]>();
        let salted_password = Zeroizing::new(gen_salted_password(password, &salt, ITERATIONS));
        self.with_salted(user, salt.to_vec(), salted_password)
    }

    /// With a user and `SaltedPassword` of RFC 5802, made with `salt` and [`ITERATIONS`].
    #[must_use]
    pub fn with_salted(mut self, user: &str, salt: Vec<u8>, salted_password: Zeroizing<Vec<u8>>) -> Self {
        self.verifiers.get_or_insert_default().insert(user.to_owned(), Verifier { salt, salted_password });
        self
    }

    /// Whether nobody is asked for a password.
    pub(crate) fn is_trust(&self) -> bool {
        self.verifiers.is_none()
    }

    /// Whether a password in clear is the user's: for protocols that carry it so. Costs [`ITERATIONS`] hashes, for a user that does not
    /// exist too; the comparison takes the same time whatever differs. Nobody where everybody is trusted: that is for loopback sockets.
    pub(crate) fn accepts(&self, user: &str, password: &str) -> bool {
        let (expected, known) = self.verifier(user);
        let salted = Zeroizing::new(gen_salted_password(password, expected.salt().unwrap_or_default(), ITERATIONS));
        let same: bool = salted.as_slice().ct_eq(expected.password()).into();
        same & known & !self.is_trust()
    }

    /// What the exchange checks against, and whether the user exists.
    fn verifier(&self, user: &str) -> (Password, bool) {
        // Both are computed always, so that the time says nothing either.
        let mut mock = Zeroizing::new(gen_salted_password(user, self.mock.as_slice(), 1));
        mock.truncate(SALT_BYTES);
        let never = rand::random::<[u8; 32]>();
        match self.verifiers.as_ref().and_then(|verifiers| verifiers.get(user)) {
            Some(known) => (Password::new(Some(known.salt.clone()), known.salted_password.to_vec()), true),
            None => (Password::new(Some(mock.to_vec()), never.to_vec()), false),
        }
    }
}

/// Lets `user` prove the password. AuthenticationOk is not sent yet.
///
/// `tls` is there where this connection is encrypted.
pub(super) async fn authenticate(wire: &mut Wire, users: &Users, user: &str, tls: Option<&Tls>) -> Result<(), Failure> {
    if users.is_trust() {
        return Ok(());
    }
    let binding = tls.and_then(|tls| tls.bound.as_ref());
    let mut mechanisms = vec![SCRAM_SHA_256_METHOD.to_owned()];
    if binding.is_some() {
        mechanisms.insert(0, SCRAM_SHA_256_PLUS_METHOD.to_owned());
    }
    wire.send(authentication(Authentication::SASL(mechanisms))).await?;

    let initial = answer(wire).await?;
    let (mechanism, first) = initial_response(&initial)?;
    let plus = match mechanism.as_str() {
        SCRAM_SHA_256_METHOD => false,
        SCRAM_SHA_256_PLUS_METHOD if binding.is_some() => true,
        other => return Err(violation(format!("SASL mechanism {other:?} was not offered")).into()),
    };
    check_binding_flag(first, plus, binding.is_some())?;

    let plain = ScramServerAuth::new();
    let (password, known) = users.verifier(user);
    let (server_first, exchange) = binding
        .unwrap_or(&plain)
        .on_client_first_message(first, password)
        .map_err(|_| violation("malformed SCRAM message"))?;
    wire.send(authentication(Authentication::SASLContinue(server_first.into()))).await?;

    let last = answer(wire).await?;
    match exchange.on_client_final_message(&last) {
        Ok(server_final) if known => wire.feed(authentication(Authentication::SASLFinal(server_final.into()))).await,
        Err(pgwire::error::PgWireError::InvalidScramMessage(_)) => Err(violation("malformed SCRAM message").into()),
        _ => {
            Err(Fault::fatal(code::INVALID_PASSWORD, format!("password authentication failed for user \"{user}\""))
                .into())
        }
    }
}

fn authentication(message: Authentication) -> PgWireBackendMessage {
    PgWireBackendMessage::Authentication(message)
}

fn violation(message: impl Into<String>) -> Fault {
    Fault::fatal(code::PROTOCOL_VIOLATION, message)
}

/// The next SASL answer.
async fn answer(wire: &mut Wire) -> Result<Bytes, Failure> {
    match wire.frame().await? {
        Some(frame) if frame.tag == b'p' => Ok(frame.body),
        Some(frame) => Err(violation(format!("expected a SASL response, got message type {}", frame.tag)).into()),
        None => Err(Failure::Gone(io::ErrorKind::UnexpectedEof.into())),
    }
}

/// SASLInitialResponse: mechanism, size, client-first-message.
fn initial_response(body: &[u8]) -> Result<(String, &[u8]), Fault> {
    let mut fields = Fields::new(body);
    let (Ok(mechanism), Ok(size)) = (fields.text(), fields.u32()) else {
        return Err(violation("malformed SASL response"));
    };
    let first = fields.rest();
    if usize::try_from(size) != Ok(first.len()) {
        return Err(violation("malformed SASL response"));
    }
    Ok((mechanism, first))
}

/// gs2-cbind-flag: `n` cannot bind, `y` could but the server did not offer, `p=` binds.
fn check_binding_flag(client_first: &[u8], plus: bool, offered: bool) -> Result<(), Fault> {
    let flag = client_first.split(|byte| *byte == b',').next().unwrap_or_default();
    match (flag, plus) {
        (b"n", false) => Ok(()),
        (b"y", false) if offered => Err(violation("SCRAM channel binding negotiation error")),
        (b"y", false) => Ok(()),
        (b"p=tls-server-end-point", true) => Ok(()),
        _ => Err(violation("SCRAM channel binding flag does not fit the mechanism")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_that_does_not_exist_has_a_steady_salt_of_the_same_size() {
        let users = Users::scram().with_password("ada", &Zeroizing::new("engine".to_owned()));
        let (known, exists) = users.verifier("ada");
        assert!(exists);
        let (first, there) = users.verifier("eve");
        let (second, _) = users.verifier("eve");
        assert!(!there);
        assert_eq!(first.salt(), second.salt());
        assert_ne!(first.salt(), users.verifier("mallory").0.salt());
        assert_eq!(first.salt().map(<[u8]>::len), known.salt().map(<[u8]>::len));
        assert_eq!(first.password().len(), known.password().len());
        assert_ne!(first.password(), second.password());
    }

    #[test]
    fn binding_flags_must_fit_the_mechanism_and_the_offer() {
        assert!(check_binding_flag(b"n,,n=,r=x", false, false).is_ok());
        assert!(check_binding_flag(b"n,,n=,r=x", false, true).is_ok());
        assert!(check_binding_flag(b"y,,n=,r=x", false, false).is_ok());
        assert!(check_binding_flag(b"p=tls-server-end-point,,n=,r=x", true, true).is_ok());
        assert!(check_binding_flag(b"y,,n=,r=x", false, true).is_err(), "a downgrade");
        assert!(check_binding_flag(b"n,,n=,r=x", true, true).is_err());
        assert!(check_binding_flag(b"p=tls-unique,,n=,r=x", true, true).is_err());
        assert!(check_binding_flag(b"p=tls-server-end-point,,n=,r=x", false, true).is_err());
        assert!(check_binding_flag(b"", false, false).is_err());
    }

    #[test]
    fn an_initial_response_is_read_to_its_end() {
        assert_eq!(initial_response(b"M\0\0\0\0\x02hi").unwrap(), ("M".to_owned(), b"hi".as_slice()));
        for body in [b"M\0\0\0\0\x03hi".as_slice(), b"M\0\0\0\0\x01hi", b"M\0\xff\xff\xff\xff", b"M", b""] {
            assert!(initial_response(body).unwrap_err().fatal, "{body:?}");
        }
    }

    #[test]
    fn a_password_in_clear_is_taken_for_its_user_only() {
        let users = Users::scram().with_password("ada", &Zeroizing::new("engine".to_owned()));
        assert!(users.accepts("ada", "engine"));
        for (user, password) in [("ada", "Engine"), ("ada", ""), ("eve", "engine"), ("", "")] {
            assert!(!users.accepts(user, password), "{user:?} {password:?}");
        }
        assert!(!Users::trust_on_loopback().accepts("ada", "engine"));
    }

    #[test]
    fn users_print_nothing() {
        let users = Users::scram().with_password("ada", &Zeroizing::new("engine".to_owned()));
        assert_eq!(format!("{users:?}"), "Users(SCRAM-SHA-256)");
    }
}
