//! What the journal holds: events, a visitor's choices, and the lines of an import.

use super::codec::{Malformed, Reader, put_bytes, put_i64, put_str, put_u8, put_varint};
use super::erasure::Erasure;
use super::erasure::OptOut;
use super::event::Event;
use super::identifier::Identifier;
use super::time::Millis;

/// One record of the journal. Records are folded in the order of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A collected event.
    Event(Event),
    /// A visitor's choice about being activated.
    Choice(Choice),
    /// Some lines of an import, taken together.
    Import(ImportLines),
    /// Identifiers that are erased. It is of every lane.
    Erase(Erasure),
    /// Identifiers whose holders may not be activated, or may again. It is of every lane.
    OptOut(OptOut),
}

/// A visitor's choice, made by a signal or a form: whether the profile may be activated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The profile's identifier. A choice of an unknown identifier is kept for when it comes.
    pub identifier: Identifier,
    /// Opted out, or in again.
    pub opted_out: bool,
    /// When the choice was received.
    pub received: Millis,
}

/// Consecutive lines of one import. The record is durable or not as a whole, so the lines are too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportLines {
    /// The import: the file's hash, or the name that its user gave.
    pub import: Box<str>,
    /// The number of the first line, from 1.
    pub first_line: u64,
    /// How many lines these are, accepted, rejected and blank.
    pub lines: u64,
    /// The events of the accepted lines, in order. One made up its `message_id` where the line had
    /// none.
    pub events: Vec<ImportedEvent>,
    /// The rejected lines, in order.
    pub rejected: Vec<RejectedLine>,
}

/// An event of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedEvent {
    /// Its line, from 1.
    pub line: u64,
    /// Whether the line brought its own `message_id`; the others are unique by their making.
    pub own_message_id: bool,
    /// The event.
    pub event: Event,
}

/// A line of an import that was not taken, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedLine {
    /// The line, from 1.
    pub line: u64,
    /// The code of the answer, as in `POST /v1/events`.
    pub code: Box<str>,
    /// What is wrong, for a person.
    pub message: Box<str>,
}

pub(super) const EVENT: u8 = 1;
pub(super) const CHOICE: u8 = 2;
pub(super) const IMPORT: u8 = 3;
pub(super) const ERASE: u8 = 4;
pub(super) const OPT_OUT: u8 = 5;

/// The name of an event whose reading panics.
#[cfg(test)]
pub(crate) const POISON: &str = "poison";

impl Record {
    /// When it was received; of lines without an event none.
    pub fn received(&self) -> Option<Millis> {
        match self {
            Self::Event(event) => Some(event.received),
            Self::Choice(choice) => Some(choice.received),
            Self::Import(lines) => lines.events.first().map(|line| line.event.received),
            Self::Erase(erasure) => Some(erasure.received),
            Self::OptOut(opt_out) => Some(opt_out.received),
        }
    }

