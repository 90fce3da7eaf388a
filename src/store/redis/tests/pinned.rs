//! A lane that is read while its owner goes on.

use std::time::Duration;

use super::TTL;
use super::both;
use super::fresh_keys;
use super::server::until;
use super::state::commit;
use crate::store::StoreError;
use crate::store::journal::Position;
use crate::store::journal::conformance::batch;
use crate::store::lanes::LaneStore as _;
use crate::store::redis::NoPin;
use crate::store::redis::Store;
use crate::store::state::Images;
use crate::store::state::Part;
use crate::store::state::PartKind;
use crate::store::state::State;

/// The commits whose deltas a shard has.
fn deltas(state: &dyn State) -> Result<Vec<u64>, StoreError> {
    let mut found = Vec::new();
    let take = &mut |commit, _: &[u8]| {
        found.push(commit);
        Ok(())
    };
    state.load_deltas(0, take)?;
    Ok(found)
}

/// Puts an image in the place of deltas.
fn compact(state: &dyn State, up_to: u64) {
    let part = Part { block: 0, kind: PartKind::Owners };
    state.commit_images(&Images { shard: 0, up_to, parts: vec![(part, vec![9; 500])] }).unwrap();
}

#[test]
fn what_a_pinned_lane_held_stays_until_it_is_let_go_whoever_owns_it() {
    for (name, link) in both() {
        let store = Store::open(link.clone(), fresh_keys(), 4, 2).unwrap();
        assert_eq!(store.pin(0, "reader", TTL).unwrap().unwrap_err(), NoPin::Nothing, "{name}");
        let first = store.take(0, "a", TTL).unwrap().unwrap();
        for records in 1..=4 {
            first.journal.append(&batch([records])).unwrap();
        }
        let whole = first.journal.end();
        for number in 1..=3 {
            first.state.commit(&commit(number)).unwrap();
        }
        compact(&*first.state, 1);

        let pin = store.pin(0, "reader", TTL).unwrap().unwrap();
        let pinned = store.read_pinned(0).unwrap();
        let taken = store.pin(0, "another", TTL).unwrap().unwrap_err();
        assert!(matches!(taken, NoPin::Taken(reader, _) if reader == "reader"), "{name}");
        // The owner goes on, and so does the next.
        first.state.commit(&commit(4)).unwrap();
        compact(&*first.state, 3);
        let state = store.take(0, "a", TTL).unwrap().unwrap().state;
        state.commit(&commit(5)).unwrap();
        compact(&*state, 5);
        first.journal.release(Position(u64::MAX)).unwrap();
        assert_eq!(deltas(&*state).unwrap(), [] as [u64; 0], "{name}");
        assert_eq!(deltas(&*pinned.state).unwrap(), [2, 3], "{name}");
        assert_eq!(pinned.state.load().unwrap().checkpoint.commit, 3, "{name}");
        let mut reader = pinned.journal.reader(Position(0));
        let mut at = Position(0);
        while let Some(frame) = reader.next().unwrap() {
            at = frame.end;
        }
        assert_eq!(at, whole, "{name}");
        // It is only read.
        let refused = pinned.state.commit(&commit(4)).unwrap_err();
        assert!(matches!(refused, StoreError::Fenced { .. }), "{name}: {refused}");

        pin.let_go().unwrap();
        assert_eq!(pin.renew(TTL).unwrap(), Err(NoPin::Over), "{name}");
        state.commit(&commit(6)).unwrap();
        deltas(&*pinned.state).unwrap_err();
        assert_eq!(deltas(&*state).unwrap(), [6], "{name}");
        assert!(whole.0 < 600, "the checkpoint is past {whole}");
        first.journal.release(Position(u64::MAX)).unwrap();
        assert_eq!(first.journal.begin(), whole, "{name}");
    }
}

#[test]
fn a_pin_that_is_not_renewed_is_over_and_another_may_read() {
    for (name, link) in both() {
        let store = Store::open(link.clone(), fresh_keys(), 4, 2).unwrap();
        let owned = store.take(0, "a", TTL).unwrap().unwrap();
        owned.state.commit(&commit(1)).unwrap();
        let pin = store.pin(0, "reader", Duration::from_millis(1)).unwrap().unwrap();
        until("the pin is over", || {
            pin.renew(Duration::from_millis(1)).unwrap() == Err(NoPin::Over)
        });
        let other = store.pin(0, "another", TTL).unwrap().unwrap();
        assert_eq!(pin.renew(TTL).unwrap(), Err(NoPin::Over), "{name}");
        other.renew(TTL).unwrap().unwrap();
    }
}
