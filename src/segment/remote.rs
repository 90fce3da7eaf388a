//! The shards of another node, asked over its private listener.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use roaring::RoaringBitmap;
use serde::de::DeserializeOwned;

use super::AskError;
use super::Caller;
use super::Compiled;
use super::Counted;
use super::Found;
use super::Step;
use super::local::KEEP_PATIENCE;
use super::serve;
use super::shards::Asked;
use super::shards::Disclosed;
use super::shards::Group;
use super::shards::Of;
use super::shards::Outcome;
use super::shards::Profile;
use super::shards::Refreshed;
use super::shards::Shards;
use super::shards::Which;
use super::wire;
use super::wire::Message;
use super::wire::OutcomeHead;
use crate::ingest::LetterNo;
use crate::ingest::Matches;
use crate::ingest::Schema;
use crate::ingest::Watermark;
use crate::model::Identifier;
use crate::model::Malformed;
use crate::model::Millis;
use crate::model::Namespace;
use crate::model::RejectedLine;
use crate::model::ShardId;
use crate::net::Limits;
use crate::net::PeerError;
use crate::net::Peers;
use crate::plan::Explanation;
use crate::plan::Members;
use crate::plan::Membership;
use crate::plan::RuleCost;
use crate::rules;
use crate::store::audiences::Last;
use crate::store::chain;
use crate::store::state::DeadLetter;
use crate::store::state::ImportProgress;

/// The way to another node.
pub trait Peer: Send + Sync {
    /// Asks a question, and reads the whole answer.
    fn ask(&self, what: &str, body: Vec<u8>, patience: Duration) -> Result<Vec<u8>, AskError>;

    /// Asks a question whose answer is read as it comes.
    fn stream(&self, body: Vec<u8>) -> Result<Box<dyn Read + Send>, AskError>;
}

/// How long is waited for what takes no time.
const SOON: Duration = Duration::from_secs(5);
/// How long is waited for an evaluation.
const LONG: Duration = Duration::from_secs(600);
/// How long the leader waits for one refresh.
const REFRESH: Duration = Duration::from_secs(60);
/// An identifier is shorter than this.
const MOST: usize = 4096;

/// The shards of another node.
pub struct Remote {
    peer: Box<dyn Peer>,
    /// How many shards the store has.
    count: u16,
    /// Names this leader, and its term, among all that ask.
    asker: String,
    last: Mutex<Option<LastAnswer>>,
}

struct LastAnswer {
    stamp: u64,
    refreshed: Arc<Of<Refreshed>>,
}

impl Remote {
    /// The shards of a node; `asker` names this process, and changes with every start.
    pub fn new(peer: Box<dyn Peer>, count: u16, asker: String) -> Self {
        Self { peer, count, asker, last: Mutex::default() }
    }

    fn ask(&self, what: &str, message: &Message, patience: Duration) -> Result<Message, AskError> {
        Message::answered(&self.peer.ask(what, message.encode(), patience)?)
    }

    fn head<T: DeserializeOwned>(
        &self,
        what: &str,
        message: &Message,
        patience: Duration,
    ) -> Result<T, AskError> {
        Ok(self.ask(what, message, patience)?.read()?)
    }

    /// Names the live segments among all that any leader asks with.
    fn key(&self, compiled: &Compiled) -> String {
        format!("{}:{}:{:x}", self.asker, compiled.live.version, compiled.trainings())
    }

    /// Asks something of all live segments, and says what they are where the other does not know.
    fn ask_of_live(
        &self,
        what: &str,
        (asked, compiled): (&wire::RefreshAsked, &Compiled),
        patience: Duration,
    ) -> Result<Message, AskError> {
        let mut message = Message::of(asked);
        match self.ask(what, &message, patience) {
            Err(AskError::Unknown(why)) if why == serve::UNKNOWN_SEGMENTS => {
                let definitions = wire::definitions(compiled);
                message.blobs = vec![Message::of(&definitions).head];
                self.ask(what, &message, patience)
            }
            answer => answer,
        }
    }
}

