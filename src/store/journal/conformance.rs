//! The contract of a [`Journal`], run against every backend.

use std::sync::Arc;

use super::*;
use crate::model::Choice;
use crate::model::Identifier;
use crate::model::Namespace;

/// A journal that can be opened again and again.
pub(crate) struct Rig<'a> {
    /// Opens the journal, the same one at each call; what was open before is gone.
    pub(crate) open: &'a dyn Fn() -> Arc<dyn Journal>,
    /// Commits a checkpoint at a position, where the backend compares it.
    pub(crate) folded: &'a (dyn Fn(Position) + Sync),
}

/// Every contract. Each gets a journal of its own.
pub(crate) const ALL: [fn(&Rig<'_>); 5] = [
    what_was_appended_is_read_back_after_restarts,
    a_reader_goes_on_from_any_end_of_a_frame_and_follows,
    what_a_reader_has_before_it_is_not_released,
    appends_of_many_threads_are_read_in_order_and_once,
    appending_reading_and_releasing_go_on_beside_each_other,
];

fn record(number: i64) -> Record {
    let identifier = Identifier::new(Namespace::new("user_id").unwrap(), &"x".repeat(40)).unwrap();
    Record::Choice(Choice { identifier, opted_out: true, received: number })
}

/// A batch whose records say the numbers.
pub(crate) fn batch(numbers: impl IntoIterator<Item = i64>) -> Batch {
    let mut batch = Batch::new();
    for number in numbers {
        batch.push(&record(number)).unwrap();
    }
    batch
}

fn append(journal: &dyn Journal, number: i64) -> Position {
    journal.append(&batch([number])).unwrap().end
}

/// What the records of a frame say.
pub(crate) fn said(frame: &Frame) -> Vec<i64> {
    let say = |item: Result<(u64, &[u8]), Malformed>| {
        let Record::Choice(choice) = Record::decode(item.unwrap().1).unwrap() else { panic!() };
        choice.received
    };
    frame.records().map(say).collect()
}

/// Record numbers and what the records say, from the beginning.
pub(crate) fn read(journal: &dyn Journal) -> Vec<(u64, i64)> {
    let mut reader = journal.reader(journal.begin());
    let mut seen = Vec::new();
    while let Some(frame) = reader.next().unwrap() {
        seen.extend((frame.first..).zip(said(&frame)));
        assert_eq!(reader.position(), frame.end);
    }
    assert_eq!(reader.position(), journal.end());
    seen
}

fn what_was_appended_is_read_back_after_restarts(rig: &Rig<'_>) {
    for restart in 0..4 {
        let journal = (rig.open)();
        for i in 0..10 {
            let number = restart * 30 + i * 3;
            journal.append(&batch(number..number + 3)).unwrap();
        }
        let end = journal.end();
        assert_eq!(journal.append(&Batch::new()).unwrap().end, end);
        let expected: Vec<_> = (0..).zip(0..(restart + 1) * 30).collect();
        assert_eq!(read(&*journal), expected);
        assert_eq!(journal.next_record(), expected.len() as u64);
    }
}

fn a_reader_goes_on_from_any_end_of_a_frame_and_follows(rig: &Rig<'_>) {
    let journal = (rig.open)();
    let ends: Vec<_> = (0..30).map(|number| append(&*journal, number)).collect();
    for (i, end) in ends.iter().enumerate() {
        let next = journal.reader(*end).next().unwrap();
        assert_eq!(next.map(|frame| frame.first), (i < 29).then_some(i as u64 + 1));
    }
    let mut reader = journal.reader(journal.end());
    assert_eq!(reader.next().unwrap(), None);
    append(&*journal, 30);
    assert_eq!(reader.next().unwrap().unwrap().first, 30);
    let beyond = journal.reader(Position(journal.end().0 + 1)).next();
    assert!(matches!(beyond, Err(JournalError::OutOfRange { .. })));
    assert!(!journal.wait(journal.end(), Duration::ZERO));
    assert!(journal.wait(ends[29], Duration::ZERO));
}

fn what_a_reader_has_before_it_is_not_released(rig: &Rig<'_>) {
    let journal = (rig.open)();
    for number in 0..60 {
        append(&*journal, number);
    }
    (rig.folded)(journal.end());
    let mut reader = journal.reader(Position(0));
    journal.release(journal.end()).unwrap();
    let mut seen = 0;
    while let Some(frame) = reader.next().unwrap() {
        assert_eq!(frame.first, seen);
        seen += 1;
        if seen == 30 {
            journal.release(journal.end()).unwrap();
            let begin = journal.begin();
            assert!(begin > Position(0) && begin <= frame.end);
        }
    }
    assert_eq!(seen, 60);
    drop(reader);
    journal.release(Position(0)).unwrap();
    journal.release(journal.end()).unwrap();
    let released = journal.reader(Position(0)).next();
    assert!(matches!(released, Err(JournalError::OutOfRange { .. })));
    let (left, end) = (read(&*journal), journal.end());
    drop(journal);
    let journal = (rig.open)();
    assert_eq!((read(&*journal), journal.end(), journal.next_record()), (left, end, 60));
    append(&*journal, 60);
    assert_eq!(read(&*journal).last(), Some(&(60, 60)));
}

fn appends_of_many_threads_are_read_in_order_and_once(rig: &Rig<'_>) {
    const THREADS: i64 = 4;
    const EACH: i64 = 200;
    let journal = (rig.open)();
    let seen = std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let journal = &journal;
            scope.spawn(move || {
                for i in 0..EACH {
                    let number = thread * EACH + i;
                    let end = journal.append(&batch([number, -number])).unwrap().end;
                    assert!(journal.end() >= end);
                }
            });
        }
        let mut reader = journal.reader(Position(0));
        let mut seen = Vec::new();
        while seen.len() < usize::try_from(THREADS * EACH).unwrap() {
            match reader.next().unwrap() {
                Some(frame) => {
                    assert_eq!(frame.first, seen.len() as u64 * 2);
                    seen.push(said(&frame)[0]);
                }
                None => assert!(journal.wait(reader.position(), Duration::from_secs(60))),
            }
        }
        seen
    });
    for thread in 0..THREADS {
        let own: Vec<_> = seen.iter().filter(|n| **n / EACH == thread).copied().collect();
        assert_eq!(own, (thread * EACH..(thread + 1) * EACH).collect::<Vec<_>>());
    }
}

fn appending_reading_and_releasing_go_on_beside_each_other(rig: &Rig<'_>) {
    let journal = (rig.open)();
    let frames = 1_000;
    std::thread::scope(|scope| {
        let journal = &*journal;
        let folded = rig.folded;
        scope.spawn(move || {
            for number in 0..frames {
                append(journal, number);
            }
        });
        for _ in 0..2 {
            let mut reader = journal.reader(Position(0));
            scope.spawn(move || {
                let mut seen = 0;
                while seen < frames {
                    match reader.next().unwrap() {
                        Some(frame) => seen += i64::from(frame.count),
                        None => assert!(journal.wait(reader.position(), Duration::from_secs(60))),
                    }
                }
            });
        }
        while journal.next_record() < frames.cast_unsigned() {
            folded(journal.end());
            journal.release(journal.end()).unwrap();
        }
    });
    (rig.folded)(journal.end());
    journal.release(journal.end()).unwrap();
    assert!(journal.begin() > Position(0));
}
