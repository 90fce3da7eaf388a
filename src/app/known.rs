//! What a node knows of the store that it shares, kept on its own disk: with it a node that only takes events, and
//! keeps them on its disk first, begins while the store is out of reach.
//!
//! That is sound only for a node that the register of the store still has: its last mark holds T back for the others
//! until it is heard of again. One that left in good order waits for the store.

use std::io;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context as _;
use serde_json::Value;
use serde_json::json;

use crate::model::hex;
use crate::store::embedded::remove_small_file;
use crate::store::embedded::write_small_file;
use crate::store::lanes::Layout;
use crate::store::redis::Store;
use crate::store::state::Identity;

/// What is known, with the secrets of the store. Who else can read it can make cookies.
const FILE: &str = "store.known";
/// There while the register has this node.
const LISTED: &str = "store.listed";

/// What is known of a store.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) identity: Identity,
    pub(super) layout: Layout,
    pub(super) instance: String,
    pub(super) cookies: [u8; 32],
    /// The secret of the nodes.
    pub(super) peers: String,
}

/// Whether the register has this node, in a file of its data directory.
#[derive(Debug, Clone)]
pub(super) struct ListedFile(PathBuf);

impl ListedFile {
    pub(super) fn new(data: &Path) -> Self {
        Self(data.join(LISTED))
    }

    pub(super) fn is_there(&self) -> bool {
        self.0.is_file()
    }

    /// Says that the register has it, or may not have it any more; that before it is so.
    pub(super) fn set(&self, listed: bool) -> io::Result<()> {
        match listed {
            true => write_small_file(&self.0, b"", 0o600),
            false => remove_small_file(&self.0).map(drop),
        }
    }
}

impl Known {
    /// Reads what is known; `None` where nothing is, or not all.
    pub(super) fn read(data: &Path) -> anyhow::Result<Option<Self>> {
        let path = data.join(FILE);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Self::parse(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(bytes).ok()?;
        let text = |name: &str| value.get(name)?.as_str();
        let number = |name: &str| u16::try_from(value.get(name)?.as_u64()?).ok();
        let (shards, lanes) = (number("shards")?, number("lanes")?);
        Some(Self {
            identity: Identity { shards, key: unhex(text("key")?)? },
            layout: Layout::new(shards, lanes),
            instance: text("instance")?.to_owned(),
            cookies: unhex(text("cookies")?)?,
            peers: text("peers")?.to_owned(),
        })
    }

    /// Writes it down, where it is not what stands there.
    pub(super) fn write(&self, data: &Path) -> anyhow::Result<()> {
        if Self::read(data).is_ok_and(|found| found.as_ref() == Some(self)) {
            return Ok(());
        }
        let value = json!({
            "shards": self.identity.shards,
            "lanes": self.layout.lanes(),
            "key": hex(&self.identity.key),
            "instance": self.instance,
            "cookies": hex(&self.cookies),
            "peers": self.peers,
        });
        let path = data.join(FILE);
        write_small_file(&path, value.to_string().as_bytes(), 0o600)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Whether a store is the one that is known.
    pub(super) fn is(&self, store: &Store) -> bool {
        self.identity == store.identity()
            && self.layout == store.layout()
            && self.instance == store.instance()
    }
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; N];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn what_is_known_is_read_as_it_was_written_and_by_its_owner_alone() {
        let data = tempfile::tempdir().unwrap();
        assert!(Known::read(data.path()).unwrap().is_none());
        let known = Known {
            identity: Identity { shards: 12, key: [7; 16] },
            layout: Layout::new(12, 5),
            instance: "abc".into(),
            cookies: [250; 32],
            peers: "a secret of some length".into(),
        };
        known.write(data.path()).unwrap();
        assert!(Known::read(data.path()).unwrap().is_some_and(|found| found == known));
        let path = data.path().join(FILE);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        for wrong in ["", "{}", "{\"shards\":12,\"lanes\":5,\"key\":\"é\"}"] {
            std::fs::write(&path, wrong).unwrap();
            assert!(Known::read(data.path()).unwrap().is_none());
        }
        let listed = ListedFile::new(data.path());
        assert!(!listed.is_there());
        listed.set(true).unwrap();
        assert!(listed.is_there());
        listed.set(false).and_then(|()| listed.set(false)).unwrap();
        assert!(!listed.is_there());
    }
}
