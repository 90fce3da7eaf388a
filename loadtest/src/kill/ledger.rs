//! What was sent and what was answered, and whether that is what was counted.

use anyhow::{Context, Result, bail};
use std::collections::{HashMap, HashSet};

/// A message: its visitor is a quarter of it, its value the power of two of the rest.
pub(super) type Message = u32;

/// The visitor that a message belongs to.
pub(super) fn visitor(message: Message) -> u32 {
    message / 4
}

/// The value that a message carries: 1, 2, 4 or 8.
pub(super) fn value(message: Message) -> u32 {
    1 << (message % 4)
}

/// All messages, by what the server said of them.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    next: Message,
    answered: HashSet<Message>,
    unanswered: HashSet<Message>,
    repeated: usize,
}

impl Ledger {
    /// The first message that no earlier round used; a round begins with a visitor of its own.
    pub(super) fn next(&self) -> Message {
        self.next
    }

    /// Notes where the next round begins.
    pub(super) fn used(&mut self, end: Message) {
        self.next = end.next_multiple_of(4);
    }

    /// A message that is sent counts as unanswered until it is answered.
    pub(super) fn sent(&mut self, message: Message) {
        if !self.answered.contains(&message) {
            self.unanswered.insert(message);
        }
    }

    /// Notes the answer to a message.
    pub(super) fn accepted(&mut self, message: Message) {
        self.unanswered.remove(&message);
        if !self.answered.insert(message) {
            self.repeated += 1;
        }
    }

    /// Messages to send again, as a client does that had no answer.
    pub(super) fn open(&self) -> Vec<Message> {
        let mut open: Vec<Message> = self.unanswered.iter().copied().collect();
        open.sort_unstable();
        open
    }

    pub(super) fn answered(&self) -> usize {
        self.answered.len()
    }

    pub(super) fn unanswered(&self) -> usize {
        self.unanswered.len()
    }

    pub(super) fn repeated(&self) -> usize {
        self.repeated
    }

    /// Fails unless every answered message was counted once and no other more than that; returns how
    /// many unanswered ones were counted.
    pub(super) fn compare(&self, counted: &Counted) -> Result<usize> {
        let mut wrong = Vec::new();
        let has = |message: Message| {
            counted.values.get(&visitor(message)).is_some_and(|v| v & value(message) != 0)
        };
        let missing = self.answered.iter().filter(|message| !has(**message)).count();
        let visitors: HashSet<u32> =
            self.answered.iter().chain(&self.unanswered).map(|message| visitor(*message)).collect();
        let unknown = counted.all.iter().filter(|v| !visitors.contains(v)).count();
        // A visitor whose count and sum fit no choice of its messages had one counted twice.
        let doubled = counted.all.iter().filter(|v| !counted.values.contains_key(v)).count();
        let mut extra = 0;
        let mut invented = 0;
        for (visitor, values) in &counted.values {
            for place in 0..4 {
                let message = visitor * 4 + place;
                if values & value(message) == 0 || self.answered.contains(&message) {
                    continue;
                }
                if self.unanswered.contains(&message) { extra += 1 } else { invented += 1 }
            }
        }
        for (count, what) in [
            (missing, "answered messages were not counted as answered"),
            (doubled, "visitors have a message counted twice"),
            (unknown, "visitors never sent anything"),
            (invented, "messages were counted and never sent"),
        ] {
            if count > 0 {
                wrong.push(format!("{count} {what}"));
            }
        }
        if wrong.is_empty() { Ok(extra) } else { bail!("{}", wrong.join("; ")) }
    }
}

/// What the server counted, by visitor.
#[derive(Debug, Default)]
pub(super) struct Counted {
    values: HashMap<u32, u32>,
    all: HashSet<u32>,
}

impl Counted {
    /// Adds the visitors whose messages sum up to `values`.
    pub(super) fn add(&mut self, members: &str, values: u32) -> Result<()> {
        for line in members.lines() {
            if self.values.insert(parse(line)?, values).is_some() {
                bail!("a visitor is in two answers that exclude each other");
            }
        }
        Ok(())
    }

    /// Notes everybody who has any message.
    pub(super) fn all(&mut self, members: &str) -> Result<()> {
        for line in members.lines() {
            if !self.all.insert(parse(line)?) {
                bail!("a member is listed twice");
            }
        }
        Ok(())
    }
}

fn parse(line: &str) -> Result<u32> {
    line.strip_prefix('k').and_then(|digits| digits.parse().ok()).context("a member is not ours")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        for message in [0, 1, 5, 6] {
            ledger.sent(message);
        }
        for message in [0, 5, 6] {
            ledger.accepted(message);
        }
        ledger
    }

    fn counted(members: &[(&str, u32)], all: &str) -> Counted {
        let mut counted = Counted::default();
        for (members, values) in members {
            counted.add(members, *values).unwrap();
        }
        counted.all(all).unwrap();
        counted
    }

    #[test]
    fn an_unanswered_message_may_be_counted_or_not() {
        let without = counted(&[("k0", 1), ("k1", 6)], "k0\nk1");
        assert_eq!(ledger().compare(&without).unwrap(), 0);
        let with = counted(&[("k0", 3), ("k1", 6)], "k0\nk1");
        assert_eq!(ledger().compare(&with).unwrap(), 1);
    }

    #[test]
    fn missing_doubled_and_invented_messages_are_found() {
        for (wrong, why) in [
            (counted(&[("k1", 6)], "k1"), "1 answered messages were not"),
            (counted(&[("k0", 1), ("k1", 4)], "k0\nk1"), "1 answered messages were not"),
            (counted(&[("k0", 1)], "k0\nk1"), "1 visitors have a message counted twice"),
            (counted(&[("k0", 9), ("k1", 6)], "k0\nk1"), "1 messages were counted and never"),
            (counted(&[("k0", 1), ("k1", 6)], "k0\nk1\nk2"), "1 visitors never sent"),
        ] {
            let error = ledger().compare(&wrong).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
