//! What one node asks another of its shards, as bytes: a JSON head, and blobs for what is no JSON.

use std::collections::BTreeMap;
use std::sync::Arc;

use roaring::RoaringBitmap;
use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::AskError;
use super::live::Live;
use super::live::Segment;
use super::refresh::Compiled;
use super::shards::Of;
use crate::model::Malformed;
use crate::model::Millis;
use crate::model::ShardId;
use crate::model::codec::Reader;
use crate::model::codec::put_bytes;
use crate::model::codec::put_varint;
use crate::plan::Library;
use crate::plan::Members;
use crate::plan::references_of;
use crate::rules::Body;
use crate::rules::Level;
use crate::rules::Rule;
use crate::rules::SegmentFile;
use crate::store::audiences::RulePrint;

/// A message: its head, and the blobs that the head speaks of.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Message {
    /// JSON.
    pub head: Vec<u8>,
    /// Bytes.
    pub blobs: Vec<Vec<u8>>,
}

impl Message {
    /// A message with this head.
    pub fn of(head: &impl Serialize) -> Self {
        let head = serde_json::to_vec(head).expect("heads are made of plain fields");
        Self { head, blobs: Vec::new() }
    }

    /// Adds a blob.
    pub fn with(mut self, blob: Vec<u8>) -> Self {
        self.blobs.push(blob);
        self
    }

    /// The head, read.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Malformed> {
        serde_json::from_slice(&self.head).map_err(|_| Malformed("a head is not what it should be"))
    }

    /// A blob of it.
    pub fn blob(&self, at: usize) -> Result<&[u8], Malformed> {
        self.blobs.get(at).map(Vec::as_slice).ok_or(Malformed("a blob is missing"))
    }

    /// All of it as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_bytes(&mut out, &self.head);
        put_varint(&mut out, self.blobs.len() as u64);
        self.blobs.iter().for_each(|blob| put_bytes(&mut out, blob));
        out
    }

    /// An answer as bytes, or why there is none.
    pub fn answer(answer: &Result<Self, AskError>) -> Vec<u8> {
        match answer {
            Ok(answer) => [&[0], &answer.encode()[..]].concat(),
            Err(error) => {
                let head = Self::of(&ErrorHead::from(error));
                [&[1], &head.encode()[..]].concat()
            }
        }
    }

    /// Reads bytes of [`Message::answer`].
    pub(super) fn answered(bytes: &[u8]) -> Result<Self, AskError> {
        match bytes.split_first() {
            Some((0, rest)) => Ok(Self::decode(rest)?),
            Some((1, rest)) => Err(Self::decode(rest)?.read::<ErrorHead>()?.into()),
            _ => Err(Malformed("an answer").into()),
        }
    }

    /// Reads bytes of [`Message::encode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let head = reader.bytes()?.to_vec();
        let mut blobs = Vec::new();
        for _ in 0..reader.length()? {
            blobs.push(reader.bytes()?.to_vec());
        }
        reader.finish()?;
        Ok(Self { head, blobs })
    }
}

/// The bitmaps of some shards.
pub(super) fn put_bitmaps<'a>(
    bitmaps: impl IntoIterator<Item = (ShardId, &'a RoaringBitmap)>,
) -> Vec<u8> {
    let mut out = Vec::new();
    for (shard, bitmap) in bitmaps {
        put_varint(&mut out, u64::from(shard));
        put_varint(&mut out, bitmap.serialized_size() as u64);
        bitmap.serialize_into(&mut out).expect("a Vec takes all");
    }
    out
}

/// Reads bitmaps into their places, of so many.
pub(super) fn bitmaps(bytes: &[u8], count: u16) -> Result<Vec<RoaringBitmap>, Malformed> {
    let mut all = vec![RoaringBitmap::new(); usize::from(count)];
    let mut reader = Reader::new(bytes);
    while reader.remaining() > 0 {
        let shard = usize::try_from(reader.varint()?).map_err(|_| Malformed("a shard"))?;
        let place = all.get_mut(shard).ok_or(Malformed("a shard beyond the last"))?;
        let bytes = reader.bytes()?;
        *place = RoaringBitmap::deserialize_from(bytes).map_err(|_| Malformed("a bitmap"))?;
    }
    Ok(all)
}

/// The bitmaps of the shards that an answer is of.
pub(super) fn put_of(of: &Of<Vec<RoaringBitmap>>) -> Vec<u8> {
    put_bitmaps(
        of.shards.iter().filter_map(|shard| Some((*shard, of.found.get(usize::from(*shard))?))),
    )
}

/// A rule that is asked, on its way.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct AskedHead {
    pub(super) rule: String,
    pub(super) level: Level,
    pub(super) true_for: Millis,
    pub(super) now: Millis,
    /// The segments that the rule names, and those that they do.
    pub(super) library: BTreeMap<String, String>,
}

/// The segments that a rule names, and those that they do, as rules.
pub(super) fn named(rule: &Rule, library: &Library) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut open: Vec<String> = references_of(&Body::Rule(rule.clone()))
        .into_iter()
        .map(|name| name.text.to_string())
        .collect();
    while let Some(id) = open.pop() {
        if found.contains_key(&id) {
            continue;
        }
        if let Some(body @ Body::Rule(rule)) = library.body(&id) {
            open.extend(references_of(body).into_iter().map(|name| name.text.to_string()));
            found.insert(id, crate::rules::print(rule));
        }
    }
    found
}

