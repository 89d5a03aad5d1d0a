//! I8: what batches hold, counted over all partitions, stays within a quarter of
//! `consumer.memory`. The Kafka client's queue has another. The rest is for what
//! comes on top: blocks keep room for growth, an insert is compressed beside its
//! bytes, and the allocator keeps some of what large buffers leave.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use bytesize::ByteSize;

#[derive(Debug, Clone)]
pub(crate) struct Budget {
    /// Bytes that batches may hold.
    pub(crate) limit: usize,
    /// Bytes of batches that are sealed and not stored.
    sealed: Arc<AtomicUsize>,
}

impl Budget {
    pub(crate) fn of(memory: ByteSize) -> Self {
        let limit = usize::try_from(memory.as_u64() / 4).unwrap_or(usize::MAX);
        Budget { limit, sealed: Arc::default() }
    }

    /// Counts a sealed batch for as long as what is returned lives.
    pub(crate) fn hold(&self, bytes: usize) -> Held {
        self.sealed.fetch_add(bytes, Relaxed);
        Held { sealed: Arc::clone(&self.sealed), bytes }
    }

    /// Bytes of batches that are sealed and not stored.
    pub(crate) fn sealed(&self) -> usize {
        self.sealed.load(Relaxed)
    }
}

/// Bytes that are counted.
#[derive(Debug)]
pub(crate) struct Held {
    sealed: Arc<AtomicUsize>,
    bytes: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.sealed.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_counts_until_it_is_dropped() {
        let budget = Budget::of(ByteSize::kib(4));
        assert_eq!((budget.limit, budget.sealed()), (1024, 0));
        let (one, two) = (budget.hold(300), budget.clone().hold(50));
        assert_eq!(budget.sealed(), 350);
        drop(one);
        assert_eq!(budget.sealed(), 50);
        drop(two);
        assert_eq!(budget.sealed(), 0);
    }
}
