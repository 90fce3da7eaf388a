//! A lane in the hands of its owner: the lease, the index, and the one way to change it.
//!
//! ```text
//! throng:{TAG}:lane   hash: format, identity, owner, token, until, epoch, seq, attempt, position, past, reader, read
//!                     and the index, whose fields begin with a dot
//! throng:{TAG}:c:…    contents, see `blob`
//! ```
//! A change is an **attempt**: it writes its contents, which nobody sees, and then asks for one step that
//! compares lease and number and puts the index right. An attempt whose answer was lost is looked up before
//! anything else is written, so that none takes effect twice and none is taken for another. What an attempt
//! replaced is on a list in the index until it is deleted, which waits while the lane is read by others (`pinned`);
//! what one left behind that never counted is deleted with the next change, or by the next owner.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::RwLock;
use redis::Value;

use super::blob::Blobs;
use super::blob::Body;
use super::blob::Entry;
use super::blob::Stored;
use super::draft::Draft;
use super::draft::Index;
use super::functions;
use super::lease::Lease;
use super::reply;
use super::store;
use super::store::Store;
use crate::model::Malformed;
use crate::model::ShardId;
use crate::model::codec::Reader;
use crate::model::codec::put_varint;
use crate::store::StoreError;
use crate::store::rows::Row;
use crate::store::state::damaged;

/// What contents are no longer named, by the number of the change that let them go.
pub(super) const TRASH: &[u8] = b".t";

/// A lane that this process owns, until another takes over.
#[derive(Debug)]
pub struct Lane {
    blobs: Blobs,
    key: String,
    lease: Lease,
    held: RwLock<HeldLane>,
}

/// What the owner knows of the lane.
#[derive(Debug, Default)]
struct HeldLane {
    index: Index,
    /// The number of the last change.
    seq: u64,
    /// The number of the last attempt, whatever became of it.
    attempt: u64,
    /// Whether an attempt may have been taken whose answer never came.
    doubt: bool,
    fenced: bool,
    /// Attempts that did not count as far as known, and how many keys they wrote at most.
    stray: BTreeMap<u64, u32>,
    /// Fields of trash that is deleted.
    swept: Vec<Vec<u8>>,
}

impl Lane {
    /// Takes the lease of a lane for `ttl`, and reads the lane's index; `None` while another owner has it.
    ///
    /// `tag` names the lane, `shards` are its shards for ever. An owner of the same name gives way at once: it
    /// is this process before its restart.
    pub fn acquire(
        store: &Store,
        tag: &str,
        shards: &[ShardId],
        owner: &str,
        ttl: Duration,
    ) -> Result<Option<Self>, StoreError> {
        let blobs = Blobs { link: store.link.clone(), keys: store.keys.clone(), tag: tag.into() };
        let key = blobs.keys.lane(tag, "lane");
        let mut lease = Lease { epoch: 0, token: Lease::new_token()? };
        let mut identity = store.identity.row();
        for shard in shards {
            put_varint(&mut identity, u64::from(*shard));
        }
        let format = store::format();
        let (token, millis) = (lease.token_text(), ttl.as_millis().to_string());
        let args =
            [format.as_bytes(), &identity, owner.as_bytes(), token.as_bytes(), millis.as_bytes()];
        let answer = store.link.one(&key, functions::call("acquire", &[&key], &args))?;
        let (said, with) = match reply::items(&answer) {
            Some([said, with]) => (reply::text(said), reply::text(with).unwrap_or_default()),
            _ => (None, ""),
        };
        match said {
            Some("OK") => lease.epoch = with.parse().map_err(|_| store.link.odd("an epoch"))?,
            Some("TAKEN") => return Ok(None),
            Some("FORMAT") => {
                store::refuse_other(&store.link, &format!("lane {tag}"), with, &format)?;
            }
            Some("FOREIGN") => {
                return Err(StoreError::Malformed {
                    what: blobs.to_string(),
                    hint: "it was made for other shards, or by another store; start over below another prefix"
                        .to_owned(),
                    source: None,
                });
            }
            _ => return Err(store.link.odd("a lease")),
        }
        let lane = Self { blobs, key, lease, held: RwLock::default() };
        let past = lane.look_up(&mut lane.held.write())?;
        for line in past.lines() {
            let mut words = line.split(' ');
            let epoch = words.next().and_then(|word| word.parse().ok());
            let token = words.next().and_then(|word| u32::from_str_radix(word, 16).ok());
            let attempt = words.next().and_then(|word| word.parse().ok());
            if let (Some(epoch), Some(token), Some(attempt)) = (epoch, token, attempt) {
                lane.blobs.sweep_after(Lease { epoch, token }, attempt)?;
            }
        }
        Ok(Some(lane))
    }

    /// A lane in other hands as it is now, to be read. It does not change, and cannot be changed.
    pub(super) fn of_others(store: &Store, tag: &str) -> Result<Self, StoreError> {
        let blobs = Blobs { link: store.link.clone(), keys: store.keys.clone(), tag: tag.into() };
        let key = blobs.keys.lane(tag, "lane");
        let (index, _) = read(&blobs, &key)?;
        let held = HeldLane { index, fenced: false, ..HeldLane::default() };
        Ok(Self { blobs, key, lease: Lease { epoch: 0, token: 0 }, held: RwLock::new(held) })
    }

