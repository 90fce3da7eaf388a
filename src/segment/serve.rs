//! Answers what other nodes ask of the shards of this process.

use std::collections::HashMap;
use std::hash::Hasher;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Deserialize;
use serde::Serialize;
use siphasher::sip128::Hasher128;
use siphasher::sip128::SipHasher13;

use super::AskError;
use super::Caller;
use super::Compiled;
use super::Local;
use super::shards::Asked;
use super::shards::Of;
use super::shards::Outcome;
use super::shards::Shards;
use super::shards::Which;
use super::wire;
use super::wire::Message;
use super::wire::OutcomeHead;
use crate::ingest::LetterNo;
use crate::ingest::Matches;
use crate::model::Identifier;
use crate::model::Malformed;
use crate::model::Millis;
use crate::model::Namespace;
use crate::model::ShardId;
use crate::model::codec::put_str;
use crate::plan::Library;
use crate::plan::Members;
use crate::rules::Body;
use crate::store::StoreError;
use crate::store::audiences::Last;
use crate::store::state::DeadLetter;
use crate::store::state::ImportProgress;

/// The shards of this process, for other nodes.
pub struct Serve {
    local: Arc<Local>,
    /// How many shards the store has.
    count: u16,
    /// The live segments as the leader last sent them, by their key.
    compiled: Mutex<Option<(String, Arc<Compiled>)>>,
    sent: Mutex<Sent>,
    stamps: AtomicU64,
}

/// What the leader was last told of audiences.
#[derive(Default)]
struct Sent {
    key: String,
    stamp: u64,
    refreshed: Option<Arc<Of<super::Refreshed>>>,
    members: HashMap<String, (u64, u64)>,
}