fn asked_head(asked: &Asked<'_>) -> wire::AskedHead {
    wire::AskedHead {
        rule: rules::print(asked.rule),
        level: asked.level,
        true_for: asked.true_for,
        now: asked.now,
        library: wire::named(asked.rule, asked.library),
    }
}

impl Shards for Remote {
    fn reach(&self, wanted: Millis, wait: Duration) -> Result<Of<Millis>, AskError> {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let head = serve::ReachHead { wanted, wait_ms };
        let (shards, found) = self.head("reach", &Message::of(&head), wait.saturating_add(SOON))?;
        Ok(Of { shards, found })
    }

    fn refresh(
        &self,
        compiled: &Arc<Compiled>,
        at: Millis,
    ) -> Result<Arc<Of<Refreshed>>, AskError> {
        let mut last = self.last.lock();
        let version = compiled.live.version;
        let seen = last.as_ref().map_or(0, |last| last.stamp);
        let asked = wire::RefreshAsked { key: self.key(compiled), version, at, seen };
        let answer = self.ask_of_live("refresh", (&asked, compiled), REFRESH)?;
        let head: wire::RefreshHead = answer.read()?;
        if head.same {
            let last = last.as_mut().ok_or(Malformed("an answer that is the same as none"))?;
            last.stamp = head.stamp;
            return Ok(last.refreshed.clone());
        }
        let before = last.as_ref().map(|last| last.refreshed.clone());
        let mut segments = BTreeMap::new();
        for (id, outcome) in head.segments {
            let outcome = match outcome {
                OutcomeHead::Filling(percent) => Outcome::Filling(percent),
                OutcomeHead::Training => Outcome::Training,
                OutcomeHead::Failing(reason) => Outcome::Failing(reason),
                OutcomeHead::Members(at) => {
                    Outcome::Members(Arc::new(wire::members(answer.blob(at)?, self.count)?))
                }
                OutcomeHead::Same => {
                    match before.as_ref().and_then(|b| b.found.segments.get(&id)) {
                        Some(Outcome::Members(members)) => Outcome::Members(members.clone()),
                        _ => return Err(Malformed("an audience that is the same as none").into()),
                    }
                }
            };
            segments.insert(id, outcome);
        }
        let refreshed = Arc::new(Of { shards: head.shards, found: Refreshed { segments } });
        *last = Some(LastAnswer { stamp: head.stamp, refreshed: refreshed.clone() });
        Ok(refreshed)
    }

    fn keep(&self, of: Last, published: u64) -> Result<Vec<ShardId>, AskError> {
        let patience = KEEP_PATIENCE.saturating_add(SOON);
        self.head("keep", &Message::of(&(of.generation, of.true_for, published)), patience)
    }

    fn show(&self, of: Last, to_keep: bool) -> Result<Vec<ShardId>, AskError> {
        self.head("show", &Message::of(&(of.generation, of.true_for, to_keep)), REFRESH)
    }

    fn kept(&self, generation: u64) -> Result<Of<BTreeMap<String, Arc<Members>>>, AskError> {
        let answer = self.ask("kept", &Message::of(&generation), REFRESH)?;
        let (shards, ids): (_, Vec<String>) = answer.read()?;
        let mut found = BTreeMap::new();
        for (number, id) in ids.into_iter().enumerate() {
            let members = wire::members(answer.blob(number)?, self.count)?;
            found.insert(id, Arc::new(members));
        }
        Ok(Of { shards, found })
    }

    fn eval(&self, asked: &Asked<'_>, _caller: &Caller) -> Result<Of<Members>, AskError> {
        let answer = self.ask("eval", &Message::of(&asked_head(asked)), LONG)?;
        Ok(Of { shards: answer.read()?, found: wire::members(answer.blob(0)?, self.count)? })
    }

