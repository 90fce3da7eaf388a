//! How large the files of a data directory are. The journal and the archive are measured by themselves.

use std::path::PathBuf;
use std::sync::Arc;

use super::AUDIENCES;
use super::AUDIT;
use super::Audiences;
use super::HISTORY;
use super::LEDGER;
use super::SHELF;
use super::STATE;
use crate::store::StoreError;
use crate::store::sizes::Size;
use crate::store::sizes::Sizes as Port;

/// The files of a data directory.
#[derive(Debug)]
pub struct Sizes {
    data: PathBuf,
    audiences: Arc<Audiences>,
}

impl Sizes {
    /// Those of this directory, and the lists that lie in memory.
    pub fn new(data: PathBuf, audiences: Arc<Audiences>) -> Self {
        Self { data, audiences }
    }

    fn bytes(&self, name: &str) -> u64 {
        let path = self.data.join(name);
        let length = |path: &std::path::Path| std::fs::metadata(path).map_or(0, |meta| meta.len());
        match std::fs::read_dir(&path) {
            Ok(entries) => entries.flatten().map(|entry| length(&entry.path())).sum(),
            Err(_) => length(&path),
        }
    }
}

impl Port for Sizes {
    fn measure(&self) -> Result<Vec<Size>, StoreError> {
        let files = [
            ("state", STATE),
            ("audiences", AUDIENCES),
            ("ledger", LEDGER),
            ("shelf", SHELF),
            ("history", HISTORY),
            ("audit", AUDIT),
        ];
        let files = files.map(|(kind, name)| Size { kind, bytes: self.bytes(name), entries: None });
        let (bytes, entries) = self.audiences.lists_size();
        let lists = Size { kind: "lists", bytes, entries: Some(entries) };
        Ok(files.into_iter().chain([lists]).collect())
    }

    fn is_cheap(&self) -> bool {
        true
    }
}
