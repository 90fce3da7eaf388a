//! Reads the server's `/metrics` and the system's account of its process.

use crate::http::Client;
use anyhow::{Context, Result, bail};
use std::net::SocketAddr;

/// The samples of one scrape.
#[derive(Debug, Clone, Default)]
pub struct Scrape {
    samples: Vec<(String, String, f64)>,
}

impl Scrape {
    /// Scrapes the private listener.
    pub fn of(console: SocketAddr) -> Result<Self> {
        let mut client = Client::connect(console)?;
        let (head, _, body) = client.get("/metrics")?;
        if head.status != 200 {
            bail!("/metrics answered {}", head.status);
        }
        Ok(Self::parse(&String::from_utf8_lossy(body)))
    }

    fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            Some((name.to_owned(), labels.to_owned(), value.parse().ok()?))
        });
        Self { samples: samples.collect() }
    }

    /// The sum over all series of a name whose labels contain this text; 0 where there is none.
    pub fn sum(&self, name: &str, labels: &str) -> f64 {
        let fits = |sample: &&(String, String, f64)| sample.0 == name && sample.1.contains(labels);
        self.samples.iter().filter(fits).map(|sample| sample.2).sum()
    }

    /// How many series of a name there are.
    pub fn count(&self, name: &str) -> usize {
        self.samples.iter().filter(|sample| sample.0 == name).count()
    }
}

/// Processor time that a process has used, in seconds.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    used(&format!("/proc/{pid}/stat"))
}

/// Processor time that the threads of this name have used in a process, in seconds.
pub fn thread_cpu_seconds(pid: u32, name: &str) -> Result<f64> {
    let mut total = 0.0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = thread?.path();
        if std::fs::read_to_string(thread.join("comm"))?.trim_end() == name {
            total += used(&thread.join("stat").to_string_lossy())?;
        }
    }
    Ok(total)
}

fn used(path: &str) -> Result<f64> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    // The name in parentheses may hold spaces; user and system time are 12 and 13 fields after it.
    let after = text.rsplit_once(')').context("the process table reads oddly")?.1;
    let fields: Vec<&str> = after.split_whitespace().collect();
    let ticks: f64 = fields
        .get(11..13)
        .context("the process table reads oddly")?
        .iter()
        .filter_map(|field| field.parse::<f64>().ok())
        .sum();
    #[expect(clippy::cast_precision_loss, reason = "100 or so")]
    Ok(ticks / rustix::param::clock_ticks_per_second() as f64)
}

/// Resident memory of a process, in bytes.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages: u64 = text.split_whitespace().nth(1).and_then(|f| f.parse().ok()).unwrap_or(0);
    Ok(pages * rustix::param::page_size() as u64)
}

/// Forgets the most bytes that were resident.
pub fn reset_peak(pid: u32) -> Result<()> {
    Ok(std::fs::write(format!("/proc/{pid}/clear_refs"), "5")?)
}

/// The most bytes that were resident since [`reset_peak`].
pub fn peak_bytes(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kilobytes.context("no VmHWM")? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_of_a_name_are_summed_by_label() {
        let scrape =
            Scrape::parse("# HELP a b\na{x=\"1\",y=\"2\"} 3\na{x=\"2\"} 4.5\nab 9\nplain 1e3\n");
        assert!((scrape.sum("a", "") - 7.5).abs() < 1e-9);
        assert!((scrape.sum("a", "x=\"1\"") - 3.0).abs() < 1e-9);
        assert!((scrape.sum("plain", "") - 1000.0).abs() < 1e-9);
        assert!(scrape.sum("none", "").abs() < 1e-9);
    }

    #[test]
    fn a_process_that_works_uses_processor_time() {
        let pid = std::process::id();
        let before = cpu_seconds(pid).unwrap();
        let mut x = 1_u64;
        while cpu_seconds(pid).unwrap() <= before {
            x = x.wrapping_mul(3);
        }
        assert!(x > 0 && resident_bytes(pid).unwrap() > 0);
        assert!(thread_cpu_seconds(pid, "no such thread").unwrap().abs() < 1e-9);
    }
}
