//! How much a store takes, by what it is for.

use serde::Serialize;

use super::StoreError;

/// What one kind of contents takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[schemars(rename = "StoreSize")]
pub struct Size {
    /// What it is for: `dictionary`, `columns`, `streams`, `audiences`, `lists` …
    pub kind: &'static str,
    /// Bytes of memory of the server, or on the disk.
    pub bytes: u64,
    /// How many there are of what is counted in its kind: claimed message ids, lists. `None` where nothing is.
    pub entries: Option<u64>,
}

/// Measures a store. Calls block.
pub trait Sizes: Send + Sync {
    /// What each kind of contents takes now. On servers everything is looked at: that takes seconds on a large one,
    /// in small steps, and what changes meanwhile is counted before or after.
    fn measure(&self) -> Result<Vec<Size>, StoreError>;

    /// Whether this costs next to nothing, so that it can be measured often.
    fn is_cheap(&self) -> bool;
}
