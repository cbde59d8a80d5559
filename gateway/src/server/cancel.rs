//! Cancel requests: a second connection names the process id and the secret key of the first.
//!
//! Rule    the right pair drops the future of the statement that runs now; a wrong one, or one between two statements, does nothing and
//!         says nothing.
//! Key     4 random bytes in protocol 3.0, 32 in 3.2; compared in constant time
//! Source  PostgreSQL 15, "Canceling Requests in Progress"; protocol 3.2, PostgreSQL 18

use super::errors::Failure;
use pgwire::messages::ProtocolVersion;
use pgwire::messages::startup::SecretKey;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

/// Guards against a poisoned lock: the maps here are whole after every step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All connections that can be cancelled.
#[derive(Default)]
pub(super) struct Registry {
    by_pid: Mutex<HashMap<i32, Entrant>>,
}

/// A connection's secret key, and what it runs.
type Entrant = (Vec<u8>, Arc<Running>);

impl Registry {
    /// Gives a connection its process id and key, until the ticket is dropped.
    pub(super) fn register(self: &Arc<Self>, version: ProtocolVersion) -> Ticket {
        let secret = match version {
            ProtocolVersion::PROTOCOL3_0 => rand::random::<[u8; 4]>().to_vec(),
            _ => rand::random::<[u8; 32]>().to_vec(),
        };
        let running = Arc::new(Running::default());
        let mut by_pid = lock(&self.by_pid);
        loop {
            // Positive and not zero: some drivers keep the id unsigned, some take zero for "none".
            let pid = (rand::random::<i32>() & i32::MAX).max(1);
            if let Entry::Vacant(vacant) = by_pid.entry(pid) {
                vacant.insert((secret.clone(), Arc::clone(&running)));
                return Ticket { pid, secret, running, registry: Arc::clone(self) };
            }
        }
    }

    /// Stops what the named connection runs. Says nothing about whether there was one.
    pub(super) fn cancel(&self, pid: i32, secret: &[u8]) {
        let running = lock(&self.by_pid).get(&pid).filter(|(key, _)| equal(key, secret)).map(|(_, r)| Arc::clone(r));
        if let Some(stop) = running.and_then(|running| lock(&running.stop).take()) {
            // The statement may have ended in between.
            let _ended = stop.send(());
        }
    }
}

/// Equality whose time depends on the lengths only.
fn equal(ours: &[u8], theirs: &[u8]) -> bool {
    ours.len() == theirs.len() && ours.iter().zip(theirs).fold(0, |acc, (a, b)| acc | (a ^ b)) == 0
}

/// A connection's place in the registry.
pub(super) struct Ticket {
    /// The process id.
    pub(super) pid: i32,
    secret: Vec<u8>,
    /// What the connection runs.
    pub(super) running: Arc<Running>,
    registry: Arc<Registry>,
}

