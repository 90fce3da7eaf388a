//! Splits records by lane: each goes to the lane of its owner, and the lines of an import to every lane.
//!
//! Every lane knows how far an import has come, so each gets a record of the same lines, with its own events
//! among them, which may be none; the rejected lines are the first lane's. What is erased is every lane's. What cannot be read is the first
//! lane's too, whose fold puts it among the dead letters.
//!
//! The same records are always cut into the same frames: a sender numbers them by their place.

use std::collections::BTreeMap;

use super::identity::Keys;
use super::seen::Hash;
use crate::model::Millis;
use crate::model::Record;
use crate::model::owner::Owner;
use crate::model::owner::ProfileRef;
use crate::store::intake::FRAME;
use crate::store::journal::Batch;
use crate::store::lanes::Layout;
use crate::store::state::Identity;

/// Knows the lane of every identifier of a store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Splitter {
    keys: Keys,
    layout: Layout,
}

/// A record's place in a lane: in which of the frames, and which of its records it is.
type Place = (usize, u32);

/// An event with a message id, and where it went.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message {
    pub(crate) lane: u16,
    /// Which of the lane's frames.
    pub(crate) frame: usize,
    /// Which record of the frame.
    pub(crate) record: u32,
    /// Which event of the record.
    pub(crate) part: u32,
    pub(crate) received: Millis,
    pub(crate) recent: Hash,
    /// Of a line of an import.
    pub(crate) imported: Option<Hash>,
}

/// What goes to each lane: frames in order, with no record in two of them.
pub(crate) type Split = BTreeMap<u16, Vec<Batch>>;

impl Splitter {
    pub(crate) fn new(identity: Identity, layout: Layout) -> Self {
        Self { keys: Keys::new(identity), layout }
    }

    /// Splits encoded records; their order is kept in each lane.
    #[cfg(test)]
    pub(crate) fn split<'r>(&self, records: impl Iterator<Item = &'r [u8]>) -> Split {
        self.split_noting(records).0
    }

    /// Splits encoded records, whose order is kept in each lane; and notes every message id in the order in which
    /// it came.
    pub(crate) fn split_noting<'r>(
        &self,
        records: impl Iterator<Item = &'r [u8]>,
    ) -> (Split, Vec<Message>) {
        let mut split = Split::new();
        let mut messages = Vec::new();
        let mut part = Vec::new();
        for record in records {
            match Record::owner(record) {
                Ok(Owner::Profile(owner)) => {
                    let lane = self.lane_of(owner);
                    let place = add(&mut split, lane, record);
                    messages.extend(self.message(lane, place, 0, owner, None));
                }
                Ok(Owner::Import(import)) => {
                    let lanes: Vec<u16> =
                        import.owners().map(|owner| self.lane_of(owner)).collect();
                    let mut places = Vec::with_capacity(usize::from(self.layout.lanes()));
                    for lane in 0..self.layout.lanes() {
                        part.clear();
                        import.encode_part(|at| lanes[at] == lane, lane == 0, &mut part);
                        places.push((add(&mut split, lane, &part), 0));
                    }
                    for (owner, lane) in import.owners().zip(&lanes) {
                        let (place, parts) = &mut places[usize::from(*lane)];
                        let name = Some(import.name());
                        messages.extend(self.message(*lane, *place, *parts, owner, name));
                        *parts += 1;
                    }
                }
                Ok(Owner::All { .. }) => {
                    for lane in 0..self.layout.lanes() {
                        add(&mut split, lane, record);
                    }
                }
                Err(_) => _ = add(&mut split, 0, record),
            }
        }
        (split, messages)
    }

    fn message(
        &self,
        lane: u16,
        (frame, record): Place,
        part: u32,
        owner: ProfileRef<'_>,
        import: Option<&str>,
    ) -> Option<Message> {
        let (site, id) = owner.message?;
        let (site, id) = (site.as_bytes(), id.as_bytes());
        let recent = self.keys.hash(b"message", &[site, id]);
        let imported =
            import.map(|import| self.keys.hash(b"import", &[import.as_bytes(), site, id]));
        let received = owner.received;
        Some(Message { lane, frame, record, part, received, recent, imported })
    }

    fn lane_of(&self, owner: ProfileRef<'_>) -> u16 {
        self.layout.lane_of(self.keys.place(owner.namespace, owner.value).shard)
    }
}

