//! Threads of their own: one that panics is told, counted, and known to the probes.

use std::collections::BTreeSet;
use std::io;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::thread::Builder;
use std::thread::JoinHandle;

use parking_lot::Mutex;

use crate::metrics::Metrics;

/// Starts the process's threads, and knows which of them have died. A clone is the same.
#[derive(Debug, Clone)]
pub struct Workers {
    metrics: Metrics,
    dead: Arc<Mutex<BTreeSet<String>>>,
}

impl Workers {
    /// None yet; panics are counted in these metrics.
    pub fn new(metrics: Metrics) -> Self {
        Self { metrics, dead: Arc::default() }
    }

    /// Starts a thread that the process cannot do without. A panic ends it, and [`Workers::dead`] names it
    /// from then on: only a restart helps. The name is from the program or its configuration.
    pub fn spawn(
        &self,
        name: impl Into<String>,
        work: impl FnOnce() + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        let (workers, name) = (self.clone(), name.into());
        Builder::new().name(name.clone()).spawn(move || {
            if workers.guard(&name, work).is_none() {
                workers.dead.lock().insert(name);
            }
        })
    }

    /// Runs work that its caller tries again; `None` where it panicked, which is told and counted.
    pub fn guard<T>(&self, name: &str, work: impl FnOnce() -> T) -> Option<T> {
        // What the work shared is dropped with it, or is behind locks that a panic does not poison.
        let done = catch_unwind(AssertUnwindSafe(work));
        if done.is_err() {
            // What the panic said is on standard error, and may hold anything.
            tracing::error!(thread = name, "the thread {name} panicked");
            self.metrics.thread_panics.with_label_values(&[name]).inc();
        }
        done.ok()
    }

    /// The threads that ended in a panic, of those that the process cannot do without.
    pub fn dead(&self) -> Vec<String> {
        self.dead.lock().iter().cloned().collect()
    }

    /// What a probe is told where a thread has died.
    pub fn trouble(&self) -> Option<String> {
        let dead = self.dead();
        let last = dead.last()?;
        let all = if dead.len() == 1 { format!("thread {last}") } else { dead.join(", ") };
        Some(format!("ended in a panic: {all}; start the server again"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_panics_is_known_and_counted() {
        let workers = Workers::new(Metrics::new());
        workers.spawn("well", || {}).unwrap().join().unwrap();
        assert_eq!(workers.trouble(), None);
        workers.spawn("ill", || panic!("as the test says")).unwrap().join().unwrap();
        assert_eq!(workers.dead(), ["ill"]);
        assert!(workers.trouble().unwrap().contains("ill"));
        assert_eq!(workers.metrics.thread_panics.with_label_values(&["ill"]).get(), 1);
    }

    #[test]
    fn work_that_is_tried_again_may_panic() {
        let workers = Workers::new(Metrics::new());
        assert_eq!(workers.guard("fill", || -> u8 { panic!("as the test says") }), None);
        assert_eq!(workers.guard("fill", || 1), Some(1));
        assert_eq!(workers.trouble(), None);
        assert_eq!(workers.metrics.thread_panics.with_label_values(&["fill"]).get(), 1);
    }
}
