//! Message ids that events of other lanes may have: claimed before anything is counted.
//!
//! The first received is to stand. Who sends claims the ids of what it has appended, in the order in which they
//! came; so who folds waits for that, a moment, and claims itself what nobody has: the sender may have died.

use std::time::Duration;
use std::time::Instant;

use super::fold::Item;
use super::fold::Step;
use super::seen::Hash;
use super::split::Message;
use crate::model::Millis;
use crate::model::time::SECOND;
use crate::store::StoreError;
use crate::store::chain;
use crate::store::claims::Claim;
use crate::store::claims::Claimant;
use crate::store::claims::Claims;
use crate::store::intake::LaneFrame;
use crate::store::journal::EventNo;

/// How long who folds waits for who sent.
const PATIENCE: Duration = Duration::from_secs(1);
/// What was received longer ago is not waited for: its sender has long said what it had to.
const FRESH: Millis = 5 * SECOND;
const LOOK: Duration = Duration::from_millis(2);

/// An event whose message id is claimed.
#[derive(Debug)]
struct Wanted {
    event: Claimant,
    received: Millis,
    /// Among all events.
    recent: Option<Hash>,
    /// Among those of its import.
    imported: Option<Hash>,
    /// Whether another event has it.
    is_taken: bool,
    /// Whether it is known whose it is.
    is_settled: bool,
}

/// Claims the message ids of a frame's events; where another event has one, it counts as seen before.
pub(super) fn claim(
    claims: &dyn Claims,
    lane: u16,
    now: Millis,
    steps: &mut [Step],
) -> Result<(), StoreError> {
    let mut wanted = Vec::new();
    let mut places = Vec::new();
    for (place, step) in steps.iter().enumerate() {
        let Step::Event(item) = step else { continue };
        let Item { no, event, recent, imported, .. } = item;
        if recent.is_some() || imported.is_some() {
            wanted.push(Wanted {
                event: Claimant { lane, event: *no },
                received: event.received,
                recent: recent.map(|(hash, _)| hash),
                imported: imported.map(|(hash, _)| hash),
                is_taken: false,
                is_settled: false,
            });
            places.push(place);
        }
    }
    let is_fresh = wanted.iter().any(|wanted| now.saturating_sub(wanted.received) < FRESH);
    wait(claims, &mut wanted, if is_fresh { PATIENCE } else { Duration::ZERO })?;
    claim_all(claims, &mut wanted)?;
    for (place, wanted) in places.into_iter().zip(&wanted) {
        if let Step::Event(Item { recent: Some((_, is_seen)), .. }) = &mut steps[place] {
            *is_seen = wanted.is_taken;
        }
    }
    Ok(())
}

/// Looks whose they are, and waits a moment until all are somebody's. Of what is no line of an import that settles whose it is.
fn wait(claims: &dyn Claims, wanted: &mut [Wanted], patience: Duration) -> Result<(), StoreError> {
    let until = Instant::now() + patience;
    let ask = |(at, wanted): (usize, &Wanted)| Some((at, wanted.claim_of(wanted.recent, true)?));
    let (mut places, mut open): (Vec<usize>, Vec<Claim>) =
        wanted.iter().enumerate().filter_map(ask).unzip();
    loop {
        let found = claims.look(&open)?;
        let mut left = (Vec::new(), Vec::new());
        for ((at, claim), whose) in places.into_iter().zip(open).zip(found) {
            let wanted = &mut wanted[at];
            match whose {
                None => {
                    left.0.push(at);
                    left.1.push(claim);
                }
                // That of another may be gone: who claims it is told.
                Some(whose) => {
                    wanted.is_settled = wanted.imported.is_none() && whose == wanted.event;
                }
            }
        }
        (places, open) = left;
        if open.is_empty() || Instant::now() >= until {
            return Ok(());
        }
        std::thread::sleep(LOOK);
    }
}

/// Claims the message ids of what was appended, in the order in which it came. What is not known of is left to who
/// folds; so is all of it where the store does not answer now.
pub(super) fn sent(
    claims: &dyn Claims,
    messages: &[Message],
    frames: &[LaneFrame],
    firsts: &[Option<u64>],
) {
    let mut wanted = found(messages, frames, firsts);
    if let Err(error) = claim_all(claims, &mut wanted) {
        tracing::warn!(error = %chain(&error), "message ids are left to be claimed by who folds them");
    }
}