/// An identifier, on its way.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct IdHead {
    pub(super) namespace: String,
    pub(super) value: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ReachHead {
    pub(super) wanted: Millis,
    pub(super) wait_ms: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct OfId {
    pub(super) asked: Option<wire::AskedHead>,
    pub(super) id: IdHead,
    pub(super) true_for: Millis,
    /// How long events may be read.
    #[serde(default)]
    pub(super) read_ms: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ProfileHead {
    pub(super) shard: ShardId,
    pub(super) ordinal: u32,
    pub(super) identifiers: Vec<IdHead>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ImportHead {
    pub(super) name: String,
    pub(super) after: u64,
    pub(super) limit: usize,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ProgressHead {
    pub(super) shards: Vec<ShardId>,
    /// Taken, counted, duplicates, rejected.
    pub(super) progress: Option<[u64; 4]>,
    /// Erased, which a node of before does not say.
    #[serde(default)]
    pub(super) erased: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LineHead {
    pub(super) line: u64,
    pub(super) code: String,
    pub(super) message: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LettersHead {
    pub(super) after: Option<String>,
    pub(super) limit: usize,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LetterHead {
    pub(super) number: String,
    pub(super) time: Millis,
    pub(super) reason: String,
}

/// A question whose answer may be long.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum StreamHead {
    Values(ValuesHead),
    /// Members shard by shard, as JSON.
    Counts(wire::AskedHead),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ValuesHead {
    /// Of which identifiers: the owner's, or all others; of neither, all with their namespaces.
    pub(super) owners: Option<bool>,
    pub(super) namespace: String,
    /// Of all with their namespaces, which.
    #[serde(default)]
    pub(super) matches: Matches,
}

impl Serve {
    /// Answers for these shards.
    pub fn new(local: Arc<Local>, count: u16) -> Self {
        Self {
            local,
            count,
            compiled: Mutex::default(),
            sent: Mutex::default(),
            stamps: AtomicU64::new(1),
        }
    }

    /// Answers one question. Blocks.
    pub fn answer(
        &self,
        what: &str,
        message: &Message,
        caller: &Caller,
    ) -> Result<Message, AskError> {
        let local = &*self.local;
        Ok(match what {
            "reach" => {
                let ReachHead { wanted, wait_ms } = message.read()?;
                let Of { shards, found } = local.reach(wanted, Duration::from_millis(wait_ms))?;
                Message::of(&(shards, found))
            }
            "refresh" => self.refresh(message)?,
            "keep" => {
                let (generation, true_for, published) = message.read()?;
                Message::of(&local.keep(Last { generation, true_for }, published)?)
            }
            "show" => {
                let (generation, true_for, to_keep) = message.read()?;
                Message::of(&local.show(Last { generation, true_for }, to_keep)?)
            }
            "kept" => {
                let Of { shards, found } = local.kept(message.read()?)?;
                let ids: Vec<&String> = found.keys().collect();
                let mut answer = Message::of(&(&shards, ids));
                answer.blobs = found.values().map(|members| of_shards(&shards, members)).collect();
                answer
            }
            "eval" => self.with_rule(message, |asked| {
                let of = local.eval(asked, caller)?;
                let Of { shards, found } = of;
                Ok(Message::of(&shards).with(of_shards(&shards, &found)))
            })?,
            "learn" => {
                let of = local.learn(&message.read()?, caller)?;
                Message::of(&(of.shards, of.found))
            }
            "explain" => self.with_rule(message, |asked| {
                let of = local.explain(asked, caller)?;
                Ok(Message::of(&(of.shards, of.found)))
            })?,
            "costs" => {
                let asked: wire::RefreshAsked = message.read()?;
                let of = local.costs(&self.compiled(&asked, message)?, asked.at)?;
                Message::of(&(of.shards, of.found))
            }
            "why" => {
                let OfId { asked, id, read_ms, .. } = message.read()?;
                let head = asked.ok_or(Malformed("a rule is missing"))?;
                let identifier = identifier(&id)?;
                let read = Duration::from_millis(read_ms);
                self.asked(&head, |asked| {
                    Ok(Message::of(&local.why(asked, &identifier, read, caller)?))
                })?
            }
            "profile" => {
                let OfId { id, true_for, .. } = message.read()?;
                let found = local.profile(&identifier(&id)?, true_for, caller)?;
                Message::of(&found.map(|found| ProfileHead {
                    shard: found.shard,
                    ordinal: found.ordinal,
                    identifiers: found.identifiers.iter().map(id_head).collect(),
                }))
            }
            "group" => bitmaps(&local.group(&message.read()?)?),
            "events-of" => {
                let Of { shards, found } = local.events_of(&message.read::<Vec<Identifier>>()?)?;
                Message::of(&(shards, found))
            }
            "disclose" => {
                let of = local.disclose(&message.read::<Vec<Identifier>>()?, caller)?;
                Message::of(&(of.shards, of.found))
            }
            "watermarks" => {
                let Of { shards, found } = local.watermarks()?;
                let of = |shard: ShardId| Some((shard, *found.get(usize::from(shard))?));
                Message::of(&shards.into_iter().filter_map(of).collect::<Vec<_>>())
            }
            "commit" => {
                let millis: u64 = message.read()?;
                Message::of(&local.commit(Duration::from_millis(millis))?)
            }
            "namespaces" => {
                let names = local.namespaces();
                Message::of(&names.iter().map(Namespace::as_str).collect::<Vec<_>>())
            }
            "schema" => {
                let rows = local.schema().rows();
                let names: Vec<&str> = rows.iter().map(|(name, _)| &**name).collect();
                let mut answer = Message::of(&names);
                answer.blobs = rows.into_iter().map(|(_, bytes)| bytes).collect();
                answer
            }
            "import" => {
                let name: String = message.read()?;
                let Of { shards, found } = local.import(&name)?;
                let erased = found.as_ref().map_or(0, |found| found.erased);
                let progress =
                    found.map(|p: ImportProgress| [p.taken, p.counted, p.duplicates, p.rejected]);
                Message::of(&ProgressHead { shards, progress, erased })
            }
            "rejected" => {
                let ImportHead { name, after, limit } = message.read()?;
                let lines = local.rejected(&name, after, limit)?;
                let lines = lines.into_iter().map(|line| LineHead {
                    line: line.line,
                    code: line.code.into(),
                    message: line.message.into(),
                });
                Message::of(&lines.collect::<Vec<_>>())
            }
            "letters" => {
                let LettersHead { after, limit } = message.read()?;
                let after = after.map(|after| number(&after)).transpose()?;
                letters(&local.dead_letters(after, limit)?)
            }
            "letter" => {
                let asked = number(&message.read::<String>()?)?;
                let letter = local.dead_letter(asked)?;
                letters(&letter.map(|letter| (asked, letter)).into_iter().collect::<Vec<_>>())
            }
            "drop-letter" => {
                Message::of(&local.drop_dead_letter(number(&message.read::<String>()?)?)?)
            }
            _ => return Err(AskError::Unknown(format!("there is no question {what}"))),
        })
    }

    /// Answers a question whose answer may be long, some of it at a time, until `send` says that it wants no
    /// more: texts with their lengths before them. Blocks.
    pub fn stream(
        &self,
        message: &Message,
        send: &mut dyn FnMut(Vec<u8>) -> bool,
    ) -> Result<(), AskError> {
        const CHUNK: usize = 1 << 16;
        let ValuesHead { owners, namespace, matches } = match message.read()? {
            StreamHead::Values(head) => head,
            StreamHead::Counts(head) => return self.counts(&head, send),
        };
        let profiles = wire::members(message.blob(0)?, self.count)?.shards;
        let mut chunk = Vec::new();
        let mut wanted = true;
        let mut flush = |chunk: &mut Vec<u8>, least: usize, wanted: &mut bool| {
            if *wanted && chunk.len() > least {
                *wanted = send(std::mem::take(chunk));
            }
        };
        match owners {
            Some(owners) => {
                let which = if owners { Which::Owner } else { Which::Others };
                let namespace = Namespace::new(&namespace).map_err(|_| Malformed("a namespace"))?;
                self.local.values(which, &profiles, &namespace, &mut |value| {
                    put_str(&mut chunk, value);
                    flush(&mut chunk, CHUNK, &mut wanted);
                    wanted
                })?;
            }
            None => {
                for (shard, profiles) in (0..).zip(&profiles).filter(|(_, p)| !p.is_empty()) {
                    self.local.identifiers(shard, profiles, matches, &mut |identifier| {
                        put_str(&mut chunk, identifier.namespace.as_str());
                        put_str(&mut chunk, identifier.value());
                        flush(&mut chunk, CHUNK, &mut wanted);
                    })?;
                    if !wanted {
                        break;
                    }
                }
            }
        }
        // An empty text is no identifier: it says that this was all.
        put_str(&mut chunk, "");
        flush(&mut chunk, 0, &mut wanted);
        Ok(())
    }

    /// Sends the members of each shard as soon as they are counted.
    fn counts(
        &self,
        head: &wire::AskedHead,
        send: &mut dyn FnMut(Vec<u8>) -> bool,
    ) -> Result<(), AskError> {
        let caller = Caller::default();
        let (give, counted) = std::sync::mpsc::channel();
        let of_all = std::thread::scope(|scope| {
            let caller = &caller;
            let asking = scope.spawn(move || {
                self.asked(head, |asked| {
                    let each = |counted| {
                        let _ = give.send(counted);
                    };
                    Ok(Message::of(&self.local.counts(asked, caller, &each)?.shards))
                })
            });
            for counted in counted {
                let mut text = Vec::new();
                put_str(&mut text, &serde_json::to_string(&counted).unwrap_or_default());
                if !send(text) {
                    caller.leave();
                }
            }
            asking.join().unwrap_or_else(|_| Err(AskError::Elsewhere("a count panicked".into())))
        });
        of_all?;
        let mut end = Vec::new();
        put_str(&mut end, "");
        send(end);
        Ok(())
    }

    fn with_rule(
        &self,
        message: &Message,
        answer: impl FnOnce(&Asked<'_>) -> Result<Message, AskError>,
    ) -> Result<Message, AskError> {
        self.asked(&message.read()?, answer)
    }

    fn asked(
        &self,
        head: &wire::AskedHead,
        answer: impl FnOnce(&Asked<'_>) -> Result<Message, AskError>,
    ) -> Result<Message, AskError> {
        let rule = wire::rule(&head.rule)?;
        let mut library = Library::new();
        for (id, text) in &head.library {
            library.insert(id, Body::Rule(wire::rule(text)?));
        }
        answer(&Asked {
            rule: &rule,
            level: head.level,
            library: &library,
            true_for: head.true_for,
            now: head.now,
        })
    }

    /// The live segments that something is asked of.
    fn compiled(
        &self,
        asked: &wire::RefreshAsked,
        message: &Message,
    ) -> Result<Arc<Compiled>, AskError> {
        let mut kept = self.compiled.lock();
        match (&*kept, message.blobs.first()) {
            (Some((known, compiled)), _) if *known == asked.key => Ok(compiled.clone()),
            (_, Some(definitions)) => {
                let definitions: Vec<wire::Definition> = serde_json::from_slice(definitions)
                    .map_err(|_| Malformed("a segment is not what it should be"))?;
                // Refreshes go by the version: those of two leaders must not be taken for each other.
                let stamp = self.stamps.fetch_add(1, Ordering::Relaxed);
                let version = stamp << 32 | (asked.version & u64::from(u32::MAX));
                let (live, trained) = wire::live(version, definitions);
                let compiled = Arc::new(Compiled::with(Arc::new(live), trained));
                *kept = Some((asked.key.clone(), compiled.clone()));
                Ok(compiled)
            }
            (_, None) => Err(AskError::Unknown(UNKNOWN_SEGMENTS.to_owned())),
        }
    }

    fn refresh(&self, message: &Message) -> Result<Message, AskError> {
        let asked: wire::RefreshAsked = message.read()?;
        let compiled = self.compiled(&asked, message)?;
        let wire::RefreshAsked { key, at, seen, .. } = asked;
        let refreshed = self.local.refresh(&compiled, at)?;
        let mut sent = self.sent.lock();
        let knows = sent.key == key && sent.stamp == seen;
        if !knows {
            *sent = Sent { key, ..Sent::default() };
        }
        let same = sent.refreshed.as_ref().is_some_and(|sent| Arc::ptr_eq(sent, &refreshed));
        sent.stamp = self.stamps.fetch_add(1, Ordering::Relaxed);
        let mut head = wire::RefreshHead {
            stamp: sent.stamp,
            same,
            shards: refreshed.shards.clone(),
            segments: std::collections::BTreeMap::new(),
        };
        let mut blobs = Vec::new();
        if !same {
            let mut members = HashMap::new();
            for (id, outcome) in &refreshed.found.segments {
                let outcome = match outcome {
                    Outcome::Filling(percent) => OutcomeHead::Filling(*percent),
                    Outcome::Training => OutcomeHead::Training,
                    Outcome::Failing(reason) => OutcomeHead::Failing(reason.clone()),
                    Outcome::Members(found) => {
                        // What is shared with the last answer is as it was there.
                        let of = |refreshed: &Of<super::Refreshed>| match refreshed
                            .found
                            .segments
                            .get(id)
                        {
                            Some(Outcome::Members(sent)) => Arc::ptr_eq(sent, found),
                            _ => false,
                        };
                        let is_same = sent
                            .refreshed
                            .as_ref()
                            .is_some_and(|sent| sent.shards == refreshed.shards && of(sent));
                        if let Some(hash) = sent.members.get(id).filter(|_| is_same) {
                            members.insert(id.clone(), *hash);
                            head.segments.insert(id.clone(), OutcomeHead::Same);
                            continue;
                        }
                        let bytes = of_shards(&refreshed.shards, found);
                        let mut hasher = SipHasher13::new();
                        hasher.write(&bytes);
                        let hash = hasher.finish128();
                        let hash = (hash.h1, hash.h2);
                        members.insert(id.clone(), hash);
                        if sent.members.get(id) == Some(&hash) {
                            OutcomeHead::Same
                        } else {
                            blobs.push(bytes);
                            OutcomeHead::Members(blobs.len() - 1)
                        }
                    }
                };
                head.segments.insert(id.clone(), outcome);
            }
            sent.members = members;
            sent.refreshed = Some(refreshed);
        }
        Ok(Message { blobs, ..Message::of(&head) })
    }
}

/// Says that the live segments have to be sent with the question.
pub(super) const UNKNOWN_SEGMENTS: &str = "the segments are not known here";

/// The members that are in some shards.
fn of_shards(shards: &[ShardId], members: &Members) -> Vec<u8> {
    let of = |shard: &ShardId| Some((*shard, &**members.shards.get(usize::from(*shard))?));
    wire::put_bitmaps(shards.iter().filter_map(of))
}

fn bitmaps(of: &Of<Vec<roaring::RoaringBitmap>>) -> Message {
    Message::of(&of.shards).with(wire::put_of(of))
}

fn letters(letters: &[(LetterNo, DeadLetter)]) -> Message {
    let heads = letters.iter().map(|(number, letter)| LetterHead {
        number: number.to_string(),
        time: letter.time,
        reason: letter.reason.to_string(),
    });
    let mut answer = Message::of(&heads.collect::<Vec<_>>());
    answer.blobs = letters.iter().map(|(_, letter)| letter.bytes.to_vec()).collect();
    answer
}

pub(super) fn number(text: &str) -> Result<LetterNo, Malformed> {
    text.parse().map_err(|_| Malformed("a dead letter's number"))
}

pub(super) fn id_head(identifier: &Identifier) -> IdHead {
    IdHead {
        namespace: identifier.namespace.as_str().to_owned(),
        value: identifier.value().to_owned(),
    }
}

pub(super) fn identifier(head: &IdHead) -> Result<Identifier, Malformed> {
    let namespace = Namespace::new(&head.namespace).map_err(|_| Malformed("a namespace"))?;
    Identifier::new(namespace, &head.value).map_err(|_| Malformed("an identifier"))
}

/// A question or an answer that cannot be read: the nodes are of different versions.
impl From<Malformed> for AskError {
    fn from(malformed: Malformed) -> Self {
        Self::Store(StoreError::Malformed {
            what: "what another node said".to_owned(),
            hint: "run the same version of Throng on all nodes".to_owned(),
            source: Some(Box::new(malformed)),
        })
    }
}