    /// How often the lane was acquired, this time included.
    pub fn epoch(&self) -> u64 {
        self.lease.epoch
    }

    /// Holds on to the lane for `ttl` from now on.
    pub fn renew(&self, ttl: Duration) -> Result<(), StoreError> {
        let (token, millis) = (self.lease.token_text(), ttl.as_millis().to_string());
        let args = [token.as_bytes(), millis.as_bytes()];
        let call = functions::call("renew", &[&self.key], &args);
        match reply::text(&self.blobs.link.one(&self.key, call)?) {
            Some("OK") => Ok(()),
            _ => {
                self.held.write().fenced = true;
                Err(self.fenced())
            }
        }
    }

    /// Lets go of the lane, so that another need not wait.
    pub fn release(&self) -> Result<(), StoreError> {
        self.renew(Duration::ZERO)
    }

    /// The hash that it is kept in.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// The token of this lease.
    pub(super) fn token(&self) -> String {
        self.lease.token_text()
    }

    /// Reads contents.
    pub(super) fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// Looks at the index, as it is after every change that was taken.
    pub(super) fn look<R>(
        &self,
        see: impl FnOnce(&Index) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        if self.held.read().doubt {
            self.look_up(&mut self.held.write())?;
        }
        let held = self.held.read();
        if held.fenced { Err(self.fenced()) } else { see(&held.index) }
    }

    /// Changes the lane, all at once; `build` tells whether there is anything to do. It runs again where
    /// the index turns out to be another than it was.
    pub(super) fn change<'c>(
        &self,
        build: impl Fn(&mut Draft<'_, 'c>) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let held = &mut *self.held.write();
        loop {
            // The first owner's epoch is 1.
            if held.fenced || self.lease.epoch == 0 {
                return Err(self.fenced());
            }
            if held.doubt {
                self.look_up(held)?;
            }
            held.attempt += 1;
            let attempt = held.attempt;
            let mut draft = Draft::new(&held.index, &self.blobs, self.lease, attempt);
            if !build(&mut draft)? {
                return Ok(());
            }
            let parts = draft.parts();
            let contents = std::mem::take(&mut draft.contents);
            let (mut fields, mut trash, folded) = (draft.fields, draft.trash, draft.folded);
            let written = contents.iter().map(|(number, bytes)| (*number, &bytes[..]));
            if let Err(error) = self.blobs.write(self.lease, attempt, written) {
                held.stray.insert(attempt, parts);
                return Err(error);
            }
            drop(contents);
            let seq = held.seq + 1;
            trash.extend(held.stray.iter().map(|(attempt, parts)| self.range(*attempt, *parts)));
            if !trash.is_empty() {
                let mut bytes = Vec::new();
                Stored::join(trash).iter().for_each(|range| range.encode(&mut bytes));
                let entry = Entry { meta: Vec::new(), body: Body::Inline(bytes) };
                fields.insert([TRASH, &seq.to_be_bytes()].concat(), Some(entry));
            }
            held.stray.insert(attempt, parts);
            held.doubt = true;
            let (said, stays) = self.step(seq, attempt, &held.swept, &fields, folded)?;
            match &*said {
                "OK" => {
                    held.doubt = false;
                    held.seq = seq;
                    held.stray.clear();
                    held.swept.clear();
                    for (field, entry) in fields {
                        match entry {
                            Some(entry) => _ = held.index.insert(field, entry),
                            None => _ = held.index.remove(&field),
                        }
                    }
                    if !stays {
                        self.sweep(held);
                    }
                    return Ok(());
                }
                "ELSEWHERE" => {}
                // Another owner has taken over, or the journal has lost what was folded.
                _ => {
                    held.fenced = true;
                    let strays: Vec<_> =
                        held.stray.iter().map(|(a, parts)| self.range(*a, *parts)).collect();
                    // What cannot be deleted now is the next owner's to delete.
                    let _ = self.blobs.delete(&strays);
                    return Err(self.fenced());
                }
            }
        }
    }

    /// The step that makes an attempt count. Tells what became of it, and whether what it replaced has to stay.
    fn step(
        &self,
        seq: u64,
        attempt: u64,
        swept: &[Vec<u8>],
        fields: &BTreeMap<Vec<u8>, Option<Entry>>,
        folded: Option<(u64, u64)>,
    ) -> Result<(String, bool), StoreError> {
        let gone = fields.iter().filter(|(_, entry)| entry.is_none()).map(|(field, _)| field);
        let gone: Vec<&Vec<u8>> = gone.chain(swept).collect();
        let next = folded.map_or_else(|| "-".to_owned(), |(_, next)| next.to_string());
        let (seq, attempt) = (seq.to_string(), attempt.to_string());
        let head = [self.lease.token_text(), seq, attempt, next, gone.len().to_string()];
        let kept: Vec<(&[u8], Vec<u8>)> = fields
            .iter()
            .filter_map(|(field, entry)| Some((&field[..], entry.as_ref()?.encode())))
            .chain(
                folded.map(|(position, _)| (&b"position"[..], position.to_string().into_bytes())),
            )
            .collect();
        let mut args: Vec<&[u8]> = head.iter().map(String::as_bytes).collect();
        args.extend(gone.iter().map(|field| &field[..]));
        args.extend(kept.iter().flat_map(|(field, value)| [*field, &value[..]]));
        let log = self.blobs.keys.lane(&self.blobs.tag, "log");
        let call = functions::call("commit", &[&self.key, &log], &args);
        let answer = self.blobs.link.one(&self.key, call)?;
        let items = reply::items(&answer).unwrap_or_default();
        let said = items.first().and_then(reply::text);
        let stays = items.get(1).and_then(reply::text) == Some("1");
        let said = said.ok_or_else(|| self.blobs.link.odd("a commit"))?;
        Ok((said.to_owned(), stays))
    }

    /// Deletes what is not named any longer; what cannot be deleted now stays on the list.
    fn sweep(&self, held: &mut HeldLane) {
        let fields: Vec<_> = held
            .index
            .range(TRASH.to_vec()..)
            .take_while(|(field, _)| field.starts_with(TRASH))
            .map(|(field, entry)| (field.clone(), entry.clone()))
            .collect();
        for (field, entry) in fields {
            let Body::Inline(bytes) = entry.body else { continue };
            let mut reader = Reader::new(&bytes);
            let mut ranges = Vec::new();
            while let Ok(range) = Stored::decode(&mut reader) {
                ranges.push(range);
            }
            if self.blobs.delete(&ranges).is_err() {
                return;
            }
            held.index.remove(&field);
            held.swept.push(field);
        }
    }

    /// Reads the lane as it is, and what its owners before left to sweep.
    fn look_up(&self, held: &mut HeldLane) -> Result<String, StoreError> {
        let (index, meta) = read(&self.blobs, &self.key)?;
        let text = |name: &str| {
            let value = meta.get(name.as_bytes()).map(|value| String::from_utf8_lossy(value));
            value.unwrap_or_default().into_owned()
        };
        let number =
            |name| text(name).parse::<u64>().map_err(|_| damaged(Malformed("a lane's number")));
        let (seq, attempt) = (number("seq")?, number("attempt")?);
        // A lane that went back lost a commit in a failover: what is in memory is ahead of it.
        if text("token") != self.lease.token_text() || seq < held.seq {
            held.fenced = true;
            return Err(self.fenced());
        }
        held.index = index;
        held.seq = seq;
        held.stray.remove(&attempt);
        held.swept.clear();
        held.doubt = false;
        Ok(text("past"))
    }

    fn range(&self, attempt: u64, parts: u32) -> Stored {
        Stored { lease: self.lease, attempt, first: 0, parts, bytes: 0 }
    }

    fn fenced(&self) -> StoreError {
        StoreError::Fenced { what: self.blobs.to_string() }
    }
}

