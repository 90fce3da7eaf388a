//! `<data>/run.json`: where a running server listens, for commands on the same machine.

use super::Endpoint;
use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context as _;

/// The file, there while a server runs.
pub(super) struct RunFile {
    path: PathBuf,
}

impl RunFile {
    /// Removes what a killed server left.
    pub(super) fn new(data: &Path) -> Self {
        let path = data.join("run.json");
        let _ = fs::remove_file(&path);
        Self { path }
    }

    /// Says where the listeners are; a node that takes no events has no public one.
    pub(super) fn write(&self, collect: Option<Endpoint>, console: Endpoint) -> anyhow::Result<()> {
        let mut run = serde_json::json!({
            "console": reachable(console.at).to_string(),
            "pid": std::process::id(),
            "version": env!("CARGO_PKG_VERSION"),
        });
        if let Some(collect) = collect {
            run["collect"] = reachable(collect.at).to_string().into();
        }
        let with_tls = [("collect", collect), ("console", Some(console))];
        let with_tls = with_tls.into_iter().filter(|(_, it)| it.is_some_and(|it| it.is_tls));
        let with_tls: Vec<&str> = with_tls.map(|(name, _)| name).collect();
        if !with_tls.is_empty() {
            run["tls"] = with_tls.into();
        }
        let aside = self.path.with_extension("new");
        let mut file = fs::File::create(&aside)
            .with_context(|| format!("cannot write {}", aside.display()))?;
        file.write_all(run.to_string().as_bytes())?;
        drop(file);
        fs::rename(&aside, &self.path)?;
        Ok(())
    }
}

impl Drop for RunFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// An address that a client on this machine can reach: one that listens everywhere is reached on loopback.
pub(crate) fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}
