//! How much processor time a thread has used, where the system tells.

/// Follows the processor time of the thread that it is used on.
#[derive(Debug, Default)]
pub(crate) struct CpuTime {
    before: f64,
}

impl CpuTime {
    /// Seconds used since the last call; 0 where the system does not tell.
    pub(crate) fn lap(&mut self) -> f64 {
        let Some(now) = used() else { return 0.0 };
        let lap = (now - self.before).max(0.0);
        self.before = now;
        lap
    }
}

/// Linux counts nanoseconds in the first field.
fn used() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds: f64 = text.split_ascii_whitespace().next()?.parse().ok()?;
    Some(nanoseconds / 1e9)
}
