//! The way of collected records into the lanes of a shared store, with no disk in between.
//!
//! One exchange is under way at a time, and what comes meanwhile goes together with the next: so a lane's frames
//! are as large as the load makes them, and none overtakes another.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Condvar;
use parking_lot::Mutex;

use super::claim::sent;
use super::split::Splitter;
use crate::model::hex;
use crate::store::StoreError;
use crate::store::claims::Claims;
use crate::store::intake::Intake;
use crate::store::intake::LaneFrame;
use crate::store::journal::Batch;
use crate::store::journal::JournalError;
use crate::store::journal::Sink;
use crate::store::lanes::Layout;
use crate::store::state::Identity;

/// Batches that go in one exchange take no more bytes than this, unless one alone does.
const GROUP: usize = 8 << 20;

/// Appends each record to the lane of its owner, as durably as the store's mode promises.
pub struct Router {
    intake: Arc<dyn Intake>,
    claims: Arc<dyn Claims>,
    splitter: Splitter,
    sender: String,
    queue: Mutex<Queue>,
    /// An exchange has ended.
    ended: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(u64, Batch)>,
    next_ticket: u64,
    /// Whether an exchange is under way.
    led: bool,
    /// The number of the last frame.
    number: u64,
    ended: BTreeMap<u64, Result<(), StoreError>>,
}

impl Router {
    /// A way into the lanes of a store, under a name that no other process has.
    pub fn new(
        intake: Arc<dyn Intake>,
        claims: Arc<dyn Claims>,
        identity: Identity,
        layout: Layout,
    ) -> Result<Self, StoreError> {
        let mut name = [0; 8];
        getrandom::fill(&mut name).map_err(|error| StoreError::Unavailable {
            what: "the system's random numbers".to_owned(),
            source: Box::new(error),
        })?;
        Ok(Self {
            intake,
            claims,
            splitter: Splitter::new(identity, layout),
            // The dot tells that nobody of this name comes back after a restart.
            sender: format!(".{}", hex(&name)),
            queue: Mutex::default(),
            ended: Condvar::new(),
        })
    }
}

impl Queue {
    /// Takes the batches that go next.
    fn group(&mut self) -> Vec<(u64, Batch)> {
        let mut bytes = 0;
        let mut group = Vec::new();
        while let Some((_, batch)) = self.waiting.front() {
            bytes += batch.bytes().len();
            if !group.is_empty() && bytes > GROUP {
                break;
            }
            group.extend(self.waiting.pop_front());
        }
        group
    }
}

impl Sink for Router {
    fn append(&self, batch: &Batch) -> Result<(), JournalError> {
        if batch.is_empty() {
            return Ok(());
        }
        let mut queue = self.queue.lock();
        queue.next_ticket += 1;
        let ticket = queue.next_ticket;
        queue.waiting.push_back((ticket, batch.clone()));
        loop {
            if let Some(result) = queue.ended.remove(&ticket) {
                return result.map_err(JournalError::from);
            }
            if queue.led {
                self.ended.wait(&mut queue);
                continue;
            }
            queue.led = true;
            let group = queue.group();
            let mut number = queue.number;
            drop(queue);
            let records = group.iter().flat_map(|(_, batch)| batch.records());
            let (split, messages) = self.splitter.split_noting(records);
            let frames = split
                .into_iter()
                .flat_map(|(lane, batches)| batches.into_iter().map(move |batch| (lane, batch)));
            let frames: Vec<LaneFrame> = frames
                .map(|(lane, batch)| {
                    number += 1;
                    LaneFrame { lane, number, batch }
                })
                .collect();
            let result = self.intake.append(&self.sender, &frames).map(|firsts| {
                if !messages.is_empty() {
                    sent(&*self.claims, &messages, &frames, &firsts);
                }
            });
            queue = self.queue.lock();
            queue.led = false;
            queue.number = number;
            for (ticket, _) in &group {
                let result = result.as_ref().copied().map_err(StoreError::again);
                queue.ended.insert(*ticket, result);
            }
            self.ended.notify_all();
        }
    }

    fn trouble(&self) -> Option<String> {
        self.intake.trouble()
    }