/// What is known of where it lies.
fn found(messages: &[Message], frames: &[LaneFrame], firsts: &[Option<u64>]) -> Vec<Wanted> {
    let mut of_lane: Vec<Vec<Option<u64>>> = Vec::new();
    for (frame, first) in frames.iter().zip(firsts) {
        let lane = usize::from(frame.lane);
        if of_lane.len() <= lane {
            of_lane.resize_with(lane + 1, Vec::new);
        }
        of_lane[lane].push(*first);
    }
    let wanted = messages.iter().filter_map(|message| {
        let first = (*of_lane.get(usize::from(message.lane))?.get(message.frame)?)?;
        let event = EventNo { record: first + u64::from(message.record), part: message.part };
        Some(Wanted {
            event: Claimant { lane: message.lane, event },
            received: message.received,
            recent: Some(message.recent),
            imported: message.imported,
            is_taken: false,
            is_settled: false,
        })
    });
    wanted.collect()
}

fn claim_all(claims: &dyn Claims, wanted: &mut [Wanted]) -> Result<(), StoreError> {
    // Those of an import first: what it has brought before claims nothing more.
    of_set(claims, wanted, |wanted| wanted.imported, false)?;
    of_set(claims, wanted, |wanted| wanted.recent, true)
}

fn of_set(
    claims: &dyn Claims,
    wanted: &mut [Wanted],
    hash: impl Fn(&Wanted) -> Option<Hash>,
    passes: bool,
) -> Result<(), StoreError> {
    let open = wanted.iter_mut().filter(|wanted| !wanted.is_taken && !wanted.is_settled);
    let (asked, open): (Vec<Claim>, Vec<&mut Wanted>) =
        open.filter_map(|wanted| Some((wanted.claim_of(hash(wanted), passes)?, wanted))).unzip();
    if asked.is_empty() {
        return Ok(());
    }
    for (wanted, whose) in open.into_iter().zip(claims.claim(&asked)?) {
        wanted.is_taken = whose != wanted.event;
    }
    Ok(())
}

