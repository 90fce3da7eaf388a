//! Reads the target back and compares it with what was copied.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Meter;
use super::MoveError;
use super::copy::Copied;
use super::copy::Tally;
use super::copy::each_letter;
use super::copy::rejected_of;
use super::copy::summed;
use super::source::Source;
use super::target::Lane;
use super::target::Target;
use crate::ingest::Content;
use crate::ingest::Schema;
use crate::ingest::Stored;
use crate::model::ShardId;
use crate::store::chain;
use crate::store::ledger::Ledger;
use crate::store::state::ImportProgress;
use crate::store::state::Loaded;
use crate::store::state::ManifestRow;
use crate::store::state::SeenSet;
use crate::store::state::damaged;

/// One thing that was compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Compared {
    /// What.
    pub what: String,
    /// How many the source has.
    pub from: u64,
    /// How many the target has.
    pub to: u64,
    /// Whether they are the same in every byte.
    pub same: bool,
    /// What is not, where that can be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What a move came to.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// How many shards there are.
    pub shards: u16,
    /// How many lanes the target has.
    pub lanes: u16,
    /// All that was compared.
    pub compared: Vec<Compared>,
    /// Dead letters that no store keeps any longer.
    pub letters_dropped: u64,
    /// Files that were written of segments that had none.
    pub made: Vec<std::path::PathBuf>,
}

impl Report {
    /// Whether the target is the same as the source.
    pub fn is_same(&self) -> bool {
        self.compared.iter().all(|compared| compared.same)
    }

    fn add(&mut self, what: impl Into<String>, from: u64, to: u64, same: bool) {
        let same = same && from == to;
        self.compared.push(Compared { what: what.into(), from, to, same, why: None });
    }

    fn add_with(&mut self, what: &str, from: u64, to: u64, wrong: &[String]) {
        let why = (!wrong.is_empty()).then(|| wrong.join("; "));
        let same = wrong.is_empty() && from == to;
        self.compared.push(Compared { what: what.to_owned(), from, to, same, why });
    }
}

/// One lane as it was read back, or why it cannot be.
struct Read {
    contents: Vec<(ShardId, Result<Content, String>)>,
    loaded: Loaded,
}

/// Compares everything. What cannot be read is not the same; what is out of reach is an error.
pub(super) fn compare(
    source: &Source,
    target: &Target,
    copied: &Copied,
    meter: &mut Meter<'_>,
) -> Result<Report, MoveError> {
    let mut report = Report {
        shards: source.identity.shards,
        lanes: u16::try_from(target.lanes.len()).unwrap_or(u16::MAX),
        letters_dropped: copied.letters_dropped,
        ..Report::default()
    };
    let mut wrong = Vec::new();
    let mut lanes = Vec::new();
    let mut done = 0;
    meter.at("compare", 0, u64::from(source.identity.shards))?;
    for lane in &target.lanes {
        match read(lane, &mut || {
            done += 1;
            meter.at("compare", done, u64::from(source.identity.shards))
        })? {
            Ok(read) => lanes.push(read),
            Err(why) => wrong.push(format!("lane {}: {why}", lane.number)),
        }
    }
    if !wrong.is_empty() {
        report.add_with("lanes", target.lanes.len() as u64, lanes.len() as u64, &wrong);
        return Ok(report);
    }
    shards(copied, &lanes, &mut report);
    registries(source, copied, target, &lanes, &mut report);
    imports(source, copied, target, &lanes, &mut report)?;
    letters(copied, target, &mut report)?;
    ids(source, target, &mut report)?;
    archive(source, &lanes, &mut report);
    ledgers(copied, target.ledger(), &mut report)?;
    small(source, target, &mut report)?;
    Ok(report)
}

/// What is damaged is told; what is out of reach is an error.
fn told<T>(read: Result<T, impl Into<MoveError>>) -> Result<Result<T, String>, MoveError> {
    match read.map_err(Into::into) {
        Ok(value) => Ok(Ok(value)),
        Err(MoveError::Store(error)) if !error.is_retryable() => Ok(Err(chain(&error))),
        Err(error) => Err(error),
    }
}

