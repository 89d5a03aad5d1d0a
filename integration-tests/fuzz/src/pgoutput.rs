//! Bytes of the replication stream → a message or an error.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use outpour_producer::wal::{charset::Charset, pgoutput};

fuzz_target!(|bytes: &[u8]| {
    for charset in [Charset::Utf8, Charset::Unchecked] {
        if let Err(error) = pgoutput::decode(Bytes::copy_from_slice(bytes), &charset) {
            assert!(!error.to_string().is_empty());
        }
    }
});
