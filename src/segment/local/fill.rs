//! Fills the traits of live segments from the archive, beside the fold.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Holding;
use super::Local;
use super::columns::Columns;
use super::scan::Scan;
use super::scan::ScanError;
use crate::ingest::Traits;
use crate::plan::TraitSet;
use crate::plan::TraitSpec;
use crate::segment::caller::percent;
use crate::segment::refresh::Compiled;

/// What is being filled.
#[derive(Debug, Default)]
pub(super) struct Fills {
    /// The one fill that runs, if any: new traits wait for it and are filled together.
    running: Mutex<Option<Arc<Running>>>,
    stop: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Running {
    percent: AtomicU8,
    is_done: AtomicBool,
}

impl Fills {
    /// Stops what runs; it is begun anew at the next start.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// `None` where all of these traits are whole in all lanes, else how many percent have been read.
    pub(super) fn state<'a>(
        &self,
        specs: &[TraitSpec],
        mut lanes: impl Iterator<Item = &'a Traits>,
    ) -> Option<u8> {
        let is_whole = lanes.all(|traits| {
            specs.iter().all(|spec| traits.id(spec).is_some_and(|id| traits.is_whole(id)))
        });
        if is_whole {
            return None;
        }
        let running = self.running.lock();
        Some(running.as_ref().map_or(0, |running| running.percent.load(Ordering::Relaxed)))
    }
}

impl Local {
    /// Sees to it that the traits of all live segments are folded, and are filled where they are new.
    pub(super) fn keep_traits(&self, holdings: &[Arc<Holding>], compiled: &Compiled) {
        let mut wanted: BTreeMap<String, &TraitSpec> = BTreeMap::new();
        for specs in compiled.traits.values().flatten() {
            for spec in specs {
                wanted.entry(spec.to_string()).or_insert(spec);
            }
        }
        let wanted: Vec<TraitSpec> = wanted.into_values().cloned().collect();
        for holding in holdings {
            let engine = &holding.lane.engine;
            let before = engine.traits();
            let is_same = before.ids().count() == wanted.len()
                && wanted.iter().all(|spec| before.id(spec).is_some());
            if !is_same && let Err(error) = engine.set_traits(&wanted) {
                tracing::error!(%error, "the traits of the live segments cannot be kept");
            }
        }
        let lacks =
            |holding: &&Arc<Holding>| holding.lane.engine.traits().unfilled().next().is_some();
        let lacking: Vec<Arc<Holding>> = holdings.iter().filter(lacks).cloned().collect();
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
        let done = Done(fill.clone());
        let spawned = std::thread::Builder::new().name(THREAD.into()).spawn(move || {
            let _done = done;
            match workers.guard(THREAD, || run(&lacking, &fill, &stop)) {
                Some(Ok(count)) => tracing::info!(traits = count, "{count} new traits are filled"),
                Some(Err(ScanError::Cancelled)) => {}
                Some(Err(error)) => {
                    tracing::error!(%error, "new traits cannot be filled; trying again");
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

/// The name of the thread.
const THREAD: &str = "fill";
/// How long a fill that failed waits before the next may begin.
const PAUSE: Duration = Duration::from_secs(1);

/// Says that a fill is over, however it ended, or that it never began.
struct Done(Arc<Running>);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.is_done.store(true, Ordering::Release);
    }
}

/// Fills lane after lane; tells how many traits were filled in the one that lacked the most.
fn run(lacking: &[Arc<Holding>], fill: &Running, stop: &AtomicBool) -> Result<usize, ScanError> {
    let mut most = 0;
    for (place, holding) in lacking.iter().enumerate() {
        #[expect(clippy::cast_precision_loss, reason = "a share for a progress bar")]
        let mut progress = |share: f32| {
            let of_all = (place as f32 + share) / lacking.len() as f32;
            fill.percent.store(percent(of_all).min(99), Ordering::Relaxed);
        };
        most = most.max(fill_lane(holding, &mut progress, stop)?);
    }
    Ok(most)
}

fn fill_lane(
    holding: &Holding,
    progress: &mut dyn FnMut(f32),
    stop: &AtomicBool,
) -> Result<usize, ScanError> {
    // What is not whole starts here: everything before the pin is read, all later is folded as it comes.
    let lane = &holding.lane;
    let engine = &lane.engine;
    let (held, pin) = lane.catalog.pin(&*lane.journal, |_| engine.restart_fill());
    let mut set = TraitSet::new();
    let mut ids = Vec::new();
    for id in pin.traits.unfilled() {
        if let Some(spec) = pin.traits.spec(id)
            && set.insert(id, spec.clone()).is_ok()
        {
            ids.push(id);
        }
    }
    let mut columns = Columns::new(usize::from(engine.shards()));
    let scan = Scan { engine, pin: &pin, traits: &set, cancelled: stop };
    scan.all(held, &mut columns, progress)?;
    for id in &ids {
        for shard in &lane.shards {
            engine.absorb(*id, *shard, columns.of(*id, *shard));
        }
    }
    let count = ids.len();
    engine.mark_whole(ids);
    Ok(count)
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
