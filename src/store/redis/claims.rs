//! Claims of message ids, in hashes that are small enough to lie packed.
//!
//! ```text
//! throng:{TAG}:m:<period>:<bucket>   hash: a message id's hash → received lane record part
//! throng:{TAG}:i:<bucket>            the same, of those that count once for good
//! ```
//! The tag is that of a lane, chosen by the message id's hash and not by the event. A period is half of the window;
//! its hashes are gone when the window has passed them.

use std::collections::BTreeMap;

use redis::Cmd;
use redis::Value;

use super::functions;
use super::moved::each_page;
use super::reply;
use super::route;
use super::store::Store;
use crate::model::Malformed;
use crate::model::Millis;
use crate::store::StoreError;
use crate::store::claims::Claim;
use crate::store::claims::Claimant;
use crate::store::claims::Claims as Port;
use crate::store::claims::TakeClaimed;
use crate::store::claims::WINDOW;
use crate::store::journal::EventNo;
use crate::store::state::damaged;

/// Hashes of one period in one lane.
const BUCKETS: u64 = 4096;
const PERIOD: i64 = WINDOW / 2;
/// In one call no more.
const AT_ONCE: usize = 512;

/// The claims of a store.
#[derive(Debug)]
pub struct Claims {
    store: Store,
}

impl Claims {
    /// Those of this store.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// The keys of a claim: where it is written, and where an earlier one of the same may lie.
    fn keys(&self, tag: &str, claim: &Claim) -> Vec<String> {
        let keys = &self.store.keys;
        let bucket = claim.hash[0] / u64::from(self.store.layout().lanes()) % BUCKETS;
        if !claim.passes {
            return vec![keys.lane(tag, &format!("i:{bucket}"))];
        }
        let period = claim.received.div_euclid(PERIOD);
        let of = |period: i64| keys.lane(tag, &format!("m:{period}:{bucket}"));
        [0, -1, -2, 1, 2].into_iter().map(|by| of(period + by)).collect()
    }

    /// Asks for all at once, those of one lane's tag in one call.
    fn ask(&self, claims: &[Claim], may_write: bool) -> Result<Vec<Option<Claimant>>, StoreError> {
        let layout = self.store.layout();
        let mut by_tag: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
        for (at, claim) in claims.iter().enumerate() {
            let lane = claim.hash[0] % u64::from(layout.lanes());
            by_tag.entry(u16::try_from(lane).unwrap_or(0)).or_default().push(at);
        }
        let link = &self.store.link;
        let mut found = vec![None; claims.len()];
        // One after the other: of two calls for one tag the order counts.
        while !by_tag.is_empty() {
            let mut turn: Vec<(Vec<usize>, String, Cmd)> = Vec::new();
            by_tag.retain(|lane, places| {
                let rest = places.split_off(places.len().min(AT_ONCE));
                let is_open = !rest.is_empty();
                let now = std::mem::replace(places, rest);
                let of_turn = now.iter().map(|at| &claims[*at]);
                let (key, cmd) = self.call(&layout.tag(*lane), of_turn, may_write);
                turn.push((now, key, cmd));
                is_open
            });
            let calls = turn.iter().map(|(_, key, cmd)| (&**key, cmd.clone())).collect();
            let answers = link.spread(calls, None, link.times().patience)?;
            for ((places, ..), answer) in turn.iter().zip(answers) {
                let items = reply::items(&answer).ok_or_else(|| link.odd("claims"))?;
                for (at, item) in places.iter().zip(items) {
                    found[*at] = read(item).ok_or_else(|| link.odd("a claim"))?;
                }
            }
        }
        Ok(found)
    }

    fn call<'c>(
        &self,
        tag: &str,
        claims: impl Iterator<Item = &'c Claim>,
        may_write: bool,
    ) -> (String, Cmd) {
        let (mut keys, mut args) = (Vec::new(), vec![vec![if may_write { b'1' } else { b'0' }]]);
        args.push(WINDOW.to_string().into_bytes());
        for claim in claims {
            let own = self.keys(tag, claim);
            let Claimant { lane, event } = claim.event;
            args.push(own.len().to_string().into_bytes());
            args.push([claim.hash[0].to_be_bytes(), claim.hash[1].to_be_bytes()].concat());
            args.push(claim.received.to_string().into_bytes());
            args.push(format!("{lane} {} {}", event.record, event.part).into_bytes());
            keys.extend(own);
        }
        let args: Vec<&[u8]> = args.iter().map(|arg| &arg[..]).collect();
        let first = keys.first().cloned().unwrap_or_default();
        (first, functions::call("claim", &keys, &args))
    }
}

/// Who has claimed: `Some(None)` is nobody.
fn read(item: &Value) -> Option<Option<Claimant>> {
    let text = reply::text(item)?;
    if text.is_empty() {
        return Some(None);
    }
    let mut words = text.split(' ');
    let lane = words.next()?.parse().ok()?;
    let record = words.next()?.parse().ok()?;
    let part = words.next()?.parse().ok()?;
    Some(Some(Claimant { lane, event: EventNo { record, part } }))
}

impl Port for Claims {
    fn look(&self, claims: &[Claim]) -> Result<Vec<Option<Claimant>>, StoreError> {
        self.ask(claims, false)
    }

    fn claim(&self, claims: &[Claim]) -> Result<Vec<Claimant>, StoreError> {
        let found = self.ask(claims, true)?;
        let whose = found.into_iter().map(|claimant| {
            claimant.ok_or_else(|| self.store.link.odd("a claim that nobody was given"))
        });
        whose.collect()
    }

    fn each(&self, take: TakeClaimed<'_>) -> Result<(), StoreError> {
        let link = &self.store.link;
        each_page(link, &self.store.keys, &mut |found| {
            let mut slots: BTreeMap<u16, Vec<(bool, String)>> = BTreeMap::new();
            for key in found {
                let name = key.split_once("}:").map_or("", |(_, name)| name);
                let passes = name.starts_with("m:");
                if passes || name.starts_with("i:") {
                    slots.entry(route::slot(&key)).or_default().push((passes, key));
                }
            }
            for keys in slots.values() {
                let ask = |(_, key): &(bool, String)| {
                    let mut cmd = redis::cmd("HGETALL");
                    cmd.arg(key);
                    cmd
                };
                let answers = link.run(&keys[0].1, &keys.iter().map(ask).collect::<Vec<_>>())?;
                for ((passes, _), answer) in keys.iter().zip(answers) {
                    let rows = reply::pairs(answer).ok_or_else(|| link.odd("claims"))?;
                    for (field, row) in rows {
                        let (hash, received) =
                            claimed(&field, &row).ok_or_else(|| damaged(Malformed("a claim")))?;
                        take(*passes, hash, received)?;
                    }
                }
            }
            Ok(true)
        })
    }
}

/// The hash of a message id that was claimed, and when its event was received.
fn claimed(field: &[u8], row: &[u8]) -> Option<([u64; 2], Millis)> {
    let (high, low) = field.split_at_checked(8)?;
    let number = |bytes: &[u8]| Some(u64::from_be_bytes(bytes.try_into().ok()?));
    let (received, _) = std::str::from_utf8(row).ok()?.split_once(' ')?;
    Some(([number(high)?, number(low)?], received.parse().ok()?))
}
