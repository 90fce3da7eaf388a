//! As much of Avro as Xandr's files need: object container files of one record, packed with deflate.
//!
//! The library of it writes its header's entries in another order each time, and a batch that is sent again has to have the
//! same bytes. The format: <https://avro.apache.org/docs/1.12.0/specification/#object-container-files>.

use flate2::Compression;
use flate2::write::DeflateEncoder;
use std::io::Write;

/// So many records are in a block.
const BLOCK: usize = 4_096;

/// A file that is being written.
pub(super) struct File {
    out: Vec<u8>,
    sync: [u8; 16],
    block: Vec<u8>,
    records: usize,
}

impl File {
    /// Begins a file; `sync` ends each block.
    pub(super) fn new(schema: &str, sync: [u8; 16]) -> Self {
        let mut out = b"Obj\x01".to_vec();
        put_long(&mut out, 2);
        for (key, value) in [("avro.codec", "deflate"), ("avro.schema", schema)] {
            put_string(&mut out, key);
            put_string(&mut out, value);
        }
        put_long(&mut out, 0);
        out.extend_from_slice(&sync);
        Self { out, sync, block: Vec::new(), records: 0 }
    }

    /// Adds a record, which `write` puts at the end of a block.
    pub(super) fn record(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.block);
        self.records += 1;
        if self.records == BLOCK {
            self.end_block();
        }
    }

    /// The whole file.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.end_block();
        self.out
    }

    fn end_block(&mut self) {
        if self.records == 0 {
            return;
        }
        let mut packed = DeflateEncoder::new(Vec::new(), Compression::default());
        let done = packed.write_all(&self.block).and_then(|()| packed.finish());
        let packed = done.expect("a Vec takes all");
        put_long(&mut self.out, i64::try_from(self.records).unwrap_or(i64::MAX));
        put_long(&mut self.out, i64::try_from(packed.len()).unwrap_or(i64::MAX));
        self.out.extend_from_slice(&packed);
        self.out.extend_from_slice(&self.sync);
        self.block.clear();
        self.records = 0;
    }
}

/// An int, a long, an index of a union or an enum: zigzag, seven bits a byte, the least first.
pub(super) fn put_long(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push((rest & 0x7f) as u8);
}

pub(super) fn put_string(out: &mut Vec<u8>, text: &str) {
    put_long(out, i64::try_from(text.len()).unwrap_or(i64::MAX));
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_the_specification_shows_them() {
        let written = |value| {
            let mut out = Vec::new();
            put_long(&mut out, value);
            out
        };
        for (value, expected) in [
            (0, vec![0]),
            (-1, vec![1]),
            (1, vec![2]),
            (-64, vec![0x7f]),
            (64, vec![0x80, 1]),
            (i64::MAX, vec![0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        ] {
            assert_eq!(written(value), expected, "{value}");
        }
    }
}
