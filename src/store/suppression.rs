//! Which identifiers were erased, and since when: known by keyed hashes, asked of every event that is folded, archived or
//! read again, so that nothing brings back what was erased. And which were opted out by name, asked of every event that is
//! folded, so that whoever comes with one is not activated.
//!
//! It is kept on the shelf that the whole store has, in chunks that are added to, and for good: an import may bring
//! events of any age. An identifier takes 25 bytes.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::StoreError;
use super::shelf::Shelf;
use super::state::Identity;
use crate::model::Event;
use crate::model::Identifier;
use crate::model::Malformed;
use crate::model::Millis;
use crate::model::OptOut;
use crate::model::Print;
use crate::model::codec::Reader;
use crate::model::codec::put_i64;
use crate::model::codec::put_u8;

/// What the names of chunks begin with.
const CHUNKS: &str = "erased/";
const OPT_OUTS: &str = "opted/";
/// A chunk of so many bytes is full. It is written whole for each identifier that is added.
const FULL: usize = 64 << 10;

/// Up to when an identifier is erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Erased {
    /// What happened or was received up to then is.
    pub before: Millis,
    /// So is what comes later.
    pub for_good: bool,
}

type Known = HashMap<Print, Erased>;
/// When it was said last whether the holders of an identifier are opted out, and what.
type OptOuts = HashMap<Print, (Millis, bool)>;
/// What a chunk has of an identifier.
type Said = (Print, (Millis, bool));

/// The identifiers that were erased, as far as this process knows. It is shared by all who ask.
#[derive(Debug, Default)]
pub struct Suppression {
    known: ArcSwap<Known>,
    opt_outs: ArcSwap<OptOuts>,
    adding: Mutex<()>,
}

impl Erased {
    /// The later of both.
    fn joined(self, other: Self) -> Self {
        Self { before: self.before.max(other.before), for_good: self.for_good || other.for_good }
    }

    /// Whether what happened at a time and was received at another is erased.
    pub fn takes(&self, time: Millis, received: Millis) -> bool {
        self.for_good || time.min(received) <= self.before
    }
}