impl Wanted {
    fn claim_of(&self, hash: Option<Hash>, passes: bool) -> Option<Claim> {
        Some(Claim { hash: hash?, passes, received: self.received, event: self.event })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;
    use std::sync::atomic::Ordering;

    use parking_lot::Mutex;

    use super::*;
    use crate::ingest::split::Splitter;
    use crate::ingest::tests::world::event;
    use crate::model::ImportLines;
    use crate::model::Record;
    use crate::model::record::ImportedEvent;
    use crate::store::claims::TakeClaimed;
    use crate::store::journal::Batch;
    use crate::store::lanes::Layout;
    use crate::store::state::Identity;

    /// Claims in memory.
    #[derive(Debug, Default)]
    struct Book {
        claimed: Mutex<HashMap<(Hash, bool), Claimant>>,
        looks: AtomicU64,
    }

    impl Claims for Book {
        fn look(&self, claims: &[Claim]) -> Result<Vec<Option<Claimant>>, StoreError> {
            self.looks.fetch_add(1, Ordering::Relaxed);
            let claimed = self.claimed.lock();
            Ok(claims
                .iter()
                .map(|claim| claimed.get(&(claim.hash, claim.passes)).copied())
                .collect())
        }

        fn claim(&self, claims: &[Claim]) -> Result<Vec<Claimant>, StoreError> {
            let mut claimed = self.claimed.lock();
            let mut one =
                |claim: &Claim| *claimed.entry((claim.hash, claim.passes)).or_insert(claim.event);
            Ok(claims.iter().map(&mut one).collect())
        }

        fn sweep(&self, _lane: u16, _now: Millis) -> Result<(), StoreError> {
            Ok(())
        }

        fn each(&self, take: TakeClaimed<'_>) -> Result<(), StoreError> {
            let claimed = self.claimed.lock();
            claimed.iter().try_for_each(|((hash, passes), event)| {
                take(Claim { hash: *hash, passes: *passes, received: 0, event: *event })
            })
        }
    }

    fn with_id(user: u32, id: &str) -> crate::model::Event {
        let mut event = event(&(user + 1).to_string(), "buy", 1);
        event.message_id = Some(id.into());
        event
    }

    #[test]
    fn what_was_sent_is_claimed_in_the_order_in_which_it_came() {
        let splitter = Splitter::new(Identity { shards: 8, key: [3; 16] }, Layout::new(8, 4));
        let mut batch = Batch::new();
        for user in 0..20 {
            batch.push_event(&with_id(user, &format!("m{}", user % 7))).unwrap();
        }
        let lines = (20..60).map(|user| ImportedEvent {
            line: u64::from(user),
            own_message_id: user % 3 != 0,
            event: with_id(user, &format!("m{}", user % 11)),
        });
        let lines = ImportLines {
            import: "i".into(),
            first_line: 1,
            lines: 60,
            events: lines.collect(),
            rejected: Vec::new(),
        };
        batch.push(&Record::Import(lines)).unwrap();
        let (split, messages) = splitter.split_noting(batch.records());
        let mut frames = Vec::new();
        for (lane, batches) in split {
            for batch in batches {
                let number = frames.len() as u64 + 1;
                frames.push(LaneFrame { lane, first: number, number, batch });
            }
        }
        let firsts: Vec<Option<u64>> =
            frames.iter().map(|frame| Some(1000 * u64::from(frame.lane))).collect();
        let book = Book::default();
        sent(&book, &messages, &frames, &firsts);

        // What each event is, where it lies now.
        let mut found: Vec<(u32, Claimant)> = Vec::new();
        for (frame, first) in frames.iter().zip(&firsts) {
            for (record, bytes) in (first.unwrap()..).zip(frame.batch.records()) {
                let mut note = |part, event: &crate::model::Event| {
                    let user = event.owner().value().parse::<u32>().unwrap() - 1;
                    let no = EventNo { record, part };
                    found.push((user, Claimant { lane: frame.lane, event: no }));
                };
                match Record::decode(bytes).unwrap() {
                    Record::Event(event) => note(0, &event),
                    Record::Import(lines) => {
                        (0..).zip(&lines.events).for_each(|(part, line)| note(part, &line.event));
                    }
                    Record::Choice(_) | Record::Erase(_) | Record::OptOut(_) => {
                        unreachable!("none was made")
                    }
                }
            }
        }
        assert_eq!(found.len(), 60);
        // Of each id the first has it: 0 to 6 of the events, and of the import what only it has.
        let claimed = book.claimed.lock();
        let mut owners: Vec<u32> = claimed
            .iter()
            .filter(|((_, passes), _)| *passes)
            .map(|(_, claimant)| found.iter().find(|(_, event)| event == claimant).unwrap().0)
            .collect();
        owners.sort_unstable();
        let first = |id: u32| (20..60).find(|user| user % 11 == id && user % 3 != 0).unwrap();
        let expected: Vec<u32> = (0..7).chain((7..11).map(first)).collect();
        assert_eq!(owners.len(), expected.len());
        for user in expected {
            assert!(owners.contains(&user), "{user} of {owners:?}");
        }
    }

    #[test]
    fn who_folds_waits_for_who_sent_and_claims_what_nobody_does() {
        let book = Arc::new(Book::default());
        let claim = |lane, record| {
            let event = Claimant { lane, event: EventNo { record, part: 0 } };
            Claim { hash: [1, 1], passes: true, received: 0, event }
        };
        let wanted = || {
            let Claim { event, received, .. } = claim(2, 5);
            vec![Wanted {
                event,
                received,
                recent: Some([1, 1]),
                imported: None,
                is_taken: false,
                is_settled: false,
            }]
        };
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let mut wanted = wanted();
                wait(&*book, &mut wanted, PATIENCE).unwrap();
                claim_all(&*book, &mut wanted).unwrap();
                wanted[0].is_taken
            });
            while book.looks.load(Ordering::Relaxed) < 2 {
                std::thread::yield_now();
            }
            book.claim(&[claim(0, 9)]).unwrap();
            assert!(waiting.join().unwrap());
        });
        book.claimed.lock().clear();
        let mut wanted = wanted();
        wait(&*book, &mut wanted, PATIENCE).unwrap();
        claim_all(&*book, &mut wanted).unwrap();
        assert!(!wanted[0].is_taken);
    }
}
