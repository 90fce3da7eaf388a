//! Fills the traits of live segments from the archive, beside the fold.

use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use super::Holding;
use super::Local;
use super::columns::Columns;
use super::saved::Of;
use super::saved::Saved;
use super::scan::Scan;
use super::scan::ScanError;
use crate::ingest::Traits;
use crate::metrics::Metrics;
use crate::model::Millis;
use crate::plan::TraitSet;
use crate::plan::TraitSpec;
use crate::segment::caller::percent;
use crate::segment::refresh::Compiled;
use crate::store::chain;

/// What is being filled.
#[derive(Debug, Default)]
pub(super) struct Fills {
    /// The one fill that runs, if any: new traits wait for it and are filled together.
    running: Mutex<Option<Arc<Running>>>,
    /// Why the last one did not come to its end, where it did not.
    failed: Arc<Mutex<Option<String>>>,
    /// The folder of the own disk that keeps what has been read of the archive, where there is one.
    dir: Option<PathBuf>,
    stop: Arc<AtomicBool>,
}

/// How far traits are filled.
#[derive(Debug, PartialEq)]
pub(super) enum Filled {
    Whole,
    /// So many percent have been read.
    Partly(u8),
    /// The past cannot be read, and why; it is tried again.
    Not(String),
}

#[derive(Debug)]
struct Running {
    percent: AtomicU8,
    is_done: AtomicBool,
}

impl Fills {
    /// With a folder of the own disk, which is made where it is needed, so that a fill goes on after a crash.
    pub(super) fn new(dir: Option<PathBuf>) -> Self {
        Self { dir, ..Self::default() }
    }

    /// Stops what runs; it goes on at the next start.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// How far these traits are filled in all lanes.
    pub(super) fn state<'a>(
        &self,
        specs: &[TraitSpec],
        mut lanes: impl Iterator<Item = &'a Traits>,
    ) -> Filled {
        let is_whole = lanes.all(|traits| {
            specs.iter().all(|spec| traits.id(spec).is_some_and(|id| traits.is_whole(id)))
        });
        if is_whole {
            return Filled::Whole;
        }
        if let Some(why) = &*self.failed.lock() {
            return Filled::Not(why.clone());
        }
        let running = self.running.lock();
        Filled::Partly(running.as_ref().map_or(0, |r| r.percent.load(Ordering::Relaxed)))
    }
}

impl Local {
    /// Sees to it that the traits of all live segments are folded, and are filled where they are new.
    /// Those that no segment asks any more are dropped when they were asked last so long ago as the settings say.
    pub(super) fn keep_traits(&self, holdings: &[Arc<Holding>], compiled: &Compiled, now: Millis) {
        let wanted = &compiled.wanted;
        for holding in holdings {
            let engine = &holding.lane.engine;
            let grace = self.grace;
            if !engine.traits().are_asked(wanted, now, grace)
                && let Err(error) = engine.ask_traits(wanted, now, grace)
            {
                tracing::error!(%error, "the traits of the live segments cannot be kept");
            }
        }
        let lacks =
            |holding: &&Arc<Holding>| holding.lane.engine.traits().unfilled().next().is_some();
        let lacking: Vec<Arc<Holding>> = holdings.iter().filter(lacks).cloned().collect();
        self.tell(holdings);
        if lacking.is_empty() {
            return;
        }
        let mut running = self.fills.running.lock();
        if running.as_ref().is_some_and(|running| !running.is_done.load(Ordering::Acquire)) {
            return;
        }
        let fill = Arc::new(Running { percent: AtomicU8::new(0), is_done: AtomicBool::new(false) });
        *running = Some(fill.clone());
        drop(running);
        let (workers, stop) = (self.workers.clone(), self.fills.stop.clone());
        let (dir, metrics) = (self.fills.dir.clone(), self.metrics.clone());
        let failed = self.fills.failed.clone();
        let done = Done(fill.clone());
        let spawned = std::thread::Builder::new().name(THREAD.into()).spawn(move || {
            let _done = done;
            let begun = Instant::now();
            let mut goes_on = || {
                if begun.elapsed() > CALM {
                    *failed.lock() = None;
                }
            };
            let run = || run(&lacking, &fill, &stop, dir.as_deref(), &metrics, &mut goes_on);
            match workers.guard(THREAD, run) {
                Some(Ok(count)) => {
                    *failed.lock() = None;
                    tracing::info!(traits = count, "{count} new traits are filled");
                }
                Some(Err(ScanError::Cancelled)) => {}
                Some(Err(error)) => {
                    let why = chain(&error);
                    tracing::error!(error = why, "new traits cannot be filled; trying again");
                    *failed.lock() = Some(format!("its past cannot be read: {why}"));
                    std::thread::sleep(PAUSE);
                }
                None => std::thread::sleep(PAUSE),
            }
        });
        if let Err(error) = spawned {
            tracing::error!(%error, "new traits cannot be filled");
        }
    }
}