/// A rule as it was sent.
pub(super) fn rule(text: &str) -> Result<Rule, Malformed> {
    let (rule, diagnostics) = crate::rules::parse(text);
    if crate::rules::has_errors(&diagnostics) {
        return Err(Malformed("a rule cannot be read"));
    }
    Ok(rule)
}

/// A live segment on its way.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Definition {
    id: String,
    text: String,
    hidden: bool,
    frozen: bool,
    /// What the members of a look-alike are known by.
    #[serde(default)]
    trained: Option<RulePrint>,
}

/// The live segments, to be sent.
pub(super) fn definitions(compiled: &Compiled) -> Vec<Definition> {
    let of = |(id, segment): (&String, &std::sync::Arc<Segment>)| Definition {
        id: id.clone(),
        text: segment.text.clone(),
        hidden: segment.hidden,
        frozen: segment.frozen,
        trained: compiled.trained.get(id).copied(),
    };
    compiled.live.segments.iter().map(of).collect()
}

/// The live segments as they were sent, and what the members of look-alikes are known by.
pub(super) fn live(
    version: u64,
    definitions: Vec<Definition>,
) -> (Live, BTreeMap<String, RulePrint>) {
    let mut live = Live { version, ..Live::default() };
    let mut prints = BTreeMap::new();
    for Definition { id, text, hidden, frozen, trained } in definitions {
        prints.extend(trained.map(|print| (id.clone(), print)));
        let (file, _) = SegmentFile::parse(&id, &text);
        let segment = Segment { file, text, hidden, frozen };
        live.segments.insert(id, std::sync::Arc::new(segment));
    }
    (live, prints)
}

/// How much of an answer there is, and what is told of each segment.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RefreshHead {
    /// Tells this answer from others of the same node.
    pub(super) stamp: u64,
    /// Nothing is other than in the answer that the question named.
    pub(super) same: bool,
    pub(super) shards: Vec<ShardId>,
    pub(super) segments: BTreeMap<String, OutcomeHead>,
}

/// What became of a segment.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum OutcomeHead {
    /// Its members are in this blob.
    Members(usize),
    /// Its members are those of the answer that the question named.
    Same,
    /// Its traits are being filled.
    Filling(u8),
    /// No training has found its members yet.
    Training,
    /// It cannot be evaluated.
    Failing(String),
}

/// A refresh that is asked for.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RefreshAsked {
    /// Names the live segments among all that any leader has asked with.
    pub(super) key: String,
    pub(super) version: u64,
    pub(super) at: Millis,
    /// The stamp of the last answer that the leader has.
    pub(super) seen: u64,
}

/// Why there is no answer, on its way.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ErrorHead {
    kind: Kind,
    text: String,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Wrong,
    Unknown,
    Later,
    Internal,
}

impl From<&AskError> for ErrorHead {
    fn from(error: &AskError) -> Self {
        let kind = match error {
            AskError::Rule(_) | AskError::At(_) | AskError::TooEarly(_) | AskError::NotYet(_) => {
                Kind::Wrong
            }
            AskError::Unknown(_) => Kind::Unknown,
            AskError::Behind
            | AskError::Missing(_)
            | AskError::Moving
            | AskError::Cancelled
            | AskError::Away(_) => Kind::Later,
            AskError::Fill(_) | AskError::Store(_) | AskError::Elsewhere(_) => Kind::Internal,
        };
        Self { kind, text: crate::store::chain(error) }
    }
}

impl From<ErrorHead> for AskError {
    fn from(head: ErrorHead) -> Self {
        match head.kind {
            Kind::Wrong => Self::NotYet(head.text),
            Kind::Unknown => Self::Unknown(head.text),
            Kind::Later => Self::Away(head.text),
            Kind::Internal => Self::Elsewhere(head.text),
        }
    }
}

/// The members of some shards, in their places.
pub(super) fn members(bytes: &[u8], count: u16) -> Result<Members, Malformed> {
    let shards = bitmaps(bytes, count)?.into_iter().map(Arc::new).collect();
    Ok(Members { shards })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_as_it_was_sent_and_no_bytes_are_too_odd() {
        let message = Message::of(&["head"]).with(vec![1, 2, 3]).with(Vec::new());
        let bytes = message.encode();
        assert_eq!(Message::decode(&bytes), Ok(message));
        for cut in 0..bytes.len() {
            assert!(Message::decode(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn bitmaps_come_back_in_their_places() {
        let bitmap: RoaringBitmap = (0..70_000).step_by(3).collect();
        let sent = put_bitmaps([(2, &bitmap)]);
        let read = bitmaps(&sent, 4).unwrap();
        assert_eq!((read[2].clone(), read[0].len()), (bitmap, 0));
        assert!(bitmaps(&sent, 2).is_err());
        assert!(bitmaps(&sent[..sent.len() - 1], 4).is_err());
    }

    #[test]
    fn what_a_rule_names_goes_with_it() {
        let mut library = Library::new();
        for (id, text) in [("a", "segment b"), ("b", "did x"), ("c", "did y")] {
            library.insert(id, Body::Rule(rule(text).unwrap()));
        }
        let found = named(&rule("segment a and did z").unwrap(), &library);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["a", "b"]);
    }
}
