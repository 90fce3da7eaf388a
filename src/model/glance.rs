//! The first look at an encoded event: what it is called and whose it is. Who wants few of many events need not read the
//! others.

use std::ops::ControlFlow;

use super::codec::Malformed;
use super::codec::Reader;
use super::event::Event;
use super::record::CHOICE;
use super::record::ERASE;
use super::record::EVENT;
use super::record::IMPORT;
use super::record::OPT_OUT;
use super::record::Record;

/// An event of which no more was read than its name.
#[derive(Debug)]
pub struct Glance<'a> {
    name: &'a str,
    bytes: &'a [u8],
}

impl<'a> Glance<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let _site = reader.bytes()?;
        Ok(Self { name: reader.str()?, bytes })
    }

    /// What it is called.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// The namespace and the value of the identifier whose profile it belongs to.
    pub fn owner(&self) -> Result<(&'a str, &'a str), Malformed> {
        let mut reader = Reader::new(self.bytes);
        let (_site, _name) = (reader.bytes()?, reader.bytes()?);
        let (_time, _received, _flags) = (reader.i64()?, reader.i64()?, reader.u8()?);
        let _message_id = reader.opt_str()?;
        match reader.length()? {
            0 => Err(Malformed("an event without an identifier")),
            _ => Ok((reader.str()?, reader.str()?)),
        }
    }

    /// All of it. A panic while reading makes it malformed, as that of [`Record::decode`].
    pub fn event(&self) -> Result<Event, Malformed> {
        let read = || {
            let mut reader = Reader::new(self.bytes);
            let event = Event::decode(&mut reader)?;
            reader.finish()?;
            Ok(event)
        };
        std::panic::catch_unwind(read).unwrap_or(Err(Malformed("an event whose reading failed")))
    }
}

impl Record {
    /// Gives a look at each event of an encoded record, with its part of the record, until `each` breaks. A record that
    /// [`Record::decode`] refuses for something in one of its events is not told from others before that one is read.
    pub fn glance(
        bytes: &[u8],
        each: &mut dyn FnMut(u32, Glance<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Malformed> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            EVENT => {
                let body = reader.take(reader.remaining())?;
                Ok(each(0, Glance::new(body)?))
            }
            IMPORT => {
                let _import = reader.bytes()?;
                let (_first_line, _lines) = (reader.varint()?, reader.varint()?);
                let count = reader.length()?;
                for part in (0u32..).take(count) {
                    let (_line, _own_message_id) = (reader.varint()?, reader.u8()?);
                    if each(part, Glance::new(reader.bytes()?)?).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                Ok(ControlFlow::Continue(()))
            }
            CHOICE | ERASE | OPT_OUT => Ok(ControlFlow::Continue(())),
            _ => Err(Malformed("an unknown kind of record")),
        }
    }
}
