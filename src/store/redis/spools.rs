//! Spools: a stream for each process that takes events without a journal of its own, and a register of them.
//!
//! ```text
//! throng:{store}:spools         hash: sender → when it was renewed, node
//! throng:{to-ship.SENDER}:ev    stream: entry <end>-0 with c(ount) and p(ayload)
//! ```
//! Positions count the bytes that the process has appended since its start, and are its own to give: a failover that
//! loses the stream's end makes a gap in it, and no position stands for two frames.

use redis::Value;

use super::functions;
use super::reply;
use super::store::Store;
use crate::store::StoreError;
use crate::store::journal::Frame;
use crate::store::journal::Position;
use crate::store::spools::Registered;
use crate::store::spools::Spool;
use crate::store::spools::Spools as Port;

/// Frames are read so many at once: each may be as large as a call is to be.
const AT_ONCE: usize = 16;

/// The spools of a store.
#[derive(Debug, Clone)]
pub struct Spools {
    pub(super) store: Store,
    register: String,
}

impl Spools {
    /// Those of this store.
    pub fn new(store: Store) -> Self {
        let register = store.keys.store("spools");
        Self { store, register }
    }

    pub(super) fn stream(&self, sender: &str) -> String {
        self.store.keys.lane(&format!("to-ship.{sender}"), "ev")
    }
}

impl Port for Spools {
    fn register(&self, spool: &Spool) -> Result<(), StoreError> {
        let args = [spool.sender.as_bytes(), spool.node.as_bytes()];
        let call = functions::call("enlist", &[&self.register], &args);
        self.store.link.one(&self.register, call).map(drop)
    }

    fn list(&self) -> Result<Vec<Registered>, StoreError> {
        let link = &self.store.link;
        let mut cmd = redis::cmd("HGETALL");
        cmd.arg(&self.register);
        let rows = reply::pairs(link.one(&self.register, cmd)?);
        let rows = rows.ok_or_else(|| link.odd("a list of spools"))?;
        let read = |(sender, row): (Vec<u8>, Vec<u8>)| {
            let row = String::from_utf8(row).ok()?;
            let (renewed, node) = row.split_once(' ')?;
            let spool = Spool { sender: String::from_utf8(sender).ok()?, node: node.to_owned() };
            Some(Registered { spool, renewed: renewed.parse().ok()? })
        };
        let spools = rows.into_iter().map(|row| read(row).ok_or_else(|| link.odd("a spool")));
        let mut spools = spools.collect::<Result<Vec<_>, StoreError>>()?;
        spools.sort_unstable();
        Ok(spools)
    }

    fn read(&self, sender: &str, from: Position) -> Result<Vec<Frame>, StoreError> {
        let (link, stream) = (&self.store.link, self.stream(sender));
        let mut cmd = redis::cmd("XRANGE");
        cmd.arg(&stream).arg(format!("{}-0", from.0 + 1)).arg("+").arg("COUNT").arg(AT_ONCE);
        let odd = || link.odd("an entry of a spool");
        let Value::Array(entries) = link.one(&stream, cmd)? else { return Err(odd()) };
        entries.into_iter().map(|entry| frame(entry).ok_or_else(odd)).collect()
    }

    fn release(&self, sender: &str, before: Position) -> Result<(), StoreError> {
        let stream = self.stream(sender);
        let mut cmd = redis::cmd("XTRIM");
        cmd.arg(&stream).arg("MINID").arg(format!("{}-0", before.0 + 1));
        self.store.link.one(&stream, cmd).map(drop)
    }

    fn delete(&self, sender: &str) -> Result<(), StoreError> {
        let (link, stream) = (&self.store.link, self.stream(sender));
        let mut cmd = redis::cmd("UNLINK");
        cmd.arg(&stream);
        link.one(&stream, cmd)?;
        let mut cmd = redis::cmd("HDEL");
        cmd.arg(&self.register).arg(sender);
        link.one(&self.register, cmd).map(drop)
    }
}

fn frame(entry: Value) -> Option<Frame> {
    let Value::Array(entry) = entry else { return None };
    let [id, fields] = <[Value; 2]>::try_from(entry).ok()?;
    let end: u64 = reply::text(&id)?.split_once('-')?.0.parse().ok()?;
    let Value::Array(fields) = fields else { return None };
    let [_, count, _, payload] = <[Value; 4]>::try_from(fields).ok()?;
    let count = u32::try_from(reply::number(&count)?).ok()?;
    let payload = reply::into_bytes(payload)?;
    let start = end.checked_sub(payload.len() as u64)?;
    Some(Frame::new(Position(start), Position(end), 0, count, payload))
}
