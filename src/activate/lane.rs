//! One destination: when it is due, what stands in its way, and the run for each of its segments.

use parking_lot::Mutex;
use std::cell::Cell;
use std::cell::OnceCell;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::VecDeque;

use super::audience::Activation;
use super::audience::NoAudience;
use super::basis::Basis;
use super::connector::Connector;
use super::connector::Place;
use super::connector::Verdict;
use super::report::DestinationStatus;
use super::report::PushReport;
use super::report::TargetStatus;
use super::run::Halt;
use super::run::Run;
use super::shared::Shared;
use super::snapshot;
use super::waterfall::Matched;
use super::waterfall::Waterfall;
use crate::config::Destination;
use crate::model::Identifier;
use crate::model::Millis;
use crate::model::time::DAY;
use crate::model::time::HOUR;
use crate::model::time::MINUTE;
use crate::model::time::SECOND;
use crate::model::time::day_of;
use crate::store::StoreError;
use crate::store::chain;
use crate::store::ledger::LastBatch;
use crate::store::ledger::Ledger;
use crate::store::ledger::Standing;
use crate::store::ledger::Target;

/// What fails for so long waits for someone to act.
const GIVE_UP: Millis = 72 * HOUR;
/// What a destination works on for longer than this it has forgotten: the slowest says that it takes a day.
const LONG_WORK: Millis = 48 * HOUR;
/// Where other segments wait, one is sent for so long and then comes after them.
const TURN: Millis = 30 * SECOND;

/// One destination.
pub(super) struct Lane {
    pub(super) destination: Destination,
    pub(super) connector: Box<dyn Connector>,
    /// Held for a whole run: a target has one caller at a time.
    running: Mutex<()>,
    state: Mutex<State>,
    /// What each segment was last in step with, and its last batch then.
    bases: Mutex<BTreeMap<String, (Basis, LastNo)>>,
}

/// The generation and number of a target's last batch.
type LastNo = Option<(u64, u64)>;

#[derive(Default)]
struct State {
    /// When the next run for all segments is due; `None` before the first.
    due: Option<Millis>,
    /// The platform asked for nothing to be sent before.
    not_before: Option<Millis>,
    /// Nothing can be done before, whatever is due: the last run did not get to its segments.
    unready_until: Option<Millis>,
    /// Runs in a row that failed as a whole.
    failures: u32,
    trouble: Option<String>,
    troubles: BTreeMap<String, Trouble>,
    /// When the oldest waiting batch of each segment was prepared.
    pending: BTreeMap<String, Millis>,
    /// Someone has paused it.
    is_paused: bool,
    /// The segment at which the destination asked to wait: those after it come first, the next time.
    last_served: Option<String>,
    /// The segments and steps that metrics show.
    measured: BTreeSet<(String, &'static str)>,
    last_run: Option<Millis>,
    last_success: Option<Millis>,
}

struct Trouble {
    failures: u32,
    /// When the first delivery that failed in a row did, or its batch was prepared; `None` where none was tried.
    since: Option<Millis>,
    /// `None` where it waits for someone to act.
    retry_at: Option<Millis>,
    /// It is looked at again, and waits for someone as it is now.
    is_drain: bool,
    is_pause: bool,
    message: String,
}

impl Trouble {
    fn waits_for_someone(&self) -> bool {
        self.retry_at.is_none() || self.is_drain
    }
}

/// Which segments a run is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    /// Those that are due and wait for nothing.
    Due,
    /// All, because someone asked.
    All,
}

/// What a run is to do for a segment.
#[derive(Default)]
struct Due {
    /// Its activation; what is held is taken back where there is none.
    activation: Option<Activation>,
    /// How many identifiers are held.
    held: u64,
    /// The last batch that was prepared.
    last: LastNo,
}