impl Suppression {
    /// How many identifiers it has.
    pub fn len(&self) -> usize {
        self.known.load().len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Up to when an identifier is erased, where it is.
    pub fn of(&self, print: Print) -> Option<Erased> {
        self.known.load().get(&print).copied()
    }

    /// Whether an event is of an identifier that was erased, and of before that.
    pub fn takes(&self, identity: &Identity, event: &Event) -> bool {
        let known = self.known.load();
        !known.is_empty()
            && event.ids.iter().any(|identifier| {
                let print = identity.print(identifier.namespace.as_str(), identifier.value());
                known.get(&print).is_some_and(|erased| erased.takes(event.time, event.received))
            })
    }

    /// Whether something of an identifier that was received at a time is erased.
    pub fn takes_of(&self, identity: &Identity, identifier: &Identifier, received: Millis) -> bool {
        let known = self.known.load();
        let print = || identity.print(identifier.namespace.as_str(), identifier.value());
        !known.is_empty()
            && known.get(&print()).is_some_and(|erased| erased.takes(received, received))
    }

    /// The owner of an event that has an identifier which was opted out.
    pub fn opted_out(&self, identity: &Identity, event: &Event) -> Option<Identifier> {
        let opt_outs = self.opt_outs.load();
        let is_out = |identifier: &Identifier| {
            let print = identity.print(identifier.namespace.as_str(), identifier.value());
            opt_outs.get(&print).is_some_and(|(_, opted_out)| *opted_out)
        };
        (!opt_outs.is_empty() && event.ids.iter().any(is_out)).then(|| event.owner().clone())
    }

    /// From when on what is said of some identifiers stands: whatever the clock has done, the last word does.
    pub fn after(&self, prints: &[Print]) -> Millis {
        let opt_outs = self.opt_outs.load();
        let said = prints.iter().filter_map(|print| opt_outs.get(print));
        said.map(|(received, _)| received.saturating_add(1)).max().unwrap_or(Millis::MIN)
    }

    /// Takes note of an opt-out, without keeping that.
    pub fn note_opt_out(&self, opt_out: &OptOut) {
        let OptOut { received, prints, opted_out } = opt_out;
        self.note_opt_outs(prints.iter().map(|print| (*print, (*received, *opted_out))));
    }

    fn note_opt_outs(&self, said: impl IntoIterator<Item = Said>) {
        let _adding = self.adding.lock();
        let mut next = OptOuts::clone(&self.opt_outs.load());
        for (print, said) in said {
            let stands = next.entry(print).or_insert(said);
            *stands = said.max(*stands);
        }
        self.opt_outs.store(Arc::new(next));
    }

    /// Those of some identifiers that are opted out.
    fn opted_out_of(&self, prints: &[Print]) -> Vec<Print> {
        let opt_outs = self.opt_outs.load();
        let is_out = |print: &&Print| opt_outs.get(*print).is_some_and(|(_, opted_out)| *opted_out);
        prints.iter().filter(is_out).copied().collect()
    }

    /// Takes note that identifiers are erased, and that they were opted out with them.
    pub fn forget_opt_outs(&self, prints: &[Print], received: Millis) {
        let prints = self.opted_out_of(prints);
        if !prints.is_empty() {
            self.note_opt_out(&OptOut { received, prints, opted_out: false });
        }
    }

    /// Keeps an opt-out on the shelf, and takes note of it. It may be called again after an error.
    pub fn add_opt_out(&self, shelf: &dyn Shelf, opt_out: &OptOut) -> Result<(), StoreError> {
        let OptOut { received, prints, opted_out } = opt_out;
        append(shelf, OPT_OUTS, prints, |out, print| write(out, *print, *received, *opted_out))?;
        self.note_opt_out(opt_out);
        Ok(())
    }

    /// Keeps on the shelf that identifiers are erased, and that they were opted out with them.
    pub fn erase_opt_outs(
        &self,
        shelf: &dyn Shelf,
        prints: &[Print],
        received: Millis,
    ) -> Result<(), StoreError> {
        let prints = self.opted_out_of(prints);
        if prints.is_empty() {
            return Ok(());
        }
        self.add_opt_out(shelf, &OptOut { received, prints, opted_out: false })
    }

    /// Takes note of identifiers, without keeping that.
    pub fn note(&self, prints: impl IntoIterator<Item = (Print, Erased)>) {
        let _adding = self.adding.lock();
        let before = self.known.load();
        let mut next: Option<Known> = None;
        for (print, erased) in prints {
            let known = next.as_ref().unwrap_or(&before).get(&print).copied();
            let joined = known.map_or(erased, |known| known.joined(erased));
            if known != Some(joined) {
                next.get_or_insert_with(|| Known::clone(&before)).insert(print, joined);
            }
        }
        if let Some(next) = next {
            self.known.store(Arc::new(next));
        }
    }

    /// Takes note of what the shelf has.
    pub fn load(&self, shelf: &dyn Shelf) -> Result<(), StoreError> {
        let all = |chunks: &str| -> Result<Vec<Said>, StoreError> {
            let mut all = Vec::new();
            for name in shelf.names(chunks)? {
                let bytes = shelf.get(&name)?.unwrap_or_default();
                all.extend(read(&bytes).map_err(|malformed| damaged(&name, malformed))?);
            }
            Ok(all)
        };
        let erased = all(CHUNKS)?.into_iter();
        self.note(erased.map(|(print, (before, for_good))| (print, Erased { before, for_good })));
        self.note_opt_outs(all(OPT_OUTS)?);
        Ok(())
    }

    /// Keeps identifiers on the shelf, and takes note of them. It may be called again after an error.
    pub fn add(&self, shelf: &dyn Shelf, prints: &[(Print, Erased)]) -> Result<(), StoreError> {
        append(shelf, CHUNKS, prints, |out, (print, erased)| {
            write(out, *print, erased.before, erased.for_good);
        })?;
        self.note(prints.iter().copied());
        Ok(())
    }
}

/// Adds to the last chunk, and to others once it is full.
fn append<T>(
    shelf: &dyn Shelf,
    chunks: &str,
    all: &[T],
    write: impl Fn(&mut Vec<u8>, &T),
) -> Result<(), StoreError> {
    let mut left = all;
    let mut number = shelf.names(chunks)?.len().max(1);
    while !left.is_empty() {
        let name = format!("{chunks}{number:08}");
        let stands = shelf.get(&name)?;
        let mut bytes = stands.clone().unwrap_or_default();
        let room = FULL.saturating_sub(bytes.len()).div_ceil(LENGTH);
        let (now, later) = left.split_at(room.min(left.len()));
        if now.is_empty() {
            number += 1;
            continue;
        }
        now.iter().for_each(|one| write(&mut bytes, one));
        // Where another process was faster its chunk is read anew.
        if shelf.swap(&name, stands.as_deref(), Some(&bytes))? {
            left = later;
        }
    }
    Ok(())
}

/// The bytes of an identifier.
const LENGTH: usize = 16 + 8 + 1;

fn write(out: &mut Vec<u8>, print: Print, time: Millis, flag: bool) {
    print.0.iter().for_each(|half| out.extend_from_slice(&half.to_le_bytes()));
    put_i64(out, time);
    put_u8(out, u8::from(flag));
}

fn read(bytes: &[u8]) -> Result<Vec<Said>, Malformed> {
    let mut reader = Reader::new(bytes);
    let mut all = Vec::new();
    while reader.remaining() > 0 {
        let mut half = || -> Result<u64, Malformed> {
            let bytes = reader.take(8)?;
            Ok(u64::from_le_bytes(bytes.try_into().map_err(|_| Malformed("a hash"))?))
        };
        let print = Print([half()?, half()?]);
        all.push((print, (reader.i64()?, reader.u8()? == 1)));
    }
    Ok(all)
}

fn damaged(name: &str, malformed: Malformed) -> StoreError {
    StoreError::Malformed {
        what: format!("the list of erased identifiers (`{name}`)"),
        hint: "it is damaged; restore it from a backup: without it, what was erased may come back"
            .to_owned(),
        source: Some(Box::new(malformed)),
    }
}

#[cfg(test)]
pub(crate) mod conformance {
    use super::*;

