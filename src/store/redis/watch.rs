//! Looks now and then where the journals end that a process follows, so that each need not ask for itself.

use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;

use super::journal::Shared;

/// Between two looks.
const EVERY: Duration = Duration::from_millis(10);
/// Between two looks while the store is out of reach.
const PAUSE: Duration = Duration::from_millis(200);

/// The journals that are followed.
#[derive(Debug, Default)]
pub(super) struct Watch {
    watched: Mutex<Vec<Weak<Shared>>>,
    runs: AtomicBool,
}

impl Watch {
    /// Follows a journal as long as it is there.
    pub(super) fn follow(self: &Arc<Self>, journal: &Arc<Shared>) {
        self.watched.lock().push(Arc::downgrade(journal));
        if !self.runs.swap(true, Ordering::AcqRel) {
            let watch = self.clone();
            let spawned =
                std::thread::Builder::new().name("watch".into()).spawn(move || watch.run());
            if let Err(error) = spawned {
                tracing::error!(%error, "journals are followed one by one");
                self.runs.store(false, Ordering::Release);
                return;
            }
        }
        journal.is_watched.store(true, Ordering::Release);
    }

    /// Looks until nothing is followed any more.
    fn run(&self) {
        loop {
            let journals: Vec<Arc<Shared>> = {
                let mut watched = self.watched.lock();
                watched.retain(|journal| journal.strong_count() > 0);
                if watched.is_empty() {
                    // Under the lock: who follows next starts another.
                    self.runs.store(false, Ordering::Release);
                    return;
                }
                watched.iter().filter_map(Weak::upgrade).collect()
            };
            let well = Shared::look(&journals);
            drop(journals);
            std::thread::sleep(if well { EVERY } else { PAUSE });
        }
    }
}
