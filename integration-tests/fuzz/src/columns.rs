//! JSON text → one column: the first byte chooses the type, the rest is the value.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outpour_consumer::block::Cell;
use outpour_fuzz::{TYPES, block};
use serde_json::value::RawValue;

fuzz_target!(|input: &[u8]| {
    let Some((&first, rest)) = input.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    // Cells hold JSON that was parsed before.
    let Ok(raw) = serde_json::from_str::<&RawValue>(text) else { return };
    let kind = TYPES[usize::from(first) % TYPES.len()];
    let mut rows = block(kind).expect("every type is known");
    let cell = [Cell::Json(raw.get())];
    let empty = rows.byte_size();
    match rows.push_row(&cell) {
        Ok(()) => {
            assert_eq!(rows.rows(), 1);
            let mut again = block(kind).expect("every type is known");
            again.push_row(&cell).expect("what was taken once is taken again");
            assert_eq!(again.take().concat(), rows.take().concat());
        }
        Err(error) => {
            assert_eq!((rows.rows(), rows.byte_size()), (0, empty), "nothing is left of it");
            assert!(!error.to_string().is_empty());
        }
    }
});
