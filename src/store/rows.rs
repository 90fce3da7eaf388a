//! The bytes of rows that are more than one number, the same in every backend of the state. A store's format is
//! their version.

use crate::model::Malformed;
use crate::model::RejectedLine;
use crate::model::codec::Reader;
use crate::model::codec::put_bytes;
use crate::model::codec::put_i64;
use crate::model::codec::put_str;
use crate::model::codec::put_u8;
use crate::model::codec::put_varint;
use crate::store::journal::EventNo;
use crate::store::journal::Position;
use crate::store::state::ArchivePosition;
use crate::store::state::Checkpoint;
use crate::store::state::Counters;
use crate::store::state::DeadLetter;
use crate::store::state::Identity;
use crate::store::state::ImportProgress;
use crate::store::state::ManifestRow;
use crate::store::state::NameBits;
use crate::store::state::SkipChunk;
use crate::store::state::TraitRow;

/// A row whose key is kept beside it.
pub(super) trait Row: Sized {
    /// What it is kept under.
    type Key<'k>;

    /// Its bytes, without the key.
    fn row(&self) -> Vec<u8>;

    /// Reads a row from its bytes.
    fn parse(key: Self::Key<'_>, reader: &mut Reader<'_>) -> Result<Self, Malformed>;

    /// Reads a row that fills `bytes`.
    fn read(key: Self::Key<'_>, bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let row = Self::parse(key, &mut reader)?;
        reader.finish()?;
        Ok(row)
    }
}

fn numbers(numbers: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    for number in numbers {
        put_varint(&mut out, *number);
    }
    out
}

impl Row for Identity {
    type Key<'k> = ();

    fn row(&self) -> Vec<u8> {
        let mut out = numbers(&[u64::from(self.shards)]);
        put_bytes(&mut out, &self.key);
        out
    }

    fn parse((): (), reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let shards = u16::try_from(reader.varint()?).map_err(|_| Malformed("too many shards"))?;
        let key = reader.bytes()?.try_into().map_err(|_| Malformed("a key's length"))?;
        Ok(Self { shards, key })
    }
}

impl Row for Checkpoint {
    type Key<'k> = ();

    fn row(&self) -> Vec<u8> {
        let counters = &self.counters;
        let mut out = numbers(&[
            self.commit,
            self.position.0,
            self.next_record,
            counters.counted,
            counters.duplicates,
            counters.dead_letters,
            counters.out_of_range,
            counters.facts,
        ]);
        put_i64(&mut out, self.received);
        put_i64(&mut out, self.first_day);
        out
    }

    fn parse((): (), reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            commit: reader.varint()?,
            position: Position(reader.varint()?),
            next_record: reader.varint()?,
            counters: Counters {
                counted: reader.varint()?,
                duplicates: reader.varint()?,
                dead_letters: reader.varint()?,
                out_of_range: reader.varint()?,
                facts: reader.varint()?,
            },
            received: reader.i64()?,
            first_day: reader.i64()?,
        })
    }
}

impl Row for DeadLetter {
    type Key<'k> = EventNo;

    fn row(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_i64(&mut out, self.time);
        put_str(&mut out, &self.reason);
        put_bytes(&mut out, &self.bytes);
        out
    }

    fn parse(event: EventNo, reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let time = reader.i64()?;
        let reason = reader.str()?.into();
        Ok(Self { event, time, reason, bytes: reader.bytes()?.to_vec() })
    }
}

impl Row for ImportProgress {
    type Key<'k> = &'k str;

    fn row(&self) -> Vec<u8> {
        numbers(&[self.taken, self.counted, self.duplicates, self.rejected, self.erased])
    }

    fn parse(import: &str, reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            import: import.into(),
            taken: reader.varint()?,
            counted: reader.varint()?,
            duplicates: reader.varint()?,
            rejected: reader.varint()?,
            // Rows of before it was counted end here.
            erased: if reader.remaining() > 0 { reader.varint()? } else { 0 },
        })
    }
}

impl Row for RejectedLine {
    type Key<'k> = ();

    fn row(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }

    fn parse((): (), reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Self::decode(reader)
    }
}

impl Row for TraitRow {
    type Key<'k> = u32;

    fn row(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_u8(&mut out, u8::from(self.whole));
        put_varint(&mut out, self.imaged);
        put_str(&mut out, &self.text);
        if let Some(since) = self.unasked {
            put_i64(&mut out, since);
        }
        out
    }

    fn parse(id: u32, reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let whole = reader.u8()? == 1;
        let imaged = reader.varint()?;
        let text = reader.str()?.into();
        let unasked = if reader.remaining() > 0 { Some(reader.i64()?) } else { None };
        Ok(Self { id, whole, imaged, text, unasked })
    }
}

impl Row for SkipChunk {
    type Key<'k> = u64;

    fn row(&self) -> Vec<u8> {
        let mut out = numbers(&[self.last]);
        put_bytes(&mut out, &self.bytes);
        out
    }

    fn parse(first: u64, reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { first, last: reader.varint()?, bytes: reader.bytes()?.to_vec() })
    }
}

impl Row for ManifestRow {
    type Key<'k> = &'k str;

    fn row(&self) -> Vec<u8> {
        let mut out =
            numbers(&[u64::from(self.shard), self.from.0, self.to.0, self.rows, self.bytes]);
        put_i64(&mut out, self.day);
        self.names.iter().flatten().for_each(|bits| put_i64(&mut out, bits.cast_signed()));
        out
    }

    fn parse(file: &str, reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            file: file.into(),
            shard: u16::try_from(reader.varint()?).map_err(|_| Malformed("a shard's number"))?,
            from: Position(reader.varint()?),
            to: Position(reader.varint()?),
            rows: reader.varint()?,
            bytes: reader.varint()?,
            day: reader.i64()?,
            names: match reader.remaining() {
                0 => None,
                _ => {
                    let mut names = NameBits::default();
                    for bits in &mut names {
                        *bits = reader.i64()?.cast_unsigned();
                    }
                    Some(names)
                }
            },
        })
    }
}

impl Row for ArchivePosition {
    type Key<'k> = ();

    fn row(&self) -> Vec<u8> {
        numbers(&[self.position.0, self.next_record])
    }

    fn parse((): (), reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { position: Position(reader.varint()?), next_record: reader.varint()? })
    }
}

/// A number kept by name.
impl Row for u64 {
    type Key<'k> = ();

    fn row(&self) -> Vec<u8> {
        numbers(&[*self])
    }

    fn parse((): (), reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        reader.varint()
    }
}