impl Local {
    /// Tells how many traits are being filled, and how many nobody asks.
    fn tell(&self, holdings: &[Arc<Holding>]) {
        let (mut unfilled, mut unasked) = (0, 0);
        for holding in holdings {
            let traits = holding.lane.engine.traits();
            unfilled = unfilled.max(traits.unfilled().count());
            unasked = unasked.max(traits.unasked().count());
        }
        self.metrics.traits_unfilled.set(i64::try_from(unfilled).unwrap_or(i64::MAX));
        self.metrics.traits_unasked.set(i64::try_from(unasked).unwrap_or(i64::MAX));
        if unfilled == 0 {
            self.metrics.fill_percent.set(100);
        }
    }
}

/// The name of the thread.
const THREAD: &str = "fill";
/// How long a fill that failed waits before the next may begin.
const PAUSE: Duration = Duration::from_secs(1);
/// After so long a fill is said to go on, though the one before failed.
const CALM: Duration = Duration::from_secs(10);

/// Says that a fill is over, however it ended, or that it never began.
struct Done(Arc<Running>);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.is_done.store(true, Ordering::Release);
    }
}

/// Fills lane after lane; tells how many traits were filled in the one that lacked the most.
fn run(
    lacking: &[Arc<Holding>],
    fill: &Running,
    stop: &AtomicBool,
    dir: Option<&Path>,
    metrics: &Metrics,
    goes_on: &mut dyn FnMut(),
) -> Result<usize, ScanError> {
    let mut most = 0;
    for (place, holding) in lacking.iter().enumerate() {
        #[expect(clippy::cast_precision_loss, reason = "a share for a progress bar")]
        let mut progress = |share: f32| {
            let of_all = (place as f32 + share) / lacking.len() as f32;
            let percent = percent(of_all).min(99);
            fill.percent.store(percent, Ordering::Relaxed);
            metrics.fill_percent.set(percent.into());
            goes_on();
        };
        let saved = dir.map(|dir| dir.join(format!("lane-{}", holding.lane.number)));
        most = most.max(fill_lane(holding, &mut progress, stop, saved.as_deref())?);
    }
    Ok(most)
}

/// Fills one lane. What is read of the archive is kept in a file, where one is named, so that another try goes on.
fn fill_lane(
    holding: &Holding,
    progress: &mut dyn FnMut(f32),
    stop: &AtomicBool,
    saved: Option<&Path>,
) -> Result<usize, ScanError> {
    // What is not whole starts here: everything before the pin is read, all later is folded as it comes.
    let lane = &holding.lane;
    let engine = &lane.engine;
    let (held, pin) = lane.catalog.pin(&*lane.journal, |_| engine.restart_fill());
    let mut set = TraitSet::new();
    let mut ids = Vec::new();
    let mut texts = Vec::new();
    for id in pin.traits.unfilled() {
        if let Some(spec) = pin.traits.spec(id)
            && set.insert(id, spec.clone()).is_ok()
        {
            ids.push(id);
            texts.push((spec.to_string(), id));
        }
    }
    texts.sort_unstable();
    let mut columns = Columns::new(usize::from(engine.shards()));
    let scan = Scan { engine, pin: &pin, traits: &set, cancelled: stop };
    let mut saved = saved.map(|path| {
        let counted: BTreeSet<&str> = held.files.iter().map(|file| &*file.file).collect();
        let of = Of { store: engine.mark_of_store(), traits: &texts };
        let oldest = scan.oldest();
        Saved::open(path, &of, &|file| counted.contains(file), &mut |fact| {
            if fact.time >= oldest {
                columns.add(fact.profile, fact.id, fact.time, fact.value);
            }
        })
    });
    scan.all(held, &mut columns, saved.as_mut(), progress)?;
    for id in &ids {
        for shard in &lane.shards {
            engine.absorb(*id, *shard, columns.of(*id, *shard));
        }
    }
    let count = ids.len();
    let commit = engine.mark_whole(ids);
    // Until the columns are kept, what was read may be needed again.
    if let Some(saved) = saved {
        while !stop.load(Ordering::Acquire) && !engine.has_ended() {
            if engine.wait_for_commit(commit, PAUSE) {
                saved.remove();
                break;
            }
        }
    }
    Ok(count)
}

#[cfg(test)]
impl Local {
    /// Fills what the first lane lacks, and is stopped after so many steps; tells how much of the archive was
    /// read after each.
    pub(in crate::segment) fn fill_steps(
        &self,
        steps: usize,
    ) -> (Result<usize, ScanError>, Vec<f32>) {
        let holding = self.holdings().swap_remove(0);
        let stop = AtomicBool::new(steps == 0);
        let mut shares = Vec::new();
        let mut progress = |share: f32| {
            shares.push(share);
            stop.store(shares.len() == steps, Ordering::Relaxed);
        };
        let path = self.fills.dir.as_ref().map(|dir| dir.join("lane-0"));
        let filled = fill_lane(&holding, &mut progress, &stop, path.as_deref());
        (filled, shares)
    }

    /// The archive of the first lane.
    pub(in crate::segment) fn catalog(&self) -> Arc<crate::archive::Catalog> {
        self.holdings().swap_remove(0).lane.catalog.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fill_is_over_however_it_ends() {
        let fill = Arc::new(Running { percent: AtomicU8::new(0), is_done: AtomicBool::new(false) });
        let done = Done(fill.clone());
        let ended = std::thread::spawn(move || {
            let _done = done;
            panic!("as the test says");
        });
        assert!(ended.join().is_err());
        assert!(fill.is_done.load(Ordering::Acquire));
    }
}
