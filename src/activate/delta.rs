//! The difference between what a destination should hold and what it holds, one identifier at a time.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::collections::VecDeque;

use super::basis::Changed;
use super::identifiers::IdentifiersOf;
use super::identifiers::compare;
use super::identifiers::identifier;
use crate::model::Identifier;
use crate::model::Millis;
use crate::store::StoreError;
use crate::store::ledger::Held;
use crate::store::ledger::Ledger;
use crate::store::ledger::Refused;
use crate::store::ledger::Target;

/// How many rows of the ledger are read at once.
const PAGE: usize = 4_096;

/// What is to be done about one identifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Row {
    /// It is desired, and not held or not for sure.
    Add(Identifier),
    /// It is held, or may be, and is not desired.
    Remove(Identifier),
    /// It is desired, and held for sure.
    InStep,
    /// It would be added, but nothing may be.
    Withheld,
    /// It would be added, but the destination would not take it, since when.
    Refused(Millis),
    /// It was refused, and is not desired any more.
    Forget(Identifier),
}

/// Which identifiers a delta is of.
#[derive(Clone, Copy)]
pub(super) enum Scope<'a> {
    /// All that eligible profiles have, and all that the target holds.
    All(&'a IdentifiersOf<'a>),
    /// Those of profiles that changed since the target was in step. Of all others it holds what it should.
    Changed(&'a Changed),
}

impl Scope<'_> {
    /// Those of some identifiers that an eligible profile has; `None` where that is not known of all of them.
    pub(super) fn among(
        &self,
        identifiers: &BTreeSet<&Identifier>,
    ) -> Result<Option<BTreeSet<Identifier>>, StoreError> {
        match self {
            Self::All(desired) => desired.among(identifiers).map(Some),
            Self::Changed(changed) => Ok(changed.among(identifiers)),
        }
    }
}

/// Where an identifier stands: with the profiles, with the target, or both.
enum Place<'a> {
    Profiles(&'a [u8]),
    Both(Held),
    Target(Held),
}

/// Gives every row of the delta, in order of identifier. What was refused since `now` is no news.
///
/// Both sides are read in order as the rows come, so the caller may apply to the ledger what it was given
/// before.
pub(super) fn delta<E: From<StoreError>>(
    scope: Scope<'_>,
    ledger: &dyn Ledger,
    target: &Target,
    (may_add, now): (bool, Millis),
    each: &mut dyn FnMut(Row) -> Result<(), E>,
) -> Result<(), E> {
    match scope {
        Scope::All(desired) => of_all(desired, ledger, target, (may_add, now), each),
        Scope::Changed(changed) => of_changed(changed, ledger, target, (may_add, now), each),
    }
}

fn of_all<E: From<StoreError>>(
    desired: &IdentifiersOf<'_>,
    ledger: &dyn Ledger,
    target: &Target,
    (may_add, now): (bool, Millis),
    each: &mut dyn FnMut(Row) -> Result<(), E>,
) -> Result<(), E> {
    let read = |after: Option<&Identifier>| ledger.refused(target, after, PAGE);
    let mut refused = Pages::new(read, |refused: &Refused| &refused.identifier);
    merge(desired, ledger, target, &mut |place| {
        let since = loop {
            let Some(first) = refused.peek()? else { break None };
            let order = match &place {
                Place::Profiles(key) => compare(key, &first.identifier).reverse(),
                Place::Both(held) | Place::Target(held) => first.identifier.cmp(&held.identifier),
            };
            match order {
                Ordering::Less => {}
                Ordering::Equal => break Some(first.since),
                Ordering::Greater => break None,
            }
            if let Some(old) = refused.next().filter(|refused| refused.since < now) {
                each(Row::Forget(old.identifier))?;
            }
        };
        let row = match place {
            Place::Profiles(key) => {
                if since.is_some() {
                    refused.next();
                }
                row(true, None, since, may_add, || identifier(key))
            }
            Place::Both(Held { identifier, unsure }) => {
                row(true, Some(unsure), since, may_add, || identifier)
            }
            Place::Target(Held { identifier, unsure }) => {
                row(false, Some(unsure), since, may_add, || identifier)
            }
        };
        row.map_or(Ok(()), &mut *each)
    })?;
    while refused.peek()?.is_some() {
        if let Some(old) = refused.next().filter(|refused| refused.since < now) {
            each(Row::Forget(old.identifier))?;
        }
    }
    Ok(())
}

