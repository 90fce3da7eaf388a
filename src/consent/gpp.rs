//! The Global Privacy Platform's string: a header that names its sections, then the sections.

use super::MAX_STRING;
use super::Unreadable;
use super::bits::Bits;
use super::vendors::Coding;
use super::vendors::read_ranges;

/// A string whose header was read; its sections are decoded when they are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpp<'a> {
    /// The first and the last of the ids in a row, ascending.
    ids: Vec<(u16, u16)>,
    sections: &'a str,
}

impl<'a> Gpp<'a> {
    /// Reads the header, which has to name as many sections as there are.
    pub fn parse(text: &'a str) -> Result<Self, Unreadable> {
        if text.len() > MAX_STRING {
            return Err(Unreadable::TooLong);
        }
        let (header, sections) = match text.split_once('~') {
            Some((header, sections)) => (header, Some(sections)),
            None => (text, None),
        };
        let mut bits = Bits::new(header)?;
        if bits.u8(6)? != 3 || bits.u8(6)? != 1 {
            return Err(Unreadable::Version);
        }
        let ids = read_ranges(&mut bits, Coding::Fibonacci)?;
        let named: usize = ids.iter().map(|(first, last)| usize::from(last - first) + 1).sum();
        if sections.map_or(0, |sections| sections.split('~').count()) != named {
            return Err(Unreadable::Sections);
        }
        Ok(Self { ids, sections: sections.unwrap_or_default() })
    }

    /// The ids of the sections, as many as there are sections, ascending.
    pub fn ids(&self) -> impl Iterator<Item = u16> {
        self.ids.iter().flat_map(|(first, last)| *first..=*last)
    }

    /// The text of a section.
    pub fn section(&self, id: u16) -> Option<&'a str> {
        let at = self.ids().position(|other| other == id)?;
        self.sections.split('~').nth(at)
    }
}
