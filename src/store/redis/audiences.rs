//! Audiences of a lane, among the contents that its index names.
//!
//! ```text
//! .g shard generation segment   what is in force of a segment in a shard from that generation on
//! .xaudiences                   the last generation
//! ```

use std::sync::Arc;

use parking_lot::Mutex;

use super::blob::Body;
use super::draft::Index;
use super::lane::Lane;
use super::lists::Owned;
use super::state::Table;
use super::state::table;
use crate::model::Malformed;
use crate::store::StoreError;
use crate::store::audiences::Audiences as Port;
use crate::store::audiences::Cut;
use crate::store::audiences::Last;
use crate::store::audiences::Listed;
use crate::store::audiences::Lists;
use crate::store::audiences::TakeVersion;
use crate::store::audiences::VersionKey;
use crate::store::audiences::decode;
use crate::store::audiences::encode;
use crate::store::state::damaged;

pub(super) const AUDIENCES: Table = b".g";
const LAST: &[u8] = b".xaudiences";

/// The audiences of one lane, for its owner.
#[derive(Debug)]
pub struct Audiences {
    lane: Arc<Lane>,
    /// What the lane has of lists, once it was read.
    lists: Mutex<Option<Owned>>,
}

impl Audiences {
    /// Those of a lane that was acquired.
    pub fn new(lane: Arc<Lane>) -> Self {
        Self { lane, lists: Mutex::default() }
    }

    /// Does something with what is known of lists, which is read anew after an error.
    fn with_lists<R>(
        &self,
        body: impl FnOnce(&mut Owned) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        let mut lists = self.lists.lock();
        let mut owned = match lists.take() {
            Some(owned) => owned,
            None => Owned::read(&self.lane)?,
        };
        let done = body(&mut owned)?;
        *lists = Some(owned);
        Ok(done)
    }
}

fn field(key: &VersionKey) -> Vec<u8> {
    let VersionKey { segment, shard, generation } = key;
    let (shard, generation) = (shard.to_be_bytes(), generation.to_be_bytes());
    [&AUDIENCES[..], &shard, &generation, segment.as_bytes()].concat()
}

fn key(field: &[u8]) -> Result<VersionKey, Malformed> {
    let wrong = Malformed("an audience's key");
    let rest = field.strip_prefix(&AUDIENCES[..]).ok_or(wrong)?;
    let (shard, rest) = rest.split_first_chunk().ok_or(wrong)?;
    let (generation, segment) = rest.split_first_chunk().ok_or(wrong)?;
    let segment = std::str::from_utf8(segment).map_err(|_| wrong)?.into();
    let (shard, generation) = (u16::from_be_bytes(*shard), u64::from_be_bytes(*generation));
    Ok(VersionKey { segment, shard, generation })
}

fn last(index: &Index) -> Result<Option<Last>, StoreError> {
    match index.get(LAST).map(|entry| &entry.body) {
        Some(Body::Inline(bytes)) => Last::decode(bytes).map(Some).map_err(damaged),
        Some(Body::Stored(_)) => Err(damaged(Malformed("a row that does not lie in the index"))),
        None => Ok(None),
    }
}

impl Port for Audiences {
    fn last(&self) -> Result<Option<Last>, StoreError> {
        self.lane.look(last)
    }

    fn load(&self, take: TakeVersion<'_>) -> Result<(), StoreError> {
        let entries: Vec<_> = self.lane.look(|index| {
            let of_table = index.range(table(AUDIENCES));
            Ok(of_table.map(|(field, entry)| (field.clone(), entry.body.clone())).collect())
        })?;
        self.lane.blobs().each(entries.iter().map(|(_, body)| body), |place, bytes| {
            let key = key(&entries[place].0).map_err(damaged)?;
            take(key, decode(bytes).map_err(damaged)?)
        })
    }

    fn keep(&self, cut: &Cut) -> Result<(), StoreError> {
        self.lane.change(|draft| {
            if last(draft.index)?.is_some_and(|last| last.generation >= cut.of.generation) {
                return Ok(false);
            }
            for key in &cut.drop {
                draft.remove(field(key));
            }
            for (key, content) in &cut.put {
                draft.put(field(key), Vec::new(), encode(content.as_ref()));
            }
            draft.set(LAST.to_vec(), Vec::new(), Body::Inline(cut.of.encode()));
            Ok(true)
        })
    }

    fn listed(&self, total: u64) -> Result<Option<Listed>, StoreError> {
        self.with_lists(|lists| Ok(lists.listed(total)))
    }

    fn list(&self, lists: &Lists) -> Result<(), StoreError> {
        self.with_lists(|owned| owned.write(&self.lane, lists))
    }
}
