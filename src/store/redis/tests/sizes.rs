//! What is measured is all there is, each byte once.

use std::sync::Arc;

use super::audiences::audiences;
use super::both;
use super::fresh_keys;
use super::journal::journal;
use super::state::commit;
use crate::store::audiences::Audiences as _;
use crate::store::audiences::Content;
use crate::store::audiences::Cut;
use crate::store::audiences::Last;
use crate::store::audiences::Lists;
use crate::store::audiences::VersionKey;
use crate::store::audiences::Whose;
use crate::store::claims::Claim;
use crate::store::claims::Claimant;
use crate::store::claims::Claims as _;
use crate::store::journal::EventNo;
use crate::store::journal::Journal as _;
use crate::store::journal::conformance::batch;
use crate::store::redis::Claims;
use crate::store::redis::Lane;
use crate::store::redis::Link;
use crate::store::redis::Sizes;
use crate::store::redis::State;
use crate::store::redis::Store;
use crate::store::redis::moved::each_page;
use crate::store::redis::reply;
use crate::store::sizes::Sizes as _;
use crate::store::state::Images;
use crate::store::state::Part;
use crate::store::state::PartKind;
use crate::store::state::State as _;

/// Claims some message ids.
pub(super) fn claim(store: &Store) {
    let claims: Vec<Claim> = (0..40)
        .map(|number: u64| Claim {
            hash: [number.wrapping_mul(0x9e37_79b9_7f4a_7c15), number],
            received: 1_000,
            passes: number.is_multiple_of(2),
            event: Claimant { lane: 0, event: EventNo { record: number, part: 0 } },
        })
        .collect();
    Claims::new(store.clone()).claim(&claims).unwrap();
}

fn all_bytes(link: &Link, store: &Store) -> u64 {
    let mut all = 0;
    let measure = |key: &String| {
        let mut cmd = redis::cmd("MEMORY");
        cmd.arg("USAGE").arg(key).arg("SAMPLES").arg(0);
        reply::number(&link.one(key, cmd).unwrap()).unwrap()
    };
    each_page(link, &store.keys, &mut |keys| {
        all += keys.iter().map(measure).sum::<u64>();
        Ok(true)
    })
    .unwrap();
    all
}

#[test]
fn every_kind_is_measured_and_together_they_are_all() {
    for (name, link) in both() {
        let keys = fresh_keys();
        let (kept, store) = audiences(&link, &keys);
        let of = Last { generation: 3, true_for: 1 };
        let members = Arc::new((0..20_000).map(|ordinal| ordinal * 3).collect());
        let key = VersionKey { segment: "a".into(), shard: 1, generation: 3 };
        let put = vec![(key, Some(Content { rule: 1, members }))];
        kept.keep(&Cut { of, put, drop: Vec::new() }).unwrap();
        let whose = |number| Whose { shard: 1, ordinal: Some(number), hash: u64::from(number) };
        let lists = Lists {
            of,
            names: [(1, "a".into())].into(),
            changed: (0..200).map(|number| (whose(number), vec![1])).collect(),
            is_whole: true,
            total: 200,
        };
        kept.list(&lists).unwrap();
        // The same lane, for the fold.
        let lane = Lane::acquire(&store, "00", &[0, 1, 2, 3], "a", super::TTL).unwrap().unwrap();
        let state = State::new(store.clone(), Arc::new(lane));
        state.commit(&commit(1)).unwrap();
        let of_block = |kind, length| (Part { block: 0, kind }, vec![7; length]);
        let parts = vec![
            of_block(PartKind::Owners, 40_000),
            of_block(PartKind::Profiles, 5_000),
            of_block(PartKind::Column { id: 1, day: 3 }, 9_000),
        ];
        state.commit_images(&Images { shard: 2, up_to: 0, parts }).unwrap();
        claim(&store);
        journal(&link, &keys).append(&batch([1])).unwrap();

        let found = Sizes::new(store.clone()).measure().unwrap();
        let of = |kind: &str| found.iter().find(|size| size.kind == kind).unwrap();
        for (kind, least) in [
            ("audiences", 10_000),
            ("dictionary", 40_000),
            ("attributes", 5_000),
            ("columns", 9_000),
            ("deltas", 1_000),
            ("streams", 50),
            ("message_ids", 40 * 20),
            ("lists", 200 * 10),
        ] {
            assert!(of(kind).bytes >= least, "{name}: {:?}", of(kind));
            assert!(of(kind).bytes < 20 * least + 60_000, "{name}: {:?}", of(kind));
        }
        assert_eq!((of("message_ids").entries, of("lists").entries), (Some(40), Some(200)));
        // Shares are rounded down, and hashes are sampled.
        let (sum, all): (u64, u64) =
            (found.iter().map(|size| size.bytes).sum(), all_bytes(&link, &store));
        assert!(sum.abs_diff(all) < 200 + all / 50, "{name}: {sum} of {all}");
    }
}
