//! Images: the bytes of a trait's day and of what else a block holds, with a version and checked.

use std::sync::Arc;

use super::TraitId;
use super::attribute::AttributeColumn;
use super::block::Block;
use super::columns::DayColumn;
use super::columns::Run;
use super::columns::TraitColumns;
use super::consents::Consents;
use super::consents::Sets;
use super::set::BlockSet;
use crate::model::BLOCK;
use crate::model::Malformed;
use crate::model::Namespace;
use crate::model::Value;
use crate::model::codec::Reader;
use crate::model::codec::put_i64;
use crate::model::codec::put_str;
use crate::model::codec::put_u8;
use crate::model::codec::put_varint;
use crate::model::time::Day;

const VERSION: u8 = 1;
/// The version of what is no fact, where there are consents: they stand behind the rest.
const WITH_CONSENTS: u8 = 2;
const MEASURED: u8 = 1;
const DAY_MILLIS: u64 = 86_400_000;

fn check_version(reader: &mut Reader<'_>) -> Result<(), Malformed> {
    match reader.u8()? {
        VERSION => Ok(()),
        _ => Err(Malformed("an image of a version that this program does not know")),
    }
}

impl DayColumn {
    /// Appends the day's image.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let run = self.merged();
        put_u8(out, VERSION);
        put_u8(out, if run.facts().is_measured() { MEASURED } else { 0 });
        put_varint(out, run.facts().len() as u64);
        let mut before = 0;
        for millis in &run.millis {
            put_varint(out, u64::from(millis - before));
            before = *millis;
        }
        out.extend(run.ordinals.iter().flat_map(|ordinal| ordinal.to_le_bytes()));
        for value in &run.values {
            put_i64(out, *value);
        }
    }

    /// Reads an image that fills `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        check_version(&mut reader)?;
        let flags = reader.u8()?;
        if flags > MEASURED {
            return Err(Malformed("unknown flags of a day"));
        }
        let count = reader.length()?;
        let mut run = Run { millis: Vec::with_capacity(count), ..Run::default() };
        let mut before = 0u64;
        for _ in 0..count {
            before = before
                .checked_add(reader.varint()?)
                .filter(|millis| *millis < DAY_MILLIS)
                .ok_or(Malformed("a time beyond its day"))?;
            run.millis.push(u32::try_from(before).map_err(|_| Malformed("a time beyond its day"))?);
        }
        let ordinals = reader.take(count * 2)?;
        run.ordinals = ordinals.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect();
        if flags == MEASURED {
            let values = reader.take(count.checked_mul(8).ok_or(Malformed("too many values"))?)?;
            run.values = values
                .chunks_exact(8)
                .map(|b| i64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]))
                .collect();
        }
        reader.finish()?;
        Ok(Self::from_run(run))
    }
}

impl BlockSet {
    fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, u64::from(self.len()));
        let mut before = 0;
        for ordinal in self.iter() {
            put_varint(out, u64::from(ordinal - before));
            before = ordinal;
        }
    }

    fn decode(reader: &mut Reader<'_>, population: u32) -> Result<Self, Malformed> {
        let count = reader.length()?;
        let mut set = Self::new();
        let mut before = 0u64;
        for _ in 0..count {
            before = before
                .checked_add(reader.varint()?)
                .filter(|ordinal| *ordinal < u64::from(population))
                .ok_or(Malformed("an ordinal beyond its block"))?;
            set.insert(u16::try_from(before).map_err(|_| Malformed("an ordinal"))?);
        }
        Ok(set)
    }
}

impl AttributeColumn {
    fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.value_count() as u64 - 1);
        for value in self.values().skip(1) {
            value.encode(out);
        }
        put_varint(out, self.len() as u64);
        for entry in self.entries() {
            out.extend_from_slice(&entry.ordinal.to_le_bytes());
            put_i64(out, entry.time);
            put_varint(out, u64::from(entry.value));
        }
    }

    fn decode(reader: &mut Reader<'_>, population: u32) -> Result<Self, Malformed> {
        let count = reader.length()?;
        let mut values = vec![Value::Null];
        for _ in 0..count {
            values.push(Value::decode(reader)?);
        }
        let count = reader.length()?;
        let mut column = Self::default();
        for _ in 0..count {
            let ordinal = reader.take(2)?;
            let ordinal = u16::from_le_bytes([ordinal[0], ordinal[1]]);
            if u32::from(ordinal) >= population {
                return Err(Malformed("an ordinal beyond its block"));
            }
            let time = reader.i64()?;
            let value = usize::try_from(reader.varint()?).ok().and_then(|place| values.get(place));
            column.add(ordinal, time, value.ok_or(Malformed("an unknown value"))?.clone());
        }
        Ok(column)
    }
}

