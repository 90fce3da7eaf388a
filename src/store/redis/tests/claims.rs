//! Message ids are claimed once, whoever asks and however often.

use super::both;
use super::fresh_keys;
use crate::model::time::HOUR;
use crate::store::claims::Claim;
use crate::store::claims::Claimant;
use crate::store::claims::Claims as _;
use crate::store::claims::WINDOW;
use crate::store::journal::EventNo;
use crate::store::redis::Claims;
use crate::store::redis::Store;

const NOW: i64 = 1_700_000_000_000;

fn event(lane: u16, record: u64) -> Claimant {
    Claimant { lane, event: EventNo { record, part: 3 } }
}

fn claim(id: u64, received: i64, event: Claimant) -> Claim {
    Claim { hash: [id.wrapping_mul(0x9e37_79b9_7f4a_7c15), id], passes: true, received, event }
}

#[test]
fn a_message_id_is_the_first_ones_that_claims_it() {
    for (name, link) in both() {
        let store = Store::open(link, fresh_keys(), 8, 4).unwrap();
        let claims = Claims::new(store);
        let (a, b) = (event(0, 7), event(3, 1));
        assert_eq!(claims.look(&[claim(1, NOW, a)]).unwrap(), [None], "{name}");
        // In one call the order decides.
        let both = [claim(1, NOW, a), claim(2, NOW, b), claim(1, NOW, b)];
        assert_eq!(claims.claim(&both).unwrap(), [a, b, a], "{name}");
        // Repeated, whoever repeats it.
        assert_eq!(claims.claim(&both).unwrap(), [a, b, a], "{name}");
        assert_eq!(claims.look(&[claim(1, NOW, b)]).unwrap(), [Some(a)], "{name}");
        // Up to the window's end, and from the first receipt, also where that was by a clock ahead.
        let later = claim(1, NOW + WINDOW, b);
        assert_eq!(claims.claim(&[later]).unwrap(), [a], "{name}");
        let earlier = claim(1, NOW - 20 * HOUR, b);
        assert_eq!(claims.claim(&[earlier]).unwrap(), [a], "{name}");
        let after = claim(1, NOW + WINDOW + 1, b);
        assert_eq!(claims.claim(&[after]).unwrap(), [b], "{name}");
        // For good.
        let good = |received, event| Claim { passes: false, ..claim(9, received, event) };
        assert_eq!(claims.claim(&[good(NOW, a)]).unwrap(), [a], "{name}");
        assert_eq!(claims.claim(&[good(NOW + 99 * WINDOW, b)]).unwrap(), [a], "{name}");
    }
}

#[test]
fn many_ids_at_once_have_one_owner_each() {
    for (name, link) in both() {
        let store = Store::open(link, fresh_keys(), 8, 4).unwrap();
        let claims = Claims::new(store);
        std::thread::scope(|scope| {
            let ask = |lane: u16| {
                let claims = &claims;
                scope.spawn(move || {
                    let all: Vec<_> = (0..3000).map(|id| claim(id, NOW, event(lane, id))).collect();
                    claims.claim(&all).unwrap()
                })
            };
            let (one, two) = (ask(1), ask(2));
            assert_eq!(one.join().unwrap(), two.join().unwrap(), "{name}");
        });
    }
}

#[test]
fn all_claims_can_be_read_back() {
    for (name, link) in both() {
        let claims = Claims::new(Store::open(link, fresh_keys(), 8, 4).unwrap());
        let some = |id: u64| {
            let passes = !id.is_multiple_of(3);
            let received = NOW + i64::try_from(id).unwrap() * HOUR / 100;
            Claim { passes, ..claim(id, received, event(1, id)) }
        };
        let all: Vec<_> = (1..1_000).map(some).collect();
        claims.claim(&all).unwrap();
        let key = |claim: &Claim| (claim.passes, claim.hash, claim.received, claim.event.event);
        let expected: std::collections::BTreeSet<_> = all.iter().map(key).collect();
        let mut found = std::collections::BTreeSet::new();
        let take = &mut |claim: Claim| {
            found.insert(key(&claim));
            Ok(())
        };
        claims.each(take).unwrap();
        assert!(found == expected, "{name}: {} of {}", found.len(), expected.len());
    }
}
