//! What every column's wire form is made of.

use bytes::Bytes;

/// Encoded bytes in pieces: large buffers are handed over as they are, so that
/// rows are in memory once, whether they still gather or are being sent.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    done: Vec<Bytes>,
    /// Takes what is small.
    pub(super) open: Vec<u8>,
}

impl Chunks {
    /// Takes all bytes of `buffer`, which has room for the next rows at once: a
    /// buffer that grows is there twice for a moment, and leaves a hole.
    pub(super) fn give(&mut self, buffer: &mut Vec<u8>) {
        const LARGE: usize = 64 * 1024;
        if buffer.len() < LARGE {
            self.open.append(buffer);
            return;
        }
        self.close();
        let next = Vec::with_capacity(buffer.len() + buffer.len() / 4);
        self.done.push(std::mem::replace(buffer, next).into());
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            self.done.push(std::mem::take(&mut self.open).into());
        }
    }

    pub(super) fn finish(mut self) -> Vec<Bytes> {
        self.close();
        self.done
    }
}

/// Appends an unsigned integer, seven bits a byte, the lowest first (LEB128).
#[inline]
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// How many bytes the integer takes that `bytes` begin with.
pub(super) fn varint_width(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| **byte >= 0x80).count() + 1
}

/// Appends a string: its length in bytes, then the bytes.
#[inline]
pub(super) fn put_string(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a column of 64-bit integers.
pub(super) fn put_u64s(out: &mut Vec<u8>, values: &[u64]) {
    out.reserve(values.len() * 8);
    for value in values {
        out.extend_from_slice(&value.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints() {
        let encoded = |value| {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(varint_width(&[&out[..], b"behind"].concat()), out.len());
            out
        };
        assert_eq!(encoded(0), [0]);
        assert_eq!(encoded(127), [0x7f]);
        assert_eq!(encoded(128), [0x80, 1]);
        assert_eq!(encoded(300), [0xac, 2]);
        assert_eq!(encoded(u64::MAX).len(), 10);
    }
}
