//! The queue between those who insert and the driver: bounded, first come first served.
//!
//! Rule    one that is full lets nobody in before a place is free; one that is closed answers everybody who still waits.

use super::GroupError;
use crate::session::lock;
use crate::value::Value;
use fluence_types::{Height, Version};
use futures::channel::oneshot;
use futures::task::AtomicWaker;
use std::collections::VecDeque;
use std::sync::Mutex;
use std::task::Poll;

/// A row that is certified.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inserted {
    /// The certified height that shows it; it was live there, or before.
    pub height: Height,
    /// The version of the table with it.
    pub version: Version,
}

/// A row that waits.
pub(crate) struct Pending {
    pub(crate) row: Vec<Value>,
    pub(crate) answer: oneshot::Sender<Result<Inserted, GroupError>>,
}

#[derive(Default)]
struct Inner {
    pending: VecDeque<Pending>,
    /// Those who wait for a place, in turn. One that was let in has its place kept until it takes it.
    doors: VecDeque<oneshot::Sender<()>>,
    kept: usize,
    closed: bool,
}

pub(crate) struct Queue {
    inner: Mutex<Inner>,
    limit: usize,
    driver: AtomicWaker,
}

/// A place that is kept: given back where its owner goes away before it takes it.
struct Place<'a>(&'a Queue);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut inner = lock(&self.0.inner);
        inner.kept -= 1;
        self.0.admit(&mut inner);
    }
}

impl Queue {
    pub(crate) fn new(limit: usize) -> Self {
        Self { inner: Mutex::default(), limit: limit.max(1), driver: AtomicWaker::new() }
    }

    /// Lets in those whose turn it is.
    fn admit(&self, inner: &mut Inner) {
        while inner.pending.len() + inner.kept < self.limit {
            let Some(door) = inner.doors.pop_front() else { return };
            // One that went away meanwhile takes no place.
            if door.send(()).is_ok() {
                inner.kept += 1;
            }
        }
    }

    /// Waits for a place and takes it.
    pub(crate) async fn push(&self, pending: Pending) -> Result<(), GroupError> {
        let door = {
            let mut inner = lock(&self.inner);
            if inner.closed {
                return Err(GroupError::Closed);
            }
            if inner.doors.is_empty() && inner.pending.len() + inner.kept < self.limit {
                inner.pending.push_back(pending);
                self.driver.wake();
                return Ok(());
            }
            let (open, door) = oneshot::channel();
            inner.doors.push_back(open);
            door
        };
        Knock { queue: self, door }.await.map_err(|_| GroupError::Closed)?;
        let place = Place(self);
        let mut inner = lock(&self.inner);
        if inner.closed {
            drop(inner);
            return Err(GroupError::Closed);
        }
        inner.pending.push_back(pending);
        drop(inner);
        drop(place);
        self.driver.wake();
        Ok(())
    }

    /// Takes up to `max` rows.
    pub(crate) fn take(&self, max: usize) -> Vec<Pending> {
        let mut inner = lock(&self.inner);
        let count = inner.pending.len().min(max);
        let taken = inner.pending.drain(..count).collect();
        self.admit(&mut inner);
        taken
    }

    pub(crate) fn len(&self) -> usize {
        lock(&self.inner).pending.len()
    }

    /// Waits until a row is there, or there will be none: then it says false.
    pub(crate) async fn ready(&self) -> bool {
        futures::future::poll_fn(|cx| {
            self.driver.register(cx.waker());
            let inner = lock(&self.inner);
            match (inner.pending.is_empty(), inner.closed) {
                (false, _) => Poll::Ready(true),
                (true, true) => Poll::Ready(false),
                (true, false) => Poll::Pending,
            }
        })
        .await
    }

    /// Lets nobody in any more. What is in it is still written.
    pub(crate) fn close(&self) {
        let mut inner = lock(&self.inner);
        inner.closed = true;
        inner.doors.clear();
        drop(inner);
        self.driver.wake();
    }
}

/// Waits at a door. Who goes away after being let in, and before noticing, gives the place back.
struct Knock<'a> {
    queue: &'a Queue,
    door: oneshot::Receiver<()>,
}