/// What a lane's hash holds besides the index.
type Meta = BTreeMap<Vec<u8>, Vec<u8>>;

/// Reads a lane's hash at once.
fn read(blobs: &Blobs, key: &str) -> Result<(Index, Meta), StoreError> {
    let mut cmd = redis::cmd("HGETALL");
    cmd.arg(key);
    let answer: Value = blobs.link.one(key, cmd)?;
    let fields = reply::pairs(answer).ok_or_else(|| blobs.link.odd("a lane"))?;
    let (mut index, mut meta) = (Index::new(), Meta::new());
    for (field, value) in fields {
        if field.first() == Some(&b'.') {
            index.insert(field, Entry::decode(&value).map_err(damaged)?);
        } else {
            meta.insert(field, value);
        }
    }
    Ok((index, meta))
}

#[cfg(test)]
impl Lane {
    /// Writes contents as an attempt that ends before its step.
    pub(super) fn leave_stray(&self, contents: &[Vec<u8>]) {
        let attempt = self.held.read().attempt + 1;
        let contents = (0..).zip(contents.iter().map(|bytes| &bytes[..]));
        self.blobs.write(self.lease, attempt, contents).unwrap();
    }

    /// How many changes were made, as Redis has it.
    pub(super) fn changes(&self) -> u64 {
        let mut cmd = redis::cmd("HGET");
        cmd.arg(&self.key).arg("seq");
        reply::number(&self.blobs.link.one(&self.key, cmd).unwrap()).unwrap()
    }

    /// The same lane in the same hands, reached over another link.
    pub(super) fn through(&self, link: super::Link) -> Self {
        let lane = Self {
            blobs: Blobs { link, ..self.blobs.clone() },
            key: self.key.clone(),
            lease: self.lease,
            held: RwLock::default(),
        };
        lane.held.write().doubt = true;
        lane.held.write().attempt = self.held.read().attempt;
        lane
    }
}
