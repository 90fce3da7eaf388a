//! The contracts of the journal's port on streams, and what is this backend's own.

use std::sync::Arc;
use std::time::Duration;

use super::both;
use super::fresh_keys;
use super::own;
use super::proxy::Proxy;
use super::server::shared_server;
use super::times;
use crate::store::StoreError;
use crate::store::journal::Journal as Port;
use crate::store::journal::JournalError;
use crate::store::journal::Position;
use crate::store::journal::conformance;
use crate::store::journal::conformance::Rig;
use crate::store::journal::conformance::batch;
use crate::store::journal::conformance::read;
use crate::store::redis::Journal;
use crate::store::redis::Keys;
use crate::store::redis::Link;
use crate::store::redis::Mode;
use crate::store::redis::State;
use crate::store::redis::Times;
use crate::store::state::Checkpoint;
use crate::store::state::Commit;
use crate::store::state::State as _;

pub(super) fn journal(link: &Link, keys: &Keys) -> Journal {
    Journal::open(link.clone(), keys, "000", Mode::Everysec).unwrap()
}

fn fold(state: &State, position: Position) {
    let commit = state.load().unwrap().checkpoint.commit + 1;
    let checkpoint = Checkpoint { commit, position, ..Checkpoint::default() };
    state.commit(&Commit { checkpoint, ..Commit::default() }).unwrap();
}

#[test]
fn it_keeps_the_contracts_of_the_port() {
    for (_, link) in both() {
        for contract in conformance::ALL {
            let keys = fresh_keys();
            let (store, lane) = own(&link, &keys, "a");
            let state = State::new(store, lane);
            let open = || Arc::new(journal(&link, &keys)) as Arc<dyn Port>;
            contract(&Rig { open: &open, folded: &|position| fold(&state, position) });
        }
    }
}

/// Ships frames that say their numbers, in the name of `a` unless told otherwise.
fn ship(journal: &Journal, sender: &str, numbers: &[u64]) -> Result<Position, StoreError> {
    let batches: Vec<_> = numbers.iter().map(|n| (*n, batch([n.cast_signed()]))).collect();
    let frames: Vec<_> = batches.iter().map(|(number, batch)| (*number, batch)).collect();
    journal.ship(sender, &frames)
}

fn said(journal: &Journal) -> Vec<i64> {
    read(journal).into_iter().map(|(_, said)| said).collect()
}

#[test]
fn what_was_taken_under_a_number_is_not_taken_again() {
    for (name, link) in both() {
        let journal = journal(&link, &fresh_keys());
        let ship = |sender, numbers: &[u64]| ship(&journal, sender, numbers).unwrap();
        let first = ship("a", &[7, 8]);
        assert_eq!(ship("a", &[7, 8]), first, "{name}");
        let other = ship("b", &[7]);
        assert_eq!(ship("a", &[7, 8]), first);
        assert_eq!(ship("a", &[3]), first);
        assert!(ship("a", &[9]) > other);
        assert_eq!(said(&journal), [7, 8, 7, 9]);
    }
}

#[test]
fn frames_that_are_grouped_otherwise_after_a_lost_answer_are_appended_once_each() {
    let proxy = Proxy::before(shared_server().port);
    let times = Times { patience: Duration::ZERO, ..times() };
    let journal = journal(&Link::open(&proxy.url(), times).unwrap(), &fresh_keys());
    // The library is there and the connection made: a call gets one try.
    super::server::until("the first frame", || ship(&journal, "a", &[1]).is_ok());
    for [lost, next] in [
        [&[2, 3, 4][..], &[2, 3][..]],
        [&[4, 5], &[4, 5, 6]],
        [&[7, 8, 9], &[8, 9, 10, 11]],
        [&[12], &[12]],
    ] {
        let before = proxy.lost();
        proxy.lose("_append");
        assert!(ship(&journal, "a", lost).is_err());
        assert_eq!(proxy.lost(), before + 1);
        super::server::until("a connection again", || ship(&journal, "a", next).is_ok());
    }
    assert_eq!(said(&journal), (1..=12).collect::<Vec<_>>());
    assert_eq!(journal.lost(), 0);
}

#[test]
fn nothing_beyond_the_checkpoint_is_released_and_the_books_balance() {
    for (name, link) in both() {
        let keys = fresh_keys();
        let (store, lane) = own(&link, &keys, "a");
        let state = State::new(store, lane);
        let journal = journal(&link, &keys);
        let ends: Vec<_> = (0..9).map(|n| journal.append(&batch([n])).unwrap().end).collect();
        journal.release(journal.end()).unwrap();
        assert_eq!(journal.begin(), Position(0), "{name}");
        fold(&state, ends[3]);
        journal.release(journal.end()).unwrap();
        assert_eq!(journal.begin(), ends[3]);
        let balance = journal.balance().unwrap();
        assert_eq!(
            (balance.added, balance.released, balance.held, balance.missing()),
            (9, 4, 5, 0)
        );
        // Someone deletes an entry.
        let mut reader = journal.reader(ends[3]);
        let mut cmd = redis::cmd("XDEL");
        let stream = keys.lane("000", "ev");
        cmd.arg(&stream).arg(format!("{}-6", ends[5].0));
        link.one(&stream, cmd).unwrap();
        assert_eq!(journal.balance().unwrap().missing(), 1);
        assert!(reader.next().unwrap().is_some());
        let Err(JournalError::Damaged(damage)) = reader.next() else { panic!("it is damaged") };
        assert_eq!((damage[0].from, damage[0].to, damage[0].records), (ends[4], ends[5], 1));
    }
}

#[test]
fn replicas_are_waited_for_and_a_setup_that_breaks_the_promise_is_told() {
    for (name, link) in both() {
        let keys = fresh_keys();
        let open = |mode| Journal::open(link.clone(), &keys, "000", mode).unwrap();
        let advice = Mode::Always.verify(&link).unwrap();
        assert!(advice[0].contains("set `appendfsync always`"), "{advice:?}");
        assert_eq!(Mode::Everysec.verify(&link).unwrap(), Vec::<String>::new());
        let advice = Mode::Replicated(1).verify(&link).unwrap();
        assert_eq!(advice.len(), if name == "cluster" { 3 } else { 1 });
        assert!(advice[0].contains("set `min-replicas-to-write 1`"), "{advice:?}");
        if name == "cluster" {
            open(Mode::Replicated(1)).append(&batch([1])).unwrap();
        } else {
            let link = super::impatient(&super::server::shared_server().url());
            let journal = Journal::open(link, &keys, "000", Mode::Replicated(1)).unwrap();
            let refused = journal.append(&batch([1])).unwrap_err();
            assert!(matches!(refused, JournalError::Store(_)), "{refused:?}");
            assert_eq!(read(&journal), [(0, 1)]);
        }
    }
}