/// How a destination is brought up to date.
#[derive(Clone, Copy)]
pub(super) struct How {
    pub(super) which: Which,
    /// Counts what would be sent; sends and writes nothing.
    pub(super) dry_run: bool,
    /// Someone says that it is meant, where much is removed.
    pub(super) may_drain: bool,
    /// What is done before, as someone asked.
    pub(super) first: First,
}

/// What is done before a destination is brought up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum First {
    /// Nothing.
    Nothing,
    /// What was refused is forgotten, so that it is sent again.
    Replay,
    /// What is held counts as unsure, so that all of it is sent again.
    Resync,
    /// What is held is removed, so that all is added anew.
    Reseed,
}

/// How many rows of the ledger are changed at once.
const PAGE: usize = 4_096;

impl How {
    /// By schedule.
    pub(super) const DUE: Self =
        Self { which: Which::Due, dry_run: false, may_drain: false, first: First::Nothing };
    /// All of it, because someone asked.
    pub(super) const NOW: Self = Self { which: Which::All, ..Self::DUE };
}

impl Lane {
    pub(super) fn new(destination: Destination, connector: Box<dyn Connector>) -> Self {
        Self {
            destination,
            connector,
            running: Mutex::new(()),
            state: Mutex::new(State::default()),
            bases: Mutex::default(),
        }
    }

    /// When there is something to do.
    pub(super) fn next_run(&self) -> Millis {
        let state = self.state.lock();
        let due = state.due.unwrap_or(Millis::MIN);
        let retries = state.troubles.values().filter_map(|trouble| trouble.retry_at);
        let next = retries.fold(due, Millis::min);
        [state.not_before, state.unready_until].into_iter().flatten().fold(next, Millis::max)
    }

    /// Looks at all segments again as soon as it can, now that someone paused it or let it go on.
    pub(super) fn be_due(&self, is_paused: bool) {
        let mut state = self.state.lock();
        (state.is_paused, state.due) = (is_paused, None);
        if !is_paused {
            let troubles = state.troubles.values_mut().filter(|trouble| trouble.is_pause);
            troubles.for_each(|trouble| trouble.retry_at = Some(Millis::MIN));
        }
    }

    /// Looks at all segments again as soon as it can.
    pub(super) fn look_again(&self) {
        let mut state = self.state.lock();
        state.due = None;
        let troubles = state.troubles.values_mut().filter(|t| t.is_pause || t.is_drain);
        troubles.for_each(|trouble| trouble.retry_at = Some(Millis::MIN));
    }