impl Ticket {
    /// The key as BackendKeyData carries it.
    pub(super) fn secret_key(&self) -> SecretKey {
        match <[u8; 4]>::try_from(self.secret.as_slice()) {
            Ok(four) => SecretKey::I32(i32::from_be_bytes(four)),
            Err(_) => SecretKey::Bytes(self.secret.clone().into()),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        lock(&self.registry.by_pid).remove(&self.pid);
    }
}

/// The statement that a connection runs, if it runs one.
#[derive(Default)]
pub(super) struct Running {
    stop: Mutex<Option<oneshot::Sender<()>>>,
}

impl Running {
    /// A statement begins; it can be cancelled until the guard is dropped, and may run so long from now.
    pub(super) fn begin(self: &Arc<Self>, shutdown: watch::Receiver<bool>, limit: Option<Duration>) -> Guard {
        let (stop, cancelled) = oneshot::channel();
        *lock(&self.stop) = Some(stop);
        let deadline = limit.map(|limit| Instant::now() + limit);
        Guard { cancelled, shutdown, deadline, running: Arc::clone(self) }
    }
}

/// While it lives, a cancel request reaches the statement.
pub(super) struct Guard {
    cancelled: oneshot::Receiver<()>,
    shutdown: watch::Receiver<bool>,
    /// When `statement_timeout` has passed.
    deadline: Option<Instant>,
    running: Arc<Running>,
}

impl Guard {
    /// Runs `work` to its end, or drops it where a cancel request or the server's end comes first.
    pub(super) async fn race<T>(mut self, work: impl Future<Output = Result<T, Failure>> + Send) -> Result<T, Failure> {
        tokio::pin!(work);
        let late = async {
            let Some(deadline) = self.deadline else { return std::future::pending().await };
            let mut timer = std::pin::pin!(tokio::time::sleep_until(deadline));
            // The clock is asked too: a timer fires late where all threads compute.
            std::future::poll_fn(|cx| match Instant::now() < deadline {
                true => timer.as_mut().poll(cx),
                false => Poll::Ready(()),
            })
            .await;
        };
        // The work comes last: it may compute for long before it lets the others be asked again.
        tokio::select! {
            biased;
            Ok(()) = &mut self.cancelled => Err(Failure::Cancelled),
            _ended = self.shutdown.wait_for(|ended| *ended) => Err(Failure::Shutdown),
            () = late => Err(Failure::TimedOut),
            result = &mut work => result,
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        lock(&self.running.stop).take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};

    fn registry() -> (Arc<Registry>, watch::Sender<bool>) {
        (Arc::new(Registry::default()), watch::channel(false).0)
    }

    #[tokio::test]
    async fn the_right_key_drops_the_running_statement() {
        let (registry, ends) = registry();
        let ticket = registry.register(ProtocolVersion::PROTOCOL3_2);
        let guard = ticket.running.begin(ends.subscribe(), None);
        registry.cancel(ticket.pid, &ticket.secret);
        assert!(matches!(guard.race::<()>(pending()).await, Err(Failure::Cancelled)));
    }

    #[tokio::test]
    async fn a_wrong_key_a_wrong_process_and_a_late_request_do_nothing() {
        let (registry, ends) = registry();
        let ticket = registry.register(ProtocolVersion::PROTOCOL3_0);
        let guard = ticket.running.begin(ends.subscribe(), None);
        let wrong: Vec<u8> = ticket.secret.iter().map(|byte| byte ^ 1).collect();
        registry.cancel(ticket.pid, &wrong);
        registry.cancel(ticket.pid, &ticket.secret[..3]);
        registry.cancel(ticket.pid, &[]);
        registry.cancel(ticket.pid ^ 1, &ticket.secret);
        assert!(guard.race(ready(Ok(()))).await.is_ok());
        registry.cancel(ticket.pid, &ticket.secret);
        let next = ticket.running.begin(ends.subscribe(), None);
        assert!(next.race(ready(Ok(()))).await.is_ok());
    }

    #[tokio::test]
    async fn a_closed_connection_is_forgotten_and_the_servers_end_stops_statements() {
        let (registry, ends) = registry();
        let ticket = registry.register(ProtocolVersion::PROTOCOL3_0);
        let guard = ticket.running.begin(ends.subscribe(), None);
        drop(ticket);
        assert!(lock(&registry.by_pid).is_empty());
        ends.send_replace(true);
        assert!(matches!(guard.race::<()>(pending()).await, Err(Failure::Shutdown)));
    }

    #[tokio::test]
    async fn time_is_counted_from_the_beginning_and_before_what_has_computed_too_long_goes_on() {
        let (registry, ends) = registry();
        let ticket = registry.register(ProtocolVersion::PROTOCOL3_2);
        let guard = ticket.running.begin(ends.subscribe(), Some(Duration::from_millis(5)));
        let work = async {
            std::thread::sleep(Duration::from_millis(20));
            tokio::task::yield_now().await;
            Ok(())
        };
        assert!(matches!(guard.race(work).await, Err(Failure::TimedOut)));
    }

    #[test]
    fn keys_have_the_length_of_their_protocol() {
        let (registry, _ends) = registry();
        assert!(matches!(registry.register(ProtocolVersion::PROTOCOL3_0).secret_key(), SecretKey::I32(_)));
        let SecretKey::Bytes(key) = registry.register(ProtocolVersion::PROTOCOL3_2).secret_key() else {
            panic!("a long key");
        };
        assert_eq!(key.len(), 32);
    }
}