fn of_changed<E: From<StoreError>>(
    changed: &Changed,
    ledger: &dyn Ledger,
    target: &Target,
    (may_add, now): (bool, Millis),
    each: &mut dyn FnMut(Row) -> Result<(), E>,
) -> Result<(), E> {
    let read = |after: Option<&Identifier>| ledger.refused(target, after, PAGE);
    let mut refused = Pages::new(read, |refused: &Refused| &refused.identifier);
    for (identifiers, wanted) in changed.pages(PAGE) {
        let held = ledger.held_among(target, identifiers)?;
        let mut held = held.into_iter().peekable();
        for (identifier, is_wanted) in identifiers.iter().zip(wanted) {
            let held = held.next_if(|held| held.identifier == *identifier);
            while refused.peek()?.is_some_and(|one| one.identifier < *identifier) {
                refused.next();
            }
            let since = refused.peek()?.filter(|one| one.identifier == *identifier);
            let since = since.map(|one| one.since);
            // What is held, or nobody's any more, was refused once.
            if (held.is_some() || !is_wanted) && since.is_some_and(|since| since < now) {
                each(Row::Forget(identifier.clone()))?;
            }
            let unsure = held.map(|held| held.unsure);
            if let Some(row) = row(*is_wanted, unsure, since, may_add, || identifier.clone()) {
                each(row)?;
            }
        }
    }
    Ok(())
}

/// What is to be done about an identifier: `held` says whether it is unsure, where it is held.
fn row(
    is_wanted: bool,
    held: Option<bool>,
    refused: Option<Millis>,
    may_add: bool,
    identifier: impl FnOnce() -> Identifier,
) -> Option<Row> {
    match (is_wanted, held, refused) {
        (true, None, Some(since)) => Some(Row::Refused(since)),
        (true, None, None) if may_add => Some(Row::Add(identifier())),
        (true, None, None) => Some(Row::Withheld),
        (true, Some(true), _) => may_add.then(|| Row::Add(identifier())),
        (true, Some(false), _) => Some(Row::InStep),
        (false, Some(_), _) => Some(Row::Remove(identifier())),
        (false, None, _) => None,
    }
}

/// Gives every identifier that the target holds or may hold, that a leaving profile has and no other, in
/// order. The caller may apply to the ledger what it was given before.
pub(super) fn left_alone<E: From<StoreError>>(
    leaving: &IdentifiersOf<'_>,
    others: &IdentifiersOf<'_>,
    ledger: &dyn Ledger,
    target: &Target,
    each: &mut dyn FnMut(Identifier) -> Result<(), E>,
) -> Result<(), E> {
    let mut take = |found: BTreeSet<Identifier>| {
        let kept = others.among(&found.iter().collect())?;
        found.into_iter().filter(|one| !kept.contains(one)).try_for_each(&mut *each)
    };
    let (mut found, mut bytes) = (BTreeSet::new(), 0);
    merge(leaving, ledger, target, &mut |place| {
        let Place::Both(held) = place else { return Ok(()) };
        bytes += held.identifier.value().len();
        found.insert(held.identifier);
        if bytes < leaving.part_bytes {
            return Ok(());
        }
        bytes = 0;
        take(std::mem::take(&mut found))
    })?;
    take(found)
}

/// Reads the identifiers of profiles beside those of a target.
fn merge<E: From<StoreError>>(
    identifiers: &IdentifiersOf<'_>,
    ledger: &dyn Ledger,
    target: &Target,
    each: &mut dyn FnMut(Place<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let read = |after: Option<&Identifier>| ledger.held(target, after, PAGE);
    let mut holding = Pages::new(read, |held: &Held| &held.identifier);
    let mut after = None;
    loop {
        let part = identifiers.part(after.as_ref())?;
        let mut keys = part.keys().peekable();
        loop {
            let held = holding.peek()?.filter(|held| part.reaches(&held.identifier));
            let order = match (keys.peek(), held) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(key), Some(held)) => compare(key, &held.identifier),
            };
            let key = if order.is_le() { keys.next() } else { None };
            let held = if order.is_ge() { holding.next() } else { None };
            match (key, held) {
                (Some(key), None) => each(Place::Profiles(key))?,
                (Some(_), Some(held)) => each(Place::Both(held))?,
                (None, Some(held)) => each(Place::Target(held))?,
                (None, None) => {}
            }
        }
        after = part.ceiling();
        if after.is_none() {
            return Ok(());
        }
    }
}

/// What the ledger has of a target in order, page by page.
struct Pages<T, R> {
    read: R,
    identifier: fn(&T) -> &Identifier,
    page: VecDeque<T>,
    last: Option<Identifier>,
    ended: bool,
}

impl<T, R: Fn(Option<&Identifier>) -> Result<Vec<T>, StoreError>> Pages<T, R> {
    fn new(read: R, identifier: fn(&T) -> &Identifier) -> Self {
        Self { read, identifier, page: VecDeque::new(), last: None, ended: false }
    }

    fn peek(&mut self) -> Result<Option<&T>, StoreError> {
        if self.page.is_empty() && !self.ended {
            self.page = (self.read)(self.last.as_ref())?.into();
            self.ended = self.page.len() < PAGE;
            self.last = self.page.back().map(|last| (self.identifier)(last).clone());
        }
        Ok(self.page.front())
    }

    fn next(&mut self) -> Option<T> {
        self.page.pop_front()
    }
}