    /// Brings the destination up to date; `None` while it is not known what is activated.
    pub(super) fn run(
        &self,
        shared: &Shared,
        how: How,
    ) -> Result<Option<Vec<PushReport>>, StoreError> {
        let How { which, dry_run, may_drain, first } = how;
        let _one_at_a_time = self.running.lock();
        let now = shared.clock.now();
        let targets = match self.targets(shared) {
            Ok(Some(targets)) => targets,
            Ok(None) => {
                self.state.lock().unready_until = Some(now + SECOND);
                return Ok(None);
            }
            Err(error) => {
                self.failed_whole(shared, now, &error);
                return Err(error);
            }
        };
        self.state.lock().unready_until = None;
        let is_paused = match shared.ledger.paused(&self.destination.name) {
            Ok(is_paused) => is_paused,
            Err(error) => {
                self.failed_whole(shared, now, &error);
                return Err(error);
            }
        };
        self.state.lock().is_paused = is_paused;
        let mut reports: Vec<PushReport> = Vec::new();
        let mut whole = true;
        let mut queue = self.queue(&targets, (which, now));
        let mut begun = BTreeSet::new();
        let mut lasts: BTreeMap<&str, LastNo> = BTreeMap::new();
        while let Some((segment, Due { activation, held, last })) = queue.pop_front() {
            let is_first_turn = begun.insert(segment.as_str());
            let others_wait = !queue.is_empty() && !dry_run;
            let target = Target::new(&self.destination.name, segment);
            let max_drain = if may_drain { 100 } else { self.destination.max_drain };
            let connector = &*self.connector;
            let run = Run {
                shared,
                connector,
                target: &target,
                destination: &self.destination,
                turn_ends: others_wait.then(|| shared.clock.now() + TURN),
                eligibility: OnceCell::new(),
                held: *held,
                dry_run,
                max_drain,
                is_paused,
                waits: if which == Which::Due { self.waits(segment) } else { None },
                place: OnceCell::new(),
                taken: Cell::new(0),
                found_bad: Cell::new(0),
                basis: RefCell::new(None),
                last: Cell::new(lasts.get(segment.as_str()).copied().flatten().or(*last)),
                in_doubt: Cell::new(false),
            };
            let mut report = PushReport::new(&target, dry_run);
            let first = if is_first_turn { first } else { First::Nothing };
            let basis = if dry_run { None } else { self.bases.lock().remove(segment) };
            let done = self
                .begin(shared, &target, (first, dry_run))
                .map(|is_as_it_was| {
                    // Who else has sent something meanwhile knows more.
                    let basis = basis.filter(|(_, at)| is_as_it_was && *at == run.last.get());
                    run.basis.replace(basis.map(|(basis, _)| basis));
                })
                .and_then(|()| match first {
                    // What is emptied has to be filled anew.
                    First::Reseed if !is_paused && is_there(shared, activation.as_ref()) => {
                        run.run(None, &mut report)
                    }
                    _ => Ok(()),
                })
                .and_then(|()| run.run(activation.as_ref(), &mut report));
            lasts.insert(segment.as_str(), run.last.get());
            // What a ledger that failed has done is not known.
            let is_known = !dry_run && !matches!(done, Err(Halt::Store(_)));
            if let Some(basis) = run.basis.take().filter(|_| is_known) {
                self.bases.lock().insert(segment.clone(), (basis, run.last.get()));
            }
            let done = run.write_whole(done, &mut report);
            let stop = matches!(done, Err(Halt::Stopping | Halt::Verdict(Verdict::Throttled(_))));
            if matches!(done, Err(Halt::Turn)) {
                queue.push_back((segment, &targets[segment]));
            } else if let Err(halt) = &done {
                report.trouble = Some(halt.to_string());
            }
            match reports.iter_mut().find(|earlier| earlier.segment == report.segment) {
                Some(earlier) => earlier.follow(report),
                None => reports.push(report),
            }
            if matches!(done, Err(Halt::Turn)) {
                continue;
            }
            if !dry_run {
                self.note(shared, &target, done);
            }
            if stop {
                whole = false;
                // Whoever comes after it is asked first the next time.
                self.state.lock().last_served = Some(segment.clone());
                break;
            }
        }
        if !dry_run {
            self.finish(shared, now, &targets, whole);
            self.measure(shared, &reports, &targets);
        }
        match shared.ledger.standings() {
            Ok(standings) => {
                for report in &mut reports {
                    if let Some(standing) =
                        standing(&standings, &report.destination, &report.segment)
                    {
                        (report.held, report.pending) = (standing.held, standing.prepared);
                    }
                }
                Ok(Some(reports))
            }
            Err(error) => {
                self.failed_whole(shared, shared.clock.now(), &error);
                Err(error)
            }
        }
    }

    /// What the platform says of how many it knows, where it says so.
    pub(super) fn matched(&self, shared: &Shared, segment: &str) -> Option<Matched> {
        let target = Target::new(&self.destination.name, segment);
        let place = match self.connector.place(segment) {
            Place::None => return None,
            Place::Named(place) => place,
            Place::Made => shared.ledger.place(&target).ok()?.filter(|place| place.len() > 1)?,
        };
        self.connector.matched(&place, shared.clock.now())
    }

