//! `<data>/run.json`: where a running server listens, for commands on the same machine.

use super::Endpoint;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;

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
        let written =
            fs::write(&aside, run.to_string()).and_then(|()| fs::rename(&aside, &self.path));
        written.map_err(|error| failed(&self.path, error))
    }
}

/// Says which file it is. A disk that is full shows here first where all else is there from before.
fn failed(path: &Path, error: io::Error) -> anyhow::Error {
    let path = path.display();
    let told = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            format!("there is no room left for {path}: free some, and start again")
        }
        _ => format!("cannot write {path}"),
    };
    anyhow::Error::new(error).context(told)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_written_is_told_with_its_file_and_what_to_do() {
        let told = |kind: io::ErrorKind| {
            format!("{:#}", failed(Path::new("data/run.json"), io::Error::from(kind)))
        };
        let full = told(io::ErrorKind::StorageFull);
        assert!(full.starts_with("there is no room left for data/run.json: free some"), "{full}");
        let denied = told(io::ErrorKind::PermissionDenied);
        assert!(denied.starts_with("cannot write data/run.json: "), "{denied}");
    }
}
