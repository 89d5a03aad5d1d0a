//! The memory that events may take which Kafka has not acknowledged.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::{
    sync::{AcquireError, OwnedSemaphorePermit, Semaphore, TryAcquireError, watch},
    time::{Instant, timeout_at},
};

use super::Refusal;

/// What an event takes besides its fields: the entries of the client's queue
/// and of ours, and the way back to whoever waits for it. An upper estimate.
const BOOKKEEPING: usize = 512;

/// Bytes of memory for an event whose record has `record_bytes`: the client
/// copies the record, and the event is kept to be handed back.
pub(super) fn charge(record_bytes: usize) -> usize {
    record_bytes.saturating_mul(2).saturating_add(BOOKKEEPING)
}

/// Counts bytes, and the events that have not come to an end.
pub(super) struct Queue {
    bytes: Arc<Semaphore>,
    capacity: usize,
    pending: watch::Sender<usize>,
    /// Events that failed and that nobody waited for.
    unclaimed: AtomicU64,
}

/// Room for one event, given back when this is dropped.
pub(super) struct Place {
    // In this order: when nothing is pending, all bytes are back.
    _bytes: OwnedSemaphorePermit,
    _pending: Pending,
}

/// One event on its way.
struct Pending(Arc<Queue>);

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.pending.send_modify(|pending| *pending -= 1);
    }
}

impl Queue {
    pub(super) fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Queue {
            bytes: Arc::new(Semaphore::new(capacity)),
            capacity,
            pending: watch::Sender::new(0),
            unclaimed: AtomicU64::new(0),
        })
    }

    /// Counts from before the room is had, so that whoever waits for the end of
    /// everything does not miss an event between the two.
    fn pending(self: &Arc<Self>) -> Pending {
        self.pending.send_modify(|pending| *pending += 1);
        Pending(Arc::clone(self))
    }

    /// Waits its turn for room. Of several that wait, the first one gets it
    /// first, however large it is.
    pub(super) async fn place(
        self: &Arc<Self>,
        bytes: usize,
        deadline: Instant,
    ) -> Result<Place, Refusal> {
        let pending = self.pending();
        let permits = self.permits(bytes)?;
        let acquire = Arc::clone(&self.bytes).acquire_many_owned(permits);
        match timeout_at(deadline, acquire).await {
            Ok(Ok(held)) => Ok(Place { _bytes: held, _pending: pending }),
            Ok(Err(AcquireError { .. })) => Err(Refusal::Closed),
            Err(_) => Err(self.full()),
        }
    }

    /// The same without waiting.
    pub(super) fn try_place(self: &Arc<Self>, bytes: usize) -> Result<Place, Refusal> {
        let pending = self.pending();
        match Arc::clone(&self.bytes).try_acquire_many_owned(self.permits(bytes)?) {
            Ok(held) => Ok(Place { _bytes: held, _pending: pending }),
            Err(TryAcquireError::Closed) => Err(Refusal::Closed),
            Err(TryAcquireError::NoPermits) => Err(self.full()),
        }
    }

    fn permits(&self, bytes: usize) -> Result<u32, Refusal> {
        // The settings see to it that the largest record fits.
        u32::try_from(bytes).map_err(|_| self.full())
    }

    fn full(&self) -> Refusal {
        Refusal::Full { capacity: self.capacity }
    }

    /// Nothing is taken any more.
    pub(super) fn close(&self) {
        self.bytes.close();
    }

    pub(super) fn bytes_in_use(&self) -> usize {
        self.capacity - self.bytes.available_permits()
    }

    pub(super) fn events(&self) -> usize {
        *self.pending.borrow()
    }

    /// Returns when there is no event on its way.
    pub(super) async fn drained(&self) {
        // Fails only when the sender is gone, which `self` holds.
        self.pending.subscribe().wait_for(|&pending| pending == 0).await.ok();
    }

    pub(super) fn count_unclaimed(&self) {
        self.unclaimed.fetch_add(1, Ordering::Relaxed);
    }

    /// How many since it was last asked.
    pub(super) fn take_unclaimed(&self) -> u64 {
        self.unclaimed.swap(0, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(1)
    }

    #[tokio::test(start_paused = true)]
    async fn room_is_given_in_turn_and_no_more_than_there_is() {
        let queue = Queue::new(100);
        let first = queue.try_place(60).unwrap();
        assert!(matches!(queue.try_place(41), Err(Refusal::Full { capacity: 100 })));
        let large = tokio::spawn({
            let queue = Arc::clone(&queue);
            async move { queue.place(100, soon()).await }
        });
        tokio::task::yield_now().await;
        // It would fit, but the large one has waited for longer.
        assert!(matches!(queue.try_place(10), Err(Refusal::Full { .. })));
        assert_eq!(queue.events(), 2);
        drop(first);
        let large = large.await.unwrap().unwrap();
        assert_eq!((queue.bytes_in_use(), queue.events()), (100, 1));
        drop(large);
        queue.drained().await;
        assert_eq!((queue.bytes_in_use(), queue.events()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_has_an_end() {
        let queue = Queue::new(100);
        let _held = queue.try_place(100).unwrap();
        assert!(matches!(queue.place(1, soon()).await, Err(Refusal::Full { .. })));
        let waiting = tokio::spawn({
            let queue = Arc::clone(&queue);
            async move { queue.place(1, soon()).await.err() }
        });
        tokio::task::yield_now().await;
        queue.close();
        assert!(matches!(waiting.await.unwrap(), Some(Refusal::Closed)));
        assert!(matches!(queue.try_place(1), Err(Refusal::Closed)));
        assert_eq!(queue.events(), 1, "those that were refused are not on their way");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_stops_waiting_takes_nothing() {
        let queue = Queue::new(100);
        let held = queue.try_place(100).unwrap();
        tokio::time::timeout(Duration::from_millis(1), queue.place(50, soon()))
            .await
            .err()
            .unwrap();
        drop(held);
        assert_eq!((queue.bytes_in_use(), queue.events()), (0, 0));
    }
}
