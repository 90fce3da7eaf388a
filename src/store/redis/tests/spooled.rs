//! What is acknowledged lies in the two streams of a spool, whole and in one order.

use super::both;
use super::fresh_keys;
use crate::metrics::Metrics;
use crate::model::Choice;
use crate::model::Identifier;
use crate::model::Namespace;
use crate::model::Record;
use crate::net::Workers;
use crate::store::journal::Batch;
use crate::store::journal::Frame;
use crate::store::journal::Journal as _;
use crate::store::journal::Position;
use crate::store::redis::Mode;
use crate::store::redis::SpooledJournal;
use crate::store::redis::Spools;
use crate::store::redis::Store;
use crate::store::spools::Spools as _;

/// A record that can be told from others.
fn batch(of: &str) -> Batch {
    let identifier = Identifier::new(Namespace::new("user_id").unwrap(), of).unwrap();
    let mut batch = Batch::new();
    batch.push(&Record::Choice(Choice { identifier, opted_out: false, received: 1 })).unwrap();
    batch
}

fn records(frames: &[Frame]) -> Vec<Vec<u8>> {
    let of = |frame: &Frame| {
        frame.records().map(|record| record.unwrap().1.to_vec()).collect::<Vec<_>>()
    };
    frames.iter().flat_map(of).collect()
}

/// All frames from a position on, page by page.
fn all(spools: &Spools, sender: &str, mut from: Position) -> Vec<Frame> {
    let mut frames = Vec::new();
    loop {
        let page = spools.read(sender, from).unwrap();
        let Some(last) = page.last() else { return frames };
        from = last.end;
        frames.extend(page);
    }
}

#[test]
fn frames_of_both_streams_are_read_in_one_order_and_given_up_together() {
    for (name, link) in both() {
        let store = Store::open(link, fresh_keys(), 8, 4).unwrap();
        let workers = Workers::new(Metrics::new());
        let journal = SpooledJournal::new(&store, Mode::Everysec, "n1", &workers).unwrap();
        let sender = journal.spool().sender.clone();
        let spools = Spools::new(store.clone());
        let mut told = Vec::new();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|thread| {
                    let journal = &journal;
                    scope.spawn(move || {
                        let append = |at| {
                            let batch = batch(&format!("{thread} {at}"));
                            let end = journal.append(&batch).unwrap().end;
                            // What is acknowledged is before the end, which a mark of T is taken from.
                            assert!(journal.end() >= end);
                            (end, batch.records().next().unwrap().to_vec())
                        };
                        (0..100).map(append).collect::<Vec<_>>()
                    })
                })
                .collect();
            threads.into_iter().for_each(|thread| told.extend(thread.join().unwrap()));
        });
        for stream in spools.streams(&sender) {
            let mut cmd = redis::cmd("XLEN");
            cmd.arg(&stream);
            assert_ne!(store.link.one(&stream, cmd).unwrap(), redis::Value::Int(0), "{name}");
        }
        let frames = all(&spools, &sender, Position::default());
        let mut end = Position::default();
        for frame in &frames {
            assert_eq!(frame.start, end, "{name}");
            end = frame.end;
        }
        assert_eq!(end, journal.end(), "{name}");
        // The reader of the process itself has the same, and so has who was told.
        let mut reader = journal.reader(Position::default());
        let held = std::iter::from_fn(|| reader.next().unwrap()).collect::<Vec<_>>();
        assert_eq!(records(&held), records(&frames), "{name}");
        for (end, record) in &told {
            let at = frames.partition_point(|frame| frame.end < *end);
            assert!(records(&frames[at..=at]).contains(record), "{name}");
        }
        assert_eq!(records(&frames).len(), told.len(), "{name}");
        let half = frames.len() / 2;
        journal.release(frames[half].end).unwrap();
        let left = all(&spools, &sender, Position::default());
        assert_eq!(records(&left), records(&frames[half + 1..]), "{name}");
        spools.delete(&sender).unwrap();
        assert_eq!(all(&spools, &sender, Position::default()).len(), 0, "{name}");
    }
}