fn read(
    lane: &Lane,
    next: &mut dyn FnMut() -> Result<(), MoveError>,
) -> Result<Result<Read, String>, MoveError> {
    let loaded = match told(lane.state.load())? {
        Ok(loaded) => loaded,
        Err(why) => return Ok(Err(why)),
    };
    let stored = match told(Stored::new(lane.state.clone(), lane.shards.clone(), &loaded))? {
        Ok(stored) => stored,
        Err(why) => return Ok(Err(why)),
    };
    let mut contents = Vec::new();
    for shard in &lane.shards {
        contents.push((*shard, told(stored.shard(*shard))?));
        next()?;
    }
    Ok(Ok(Read { contents, loaded }))
}

fn shards(copied: &Copied, lanes: &[Read], report: &mut Report) {
    let mut wrong = Vec::new();
    let mut sums = [0; 4];
    let mut same = 0;
    for (shard, content) in lanes.iter().flat_map(|lane| &lane.contents) {
        let expected = &copied.contents[usize::from(*shard)];
        sums[0] += expected.profiles;
        sums[2] += expected.facts;
        match content {
            Ok(content) => {
                sums[1] += content.profiles;
                sums[3] += content.facts;
                if content == expected {
                    same += 1;
                } else {
                    wrong.push(format!("shard {shard} holds something else"));
                }
            }
            Err(why) => wrong.push(format!("shard {shard}: {why}")),
        }
    }
    report.add_with("shards", copied.contents.len() as u64, same, &wrong);
    report.add("profiles", sums[0], sums[1], true);
    report.add("facts", sums[2], sums[3], true);
}

fn registries(
    source: &Source,
    copied: &Copied,
    target: &Target,
    lanes: &[Read],
    report: &mut Report,
) {
    let all = |holds: &dyn Fn(&Loaded) -> bool| lanes.iter().all(|lane| holds(&lane.loaded));
    let least = |count: &dyn Fn(&Loaded) -> usize| {
        lanes.iter().map(|lane| count(&lane.loaded)).min().unwrap_or(0) as u64
    };
    let namespaces = copied.numbers.namespaces();
    let same = all(&|loaded| loaded.namespaces == namespaces);
    let count = namespaces.len() as u64;
    report.add("namespaces", count, least(&|loaded| loaded.namespaces.len()), same);
    let traits = copied.numbers.traits();
    let same = all(&|loaded| loaded.traits == traits);
    report.add("traits", traits.len() as u64, least(&|loaded| loaded.traits.len()), same);
    let schema = source.schema().rows();
    let rows = |loaded: &Loaded| {
        Schema::of_rows(&loaded.schema).map(|schema| schema.rows()).map_err(damaged)
    };
    let same = all(&|loaded| rows(loaded).is_ok_and(|rows| rows == schema));
    report.add("schema rows", schema.len() as u64, least(&|loaded| loaded.schema.len()), same);
    let expected = source.checkpoint();
    let (mut counters, mut wrong) = (expected.counters, Vec::new());
    counters.counted = lanes.iter().map(|lane| lane.loaded.checkpoint.counters.counted).sum();
    for (lane, read) in target.lanes.iter().zip(lanes) {
        let at = &read.loaded.checkpoint;
        let ends = (at.position, at.next_record, at.received, at.first_day);
        let due = (expected.position, expected.next_record, expected.received, expected.first_day);
        let journal = (lane.journal.end(), lane.journal.next_record());
        if read.loaded.identity != source.identity
            || ends != due
            || journal != (expected.position, expected.next_record)
        {
            wrong.push(format!("lane {} goes on elsewhere", lane.number));
        }
    }
    report.add_with("events", expected.counters.counted, counters.counted, &wrong);
}