/// Adds a record to a lane's last frame, or to a new one; tells its place there.
fn add(split: &mut Split, lane: u16, record: &[u8]) -> Place {
    let frames = split.entry(lane).or_default();
    let has_room = |frame: &Batch| frame.bytes().len() + record.len() < FRAME;
    if !frames.last().is_some_and(has_room) {
        frames.push(Batch::new());
    }
    let at = frames.len() - 1;
    let frame = &mut frames[at];
    let place = (at, frame.len());
    frame.push_encoded(record).expect("it was in a batch, and is alone in this one or small");
    place
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ingest::tests::world::event;
    use crate::ingest::tests::world::id;
    use crate::model::Choice;
    use crate::model::ImportLines;
    use crate::model::RejectedLine;
    use crate::model::record::ImportedEvent;

    const IDENTITY: Identity = Identity { shards: 12, key: [3; 16] };

    fn imported() -> impl Strategy<Value = Record> {
        let events = prop::collection::vec(1..40_u32, 0..12);
        (events, 0..3_u64).prop_map(|(users, rejected)| {
            let imported = |(line, user): (u64, u32)| ImportedEvent {
                line,
                own_message_id: user % 2 == 0,
                event: event(&user.to_string(), "buy", i64::from(user)),
            };
            let reject = |line| RejectedLine { line, code: "time".into(), message: "no".into() };
            let first = users.len() as u64 + 1;
            Record::Import(ImportLines {
                import: "file".into(),
                first_line: 1,
                lines: first + rejected,
                events: (1..).zip(users).map(imported).collect(),
                rejected: (first..first + rejected).map(reject).collect(),
            })
        })
    }

    fn record() -> impl Strategy<Value = Record> {
        prop_oneof![
            4 => (1..40_u32, 0..9_i64, 0..300_usize).prop_map(|(user, time, size)| {
                let page = Some("x".repeat(size * 300).into());
                let page = crate::model::Page { url: page, ..Default::default() };
                Record::Event(crate::model::Event { page, ..event(&user.to_string(), "view", time) })
            }),
            2 => (1..40_u32, any::<bool>()).prop_map(|(user, opted_out)| {
                let identifier = id("cookie", &user.to_string());
                Record::Choice(Choice { identifier, opted_out, received: 5 })
            }),
            1 => imported(),
            1 => any::<[u64; 2]>().prop_map(|print| {
                let prints = vec![crate::model::Print(print)];
                let (received, before, for_good) = (5, 9, false);
                Record::Erase(crate::model::Erasure { received, prints, before, for_good })
            }),
        ]
    }

    /// The same, with the records read as a whole.
    fn expected(records: &[Record], layout: Layout) -> BTreeMap<u16, Vec<Record>> {
        let keys = Keys::new(IDENTITY);
        let lane_of = |identifier: &crate::model::Identifier| {
            let place = keys.place(identifier.namespace.as_str(), identifier.value());
            layout.lane_of(place.shard)
        };
        let mut lanes = BTreeMap::<u16, Vec<Record>>::new();
        for record in records {
            let one = match record {
                Record::Event(event) => lane_of(event.owner()),
                Record::Choice(choice) => lane_of(&choice.identifier),
                Record::Erase(_) | Record::OptOut(_) => {
                    for lane in 0..layout.lanes() {
                        lanes.entry(lane).or_default().push(record.clone());
                    }
                    continue;
                }
                Record::Import(lines) => {
                    for lane in 0..layout.lanes() {
                        let mut part = lines.clone();
                        part.events.retain(|imported| lane_of(imported.event.owner()) == lane);
                        part.rejected.retain(|_| lane == 0);
                        lanes.entry(lane).or_default().push(Record::Import(part));
                    }
                    continue;
                }
            };
            lanes.entry(one).or_default().push(record.clone());
        }
        lanes
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn every_lane_gets_what_is_its_own_once_and_in_order(
            records in prop::collection::vec(record(), 0..60),
            lanes in 1..=12_u16,
        ) {
            let layout = Layout::new(IDENTITY.shards, lanes);
            let mut batch = Batch::new();
            records.iter().for_each(|record| batch.push(record).unwrap());
            let split = Splitter::new(IDENTITY, layout).split(batch.records());
            let read = |frames: &Vec<Batch>| -> Vec<Record> {
                frames.iter().flat_map(Batch::records).map(|r| Record::decode(r).unwrap()).collect()
            };
            let found: BTreeMap<_, _> = split.iter().map(|(lane, f)| (*lane, read(f))).collect();
            prop_assert_eq!(found, expected(&records, layout));
            for frames in split.values() {
                prop_assert!(frames.iter().all(|frame| frame.bytes().len() <= FRAME + 10));
                let is_cut = |pair: &[Batch]| pair[0].bytes().len() + pair[1].bytes().len() > FRAME;
                prop_assert!(frames.windows(2).all(is_cut) && frames.iter().all(|f| !f.is_empty()));
            }
        }
    }

    #[test]
    fn what_cannot_be_read_goes_to_the_first_lane() {
        let splitter = Splitter::new(IDENTITY, Layout::new(IDENTITY.shards, 12));
        let mut whole = Vec::new();
        Record::Event(event("1", "view", 0)).encode(&mut whole);
        let records = [&b""[..], b"\x09", &whole[..9]];
        let split = splitter.split(records.into_iter());
        assert_eq!(split[&0].iter().flat_map(Batch::records).collect::<Vec<_>>(), records);
        assert_eq!(split.len(), 1);
    }

    #[test]
    fn a_record_as_large_as_a_batch_is_a_frame_of_its_own() {
        let splitter = Splitter::new(IDENTITY, Layout::new(IDENTITY.shards, 1));
        let large = vec![9; crate::store::journal::MAX_FRAME - 10];
        let split = splitter.split([&b"\x09"[..], &large, b"\x09"].into_iter());
        assert_eq!(split[&0].iter().map(Batch::len).collect::<Vec<_>>(), [1, 1, 1]);
    }
}