    fn lost(&self) -> u64 {
        self.intake.lost()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::tests::sent::Hand;
    use crate::ingest::tests::sent::batch;
    use crate::ingest::tests::sent::expected;
    use crate::ingest::tests::sent::held;
    use crate::store::redis::Claims as ClaimsInRedis;
    use crate::store::redis::Link;
    use crate::store::redis::Mode;
    use crate::store::redis::Store;
    use crate::store::redis::Streams;
    use crate::store::redis::tests::fresh_keys;
    use crate::store::redis::tests::proxy::Proxy;
    use crate::store::redis::tests::server::shared_cluster;
    use crate::store::redis::tests::server::shared_server;
    use crate::store::redis::tests::server::until;
    use crate::store::redis::tests::times;

    fn by_hand() -> (Arc<Hand>, Router) {
        let hand = Arc::new(Hand::default());
        let identity = Identity { shards: 16, key: [5; 16] };
        let link = Link::open(&shared_server().url(), times()).unwrap();
        let store = Store::open(link, fresh_keys(), 16, 4).unwrap();
        let claims = Arc::new(ClaimsInRedis::new(store));
        let router = Router::new(hand.clone(), claims, identity, Layout::new(16, 4));
        (hand, router.unwrap())
    }

    #[test]
    fn what_comes_while_an_exchange_is_under_way_goes_with_the_next() {
        let (hand, router) = by_hand();
        hand.set(|hand| hand.is_shut = true);
        std::thread::scope(|scope| {
            let append = |numbers: std::ops::Range<i64>| {
                let router = &router;
                scope.spawn(move || router.append(&batch(numbers)).unwrap());
            };
            append(0..1);
            hand.until(|hand| hand.calls == 1);
            append(1..3);
            append(3..7);
            until("both wait", || router.queue.lock().waiting.len() == 2);
            hand.set(|hand| hand.is_shut = false);
        });
        assert_eq!(hand.taken(), [1, 6]);
        router.append(&Batch::new()).unwrap();
        assert_eq!(hand.taken().len(), 2);
        hand.set(|hand| hand.lost = 9);
        assert_eq!(router.lost(), 9);
    }

    #[test]
    fn all_that_went_together_hear_of_a_failure_and_the_next_is_tried() {
        let (hand, router) = by_hand();
        hand.set(|hand| (hand.is_shut, hand.refuses) = (true, true));
        std::thread::scope(|scope| {
            let append = |number| {
                let router = &router;
                scope.spawn(move || router.append(&batch([number])))
            };
            let tries: Vec<_> = (0..3).map(append).collect();
            until("two wait", || router.queue.lock().waiting.len() == 2);
            hand.set(|hand| hand.is_shut = false);
            for tried in tries {
                let error = tried.join().unwrap().unwrap_err();
                assert!(matches!(error, JournalError::Store(_)), "{error:?}");
            }
        });
        assert_eq!(router.trouble().as_deref(), Some("it refuses"));
        hand.set(|hand| hand.refuses = false);
        router.append(&batch([3])).unwrap();
        assert_eq!((hand.taken(), router.trouble()), (vec![1], None));
    }

    #[test]
    fn appends_of_many_threads_are_in_the_lanes_once_whatever_is_lost_on_the_way() {
        let proxy = Proxy::before(shared_server().port);
        for url in [proxy.url(), shared_cluster().url()] {
            let link = Link::open(&url, times()).unwrap();
            let keys = fresh_keys();
            let store = Store::open(link.clone(), keys.clone(), 16, 5).unwrap();
            let streams = Arc::new(Streams::new(&store, Mode::Everysec));
            let claims = Arc::new(ClaimsInRedis::new(store.clone()));
            let router = Router::new(streams, claims, store.identity(), store.layout()).unwrap();
            std::thread::scope(|scope| {
                for thread in 0..4 {
                    let (router, proxy) = (&router, &proxy);
                    scope.spawn(move || {
                        for number in 0..50 {
                            if number % 10 == thread {
                                proxy.lose("_append");
                            }
                            let first = thread * 1_000 + number * 5;
                            router.append(&batch(first..first + 5)).unwrap();
                        }
                    });
                }
            });
            let held = held(&link, &keys, &store);
            for thread in 0..4 {
                let own = |number: &i64| number / 1_000 == thread;
                let held: Vec<Vec<i64>> =
                    held.iter().map(|lane| lane.iter().copied().filter(own).collect()).collect();
                assert_eq!(held, expected(&store, thread * 1_000..thread * 1_000 + 250));
            }
        }
        assert!(proxy.lost() > 0);
    }
}
