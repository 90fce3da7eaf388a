//! Starts a server as a process of its own, finds where it listens, and ends it, gently or not.

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// What to start.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The `throng` binary.
    pub binary: PathBuf,
    /// Its data directory, which it makes where it is missing.
    pub data: PathBuf,
    /// The folder of segment files.
    pub segments: PathBuf,
    /// Further settings, each `key=value`.
    pub settings: Vec<String>,
    /// What it does, where it does not do everything.
    pub role: Option<&'static str>,
}

/// A running `throng serve`; killed when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    plan: Plan,
    /// The public listener, where it has one.
    collect: Option<SocketAddr>,
    /// The private listener.
    pub console: SocketAddr,
}

impl Plan {
    /// A server of everything with its folders in one, which has a folder of segments from now on.
    pub fn within(folder: &Path, binary: &Path) -> Result<Self> {
        let segments = folder.join("segments");
        std::fs::create_dir_all(&segments)?;
        let binary = std::path::absolute(binary)?;
        Ok(Self { binary, data: folder.join("data"), segments, settings: Vec::new(), role: None })
    }

    /// Where the server's log goes, after those of earlier starts.
    fn log(&self) -> PathBuf {
        self.data.with_extension("log")
    }
}

#[derive(Deserialize)]
struct RunFile {
    collect: Option<SocketAddr>,
    console: SocketAddr,
    pid: u32,
}

impl Server {
    /// Starts the server on free ports and waits until both listeners answer.
    pub fn start(plan: &Plan) -> Result<Self> {
        std::fs::create_dir_all(&plan.data)?;
        let log = plan.log();
        let stderr = std::fs::File::options().create(true).append(true).open(&log)?;
        let mut command = Command::new(&plan.binary);
        command.arg("--data").arg(&plan.data);
        alone(&mut command, plan)?;
        for setting in ["collect.listen=127.0.0.1:0", "console.listen=127.0.0.1:0"] {
            command.args(["--set", setting]);
        }
        for setting in &plan.settings {
            command.args(["--set", setting]);
        }
        command.arg("serve").arg("--segments").arg(&plan.segments);
        if let Some(role) = plan.role {
            command.args(["--role", role]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        let mut child =
            command.spawn().with_context(|| format!("starting {}", plan.binary.display()))?;
        let start = Instant::now();
        loop {
            if let Some(run) = read_run_file(&plan.data).filter(|run| run.pid == child.id()) {
                let (collect, console) = (run.collect, run.console);
                return Ok(Self { child, plan: plan.clone(), collect, console });
            }
            if let Some(status) = child.try_wait()? {
                bail!("throng serve ended with {status}: {}", last_lines(&log));
            }
            if start.elapsed() > PATIENCE {
                child.kill()?;
                child.wait()?;
                bail!("throng serve did not answer within {PATIENCE:?}: {}", last_lines(&log));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The public listener.
    pub fn collect(&self) -> Result<SocketAddr> {
        self.collect.context("the server has no public listener")
    }

    /// The id of the process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends the process at once, as a crash would; fails where it had ended by itself.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("throng serve ended with {status}: {}", last_lines(&self.plan.log()));
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks the process to stop and waits until it has.
    pub fn stop(mut self) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("the process has no id")?, Signal::TERM)?;
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                if !status.success() {
                    bail!("throng serve stopped with {status}");
                }
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        bail!("throng serve did not stop within {PATIENCE:?}")
    }

    /// Runs a command of the product against this server, and returns what it printed.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<String> {
        let mut command = Command::new(&self.plan.binary);
        command.arg("--data").arg(&self.plan.data).args(arguments).stdin(Stdio::null());
        alone(&mut command, &self.plan)?;
        let Output { status, stdout, stderr } = command.output()?;
        if !status.success() {
            bail!("the command ended with {status}: {}", String::from_utf8_lossy(&stderr));
        }
        String::from_utf8(stdout).context("the command printed no UTF-8")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already; nothing is left to do then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Keeps the configuration and the variables of whoever runs this out of what is tested.
fn alone(command: &mut Command, plan: &Plan) -> Result<()> {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("THRONG_") {
            command.env_remove(name);
        }
    }
    command.current_dir(plan.data.parent().context("the data directory has no parent")?);
    Ok(())
}

fn read_run_file(data: &Path) -> Option<RunFile> {
    serde_json::from_slice(&std::fs::read(data.join("run.json")).ok()?).ok()
}

fn last_lines(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}