    /// What a shelf makes of the list, whichever it is.
    pub(crate) fn it_is_there_for_good_and_for_every_process(open: &dyn Fn() -> Arc<dyn Shelf>) {
        let shelf = open();
        let (here, there) = (Suppression::default(), Suppression::default());
        let print = |n: u64| Print([n, !n]);
        let at = |before, for_good| Erased { before, for_good };
        let many: Vec<_> = (0..6_000).map(|n| (print(n), at(7, false))).collect();
        here.add(&*shelf, &many).unwrap();
        there.add(&*shelf, &[(print(1), at(3, true)), (print(9_999), at(1, false))]).unwrap();
        here.add(&*shelf, &[(print(2), at(99, false))]).unwrap();
        let again = Suppression::default();
        again.load(&*shelf).unwrap();
        assert_eq!(again.len(), 6_001);
        assert_eq!(again.of(print(1)), Some(at(7, true)));
        assert_eq!(again.of(print(2)), Some(at(99, false)));
        assert_eq!(again.of(print(5_999)), Some(at(7, false)));
        assert_eq!(again.of(print(6_001)), None);

        let said = |received, n, opted_out| OptOut { received, prints: vec![print(n)], opted_out };
        for opt_out in [said(5, 1, true), said(9, 1, false), said(5, 2, true), said(4, 2, false)] {
            here.add_opt_out(&*shelf, &opt_out).unwrap();
        }
        there.add_opt_out(&*shelf, &said(5, 3, true)).unwrap();
        let again = Suppression::default();
        again.load(&*shelf).unwrap();
        let all = [1, 2, 3, 4].map(print);
        assert_eq!(again.opted_out_of(&all), [print(2), print(3)]);
        again.erase_opt_outs(&*shelf, &all, 10).unwrap();
        let again = Suppression::default();
        again.load(&*shelf).unwrap();
        assert_eq!(again.opted_out_of(&all), []);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_shelf_keeps_it() {
        let data = tempfile::tempdir().unwrap();
        conformance::it_is_there_for_good_and_for_every_process(&|| {
            Arc::new(crate::store::embedded::Shelf::open(data.path()).unwrap())
        });
    }

    #[test]
    fn what_comes_after_is_another_visitor_unless_nothing_is_to_be_taken() {
        let erased = Erased { before: 10, for_good: false };
        assert!(erased.takes(10, 20) && erased.takes(20, 10) && !erased.takes(11, 11));
        assert!(Erased { for_good: true, ..erased }.takes(11, 11));
    }
}
