//! Sessions that outlive a request: one transaction each, found by an id, used by one request at a time.
//!
//! Token   `id.secret`: 128 random bits that name the session and 256 that open it, compared in constant time
//! Rule    a session that was idle for too long is gone, whether it was swept or not.
//! Rule    a request that is dropped before its statement's end breaks the session's transaction.

use super::problem::Problem;
use crate::SqlSession;
use crate::server::errors::code;
use axum::http::StatusCode;
use rand::RngCore;
use rand::rngs::OsRng;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use subtle::ConstantTimeEq;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};
use tokio::time::Instant;
use zeroize::Zeroizing;

/// What lives in a slot.
pub(super) trait Tenant: Send + 'static {
    /// A statement ended before it was done.
    fn broken_off(&mut self);
}

impl Tenant for SqlSession {
    fn broken_off(&mut self) {
        self.cancelled();
    }
}

struct Slot<S> {
    user: String,
    secret: Zeroizing<[u8; 32]>,
    session: Arc<AsyncMutex<S>>,
    used: Mutex<Instant>,
}

impl<S> Slot<S> {
    fn idle(&self) -> Duration {
        lock(&self.used).elapsed()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All sessions of a server.
pub(super) struct Sessions<S> {
    slots: Mutex<HashMap<String, Arc<Slot<S>>>>,
    max: usize,
    idle_max: Duration,
}

/// A session that was opened.
pub(super) struct Opened {
    /// Its name.
    pub(super) id: String,
    /// What opens it.
    pub(super) token: Zeroizing<String>,
}

impl<S: Tenant> Sessions<S> {
    /// At most `max` sessions, each of which ends after `idle_max` without a request.
    pub(super) fn new(max: usize, idle_max: Duration) -> Self {
        Self { slots: Mutex::default(), max: max.max(1), idle_max }
    }

    /// How long a session lives without a request.
    pub(super) const fn idle_max(&self) -> Duration {
        self.idle_max
    }

    /// Whether there is room for one more.
    pub(super) fn has_room(&self) -> Result<(), Problem> {
        self.sweep();
        if lock(&self.slots).len() < self.max {
            return Ok(());
        }
        let why = format!("{} sessions are open, no more are kept", self.max);
        Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, Some("53300"), why).hint("close those that are not used"))
    }

    /// Keeps a session of a user.
    pub(super) fn open(&self, user: &str, session: S) -> Result<Opened, Problem> {
        self.has_room()?;
        let (mut id, mut secret) = ([0; 16], Zeroizing::new([0; 32]));
        OsRng.fill_bytes(&mut id);
        OsRng.fill_bytes(&mut *secret);
        let id = hex::encode(id);
        let token = Zeroizing::new(format!("{id}.{}", *Zeroizing::new(hex::encode(*secret))));
        let slot = Slot {
            user: user.to_owned(),
            secret,
            session: Arc::new(AsyncMutex::new(session)),
            used: Mutex::new(Instant::now()),
        };
        lock(&self.slots).insert(id.clone(), Arc::new(slot));
        Ok(Opened { id, token })
    }

    /// The session and the user that a token is for.
    pub(super) fn by_token(&self, token: &str) -> Option<(String, String)> {
        let (id, secret) = token.split_once('.')?;
        let secret = Zeroizing::new(hex::decode(secret).ok()?);
        let slot = lock(&self.slots).get(id).cloned()?;
        let same: bool = slot.secret.as_slice().ct_eq(&secret).into();
        (same && self.is_alive(&slot)).then(|| (id.to_owned(), slot.user.clone()))
    }

    fn is_alive(&self, slot: &Slot<S>) -> bool {
        slot.idle() <= self.idle_max || slot.session.try_lock().is_err()
    }

    fn slot(&self, id: &str, user: &str) -> Result<Arc<Slot<S>>, Problem> {
        let slot = lock(&self.slots).get(id).cloned();
        slot.filter(|slot| slot.user == user && self.is_alive(slot)).ok_or_else(|| {
            let why = "there is no such session: it was closed, or idle for too long";
            Problem::new(StatusCode::NOT_FOUND, Some("08003"), why)
        })
    }

    /// Takes a session for a request.
    pub(super) fn lease(&self, id: &str, user: &str) -> Result<Lease<S>, Problem> {
        let slot = self.slot(id, user)?;
        let guard = Arc::clone(&slot.session).try_lock_owned().map_err(|_| busy())?;
        Ok(Lease { guard, slot, done: false })
    }

    /// Ends a session. Its transaction is rolled back.
    pub(super) fn close(&self, id: &str, user: &str) -> Result<(), Problem> {
        let slot = self.slot(id, user)?;
        let _nobody_uses_it = slot.session.try_lock().map_err(|_| busy())?;
        lock(&self.slots).remove(id);
        Ok(())
    }

