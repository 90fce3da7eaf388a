//! Claims of message ids, in hashes that are small enough to lie packed.
//!
//! ```text
//! throng:{TAG}:m:<bucket>   hash: a message id's hash → when its event was received, and which event it is
//! throng:{TAG}:i:<bucket>   the same, of those that count once for good
//! ```
//! The tag is that of a lane, chosen by the message id's hash and not by the event. What the window has passed is
//! given to who asks next, and swept out bucket by bucket.
//!
//! A failover may lose the event and not its claim, for they lie on two nodes. So before an event gives way to
//! another, the other's lane is asked whether it has lost that one; then the claim is taken back. Who sent it again,
//! or sends another with the same message id, is counted.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::ops::Range;

use redis::Cmd;
use redis::Value;

use super::functions;
use super::journal::gaps;
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
use crate::store::claims::SWEEP;
use crate::store::claims::TakeClaimed;
use crate::store::claims::WINDOW;
use crate::store::journal::EventNo;
use crate::store::state::damaged;

/// Hashes in one lane.
const BUCKETS: u64 = 4096;
/// So many plain commands are sent at once: a server works through what it has read of them before it turns to others,
/// and those who collect wait for it.
const BRIEFLY: usize = 64;
/// In one call no more.
const AT_ONCE: usize = 512;

/// The claims of a store.
#[derive(Debug)]
pub struct Claims {
    store: Store,
    /// What the keys of each lane's tag begin with.
    prefixes: Vec<String>,
}

impl Claims {
    /// Those of this store.
    pub fn new(store: Store) -> Self {
        let layout = store.layout();
        let prefixes = (0..layout.lanes()).map(|lane| store.keys.lane(&layout.tag(lane), ""));
        Self { prefixes: prefixes.collect(), store }
    }

    /// The key of a claim.
    fn key(&self, claim: &Claim) -> String {
        let lanes = self.prefixes.len() as u64;
        let place = usize::try_from(claim.hash[0] % lanes).unwrap_or(0);
        key(&self.prefixes[place], claim.passes, claim.hash[0] / lanes % BUCKETS)
    }

    /// Claims one that nobody has.
    fn set(&self, claim: &Claim) -> (String, Cmd) {
        let key = self.key(claim);
        let mut cmd = Cmd::with_capacity(4, key.len() + 48);
        cmd.arg("HSETNX").arg(&key).arg(&field(claim)[..]).arg(row(claim));
        (key, cmd)
    }