    fn counts(
        &self,
        asked: &Asked<'_>,
        caller: &Caller,
        each: &(dyn Fn(Counted) + Sync),
    ) -> Result<Of<()>, AskError> {
        let message = Message::of(&serve::StreamHead::Counts(asked_head(asked)));
        let mut texts = Texts::new(self.peer.stream(message.encode())?);
        let mut shards = Vec::new();
        while let Some(text) = texts.next()? {
            let counted: Counted =
                serde_json::from_str(text).map_err(|_| Malformed("a shard's count"))?;
            shards.push(counted.shard);
            each(counted);
            caller.still_wanted()?;
        }
        shards.sort_unstable();
        Ok(Of { shards, found: () })
    }

    fn learn(&self, step: &Step, _caller: &Caller) -> Result<Of<Found>, AskError> {
        let (shards, found) = self.head("learn", &Message::of(step), LONG)?;
        Ok(Of { shards, found })
    }

    fn explain(&self, asked: &Asked<'_>, _caller: &Caller) -> Result<Of<Explanation>, AskError> {
        let (shards, found) = self.head("explain", &Message::of(&asked_head(asked)), LONG)?;
        Ok(Of { shards, found })
    }

    fn costs(
        &self,
        compiled: &Arc<Compiled>,
        at: Millis,
    ) -> Result<Of<BTreeMap<String, RuleCost>>, AskError> {
        let (key, version) = (self.key(compiled), compiled.live.version);
        let asked = wire::RefreshAsked { key, version, at, seen: 0 };
        let (shards, found) = self.ask_of_live("costs", (&asked, compiled), LONG)?.read()?;
        Ok(Of { shards, found })
    }

    fn why(
        &self,
        asked: &Asked<'_>,
        identifier: &Identifier,
        read: Duration,
        _caller: &Caller,
    ) -> Result<Option<Membership>, AskError> {
        let head = serve::OfId {
            asked: Some(asked_head(asked)),
            id: serve::id_head(identifier),
            true_for: asked.true_for,
            read_ms: u64::try_from(read.as_millis()).unwrap_or(u64::MAX),
        };
        self.head("why", &Message::of(&head), LONG)
    }

    fn profile(
        &self,
        identifier: &Identifier,
        true_for: Millis,
        _caller: &Caller,
    ) -> Result<Option<Profile>, AskError> {
        let head =
            serve::OfId { asked: None, id: serve::id_head(identifier), true_for, read_ms: 0 };
        let found: Option<serve::ProfileHead> = self.head("profile", &Message::of(&head), LONG)?;
        let Some(found) = found else { return Ok(None) };
        let identifiers = found.identifiers.iter().map(serve::identifier);
        let identifiers = identifiers.collect::<Result<_, Malformed>>()?;
        Ok(Some(Profile { shard: found.shard, ordinal: found.ordinal, identifiers }))
    }

    fn values(
        &self,
        which: Which,
        profiles: &[Arc<RoaringBitmap>],
        namespace: &Namespace,
        each: &mut dyn FnMut(&str) -> bool,
    ) -> Result<(), AskError> {
        let owners = Some(which == Which::Owner);
        let namespace = namespace.as_str().to_owned();
        let head = serve::ValuesHead { owners, namespace, matches: Matches::Current };
        let head = serve::StreamHead::Values(head);
        let of = (0..).zip(profiles).filter(|(_, profiles)| !profiles.is_empty());
        let of = of.map(|(shard, profiles)| (shard, &**profiles));
        let message = Message::of(&head).with(wire::put_bitmaps(of));
        let mut texts = Texts::new(self.peer.stream(message.encode())?);
        while let Some(value) = texts.next()? {
            if !each(value) {
                break;
            }
        }
        Ok(())
    }

