//! A thread that does something every so often.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Condvar;
use parking_lot::Mutex;

use super::MoveError;

/// Goes on until it is dropped.
pub(super) struct Renewing {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Renewing {
    pub(super) fn start(
        every: Duration,
        mut renew: impl FnMut() + Send + 'static,
    ) -> Result<Self, MoveError> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let stopped = stop.clone();
        let run = move || {
            let mut ended = stopped.0.lock();
            while !*ended {
                if stopped.1.wait_for(&mut ended, every).timed_out() {
                    renew();
                }
            }
        };
        let thread = std::thread::Builder::new().name("leases".to_owned()).spawn(run);
        let thread = thread.map_err(|source| MoveError::File {
            action: "start a thread for",
            path: "leases".into(),
            source,
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Renewing {
    fn drop(&mut self) {
        *self.stop.0.lock() = true;
        self.stop.1.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic is known already.
            let _ = thread.join();
        }
    }
}