    /// Ends the sessions that were idle for too long.
    pub(super) fn sweep(&self) {
        lock(&self.slots).retain(|_, slot| self.is_alive(slot));
    }
}

fn busy() -> Problem {
    Problem::new(StatusCode::CONFLICT, Some(code::OBJECT_IN_USE), "the session is at work for another request")
        .hint("a session runs one statement at a time; dropping that request stops it")
}

/// A session while a request uses it.
pub(super) struct Lease<S: Tenant> {
    guard: OwnedMutexGuard<S>,
    slot: Arc<Slot<S>>,
    done: bool,
}

impl<S: Tenant> Lease<S> {
    /// The session.
    pub(super) fn session(&mut self) -> &mut S {
        &mut self.guard
    }
    /// The statement ran to its end.
    pub(super) fn done(&mut self) {
        self.done = true;
    }
}

impl<S: Tenant> Drop for Lease<S> {
    fn drop(&mut self) {
        if !self.done {
            self.guard.broken_off();
        }
        *lock(&self.slot.used) = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Broken(u32);

    impl Tenant for Broken {
        fn broken_off(&mut self) {
            self.0 += 1;
        }
    }

    fn sessions(max: usize) -> Sessions<Broken> {
        Sessions::new(max, Duration::from_secs(10))
    }

    fn status<T>(result: Result<T, Problem>) -> String {
        result.err().map(|p| serde_json::to_value(p).unwrap()["sqlstate"].to_string()).unwrap_or_default()
    }

    /// As if so many seconds had gone by for everybody.
    fn later(sessions: &Sessions<Broken>, seconds: u64) {
        for slot in lock(&sessions.slots).values() {
            *lock(&slot.used) -= Duration::from_secs(seconds);
        }
    }

    #[test]
    fn an_idle_session_ends_and_a_used_one_does_not() {
        let sessions = sessions(4);
        let (idle, used) = (sessions.open("ada", Broken(0)).unwrap(), sessions.open("ada", Broken(0)).unwrap());
        for _ in 0..3 {
            later(&sessions, 4);
            sessions.lease(&used.id, "ada").unwrap().done();
        }
        assert_eq!(status(sessions.lease(&idle.id, "ada")), "\"08003\"");
        assert!(sessions.by_token(&idle.token).is_none() && sessions.by_token(&used.token).is_some());
        // One that is at work is not idle.
        let lease = sessions.lease(&used.id, "ada").unwrap();
        later(&sessions, 60);
        sessions.sweep();
        assert_eq!(lock(&sessions.slots).len(), 1);
        drop(lease);
        assert!(sessions.lease(&used.id, "ada").is_ok());
        later(&sessions, 11);
        sessions.sweep();
        assert!(lock(&sessions.slots).is_empty());
    }

    #[tokio::test]
    async fn a_token_opens_its_own_session_only() {
        let sessions = sessions(4);
        let (a, b) = (sessions.open("ada", Broken(0)).unwrap(), sessions.open("bob", Broken(0)).unwrap());
        assert_eq!(sessions.by_token(&a.token), Some((a.id.clone(), "ada".to_owned())));
        let mixed = format!("{}.{}", b.id, a.token.split_once('.').unwrap().1);
        let mut cut = a.token.to_string();
        cut.pop();
        for wrong in [mixed.as_str(), &cut, &a.id, "", ".", &format!("{}.", a.id), &format!("{}.zz", a.id)] {
            assert_eq!(sessions.by_token(wrong), None, "{wrong}");
        }
        assert_eq!(status(sessions.lease(&a.id, "bob")), "\"08003\"");
        assert_eq!(status(sessions.close(&a.id, "bob")), "\"08003\"");
    }

    #[tokio::test]
    async fn one_request_at_a_time_and_one_that_is_dropped_breaks_the_transaction() {
        let sessions = sessions(1);
        let id = sessions.open("ada", Broken(0)).unwrap().id;
        assert_eq!(status(sessions.open("ada", Broken(0))), "\"53300\"");
        let mut lease = sessions.lease(&id, "ada").unwrap();
        assert_eq!(status(sessions.lease(&id, "ada")), "\"55006\"");
        assert_eq!(status(sessions.close(&id, "ada")), "\"55006\"");
        lease.done();
        drop(lease);
        drop(sessions.lease(&id, "ada").unwrap());
        assert_eq!(sessions.lease(&id, "ada").unwrap().session().0, 1);
        sessions.close(&id, "ada").unwrap();
        assert_eq!(status(sessions.lease(&id, "ada")), "\"08003\"");
        assert!(sessions.open("ada", Broken(0)).is_ok());
    }
}
