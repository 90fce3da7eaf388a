//! Records read only as far as to know whose they are: most of a record's bytes are of no concern to who passes it on.

use super::codec::{Malformed, Reader, put_varint};
use super::record::{CHOICE, ERASE, EVENT, IMPORT, OPT_OUT, Record};
use super::time::Millis;

/// Whose a record is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner<'r> {
    /// It is of one profile.
    Profile(ProfileRef<'r>),
    /// It is of many: the lines of an import.
    Import(ImportRef<'r>),
    /// It is of every lane.
    All {
        /// When it was received.
        received: Millis,
    },
}

/// A profile as a record names it, and when the record was received.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ProfileRef<'r> {
    /// The namespace of the identifier that owns the record.
    pub namespace: &'r str,
    /// The identifier's value.
    pub value: &'r str,
    /// When it was received.
    pub received: Millis,
    /// The site and the message id of an event that has one.
    pub message: Option<(&'r str, &'r str)>,
}

/// The lines of an import, taken apart into the bytes of its events.
#[derive(Clone, PartialEq, Eq)]
pub struct ImportRef<'r> {
    /// The import.
    name: &'r str,
    /// Its name, its first line, and how many lines there are.
    head: &'r [u8],
    /// Whose its events are, and their bytes. Only a line's own message id is one.
    events: Vec<(ProfileRef<'r>, &'r [u8])>,
    rejected: &'r [u8],
}

impl Record {
    /// Tells whose an encoded record is. What the record says besides may still be malformed.
    pub fn owner(bytes: &[u8]) -> Result<Owner<'_>, Malformed> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            EVENT => event(&mut reader).map(Owner::Profile),
            CHOICE => {
                let (namespace, value) = (reader.str()?, reader.str()?);
                reader.u8()?;
                let received = reader.i64()?;
                Ok(Owner::Profile(ProfileRef { namespace, value, received, message: None }))
            }
            IMPORT => import(bytes, &mut reader).map(Owner::Import),
            ERASE | OPT_OUT => Ok(Owner::All { received: reader.i64()? }),
            _ => Err(Malformed("an unknown kind of record")),
        }
    }
}

impl Owner<'_> {
    /// When the record was received, where it says so: an import without an event does not.
    pub fn received(&self) -> Option<Millis> {
        match self {
            Self::Profile(profile) => Some(profile.received),
            Self::All { received } => Some(*received),
            Self::Import(import) => import.events.first().map(|(profile, _)| profile.received),
        }
    }
}

impl<'r> ImportRef<'r> {
    /// The import's name.
    pub fn name(&self) -> &'r str {
        self.name
    }

    /// Whose its events are, in order.
    pub fn owners(&self) -> impl Iterator<Item = ProfileRef<'r>> {
        self.events.iter().map(|(owner, _)| *owner)
    }

    /// Appends the bytes of a record of the same lines that has only the events that are picked by their place, and
    /// the rejected lines or none.
    pub fn encode_part(
        &self,
        mut picked: impl FnMut(usize) -> bool,
        with_rejected: bool,
        out: &mut Vec<u8>,
    ) {
        let events = self.events.iter().enumerate().filter(|(at, _)| picked(*at));
        let events: Vec<&[u8]> = events.map(|(_, (_, bytes))| *bytes).collect();
        out.push(IMPORT);
        out.extend_from_slice(self.head);
        put_varint(out, events.len() as u64);
        events.iter().for_each(|bytes| out.extend_from_slice(bytes));
        if with_rejected {
            out.extend_from_slice(self.rejected);
        } else {
            put_varint(out, 0);
        }
    }
}

fn event<'r>(reader: &mut Reader<'r>) -> Result<ProfileRef<'r>, Malformed> {
    let site = reader.str()?;
    let _name = reader.bytes()?;
    let _time = reader.i64()?;
    let received = reader.i64()?;
    let _flags = reader.u8()?;
    let message = reader.opt_str()?.map(|id| (site, id));
    if reader.length()? == 0 {
        return Err(Malformed("an event without an identifier"));
    }
    Ok(ProfileRef { namespace: reader.str()?, value: reader.str()?, received, message })
}

fn import<'r>(bytes: &'r [u8], reader: &mut Reader<'r>) -> Result<ImportRef<'r>, Malformed> {
    let at = |reader: &Reader<'_>| bytes.len() - reader.remaining();
    let begin = at(reader);
    let name = reader.str()?;
    let _first_line = reader.varint()?;
    let _lines = reader.varint()?;
    let head = &bytes[begin..at(reader)];
    let count = reader.length()?;
    let mut events = Vec::with_capacity(count.min(4096));
    for _ in 0..count {
        let begin = at(reader);
        let _line = reader.varint()?;
        let own_message_id = reader.u8()? == 1;
        let mut owner = event(&mut Reader::new(reader.bytes()?))?;
        owner.message = owner.message.filter(|_| own_message_id);
        events.push((owner, &bytes[begin..at(reader)]));
    }
    Ok(ImportRef { name, head, events, rejected: &bytes[at(reader)..] })
}

/// Shows no value: an identifier is personal data.
impl std::fmt::Debug for ProfileRef<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ProfileRef({}:…)", self.namespace)
    }
}

/// Shows no event: they hold personal data.
impl std::fmt::Debug for ImportRef<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ImportRef({} events)", self.events.len())
    }
}
