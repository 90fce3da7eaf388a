//! What the disk itself costs: the time of an `fdatasync` after a small append, as the journal does it.

use crate::histogram::Histogram;
use anyhow::{Context, Result};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// Appends 4 KiB and syncs, again and again for `time`, in a file that is removed afterwards.
pub fn fdatasync(directory: &Path, time: Duration) -> Result<Histogram> {
    let mut file = tempfile::tempfile_in(directory)
        .with_context(|| format!("making a file in {}", directory.display()))?;
    let mut histogram = Histogram::default();
    let start = Instant::now();
    while start.elapsed() < time {
        let before = Instant::now();
        file.write_all(&[0x5a; 4096])?;
        file.sync_data()?;
        histogram.record(before.elapsed());
    }
    Ok(histogram)
}