    /// How the destination stands.
    pub(super) fn status(&self, standings: &[Standing]) -> DestinationStatus {
        let next_run = self.next_run();
        let state = self.state.lock();
        let name = &self.destination.name;
        let held = standings.iter().filter(|standing| standing.target.destination == *name);
        let segments: BTreeSet<&str> = held
            .map(|standing| standing.target.segment.as_str())
            .chain(state.troubles.keys().map(String::as_str))
            .collect();
        let segments = segments.into_iter().map(|segment| {
            let standing = standing(standings, name, segment);
            let trouble = state.troubles.get(segment);
            TargetStatus {
                segment: segment.to_owned(),
                held: standing.map_or(0, |standing| standing.held),
                pending: standing.map_or(0, |standing| standing.prepared),
                trouble: trouble.map(|trouble| trouble.message.clone()),
                parked: trouble.is_some_and(Trouble::waits_for_someone),
                retry_at: trouble.and_then(|trouble| trouble.retry_at),
            }
        });
        DestinationStatus {
            destination: self.destination.clone(),
            last_run: state.last_run,
            last_success: state.last_success,
            next_run: (next_run > Millis::MIN).then_some(next_run),
            paused: state.is_paused,
            oldest_pending: state.pending.values().min().copied(),
            trouble: state.trouble.clone(),
            segments: segments.collect(),
        }
    }

    /// Every segment that goes to the destination or is held there, with its activation where it has one.
    fn targets(&self, shared: &Shared) -> Result<Option<BTreeMap<String, Due>>, StoreError> {
        let name = &self.destination.name;
        let Some(activations) = shared.audiences.activations() else { return Ok(None) };
        let mut targets: BTreeMap<String, Due> = BTreeMap::new();
        for standing in shared.ledger.standings()? {
            if standing.target.destination == *name {
                let segment = standing.target.segment;
                let kept = shared.audiences.is_unreadable(&segment).then(|| Activation {
                    segment: segment.clone(),
                    destination: name.clone(),
                    identifiers: None,
                    min_size: 0,
                    is_own_min: true,
                });
                let due = Due { activation: kept, held: standing.held, last: None };
                targets.insert(segment, due);
            }
        }
        for segment in snapshot::owed(&*shared.ledger, &*self.connector, name)? {
            targets.entry(segment).or_default();
        }
        for activation in activations.into_iter().filter(|one| one.destination == *name) {
            let slot = &mut targets.entry(activation.segment.clone()).or_default().activation;
            match slot {
                None => *slot = Some(activation),
                // Two `[[activate]]` for one destination ask for what either asks for.
                Some(earlier) => {
                    earlier.identifiers = match (earlier.identifiers.take(), activation.identifiers)
                    {
                        (Some(mut these), Some(those)) => {
                            these.extend(those);
                            Some(these)
                        }
                        _ => None,
                    };
                }
            }
        }
        for LastBatch { segment, generation, seq } in shared.ledger.last_batches(name)? {
            if let Some(due) = targets.get_mut(&segment) {
                due.last = Some((generation, seq));
            }
        }
        self.bases.lock().retain(|segment, _| targets.contains_key(segment));
        Ok(Some(targets))
    }

    /// Does in the ledger what comes before a run for a target; tells whether nothing was to be done.
    fn begin(
        &self,
        shared: &Shared,
        target: &Target,
        (first, dry_run): (First, bool),
    ) -> Result<bool, Halt> {
        let ledger = &shared.ledger;
        let ttl = self.connector.caps().ttl.filter(|_| !dry_run);
        let mut is_as_it_was = first == First::Nothing;
        if let Some(ttl) = ttl {
            is_as_it_was &= !renew(&**ledger, target, ttl, shared.clock.now())?;
        }
        match first {
            First::Nothing | First::Reseed => {}
            First::Replay => loop {
                let refused = ledger.refused(target, None, PAGE)?;
                if refused.is_empty() {
                    break;
                }
                let refused: Vec<_> = refused.into_iter().map(|one| one.identifier).collect();
                ledger.forget_refused(target, &refused)?;
            },
            First::Resync => _ = doubt(&**ledger, target, &|_| true)?,
        }
        Ok(is_as_it_was)
    }