    /// Claims all at once, those of one lane's tag in one call.
    fn ask(&self, claims: &[Claim]) -> Result<Vec<Option<Claimant>>, StoreError> {
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
            let (mut turn, mut cmds): (Vec<(Vec<usize>, String)>, Vec<Cmd>) = Default::default();
            by_tag.retain(|_, places| {
                let rest = places.split_off(places.len().min(AT_ONCE));
                let is_open = !rest.is_empty();
                let now = std::mem::replace(places, rest);
                let of_turn = now.iter().map(|at| &claims[*at]);
                let (key, cmd) = self.call(of_turn);
                turn.push((now, key));
                cmds.push(cmd);
                is_open
            });
            let calls = turn.iter().map(|(_, key)| &**key).zip(cmds).collect();
            let answers = link.spread(calls, None, link.times().patience)?;
            for ((places, _), answer) in turn.iter().zip(answers) {
                let items = reply::items(&answer).ok_or_else(|| link.odd("claims"))?;
                for (at, item) in places.iter().zip(items) {
                    // Of one that nobody had, the one who asks has it now.
                    let whose = match item {
                        Value::Nil => Some(claims[*at].event),
                        row => reply::bytes(row).and_then(read).map(|(_, whose)| whose),
                    };
                    found[*at] = Some(whose.ok_or_else(|| link.odd("a claim"))?);
                }
            }
        }
        Ok(found)
    }

    /// Takes the claims back of events that their lanes have lost; tells whether there were any.
    fn take_back(&self, claims: &[Claim], whose: &[Option<Claimant>]) -> Result<bool, StoreError> {
        let (link, layout) = (&self.store.link, self.store.layout());
        let others: Vec<(&Claim, Claimant)> = claims
            .iter()
            .zip(whose)
            .filter_map(|(claim, whose)| Some((claim, (*whose)?)))
            .filter(|(claim, whose)| *whose != claim.event && whose.lane < layout.lanes())
            .collect();
        let lanes: BTreeSet<u16> = others.iter().map(|(_, whose)| whose.lane).collect();
        let logs: Vec<String> =
            lanes.iter().map(|lane| self.store.keys.lane(&layout.tag(*lane), "log")).collect();
        let calls = logs.iter().map(|log| (&**log, functions::call("gaps", &[log], &[])));
        let answers = link.spread(calls.collect(), None, link.times().patience)?;
        let mut lost: BTreeMap<u16, Vec<Range<u64>>> = BTreeMap::new();
        for (lane, answer) in lanes.into_iter().zip(answers) {
            let text = reply::text(&answer).ok_or_else(|| link.odd("a lane's gaps"))?;
            lost.insert(lane, gaps(text).collect());
        }
        let mut calls: Vec<(String, Cmd)> = Vec::new();
        for (claim, whose) in others {
            let is_gone = lost[&whose.lane].iter().any(|gap| gap.contains(&whose.event.record));
            if is_gone {
                let key = self.key(claim);
                let row = row(&Claim { event: whose, ..*claim });
                let cmd = functions::call("disclaim", &[&key], &[&field(claim), &row[6..]]);
                calls.push((key, cmd));
            }
        }
        let any = !calls.is_empty();
        let calls = calls.iter_mut().map(|(key, cmd)| (&**key, std::mem::take(cmd))).collect();
        link.spread(calls, None, link.times().patience)?;
        Ok(any)
    }

    fn call<'c>(&self, claims: impl Iterator<Item = &'c Claim>) -> (String, Cmd) {
        let window = WINDOW.to_string();
        let mut keys = Vec::new();
        let mut rows = Vec::new();
        for claim in claims {
            keys.push(self.key(claim));
            rows.push((field(claim), row(claim)));
        }
        let first = keys.first().cloned().unwrap_or_default();
        let mut args: Vec<&[u8]> = vec![window.as_bytes()];
        for (field, row) in &rows {
            args.extend([&field[..], row]);
        }
        (first, functions::call("claim", &keys, &args))
    }
}

fn key(prefix: &str, passes: bool, bucket: u64) -> String {
    let mut key = String::with_capacity(prefix.len() + 6);
    key.push_str(prefix);
    key.push(kind(passes));
    _ = write!(key, ":{bucket}");
    key
}

fn field(claim: &Claim) -> [u8; 16] {
    let mut field = [0; 16];
    field[..8].copy_from_slice(&claim.hash[0].to_be_bytes());
    field[8..].copy_from_slice(&claim.hash[1].to_be_bytes());
    field
}

fn kind(passes: bool) -> char {
    if passes { 'm' } else { 'i' }
}

/// ```text
/// u48 received, ms · u16 lane · u48 record · u32 part, where it is not 0        big-endian
/// ```
fn row(claim: &Claim) -> Vec<u8> {
    let Claimant { lane, event } = claim.event;
    let received = u64::try_from(claim.received).unwrap_or(0);
    let mut row = Vec::with_capacity(18);
    row.extend(&received.to_be_bytes()[2..]);
    row.extend(lane.to_be_bytes());
    row.extend(&event.record.to_be_bytes()[2..]);
    if event.part > 0 {
        row.extend(event.part.to_be_bytes());
    }
    row
}

fn read(row: &[u8]) -> Option<(Millis, Claimant)> {
    let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |all, byte| all << 8 | u64::from(*byte));
    let (received, rest) = row.split_at_checked(6)?;
    let (lane, rest) = rest.split_at_checked(2)?;
    let (record, part) = rest.split_at_checked(6)?;
    if !matches!(part.len(), 0 | 4) {
        return None;
    }
    let event = EventNo { record: number(record), part: u32::try_from(number(part)).ok()? };
    let lane = u16::try_from(number(lane)).ok()?;
    Some((Millis::try_from(number(received)).ok()?, Claimant { lane, event }))
}