impl Future for Knock<'_> {
    type Output = Result<(), oneshot::Canceled>;

    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        std::pin::Pin::new(&mut self.door).poll(cx)
    }
}

impl Drop for Knock<'_> {
    fn drop(&mut self) {
        // Done waiting: nothing is left in the channel. Otherwise a place may have been sent that nobody took.
        self.door.close();
        if let Ok(Some(())) = self.door.try_recv() {
            let mut inner = lock(&self.queue.inner);
            inner.kept -= 1;
            self.queue.admit(&mut inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn row(n: i64) -> (Pending, oneshot::Receiver<Result<Inserted, GroupError>>) {
        let (answer, answered) = oneshot::channel();
        (Pending { row: vec![Value::Int64(n)], answer }, answered)
    }

    fn taken(queue: &Queue, max: usize) -> Vec<Value> {
        queue.take(max).into_iter().flat_map(|p| p.row).collect()
    }

    #[test]
    fn a_full_queue_lets_in_one_for_each_that_leaves_in_turn() {
        let queue = Queue::new(2);
        for n in 0..2 {
            assert!(queue.push(row(n).0).now_or_never().is_some());
        }
        let (mut third, mut fourth) = (Box::pin(queue.push(row(2).0)), Box::pin(queue.push(row(3).0)));
        assert!(third.as_mut().now_or_never().is_none() && fourth.as_mut().now_or_never().is_none());
        assert_eq!(taken(&queue, 1), [Value::Int64(0)]);
        // The place is the third's, even where it has not looked yet: nobody passes it.
        let mut fifth = Box::pin(queue.push(row(4).0));
        assert!(fifth.as_mut().now_or_never().is_none() && fourth.as_mut().now_or_never().is_none());
        assert!(matches!(third.as_mut().now_or_never(), Some(Ok(()))));
        assert_eq!(queue.len(), 2);
        drop(third);
        assert_eq!(taken(&queue, 9), [Value::Int64(1), Value::Int64(2)]);
        assert!(matches!(fourth.now_or_never(), Some(Ok(()))));
        assert!(matches!(fifth.now_or_never(), Some(Ok(()))));
        assert_eq!(taken(&queue, 9), [Value::Int64(3), Value::Int64(4)]);
    }

    #[test]
    fn who_goes_away_while_waiting_blocks_nobody() {
        let queue = Queue::new(1);
        assert!(queue.push(row(0).0).now_or_never().is_some());
        let mut gone = Box::pin(queue.push(row(1).0));
        let mut late = Box::pin(queue.push(row(2).0));
        assert!(gone.as_mut().now_or_never().is_none() && late.as_mut().now_or_never().is_none());
        drop(gone);
        queue.take(1);
        assert!(matches!(late.now_or_never(), Some(Ok(()))));
        // And one that was let in and did not notice.
        let (mut gone, mut late) = (Box::pin(queue.push(row(3).0)), Box::pin(queue.push(row(4).0)));
        assert!(gone.as_mut().now_or_never().is_none() && late.as_mut().now_or_never().is_none());
        queue.take(1);
        drop(gone);
        assert!(matches!(late.now_or_never(), Some(Ok(()))));
        assert_eq!(taken(&queue, 9), [Value::Int64(4)]);
    }

    #[test]
    fn a_closed_queue_refuses_those_outside_and_gives_what_is_inside() {
        let queue = Queue::new(1);
        assert!(queue.push(row(0).0).now_or_never().is_some());
        let mut outside = Box::pin(queue.push(row(1).0));
        assert!(outside.as_mut().now_or_never().is_none());
        queue.close();
        assert!(matches!(outside.now_or_never(), Some(Err(GroupError::Closed))));
        assert!(matches!(queue.push(row(2).0).now_or_never(), Some(Err(GroupError::Closed))));
        assert_eq!(queue.ready().now_or_never(), Some(true));
        assert_eq!(taken(&queue, 9), [Value::Int64(0)]);
        assert_eq!(queue.ready().now_or_never(), Some(false));
    }
}