impl Consents {
    fn encode(&self, out: &mut Vec<u8>) {
        fn all<K: Copy + Into<u64>>(sets: &Sets<K>, out: &mut Vec<u8>) {
            put_varint(out, sets.len() as u64);
            for (key, set) in sets {
                put_varint(out, (*key).into());
                set.encode(out);
            }
        }
        self.asked().encode(out);
        let (purposes, vendors) = self.sets();
        all(purposes, out);
        all(vendors, out);
    }

    fn decode(reader: &mut Reader<'_>, population: u32) -> Result<Self, Malformed> {
        fn all<K: Ord + TryFrom<u64>>(
            reader: &mut Reader<'_>,
            population: u32,
        ) -> Result<Sets<K>, Malformed> {
            let mut sets = Sets::new();
            for _ in 0..reader.length()? {
                let key = K::try_from(reader.varint()?).map_err(|_| Malformed("a consent"))?;
                sets.insert(key, Arc::new(BlockSet::decode(reader, population)?));
            }
            Ok(sets)
        }
        let asked = BlockSet::decode(reader, population)?;
        let (purposes, vendors) = (all(reader, population)?, all(reader, population)?);
        Self::from_sets(asked, purposes, vendors).ok_or(Malformed("a consent of nobody"))
    }
}

impl Block {
    /// Replaces a trait's facts of one day by an image.
    pub fn decode_day(&mut self, id: TraitId, day: Day, bytes: &[u8]) -> Result<(), Malformed> {
        let column = DayColumn::decode(bytes)?;
        if let Some(ordinal) = column.largest_ordinal() {
            self.hold(ordinal);
            self.note(id, day);
            let columns = Arc::make_mut(self.traits.entry(id).or_default());
            columns.set_day(day, column);
        }
        Ok(())
    }

    /// Appends the image of all that is no fact: population, namespaces, devices, marks, attributes, consents.
    pub fn encode_rest(&self, out: &mut Vec<u8>) {
        let version = if self.consents.is_empty() { VERSION } else { WITH_CONSENTS };
        put_u8(out, version);
        put_varint(out, u64::from(self.population));
        for set in [&self.devices, &self.opted_out, &self.bots] {
            set.encode(out);
        }
        put_varint(out, self.namespaces.len() as u64);
        for (namespace, set) in &self.namespaces {
            put_str(out, namespace.as_str());
            set.encode(out);
        }
        put_varint(out, self.attributes.len() as u64);
        for (name, column) in &self.attributes {
            put_str(out, name);
            column.encode(out);
        }
        if version == WITH_CONSENTS {
            self.consents.encode(out);
        }
    }

    /// Reads an image of [`Block::encode_rest`] that fills `bytes`, as a block without facts.
    pub fn decode_rest(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let has_consents = bytes.first() == Some(&WITH_CONSENTS);
        if has_consents {
            reader.u8()?;
        } else {
            check_version(&mut reader)?;
        }
        let population = u32::try_from(reader.varint()?).ok().filter(|count| *count <= BLOCK);
        let population = population.ok_or(Malformed("a population beyond a block"))?;
        let set = |reader: &mut Reader<'_>| BlockSet::decode(reader, population).map(Arc::new);
        let mut block = Self {
            population,
            devices: set(&mut reader)?,
            opted_out: set(&mut reader)?,
            bots: set(&mut reader)?,
            ..Self::default()
        };
        for _ in 0..reader.length()? {
            let name = Namespace::new(reader.str()?).map_err(|_| Malformed("a namespace"))?;
            block.namespaces.insert(name, set(&mut reader)?);
        }
        for _ in 0..reader.length()? {
            let name = reader.str()?.into();
            let column = AttributeColumn::decode(&mut reader, population)?;
            block.attributes.insert(name, Arc::new(column));
        }
        if has_consents {
            block.consents = Arc::new(Consents::decode(&mut reader, population)?);
        }
        reader.finish()?;
        Ok(block)
    }
}

impl TraitColumns {
    /// Appends the image of all days, for a store that keeps columns whole.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_u8(out, VERSION);
        put_varint(out, self.days.len() as u64);
        let mut image = Vec::new();
        for (day, column) in self.days.iter() {
            put_i64(out, *day);
            image.clear();
            column.encode(&mut image);
            crate::model::codec::put_bytes(out, &image);
        }
    }

    /// Reads an image of [`TraitColumns::encode`] that fills `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        check_version(&mut reader)?;
        let mut columns = Self::default();
        for _ in 0..reader.length()? {
            let day = reader.i64()?;
            let column = DayColumn::decode(reader.bytes()?)?;
            if !column.is_empty() {
                columns.set_day(day, column);
            }
        }
        reader.finish()?;
        Ok(columns)
    }
}