impl Port for Claims {
    fn look(&self, claims: &[Claim]) -> Result<Vec<Option<Claimant>>, StoreError> {
        let link = &self.store.link;
        let mut cmds = Vec::with_capacity(claims.len());
        for claim in claims {
            let key = self.key(claim);
            let mut cmd = Cmd::with_capacity(3, key.len() + 24);
            cmd.arg("HGET").arg(&key).arg(&field(claim)[..]);
            cmds.push((key, cmd));
        }
        let calls = cmds.iter_mut().map(|(key, cmd)| (&**key, std::mem::take(cmd))).collect();
        let answers = link.spread(calls, None, link.times().patience)?;
        let found = claims.iter().zip(answers).map(|(claim, answer)| {
            if answer == Value::Nil {
                return Ok(None);
            }
            let row = reply::bytes(&answer).and_then(read);
            let (received, whose) = row.ok_or_else(|| link.odd("a claim"))?;
            let counts =
                !claim.passes || claim.received.abs_diff(received) <= WINDOW.unsigned_abs();
            Ok(counts.then_some(whose))
        });
        found.collect()
    }

    fn claim(&self, claims: &[Claim]) -> Result<Vec<Claimant>, StoreError> {
        let link = &self.store.link;
        // Nearly all are new, and for these a plain command is a tenth of the work of a function.
        let mut first = HashMap::with_capacity(claims.len());
        let (mut places, mut cmds) = (Vec::with_capacity(claims.len()), Vec::new());
        for (at, claim) in claims.iter().enumerate() {
            if first.insert((claim.passes, claim.hash), at).is_none() {
                places.push(at);
                cmds.push(self.set(claim));
            }
        }
        let mut answers = Vec::with_capacity(cmds.len());
        for cmds in cmds.chunks_mut(BRIEFLY) {
            let calls = cmds.iter_mut().map(|(key, cmd)| (&**key, std::mem::take(cmd))).collect();
            answers.extend(link.spread(calls, None, link.times().patience)?);
        }
        let mut whose: Vec<Option<Claimant>> = vec![None; claims.len()];
        for (at, answer) in places.into_iter().zip(answers) {
            match reply::number(&answer) {
                Some(1) => whose[at] = Some(claims[at].event),
                Some(_) => {}
                None => return Err(link.odd("a claim")),
            }
        }
        let open: Vec<usize> = (0..claims.len()).filter(|at| whose[*at].is_none()).collect();
        let asked: Vec<Claim> = open.iter().map(|at| claims[*at]).collect();
        for (at, found) in open.into_iter().zip(self.ask(&asked)?) {
            whose[at] = found;
        }
        while self.take_back(claims, &whose)? {
            let others = |at: &usize| whose[*at].is_none_or(|whose| whose != claims[*at].event);
            let open: Vec<usize> = (0..claims.len()).filter(others).collect();
            let asked: Vec<Claim> = open.iter().map(|at| claims[*at]).collect();
            for (at, found) in open.into_iter().zip(self.ask(&asked)?) {
                whose[at] = found;
            }
        }
        let whose =
            whose.into_iter().map(|whose| whose.ok_or_else(|| link.odd("a claim that nobody has")));
        whose.collect()
    }

    fn sweep(&self, lane: u16, now: Millis) -> Result<(), StoreError> {
        let prefix = &self.prefixes[usize::from(lane)];
        // All of them in half a window.
        let turn = now.max(0).unsigned_abs() / SWEEP.unsigned_abs() % BUCKETS;
        let key = key(prefix, true, turn);
        let before = now.saturating_sub(WINDOW).max(0).to_string();
        let call = functions::call("sweep", &[&key], &[before.as_bytes()]);
        self.store.link.one(&key, call).map(drop)
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
                        let claim = claimed(&field, &row, *passes);
                        take(claim.ok_or_else(|| damaged(Malformed("a claim")))?)?;
                    }
                }
            }
            Ok(true)
        })
    }
}

/// A claim as it is kept.
fn claimed(field: &[u8], row: &[u8], passes: bool) -> Option<Claim> {
    let (high, low) = field.split_at_checked(8)?;
    let number = |bytes: &[u8]| Some(u64::from_be_bytes(bytes.try_into().ok()?));
    let hash = [number(high)?, number(low)?];
    let (received, event) = read(row)?;
    Some(Claim { hash, passes, received, event })
}
