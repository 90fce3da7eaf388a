//! The streams of all lanes, as a sender sees them: it appends to many at once, and reads none.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use redis::Cmd;

use super::journal::Numbered;
use super::journal::Taken;
use super::journal::append_call;
use super::keys::Keys;
use super::link::Link;
use super::mode::Mode;
use super::reply;
use super::store::Store;
use crate::store::StoreError;
use crate::store::chain;
use crate::store::intake::FRAME;
use crate::store::intake::Intake;
use crate::store::intake::LaneFrame;

/// The streams of a store's lanes.
#[derive(Debug)]
pub struct Streams {
    link: Link,
    mode: Mode,
    lanes: Vec<Names>,
    /// Of each sender, what was acknowledged to it last in each lane. Held while an append is under way: what a sender
    /// sent first must not come second.
    acknowledged: Mutex<BTreeMap<String, Vec<Acknowledged>>>,
    lost: AtomicU64,
    refused: Mutex<Option<String>>,
}

/// The last frame that was acknowledged, and the end it got.
#[derive(Debug, Clone, Copy, Default)]
struct Acknowledged {
    number: u64,
    end: u64,
}

/// A lane's keys.
#[derive(Debug)]
struct Names {
    stream: String,
    log: String,
}

impl Names {
    fn of(keys: &Keys, tag: &str) -> Self {
        Self { stream: keys.lane(tag, "ev"), log: keys.lane(tag, "log") }
    }
}

impl Streams {
    /// The streams of a store.
    pub fn new(store: &Store, mode: Mode) -> Self {
        let layout = store.layout();
        let names = |lane| Names::of(&store.keys, &layout.tag(lane));
        let lanes: Vec<_> = (0..layout.lanes()).map(names).collect();
        Self {
            link: store.link.clone(),
            mode,
            acknowledged: Mutex::default(),
            lanes,
            lost: AtomicU64::new(0),
            refused: Mutex::default(),
        }
    }

    fn append_all(
        &self,
        sender: &str,
        frames: &[LaneFrame],
    ) -> Result<Vec<Option<u64>>, StoreError> {
        let mut waiting: Vec<VecDeque<&LaneFrame>> = vec![VecDeque::new(); self.lanes.len()];
        // Of each lane, which frames are answered next.
        let mut open: Vec<VecDeque<usize>> = vec![VecDeque::new(); self.lanes.len()];
        for (at, frame) in frames.iter().enumerate() {
            waiting[usize::from(frame.lane)].push_back(frame);
            open[usize::from(frame.lane)].push_back(at);
        }
        let mut firsts = vec![None; frames.len()];
        let mut all = self.acknowledged.lock();
        let acknowledged = all
            .entry(sender.to_owned())
            .or_insert_with(|| vec![Acknowledged::default(); self.lanes.len()]);
        let patience = self.link.times().patience;
        loop {
            // A lane gets one call at a time: of two, the second could be done without the first, whose frames
            // would then count as taken.
            let groups: Vec<(usize, Vec<Numbered<'_>>)> = waiting
                .iter_mut()
                .enumerate()
                .map(|(lane, waiting)| (lane, group(waiting)))
                .filter(|(_, group)| !group.is_empty())
                .collect();
            if groups.is_empty() {
                return Ok(firsts);
            }
            let call = |(lane, frames): &(usize, Vec<Numbered<'_>>)| {
                let names = &self.lanes[*lane];
                (&*names.stream, append_call(&names.stream, &names.log, sender, frames))
            };
            let calls: Vec<(&str, Cmd)> = groups.iter().map(call).collect();
            let answers = self.link.spread(calls, self.mode.replicas(), patience)?;
            for ((lane, frames), answer) in groups.iter().zip(answers) {
                let taken =
                    Taken::read(&answer, frames).ok_or_else(|| self.link.odd("an append"))?;
                let group: Vec<usize> = open[*lane].drain(..frames.len()).collect();
                if taken.all_new {
                    let mut next = taken.next;
                    for (at, frame) in group.iter().zip(frames).rev() {
                        next = next.saturating_sub(u64::from(frame.records));
                        firsts[*at] = Some(next);
                    }
                }
                let last = &mut acknowledged[*lane];
                // What is sent again lies before it.
                if frames[0].number > last.number {
                    self.note_lost(*lane, taken.lost_since(last.end));
                }
                let number = frames.last().map_or(0, |frame| frame.number);
                *last = Acknowledged { number: last.number.max(number), end: taken.end };
            }
        }
    }

    fn note_lost(&self, lane: usize, lost: u64) {
        if lost > 0 {
            self.lost.fetch_add(lost, Ordering::Relaxed);
            let stream = &self.lanes[lane].stream;
            tracing::error!(
                stream,
                lost,
                "acknowledged frames are gone: a failover lost bytes of them"
            );
        }
    }
}

/// The next frames of a lane that go in one call.
fn group<'f>(waiting: &mut VecDeque<&'f LaneFrame>) -> Vec<Numbered<'f>> {
    let mut group = Vec::new();
    let mut bytes = 0;
    while let Some(next) = waiting.front() {
        bytes += next.batch.bytes().len();
        if !group.is_empty() && bytes > FRAME {
            break;
        }
        group.push(Numbered::new(next.number, &next.batch));
        waiting.pop_front();
    }
    group
}

impl Intake for Streams {
    fn append(&self, sender: &str, frames: &[LaneFrame]) -> Result<Vec<Option<u64>>, StoreError> {
        self.append_all(sender, frames)
            .inspect_err(|error| *self.refused.lock() = Some(chain(error)))
    }

    fn last_number(&self, sender: &str) -> Result<u64, StoreError> {
        let calls = self.lanes.iter().map(|names| {
            let mut cmd = redis::cmd("HMGET");
            cmd.arg(&names.log).arg(format!("n:{sender}"));
            (&*names.log, cmd)
        });
        let answers = self.link.spread(calls.collect(), None, self.link.times().patience)?;
        let number = |answer| {
            let mark = reply::text(reply::items(answer)?.first()?)?;
            mark.split(' ').next()?.parse().ok()
        };
        Ok(answers.iter().filter_map(number).max().unwrap_or(0))
    }

    fn trouble(&self) -> Option<String> {
        let why = self.refused.lock().clone()?;
        // Calls that could write and do not.
        let calls = self
            .lanes
            .iter()
            .map(|names| (&*names.stream, append_call(&names.stream, &names.log, ".", &[])));
        if self.link.spread(calls.collect(), None, Duration::ZERO).is_err() {
            return Some(why);
        }
        *self.refused.lock() = None;
        None
    }

    fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}
