//! The streams of all lanes, as a sender sees them: it appends to many at once, and reads none.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Mutex;
use redis::Cmd;

use super::journal::Answer;
use super::journal::Numbered;
use super::journal::append_call;
use super::keys::Keys;
use super::link::Link;
use super::mode::Mode;
use super::reply;
use super::store::Store;
use crate::store::StoreError;
use crate::store::chain;
use crate::store::intake::Appended;
use crate::store::intake::FRAME;
use crate::store::intake::Intake;
use crate::store::intake::LaneFrame;
use crate::store::intake::Lost;

/// The streams of a store's lanes.
#[derive(Debug)]
pub struct Streams {
    link: Link,
    mode: Mode,
    lanes: Vec<Names>,
    /// Of each sender, what was acknowledged to it in each lane. Held while an append is under way: what a sender
    /// sent first must not come second.
    acknowledged: Mutex<BTreeMap<String, Known>>,
    refused: Mutex<Option<String>>,
}

/// What is known of a sender.
#[derive(Debug)]
struct Known {
    lanes: Vec<Acknowledged>,
    /// What lanes have lost, until the sender is told: before it is, they take nothing.
    lost: Option<Lost>,
}

/// What was acknowledged to a sender in one lane.
#[derive(Debug, Clone, Default)]
struct Acknowledged {
    /// The last frame.
    number: u64,
    /// When it was acknowledged.
    at: Option<Instant>,
    /// The last frames.
    frames: VecDeque<Sent>,
}

/// A frame that was acknowledged.
#[derive(Debug, Clone, Copy)]
struct Sent {
    first: u64,
    number: u64,
    bytes: u64,
}

/// What was acknowledged longer ago is not compared: a lane forgets who has sent it nothing for a week.
const COMPARED: Duration = Duration::from_secs(24 * 3600);

/// So many acknowledged frames are remembered for each lane, to tell how much of them was lost.
const REMEMBERED: usize = 4096;

impl Acknowledged {
    /// The number that the lane has to know.
    fn told(&self) -> u64 {
        let lately = self.at.is_some_and(|at| at.elapsed() < COMPARED);
        if lately { self.number } else { 0 }
    }

    fn add(&mut self, frames: &[Numbered<'_>]) {
        for frame in frames.iter().filter(|frame| frame.number > self.number) {
            let (first, number, bytes) = (frame.first, frame.number, frame.bytes());
            self.frames.push_back(Sent { first, number, bytes });
        }
        let surplus = self.frames.len().saturating_sub(REMEMBERED);
        self.frames.drain(..surplus);
        self.number = frames.iter().map(|frame| frame.number).fold(self.number, u64::max);
        self.at = Some(Instant::now());
    }

    /// Takes back what comes after a number; how much that is.
    fn take_back(&mut self, after: u64) -> Lost {
        self.number = after;
        let kept = self.frames.partition_point(|sent| sent.number <= after);
        // Where none before it is remembered, neither may be the first.
        let first = self.frames.get(kept).map(|sent| sent.first).filter(|_| kept > 0);
        let bytes = self.frames.drain(kept..).map(|sent| sent.bytes).sum();
        Lost { first: first.unwrap_or(after + 1), bytes }
    }
}

/// Both together.
fn both(one: Option<Lost>, other: Lost) -> Option<Lost> {
    let Some(one) = one else { return Some(other) };
    Some(Lost { first: one.first.min(other.first), bytes: one.bytes + other.bytes })
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
            refused: Mutex::default(),
        }
    }

    fn append_all(&self, sender: &str, frames: &[LaneFrame]) -> Result<Appended, StoreError> {
        let mut waiting: Vec<VecDeque<&LaneFrame>> = vec![VecDeque::new(); self.lanes.len()];
        // Of each lane, which frames are answered next.
        let mut open: Vec<VecDeque<usize>> = vec![VecDeque::new(); self.lanes.len()];
        for (at, frame) in frames.iter().enumerate() {
            waiting[usize::from(frame.lane)].push_back(frame);
            open[usize::from(frame.lane)].push_back(at);
        }
        let mut firsts = vec![None; frames.len()];
        let mut all = self.acknowledged.lock();
        let Known { lanes: acknowledged, lost } = of(&mut all, sender, self.lanes.len());
        if lost.is_some() {
            return Ok(Appended { firsts, lost: lost.take(), overlaps: false });
        }
        let mut overlaps = false;
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
                return Ok(Appended { firsts, lost: lost.take(), overlaps });
            }
            let call = |(lane, frames): &(usize, Vec<Numbered<'_>>)| {
                let names = &self.lanes[*lane];
                let told = acknowledged[*lane].told();
                (&*names.stream, append_call(&names.stream, &names.log, sender, told, frames))
            };
            let calls: Vec<(&str, Cmd)> = groups.iter().map(call).collect();
            let answers = self.link.spread(calls, self.mode.replicas(), patience)?;
            for ((lane, frames), answer) in groups.iter().zip(answers) {
                let answer =
                    Answer::read(&answer, frames).ok_or_else(|| self.link.odd("an append"))?;
                let known = &mut acknowledged[*lane];
                let taken = match answer {
                    Answer::Taken(taken) => taken,
                    Answer::Behind(after) => {
                        *lost = both(*lost, self.take_back(*lane, known, after));
                        waiting[*lane].clear();
                        continue;
                    }
                    Answer::Part => {
                        overlaps = true;
                        waiting[*lane].clear();
                        continue;
                    }
                };
                let group: Vec<usize> = open[*lane].drain(..frames.len()).collect();
                if taken.all_new {
                    let mut next = taken.next;
                    for (at, frame) in group.iter().zip(frames).rev() {
                        next = next.saturating_sub(u64::from(frame.records));
                        firsts[*at] = Some(next);
                    }
                }
                known.add(frames);
            }
        }
    }

    fn take_back(&self, lane: usize, known: &mut Acknowledged, after: u64) -> Lost {
        let lost = known.take_back(after);
        let stream = &self.lanes[lane].stream;
        tracing::error!(
            stream,
            bytes = lost.bytes,
            "acknowledged frames are gone: Redis came back without them, or failed over to a replica that had not \
             received them"
        );
        lost
    }
}