fn imports(
    source: &Source,
    copied: &Copied,
    target: &Target,
    lanes: &[Read],
    report: &mut Report,
) -> Result<(), MoveError> {
    let expected = source.imports();
    let mut found: BTreeMap<Box<str>, ImportProgress> = BTreeMap::new();
    for import in lanes.iter().flat_map(|lane| &lane.loaded.imports) {
        let import = import.clone();
        let joined = match found.remove(&import.import) {
            Some(before) => before.joined(import),
            None => import,
        };
        found.insert(joined.import.clone(), joined);
    }
    let same =
        found == expected && lanes.iter().all(|lane| lane.loaded.imports.len() == expected.len());
    report.add("imports", expected.len() as u64, found.len() as u64, same);
    let (mut tally, mut wrong) = (Tally::default(), Vec::new());
    for import in expected.keys() {
        match told(rejected_of(&*target.lanes[0].state, import))? {
            Ok(lines) => lines.iter().for_each(|line| tally.rejected(import, line)),
            Err(why) => wrong.push(why),
        }
    }
    if wrong.is_empty() {
        report.add("rejected lines", copied.rejected.count, tally.count, tally == copied.rejected);
    } else {
        report.add_with("rejected lines", copied.rejected.count, tally.count, &wrong);
    }
    Ok(())
}

fn letters(copied: &Copied, target: &Target, report: &mut Report) -> Result<(), MoveError> {
    let mut tally = Tally::default();
    let read = each_letter(&*target.lanes[0].state, &mut |letter| {
        tally.letter(&letter);
        Ok(())
    });
    match told(read)? {
        Ok(()) => {
            let same = tally == copied.letters;
            report.add("dead letters", copied.letters.count, tally.count, same);
        }
        Err(why) => report.add_with("dead letters", copied.letters.count, tally.count, &[why]),
    }
    Ok(())
}

fn ids(source: &Source, target: &Target, report: &mut Report) -> Result<(), MoveError> {
    let found = told(target.ids(source.checkpoint().received))?;
    for (at, expected) in source.ids.iter().enumerate() {
        let what = match expected.set() {
            SeenSet::Recent => "message ids of a day",
            SeenSet::Imported => "message ids of imports",
        };
        match &found {
            Ok(found) => report.add(what, expected.len(), found[at].len(), found[at] == *expected),
            Err(why) => report.add_with(what, expected.len(), 0, std::slice::from_ref(why)),
        }
    }
    Ok(())
}

fn archive(source: &Source, lanes: &[Read], report: &mut Report) {
    fn sorted<'a>(rows: impl Iterator<Item = &'a ManifestRow>) -> Vec<&'a ManifestRow> {
        let mut rows: Vec<_> = rows.collect();
        rows.sort_by(|one, other| one.file.cmp(&other.file));
        rows
    }
    let from = sorted(source.lanes.iter().flat_map(|lane| &lane.manifest));
    let to = sorted(lanes.iter().flat_map(|lane| &lane.loaded.manifest));
    let reached = lanes.iter().all(|lane| lane.loaded.archived == source.end());
    report.add("archive files", from.len() as u64, to.len() as u64, from == to && reached);
}

fn ledgers(copied: &Copied, to: &dyn Ledger, report: &mut Report) -> Result<(), MoveError> {
    let expected: Vec<&str> =
        copied.ledgers.iter().map(|summed| &*summed.books.destination).collect();
    let found = told(to.destinations())?;
    if found.as_ref().is_ok_and(|found| found.iter().ne(&expected)) || found.is_err() {
        let count = found.map_or(0, |found| found.len() as u64);
        report.add("destinations", expected.len() as u64, count, false);
        return Ok(());
    }
    for (destination, expected) in expected.into_iter().zip(&copied.ledgers) {
        let what = format!("held by {destination}");
        match told(summed(to, destination))? {
            Ok(found) => report.add(what, expected.held, found.held, found == *expected),
            Err(why) => report.add_with(&what, expected.held, 0, &[why]),
        }
    }
    Ok(())
}

fn small(source: &Source, target: &Target, report: &mut Report) -> Result<(), MoveError> {
    let mut expected = source.small.clone();
    if !target.keeps_made_segments() {
        expected.made.clear();
    }
    let found = target.small()?;
    let numbers = target.next_generation(0)? >= source.next_generation;
    report.add("small values", expected.count(), found.count(), found == expected && numbers);
    Ok(())
}
