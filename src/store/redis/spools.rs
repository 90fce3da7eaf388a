//! Spools: two streams for each process that takes events without a journal of its own, and a register of them.
//!
//! ```text
//! throng:{store}:spools         hash: sender → when it was renewed, node
//! throng:{to-ship.SENDER}:ev    stream: entry <end>-0 with c(ount) and p(ayload)
//! throng:{to-ship.SENDER}:ev2   the other one
//! ```
//! Two appends are under way at a time, each to a stream of its own, so that the entries of a stream come in order
//! whatever has to be repeated. Read together, they are the frames of the process.
//!
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

/// How many streams a spool has, and so how many appends are under way at a time.
pub(super) const STREAMS: usize = 2;

/// Frames of a stream are read so many at once: each may be as large as a call is to be.
const AT_ONCE: usize = 8;

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

    /// The streams of a spool, which lie on one node.
    pub(super) fn streams(&self, sender: &str) -> [String; STREAMS] {
        let tag = format!("to-ship.{sender}");
        ["ev", "ev2"].map(|name| self.store.keys.lane(&tag, name))
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
        let (link, streams) = (&self.store.link, self.streams(sender));
        let cmds = streams.each_ref().map(|stream| {
            let mut cmd = redis::cmd("XRANGE");
            cmd.arg(stream).arg(format!("{}-0", from.0 + 1)).arg("+").arg("COUNT").arg(AT_ONCE);
            cmd
        });
        let odd = || link.odd("an entry of a spool");
        let (mut frames, mut to) = (Vec::new(), Position(u64::MAX));
        for entries in link.run_together(&streams[0], &cmds)? {
            let Value::Array(entries) = entries else { return Err(odd()) };
            let is_cut = entries.len() == AT_ONCE;
            for entry in entries {
                frames.push(frame(entry).ok_or_else(odd)?);
            }
            // What follows in the other stream comes after what was not read of this one.
            if let Some(last) = frames.last().filter(|_| is_cut) {
                to = to.min(last.end);
            }
        }
        frames.retain(|frame| frame.end <= to);
        frames.sort_unstable_by_key(|frame| frame.end);
        Ok(frames)
    }

    fn release(&self, sender: &str, before: Position) -> Result<(), StoreError> {
        let streams = self.streams(sender);
        let cmds = streams.each_ref().map(|stream| {
            let mut cmd = redis::cmd("XTRIM");
            cmd.arg(stream).arg("MINID").arg(format!("{}-0", before.0 + 1));
            cmd
        });
        self.store.link.run(&streams[0], &cmds).map(drop)
    }

    fn delete(&self, sender: &str) -> Result<(), StoreError> {
        let (link, streams) = (&self.store.link, self.streams(sender));
        let mut cmd = redis::cmd("UNLINK");
        cmd.arg(&streams);
        link.one(&streams[0], cmd)?;
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