    /// The segments to be looked at, in turn: none has to wait for another for ever.
    fn queue<'t>(
        &self,
        targets: &'t BTreeMap<String, Due>,
        (which, now): (Which, Millis),
    ) -> VecDeque<(&'t String, &'t Due)> {
        let is_due = |segment: &str| which == Which::All || self.is_due(segment, now);
        let mut queue: VecDeque<_> =
            targets.iter().filter(|(segment, _)| is_due(segment)).collect();
        let last = self.state.lock().last_served.take();
        let before = last.map_or(0, |last| queue.partition_point(|(segment, _)| **segment <= last));
        queue.rotate_left(before.min(queue.len()));
        queue
    }

    fn is_due(&self, segment: &str, now: Millis) -> bool {
        let state = self.state.lock();
        if state.not_before.is_some_and(|not_before| now < not_before) {
            return false;
        }
        match state.troubles.get(segment) {
            Some(Trouble { retry_at: Some(retry_at), .. }) => *retry_at <= now,
            // What waits for someone keeps nobody there who leaves.
            _ => state.due.is_none_or(|due| due <= now),
        }
    }

    /// Why a segment waits for someone to act, where it does.
    fn waits(&self, segment: &str) -> Option<String> {
        let state = self.state.lock();
        let trouble = state.troubles.get(segment).filter(|trouble| trouble.retry_at.is_none());
        trouble.map(|trouble| trouble.message.clone())
    }

    /// Remembers how the run for one segment ended.
    fn note(&self, shared: &Shared, target: &Target, done: Result<(), Halt>) {
        let now = shared.clock.now();
        let oldest = || Some(shared.ledger.prepared(target).ok()?.first()?.prepared_at);
        let pending = match &done {
            Ok(()) => None,
            // What the destination works on waits for nobody, for a while.
            Err(Halt::Verdict(Verdict::NotReady(..))) => {
                oldest().filter(|since| now - since > LONG_WORK)
            }
            Err(_) => oldest(),
        };
        let mut state = self.state.lock();
        match pending {
            Some(since) => state.pending.insert(target.segment.clone(), since),
            None => state.pending.remove(&target.segment),
        };
        let halt = match done {
            Ok(()) => {
                if state.troubles.remove(&target.segment).is_some() {
                    tracing::info!(
                        destination = target.destination,
                        segment = target.segment,
                        "delivery goes on"
                    );
                }
                return;
            }
            Err(Halt::Stopping | Halt::Waits(_)) => return,
            Err(halt) => halt,
        };
        let before = state.troubles.get(&target.segment);
        // Nothing was tried while there is no audience: such a wait makes no later one longer.
        let tried = u32::from(!matches!(
            halt,
            Halt::NoAudience(_)
                | Halt::Unknown { .. }
                | Halt::Paused(_)
                | Halt::Verdict(Verdict::NotReady(..))
        ));
        let failures = before.map_or(0, |trouble| trouble.failures) + tried;
        let failing = before.and_then(|trouble| trouble.since);
        // To wait for an audience, or for someone's word, is no failure of the destination.
        let since = match &halt {
            Halt::Verdict(_) => Some(failing.or(pending).unwrap_or(now)),
            Halt::NoAudience(_)
            | Halt::Unknown { .. }
            | Halt::Drain { .. }
            | Halt::Paused(_)
            | Halt::Turn => None,
            Halt::Stopping | Halt::Waits(_) | Halt::Store(_) => failing,
        };
        let mut message = halt.to_string();
        let retry_at = match &halt {
            Halt::Verdict(Verdict::Fatal(_)) => None,
            Halt::Verdict(_) if since.is_some_and(|since| now - since >= GIVE_UP) => {
                message = format!("did not work for 72 hours: {message}");
                None
            }
            Halt::Verdict(Verdict::Throttled(until)) => {
                let until = until.unwrap_or(now + pause(failures));
                state.not_before = Some(until);
                Some(until)
            }
            Halt::Verdict(Verdict::NotReady(at, _)) => Some(*at),
            Halt::Store(error) if !error.is_retryable() => None,
            // It may be put right where the audience comes from.
            Halt::Drain { .. } | Halt::Paused(_) | Halt::Unknown { .. } => {
                Some(now + self.destination.every.0)
            }
            _ => Some(now + pause(failures)),
        };
        if matches!(halt, Halt::Store(_)) {
            shared.metrics.store_errors.with_label_values(&["ledger"]).inc();
        }
        if matches!(
            halt,
            Halt::NoAudience(NoAudience::NotWhole)
                | Halt::Paused(_)
                | Halt::Verdict(Verdict::NotReady(..))
        ) {
            // So it is for a while after each start, and while a destination works.
            tracing::debug!(
                destination = target.destination,
                segment = target.segment,
                trouble = message
            );
        } else if retry_at.is_some() {
            tracing::warn!(
                destination = target.destination,
                segment = target.segment,
                failures,
                trouble = message,
                "a delivery failed and is tried again"
            );
        } else {
            tracing::error!(
                destination = target.destination,
                segment = target.segment,
                trouble = message,
                "a delivery waits for someone to act; then push it again"
            );
        }
        let is_drain = matches!(halt, Halt::Drain { .. });
        let is_pause = matches!(halt, Halt::Paused(_));
        state.troubles.insert(
            target.segment.clone(),
            Trouble { failures, since, retry_at, is_drain, is_pause, message },
        );
    }

    /// Shows what is left at each step of the segments that were looked at.
    fn measure(&self, shared: &Shared, reports: &[PushReport], targets: &BTreeMap<String, Due>) {
        let mut state = self.state.lock();
        let gauges = &shared.metrics.waterfall;
        for report in reports.iter().filter(|report| report.generation.is_some()) {
            let whole = report.trouble.is_none();
            let steps = Waterfall::of(report, None).steps;
            // What is sent is known at the end alone.
            for step in steps.iter().take(if whole { steps.len() } else { 5 }) {
                let labels = [self.destination.name.as_str(), &report.segment, step.step];
                let count = i64::try_from(step.count).unwrap_or(i64::MAX);
                gauges.with_label_values(&labels).set(count);
                state.measured.insert((report.segment.clone(), step.step));
            }
        }
        state.measured.retain(|(segment, step)| {
            let stays = targets.contains_key(segment);
            if !stays {
                // It may have been taken out already.
                let _ = gauges.remove_label_values(&[&self.destination.name, segment, *step]);
            }
            stays
        });
    }

    /// Remembers that the run is over; if it broke off, the rest is due as soon as anything may be sent.
    fn finish(
        &self,
        shared: &Shared,
        started: Millis,
        targets: &BTreeMap<String, Due>,
        whole: bool,
    ) {
        let mut state = self.state.lock();
        state.troubles.retain(|segment, _| targets.contains_key(segment));
        state.pending.retain(|segment, _| targets.contains_key(segment));
        if whole && state.due.is_none_or(|due| due <= started) {
            state.due = Some(started + self.destination.every.0);
        }
        if state.not_before.is_some_and(|not_before| not_before <= started) {
            state.not_before = None;
        }
        if !whole {
            state.due = Some(started);
        }
        (state.failures, state.trouble) = (0, None);
        state.last_run = Some(started);
        if whole && state.troubles.is_empty() {
            state.last_success = Some(started);
        }
        let labels = [self.destination.name.as_str()];
        let parked = state.troubles.values().filter(|trouble| trouble.waits_for_someone()).count();
        let parked = i64::try_from(parked).unwrap_or(i64::MAX);
        shared.metrics.delivery_parked.with_label_values(&labels).set(parked);
        #[expect(clippy::cast_precision_loss, reason = "a time in seconds fits a float")]
        let oldest = state.pending.values().min().map_or(0.0, |oldest| *oldest as f64 / 1_000.0);
        shared.metrics.delivery_oldest_pending.with_label_values(&labels).set(oldest);
    }

    fn failed_whole(&self, shared: &Shared, now: Millis, error: &StoreError) {
        shared.metrics.store_errors.with_label_values(&["ledger"]).inc();
        tracing::error!(destination = self.destination.name, error = %chain(error),
            "the ledger cannot be read; deliveries wait");
        let mut state = self.state.lock();
        state.failures += 1;
        state.trouble = Some(chain(error));
        state.unready_until = Some(now + pause(state.failures));
    }
}