    /// Appends the record's bytes: a kind, then the body.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Event(event) => Self::encode_event(event, out),
            Self::Choice(choice) => {
                put_u8(out, CHOICE);
                choice.identifier.encode(out);
                put_u8(out, u8::from(choice.opted_out));
                put_i64(out, choice.received);
            }
            Self::Import(lines) => {
                put_u8(out, IMPORT);
                put_str(out, &lines.import);
                put_varint(out, lines.first_line);
                put_varint(out, lines.lines);
                put_varint(out, lines.events.len() as u64);
                let mut body = Vec::new();
                for imported in &lines.events {
                    put_varint(out, imported.line);
                    put_u8(out, u8::from(imported.own_message_id));
                    body.clear();
                    imported.event.encode(&mut body);
                    put_bytes(out, &body);
                }
                put_varint(out, lines.rejected.len() as u64);
                for rejected in &lines.rejected {
                    rejected.encode(out);
                }
            }
            Self::Erase(erasure) => {
                put_u8(out, ERASE);
                erasure.encode(out);
            }
            Self::OptOut(opt_out) => {
                put_u8(out, OPT_OUT);
                opt_out.encode(out);
            }
        }
    }

    /// Appends an event's record without making a [`Record`] of it first.
    pub fn encode_event(event: &Event, out: &mut Vec<u8>) {
        put_u8(out, EVENT);
        event.encode(out);
    }

    /// Reads a record that fills `bytes`.
    ///
    /// A panic while reading is a mistake in this program, and would be one each time. It makes the record
    /// malformed, so that all who read it do without it, and none of them ends.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        std::panic::catch_unwind(|| Self::read(bytes))
            .unwrap_or(Err(Malformed("a record whose reading failed")))
    }

    fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let record = match reader.u8()? {
            EVENT => Self::Event(Event::decode(&mut reader)?),
            CHOICE => Self::Choice(Choice {
                identifier: Identifier::decode(&mut reader)?,
                opted_out: reader.u8()? == 1,
                received: reader.i64()?,
            }),
            IMPORT => {
                let import = reader.str()?.into();
                let first_line = reader.varint()?;
                let lines = reader.varint()?;
                let count = reader.length()?;
                let mut events = Vec::with_capacity(count.min(4096));
                for _ in 0..count {
                    let line = reader.varint()?;
                    let own_message_id = reader.u8()? == 1;
                    let mut body = Reader::new(reader.bytes()?);
                    let event = Event::decode(&mut body)?;
                    body.finish()?;
                    events.push(ImportedEvent { line, own_message_id, event });
                }
                let count = reader.length()?;
                let mut rejected = Vec::with_capacity(count.min(4096));
                for _ in 0..count {
                    rejected.push(RejectedLine::decode(&mut reader)?);
                }
                Self::Import(ImportLines { import, first_line, lines, events, rejected })
            }
            ERASE => Self::Erase(Erasure::decode(&mut reader)?),
            OPT_OUT => Self::OptOut(OptOut::decode(&mut reader)?),
            _ => return Err(Malformed("an unknown kind of record")),
        };
        reader.finish()?;
        #[cfg(test)]
        assert!(!matches!(&record, Self::Event(event) if &*event.name == POISON), "a mistake");
        Ok(record)
    }
}

