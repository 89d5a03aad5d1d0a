//! The allocator of the programs.
//!
//! Records are allocated by the thread that reads them and freed by one of the
//! Kafka client's, in many pieces each. Of glibc's allocator those threads
//! share one heap and its lock: with jemalloc a relay takes a fifth less processor
//! time for a record. And what a session leaves behind goes back to the system by
//! itself, where glibc keeps a heap for each thread that there has been.
//!
//! Part of `program`, so that services that emit events keep the allocator that
//! they have chosen.

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// What is free goes back to the system after 0.2 s, by a thread of the
/// allocator's own. Its default is 10 s, in which a relay that works off a backlog
/// holds half as much again, and is no faster for it.
const OPTIONS: &str = "background_thread:true,dirty_decay_ms:200,muzzy_decay_ms:0\0";

/// Where jemalloc looks for its options; `MALLOC_CONF` in the environment goes
/// before it.
#[expect(unsafe_code, reason = "the name is jemalloc's, and nobody else's")]
// SAFETY: jemalloc declares it as `const char *`, which this is: it ends with NUL.
#[cfg_attr(not(target_vendor = "apple"), unsafe(export_name = "malloc_conf"))]
#[cfg_attr(target_vendor = "apple", unsafe(export_name = "_rjem_malloc_conf"))]
static MALLOC_CONF: &[u8; OPTIONS.len()] = OPTIONS.as_bytes().first_chunk().unwrap();

#[cfg(test)]
mod tests {
    use tikv_jemalloc_ctl::opt;

    #[test]
    fn the_options_reach_the_allocator() {
        assert!(opt::background_thread::read().unwrap());
    }
}