/// Whether there is an audience to fill a destination with.
fn is_there(shared: &Shared, activation: Option<&Activation>) -> bool {
    activation.is_some_and(|one| shared.audiences.audience(&one.segment).is_ok())
}

/// Counts what a target holds as unsure, so that it is sent again, where `is_due`; tells whether it was any.
fn doubt(
    ledger: &dyn Ledger,
    target: &Target,
    is_due: &dyn Fn(&Identifier) -> bool,
) -> Result<bool, Halt> {
    let (mut after, mut any) = (None, false);
    loop {
        let mut held = ledger.held(target, after.as_ref(), PAGE)?;
        let Some(last) = held.last() else { return Ok(any) };
        after = Some(last.identifier.clone());
        held.retain(|held| !held.unsure && is_due(&held.identifier));
        held.iter_mut().for_each(|held| held.unsure = true);
        if !held.is_empty() {
            ledger.take_held(target, &held)?;
            any = true;
        }
    }
}

/// Lets what a target holds be sent again before it ends there: each identifier on one day of half the time that it has. No
/// time is kept of each for that: which day it is follows from the identifier. Tells whether any is to be.
fn renew(ledger: &dyn Ledger, target: &Target, ttl: Millis, now: Millis) -> Result<bool, Halt> {
    let (days, today) = ((ttl / 2 / DAY).max(1), day_of(now));
    let last = match ledger.renewed(target)? {
        Some(last) if last == today => return Ok(false),
        // The clock was ahead: to wait for that day again would take too long.
        Some(last) if last > today => Some(today),
        last => last,
    };
    let mut any = false;
    if let Some(last) = last {
        any = doubt(ledger, target, &|identifier| {
            let text = [identifier.namespace.as_str(), identifier.value()].join("\0");
            let day = i64::from(crc32c::crc32c(text.as_bytes())) % days;
            // Whether one of the days after the last is this one.
            (day - (last + 1)).rem_euclid(days) < today - last
        })?;
    }
    ledger.set_renewed(target, today)?;
    Ok(any)
}

fn standing<'a>(
    standings: &'a [Standing],
    destination: &str,
    segment: &str,
) -> Option<&'a Standing> {
    standings.iter().find(|standing| {
        standing.target.destination == destination && standing.target.segment == segment
    })
}

/// How long to wait after so many failures in a row: between a second and five minutes, at random, so
/// that what failed together does not come back together.
fn pause(failures: u32) -> Millis {
    let longest = (SECOND << failures.min(9)).min(5 * MINUTE);
    let random = getrandom::u64().unwrap_or_default();
    let spread = u64::try_from(longest - SECOND).unwrap_or_default() + 1;
    SECOND + Millis::try_from(random % spread).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_five_minutes() {
        for failures in 1..40 {
            let longest = (2 * SECOND).saturating_mul(1 << failures.min(20)).min(5 * MINUTE);
            let pause = pause(failures);
            assert!((SECOND..=longest).contains(&pause), "{failures}: {pause}");
        }
        assert!((0..200).any(|_| pause(20) > MINUTE));
    }
}