impl RejectedLine {
    /// Appends the rejected line's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.line);
        put_str(out, &self.code);
        put_str(out, &self.message);
    }

    /// Reads a rejected line.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            line: reader.varint()?,
            code: reader.str()?.into(),
            message: reader.str()?.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;
    use crate::model::consent::{Consent, Purposes};
    use crate::model::erasure::Print;
    use crate::model::event::{Device, Page, Source};
    use crate::model::identifier::Namespace;
    use crate::model::value::{Value, parse_json};

    /// The record of [`event`] as it was written before events had a consent.
    const OLD: &str = "010473686f700f4f7264657220436f6d706c65746564ffffffffffffffffffffffffffffff7f0d01036d\
        2d310206636f6f6b6965016307757365725f696402c3a9040576616c7565030631342e38353004746167\
        73050404046769667400020601016103022d30000400016e031531323334353637383930313233343536\
        37383930310107636f756e74727900011668747470733a2f2f612e6578616d706c652f3f783d31000001\
        066d6f62696c6500000102465200";

    fn event() -> Event {
        let id = |ns: &str, v: &str| Identifier::new(Namespace::new(ns).unwrap(), v).unwrap();
        let Value::Object(props) = parse_json(
            br#"{"value":14.850,"tags":["gift",null,true,{"a":-0}],"":"","n":123456789012345678901}"#,
        )
        .unwrap() else {
            panic!()
        };
        Event {
            site: "shop".into(),
            name: "Order Completed".into(),
            time: -1,
            received: i64::MAX,
            time_replaced: true,
            source: Source::Js,
            message_id: Some("m-1".into()),
            ids: vec![id("cookie", "c"), id("user_id", "é")],
            props,
            attrs: vec![("country".into(), Value::Null)],
            page: Page { url: Some("https://a.example/?x=1".into()), ..Page::default() },
            device: Device { kind: Some("mobile".into()), ..Device::default() },
            bot: true,
            country: Some("FR".into()),
            locale: None,
            consent: None,
        }
    }

    fn consenting(bits: u32, vendors: &[u16]) -> Record {
        let purposes = Purposes::from_bits(bits);
        let consent = Some(Box::new(Consent { purposes, vendors: vendors.to_vec() }));
        Record::Event(Event { consent, ..event() })
    }

    #[test]
    fn an_event_of_before_consent_is_read() {
        let mut bytes = Vec::new();
        Record::Event(event()).encode(&mut bytes);
        assert_eq!(crate::model::hex(&bytes), OLD);
    }

    #[test]
    fn a_consent_that_was_tampered_with_is_malformed() {
        let mut bytes = Vec::new();
        consenting(0, &[7, 755]).encode(&mut bytes);
        let whole = bytes.len();
        assert_eq!(bytes[whole - 5..], [0, 2, 7, 0xf3, 5]);
        for (tail, message) in [
            (&[0, 2, 7, 7][..], "vendors that are not in order"),
            (&[0, 2, 8, 7], "vendors that are not in order"),
            (&[0, 1, 0x80, 0x80, 4], "a vendor's id"),
            (&[0x80, 0x80, 0x80, 8, 0], "a set of purposes"),
            (&[0, 3, 7, 8], "a length is beyond the end"),
        ] {
            let bytes = [&bytes[..whole - 5], tail].concat();
            assert_eq!(Record::decode(&bytes), Err(Malformed(message)), "{tail:?}");
        }
    }

    #[test]
    fn records_come_back_as_they_were() {
        let choice = Choice { identifier: event().ids[0].clone(), opted_out: true, received: -7 };
        let import = ImportLines {
            import: "abc".into(),
            first_line: 1,
            lines: 3,
            events: vec![ImportedEvent { line: 2, own_message_id: true, event: event() }],
            rejected: vec![RejectedLine { line: 3, code: "time".into(), message: "no".into() }],
        };
        let prints = vec![Print([0, u64::MAX]), Print([7, 8])];
        let opt_out = OptOut { received: -7, prints: prints.clone(), opted_out: true };
        let erasure = Erasure { received: -7, prints, before: -3, for_good: true };
        let records = [
            Record::Event(event()),
            consenting(0, &[]),
            consenting(0xff_ffff, &[1, 755, u16::MAX]),
            Record::Choice(choice),
            Record::Import(import),
            Record::Erase(erasure),
            Record::OptOut(opt_out),
        ];
        for record in records {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            let mut seen = Vec::new();
            let look = Record::glance(&bytes, &mut |part, glance| {
                let event = glance.event().unwrap();
                assert_eq!(glance.name(), &*event.name);
                let (namespace, value) = glance.owner().unwrap();
                assert_eq!(namespace, event.owner().namespace.as_str());
                assert_eq!(value, event.owner().value());
                seen.push((part, event));
                ControlFlow::Continue(())
            });
            assert_eq!(look, Ok(ControlFlow::Continue(())));
            let has_none =
                matches!(record, Record::Choice(_) | Record::Erase(_) | Record::OptOut(_));
            assert_eq!(seen.len(), usize::from(!has_none));
            let consent = match &record {
                Record::Event(event) => event.consent.clone(),
                _ => None,
            };
            let expected = Event { consent, ..event() };
            assert!(seen.iter().all(|(part, seen)| *part == 0 && *seen == expected));
            assert_eq!(Record::decode(&bytes), Ok(record));
            for cut in 0..bytes.len() {
                assert!(Record::decode(&bytes[..cut]).is_err(), "cut at {cut}");
            }
        }
    }
}