    fn identifiers(
        &self,
        shard: ShardId,
        profiles: &RoaringBitmap,
        matches: Matches,
        each: &mut dyn FnMut(&Identifier),
    ) -> Result<(), AskError> {
        let head = serve::ValuesHead { owners: None, namespace: String::new(), matches };
        let head = serve::StreamHead::Values(head);
        let message = Message::of(&head).with(wire::put_bitmaps([(shard, profiles)]));
        let mut texts = Texts::new(self.peer.stream(message.encode())?);
        while let Some(namespace) = texts.next()? {
            let namespace = Namespace::new(namespace).map_err(|_| Malformed("a namespace"))?;
            let value = texts.next()?.ok_or(Malformed("an identifier without a value"))?;
            let identifier = Identifier::new(namespace, value);
            each(&identifier.map_err(|_| Malformed("an identifier"))?);
        }
        Ok(())
    }

    fn group(&self, group: &Group) -> Result<Of<Vec<RoaringBitmap>>, AskError> {
        let answer = self.ask("group", &Message::of(group), LONG)?;
        Ok(Of { shards: answer.read()?, found: wire::bitmaps(answer.blob(0)?, self.count)? })
    }

    fn events_of(&self, owners: &[Identifier]) -> Result<Of<u64>, AskError> {
        let (shards, found) = self.head("events-of", &Message::of(&owners), LONG)?;
        Ok(Of { shards, found })
    }

    fn disclose(&self, named: &[Identifier], _caller: &Caller) -> Result<Of<Disclosed>, AskError> {
        let (shards, found) = self.head("disclose", &Message::of(&named), LONG)?;
        Ok(Of { shards, found })
    }

    fn watermarks(&self) -> Result<Of<Vec<Watermark>>, AskError> {
        let known: Vec<(ShardId, Watermark)> = self.head("watermarks", &Message::of(&()), SOON)?;
        let mut all =
            Of { shards: Vec::new(), found: vec![Watermark::default(); self.count.into()] };
        for (shard, watermark) in known {
            let place = all.found.get_mut(usize::from(shard));
            *place.ok_or(Malformed("a shard beyond the last"))? = watermark;
            all.shards.push(shard);
        }
        Ok(all)
    }

    fn commit(&self, timeout: Duration) -> Result<bool, AskError> {
        let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        self.head("commit", &Message::of(&millis), timeout.saturating_add(SOON))
    }

    fn namespaces(&self) -> BTreeSet<Namespace> {
        let names: Result<Vec<String>, _> = self.head("namespaces", &Message::of(&()), SOON);
        names.unwrap_or_default().iter().filter_map(|name| Namespace::new(name).ok()).collect()
    }

    fn schema(&self) -> Schema {
        let read = || -> Result<Schema, AskError> {
            let answer = self.ask("schema", &Message::of(&()), SOON)?;
            let names: Vec<Box<str>> = answer.read()?;
            let rows: Vec<_> = names.into_iter().zip(answer.blobs).collect();
            Ok(Schema::of_rows(&rows)?)
        };
        read().unwrap_or_default()
    }

    fn import(&self, name: &str) -> Result<Of<Option<ImportProgress>>, AskError> {
        let head: serve::ProgressHead = self.head("import", &Message::of(&name), SOON)?;
        let found = head.progress.map(|[taken, counted, duplicates, rejected]| ImportProgress {
            erased: head.erased,
            import: name.into(),
            taken,
            counted,
            duplicates,
            rejected,
        });
        Ok(Of { shards: head.shards, found })
    }

    fn rejected(
        &self,
        name: &str,
        after: u64,
        limit: usize,
    ) -> Result<Vec<RejectedLine>, AskError> {
        let head = serve::ImportHead { name: name.to_owned(), after, limit };
        let lines: Vec<serve::LineHead> = self.head("rejected", &Message::of(&head), SOON)?;
        let lines = lines.into_iter().map(|line| RejectedLine {
            line: line.line,
            code: line.code.into(),
            message: line.message.into(),
        });
        Ok(lines.collect())
    }

    fn dead_letters(
        &self,
        after: Option<LetterNo>,
        limit: usize,
    ) -> Result<Vec<(LetterNo, DeadLetter)>, AskError> {
        let head = serve::LettersHead { after: after.map(|after| after.to_string()), limit };
        letters(self.ask("letters", &Message::of(&head), SOON)?)
    }

