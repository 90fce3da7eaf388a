//! The difference between what a destination should hold and what it holds, one identifier at a time.

use std::cmp::Ordering;
use std::collections::VecDeque;

use super::desired::Desired;
use super::desired::compare;
use super::desired::identifier;
use crate::model::Identifier;
use crate::store::StoreError;
use crate::store::ledger::Held;
use crate::store::ledger::Ledger;
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
    /// It would be added, but nothing may be.
    Withheld,
}

/// Gives every row of the delta, in order of identifier.
///
/// Both sides are read in order as the rows come, so the caller may apply to the ledger what it was given
/// before.
pub(super) fn delta<E: From<StoreError>>(
    desired: &Desired<'_>,
    ledger: &dyn Ledger,
    target: &Target,
    may_add: bool,
    each: &mut dyn FnMut(Row) -> Result<(), E>,
) -> Result<(), E> {
    let mut holding = Holding { ledger, target, page: VecDeque::new(), last: None, ended: false };
    let mut after = None;
    loop {
        let part = desired.part(after.as_ref())?;
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
                (Some(key), None) if may_add => each(Row::Add(identifier(key)))?,
                (Some(_), None) => each(Row::Withheld)?,
                (Some(_), Some(held)) if held.unsure && may_add => each(Row::Add(held.identifier))?,
                (Some(_), Some(_)) | (None, None) => {}
                (None, Some(held)) => each(Row::Remove(held.identifier))?,
            }
        }
        after = part.ceiling();
        if after.is_none() {
            return Ok(());
        }
    }
}

/// What a target holds, page by page.
struct Holding<'a> {
    ledger: &'a dyn Ledger,
    target: &'a Target,
    page: VecDeque<Held>,
    last: Option<Identifier>,
    ended: bool,
}

impl Holding<'_> {
    fn peek(&mut self) -> Result<Option<&Held>, StoreError> {
        if self.page.is_empty() && !self.ended {
            self.page = self.ledger.held(self.target, self.last.as_ref(), PAGE)?.into();
            self.ended = self.page.len() < PAGE;
            self.last = self.page.back().map(|held| held.identifier.clone());
        }
        Ok(self.page.front())
    }

    fn next(&mut self) -> Option<Held> {
        self.page.pop_front()
    }
}