/// What is known of a sender.
fn of<'a>(all: &'a mut BTreeMap<String, Known>, sender: &str, lanes: usize) -> &'a mut Known {
    let none = || Known { lanes: vec![Acknowledged::default(); lanes], lost: None };
    all.entry(sender.to_owned()).or_insert_with(none)
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
        group.push(Numbered::new(next.first, next.number, &next.batch));
        waiting.pop_front();
    }
    group
}

impl Intake for Streams {
    fn append(&self, sender: &str, frames: &[LaneFrame]) -> Result<Appended, StoreError> {
        self.append_all(sender, frames)
            .inspect_err(|error| *self.refused.lock() = Some(chain(error)))
    }

    fn look(&self, sender: &str) -> Result<Option<Lost>, StoreError> {
        let mut all = self.acknowledged.lock();
        let Known { lanes: acknowledged, lost } = of(&mut all, sender, self.lanes.len());
        if lost.is_none() && acknowledged.iter().any(|known| known.told() > 0) {
            let numbers = self.taken(sender)?;
            for (lane, (known, number)) in acknowledged.iter_mut().zip(numbers).enumerate() {
                if number < known.told() {
                    *lost = both(*lost, self.take_back(lane, known, number));
                }
            }
        }
        Ok(lost.take())
    }

    fn acknowledged(&self, sender: &str) -> Vec<u64> {
        let mut all = self.acknowledged.lock();
        let known = of(&mut all, sender, self.lanes.len());
        known.lanes.iter().map(|known| known.number).collect()
    }

    fn resume(&self, sender: &str, acknowledged: &[u64]) {
        let mut all = self.acknowledged.lock();
        let known = of(&mut all, sender, self.lanes.len());
        for (known, number) in known.lanes.iter_mut().zip(acknowledged) {
            known.number = known.number.max(*number);
            known.at = Some(Instant::now());
        }
    }

    fn taken(&self, sender: &str) -> Result<Vec<u64>, StoreError> {
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
        Ok(answers.iter().map(|answer| number(answer).unwrap_or(0)).collect())
    }

    fn trouble(&self) -> Option<String> {
        let why = self.refused.lock().clone()?;
        // Calls that could write and do not.
        let call = |names: &Names| append_call(&names.stream, &names.log, ".", 0, &[]);
        let calls = self.lanes.iter().map(|names| (&*names.stream, call(names)));
        if self.link.spread(calls.collect(), None, Duration::ZERO).is_err() {
            return Some(why);
        }
        *self.refused.lock() = None;
        None
    }
}