    fn dead_letter(&self, number: LetterNo) -> Result<Option<DeadLetter>, AskError> {
        let found = letters(self.ask("letter", &Message::of(&number.to_string()), SOON)?)?;
        Ok(found.into_iter().next().map(|(_, letter)| letter))
    }

    fn drop_dead_letter(&self, number: LetterNo) -> Result<bool, AskError> {
        self.head("drop-letter", &Message::of(&number.to_string()), SOON)
    }
}

fn letters(answer: Message) -> Result<Vec<(LetterNo, DeadLetter)>, AskError> {
    let heads: Vec<serve::LetterHead> = answer.read()?;
    let letters = heads.into_iter().zip(answer.blobs).map(|(head, bytes)| {
        let number = serve::number(&head.number)?;
        let reason = head.reason.into();
        Ok((number, DeadLetter { event: number.event, time: head.time, reason, bytes }))
    });
    letters.collect()
}

/// Reads texts with their lengths before them, up to an empty one.
struct Texts {
    from: Box<dyn Read + Send>,
    buffer: Vec<u8>,
    at: usize,
}

impl Texts {
    fn new(from: Box<dyn Read + Send>) -> Self {
        Self { from, buffer: Vec::new(), at: 0 }
    }

    /// The next text; `None` where all have come. An answer that is cut short is an error.
    fn next(&mut self) -> Result<Option<&str>, AskError> {
        let mut length = 0usize;
        for shift in (0..21).step_by(7) {
            let byte = self.take(1)?[0];
            length |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        if length > MOST {
            return Err(Malformed("a text is too long").into());
        }
        if length == 0 {
            return Ok(None);
        }
        let text = std::str::from_utf8(self.take(length)?);
        Ok(Some(text.map_err(|_| Malformed("a text is not UTF-8"))?))
    }

    fn take(&mut self, count: usize) -> Result<&[u8], AskError> {
        while self.buffer.len() - self.at < count {
            self.buffer.drain(..self.at);
            self.at = 0;
            let before = self.buffer.len();
            self.buffer.resize(before + (1 << 14), 0);
            let read = self.from.read(&mut self.buffer[before..]);
            self.buffer.truncate(before + read.as_ref().map_or(0, |read| *read));
            match read {
                Ok(0) => return Err(Malformed("an answer is cut short").into()),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(AskError::Away(format!("an answer broke off: {error}"))),
            }
        }
        let taken = &self.buffer[self.at..self.at + count];
        self.at += count;
        Ok(taken)
    }
}

/// Another node over HTTP.
pub struct OtherNode {
    peers: Peers,
    address: String,
}

impl OtherNode {
    /// The node whose private listener is at `address`.
    pub fn new(peers: Peers, address: String) -> Self {
        Self { peers, address }
    }
}

/// An answer may be so long.
const MOST_ANSWERED: u64 = 1 << 30;
const KIND: &str = "application/octet-stream";

impl Peer for OtherNode {
    fn ask(&self, what: &str, body: Vec<u8>, patience: Duration) -> Result<Vec<u8>, AskError> {
        let limits = Limits { timeout: patience, bytes: MOST_ANSWERED };
        let path = format!("/internal/v1/{what}");
        self.peers.post(&self.address, &path, KIND, &body, limits).map_err(away)
    }

    fn stream(&self, body: Vec<u8>) -> Result<Box<dyn Read + Send>, AskError> {
        let limits = Limits { timeout: LONG, bytes: u64::MAX };
        let path = "/internal/v1/values";
        let answer = self.peers.open_post(&self.address, path, KIND, &body, limits);
        Ok(Box::new(answer.map_err(away)?))
    }
}

fn away(error: PeerError) -> AskError {
    match error {
        PeerError::OutOfReach { .. } | PeerError::Refused { status: 503, .. } => {
            AskError::Away(chain(&error))
        }
        error => AskError::Elsewhere(chain(&error)),
    }
}
