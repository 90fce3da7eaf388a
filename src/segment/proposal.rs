//! What other segment files would change, before they are live: who would come and go, what refers to it, and where
//! members are sent. And doing exactly that, or saying why it is not that any more.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use serde::Deserialize;
use serde::Serialize;
use sha2::Digest as _;
use sha2::Sha256;

use super::AskError;
use super::Caller;
use super::Segments;
use super::Told;
use super::live::Segment;
use super::registry::EditError;
use super::registry::Proposed;
use super::shards::Asked;
use crate::model::Millis;
use crate::model::hex;
use crate::model::time::format_rfc3339;
use crate::plan;
use crate::plan::Library;
use crate::plan::Members;
use crate::plan::traits_of;
use crate::rules::Body;
use crate::rules::SegmentFile;
use crate::rules::has_errors;

/// Segment files that are to be: their texts, or nothing where a file is to go.
pub type Changes = BTreeMap<String, Option<String>>;

/// What a plan was made on: of each segment that it depends on, what its file said.
pub type Base = BTreeMap<String, String>;

/// What changes to segment files would do.
#[derive(Debug, Clone, Default, Serialize, schemars::JsonSchema)]
pub struct Plan {
    /// T: sizes are those of everything acknowledged before it.
    pub true_for: String,
    /// The files that are not as they are to be.
    pub changes: Vec<Effect>,
    /// Segments whose files stay, and which refer to those.
    pub affected: Vec<Effect>,
    /// What is sent to each destination, over all of these segments.
    pub destinations: Vec<Sent>,
    /// Those of them that the settings do not name: nothing is sent there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unknown_destinations: Vec<String>,
    /// How many files are as they are to be.
    pub unchanged: usize,
    /// How long it took to find out, in milliseconds.
    pub took_ms: u64,
    /// The texts that the plan is of.
    pub files: Changes,
    /// What it was made on.
    pub base: Base,
}

/// What becomes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "PlanAction")]
pub enum Action {
    /// There was none.
    Add,
    /// It says something else.
    Change,
    /// It goes.
    Remove,
    /// It stays, and what it refers to does not.
    Refer,
}

/// What becomes of a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[schemars(rename = "PlanEffect")]
pub struct Effect {
    /// Its id.
    pub segment: String,
    /// What becomes of its file.
    pub action: Action,
    /// The changed segments that it refers to, through others or not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub through: Vec<String>,
    /// Its members before and after, both at the plan's time; `None` where there is no segment, or it is not evaluated.
    pub before: Option<u64>,
    /// As `before`.
    pub after: Option<u64>,
    /// Members that it would gain.
    pub added: u64,
    /// Members that it would lose.
    pub removed: u64,
    /// What one member is changes, so that all go and others come.
    pub other_level: bool,
    /// Where its members are sent, before or after.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub destinations: Vec<Sent>,
    /// What it takes.
    pub cost: Cost,
    /// Why a number is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Whom a destination gets and loses, before it is asked what identifiers they have and whether they may be activated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[schemars(rename = "PlanSent")]
pub struct Sent {
    /// The destination.
    pub destination: String,
    /// Members that come.
    pub adds: u64,
    /// Members that go.
    pub removes: u64,
}

/// What a rule takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[schemars(rename = "PlanCost")]
pub struct Cost {
    /// Traits that the rule asks, with those that it refers to.
    pub traits: usize,
    /// Those of them that no live rule asks: they are filled from the archive.
    pub new_traits: usize,
    /// How long it took to evaluate the rule, in milliseconds; that of new traits needs the archive.
    pub took_ms: u64,
}

/// Why there is no plan, or it is not done.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The files cannot be live.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// The audiences cannot be asked now.
    #[error(transparent)]
    Ask(#[from] AskError),
}

/// Both sides of a plan.
struct Sides<'a> {
    before: &'a BTreeMap<String, Arc<Segment>>,
    after: &'a BTreeMap<String, Arc<Segment>>,
    libraries: [Library; 2],
}

fn visible<'a>(of: &'a BTreeMap<String, Arc<Segment>>, id: &str) -> Option<&'a Segment> {
    of.get(id).map(|segment| &**segment).filter(|segment| !segment.hidden)
}

fn library(of: &BTreeMap<String, Arc<Segment>>) -> Library {
    of.values().map(|segment| &segment.file).collect()
}

/// The segments that one refers to, through others or not.
fn referred<'a>(of: &'a BTreeMap<String, Arc<Segment>>, id: &str, found: &mut BTreeSet<&'a str>) {
    let Some(segment) = of.get(id) else { return };
    for reference in segment.file.references() {
        if found.insert(reference) {
            referred(of, reference, found);
        }
    }
}

/// Which changed segments each other one refers to.
fn affected(proposed: &Proposed) -> BTreeMap<String, Vec<String>> {
    let mut affected = BTreeMap::new();
    for side in [&proposed.before, &proposed.after] {
        for id in side.keys().filter(|id| !proposed.changes.contains_key(*id)) {
            let mut found = BTreeSet::new();
            referred(side, id, &mut found);
            let through = found.into_iter().filter(|id| proposed.changes.contains_key(*id));
            let through: Vec<String> = through.map(str::to_owned).collect();
            if !through.is_empty() {
                affected.entry(id.clone()).or_insert(through);
            }
        }
    }
    affected
}

/// What the files say that a plan depends on.
fn base(proposed: &Proposed) -> Base {
    let mut ids: BTreeSet<&str> = proposed.changes.keys().map(String::as_str).collect();
    let affected = affected(proposed);
    ids.extend(affected.keys().map(String::as_str));
    for side in [&proposed.before, &proposed.after] {
        let mut found = BTreeSet::new();
        ids.iter().for_each(|id| referred(side, id, &mut found));
        ids.extend(found);
    }
    let print = |id: &&str| proposed.texts.get(*id).map_or_else(String::new, |text| print_of(text));
    ids.iter().map(|id| ((*id).to_owned(), print(id))).collect()
}

fn print_of(text: &str) -> String {
    let digest: [u8; 32] = Sha256::digest(text.as_bytes()).into();
    hex(&digest[..8])
}

impl Segments {
    /// What other files would do; nothing is changed. With `prune` the files that are not among them go.
    pub fn plan(&self, files: &Changes, prune: bool, caller: &Caller) -> Result<Plan, PlanError> {
        let started = Instant::now();
        are_right(files)?;
        let (seen, order) = (self.parts.shards.namespaces(), self.parts.config.namespace_order());
        let proposed = self.registry.propose(files, prune, &self.context(&order, &seen, None))?;
        let true_for = self.appended(caller)?;
        let sides = Sides {
            before: &proposed.before,
            after: &proposed.after,
            libraries: [library(&proposed.before), library(&proposed.after)],
        };
        let mut known = HashSet::new();
        for segment in proposed.before.values() {
            known.extend(traits(segment, &sides.libraries[0]));
        }
        let effect = |id: &String, action, through| {
            let effect = self.effect(&sides, id, true_for, &known, caller)?;
            Ok(Effect { action, through, ..effect })
        };
        let mut plan = Plan {
            true_for: format_rfc3339(true_for),
            unchanged: proposed.unchanged,
            base: base(&proposed),
            ..Plan::default()
        };
        for (id, text) in &proposed.changes {
            let action = match (proposed.texts.contains_key(id), text) {
                (true, Some(_)) => Action::Change,
                (false, _) => Action::Add,
                (true, None) => Action::Remove,
            };
            plan.changes.push(effect(id, action, Vec::new()).map_err(PlanError::Ask)?);
        }
        for (id, through) in affected(&proposed) {
            plan.affected.push(effect(&id, Action::Refer, through).map_err(PlanError::Ask)?);
        }
        plan.destinations = together(plan.changes.iter().chain(&plan.affected));
        plan.files = proposed.changes;
        plan.took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(plan)
    }

    /// Writes files as a plan has them, all or none; they are live when this returns. What the plan was made on has to
    /// be as it was.
    pub fn apply(&self, files: &Changes, on: &Base) -> Result<usize, EditError> {
        are_right(files)?;
        let (seen, order) = (self.parts.shards.namespaces(), self.parts.config.namespace_order());
        let check = |proposed: &Proposed| {
            let other = others(on, &base(proposed));
            if other.is_empty() { Ok(()) } else { Err(EditError::Stale(other)) }
        };
        let changed = self.registry.apply(files, &check, &self.context(&order, &seen, None))?;
        self.scan_folder();
        Ok(changed)
    }

    fn effect(
        &self,
        sides: &Sides<'_>,
        id: &str,
        at: Millis,
        known: &HashSet<plan::TraitSpec>,
        caller: &Caller,
    ) -> Result<Effect, AskError> {
        let (old, new) = (visible(sides.before, id), visible(sides.after, id));
        let before = old.map(|old| self.evaluated(old, &sides.libraries[0], at, caller));
        let started = Instant::now();
        let after = new.map(|new| self.evaluated(new, &sides.libraries[1], at, caller));
        let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (before, after) = (before.transpose()?, after.transpose()?);
        let sides_found = [&before, &after].into_iter().flatten();
        let note = sides_found.filter_map(|side| side.as_ref().err()).next().cloned();
        let (before, after) = (before.and_then(Result::ok), after.and_then(Result::ok));
        let other_level = old.zip(new).is_some_and(|(old, new)| old.file.level != new.file.level);
        let size = |members: &Option<Members>| members.as_ref().map(Members::len);
        let (mut added, mut removed) = (size(&after).unwrap_or(0), size(&before).unwrap_or(0));
        if let (Some(before), Some(after), false) = (&before, &after, other_level) {
            let deltas = after.since(before);
            added = deltas.iter().map(|(_, delta)| delta.entered.len()).sum();
            removed = deltas.iter().map(|(_, delta)| delta.left.len()).sum();
        }
        let specs = new.map(|new| traits(new, &sides.libraries[1])).unwrap_or_default();
        let cost = Cost {
            traits: specs.len(),
            new_traits: specs.iter().filter(|spec| !known.contains(*spec)).count(),
            took_ms,
        };
        let goes = |segment: Option<&Segment>| -> BTreeSet<String> {
            let activations = segment.into_iter().flat_map(|segment| &segment.file.activate);
            activations.map(|activate| activate.destination.text.to_string()).collect()
        };
        let (went, goes) = (goes(old), goes(new));
        let sent = went.union(&goes).map(|destination| {
            let (adds, removes) = match (went.contains(destination), goes.contains(destination)) {
                (true, true) => (added, removed),
                (false, _) => (size(&after).unwrap_or(0), 0),
                (true, false) => (0, size(&before).unwrap_or(0)),
            };
            Sent { destination: destination.clone(), adds, removes }
        });
        Ok(Effect {
            segment: id.to_owned(),
            action: Action::Refer,
            through: Vec::new(),
            before: size(&before),
            after: size(&after),
            added,
            removed,
            other_level,
            destinations: sent.collect(),
            cost,
            note,
        })
    }

    /// The members of a segment, or why it has none that are known.
    fn evaluated(
        &self,
        segment: &Segment,
        library: &Library,
        at: Millis,
        caller: &Caller,
    ) -> Result<Result<Members, String>, AskError> {
        let Body::Rule(rule) = &segment.file.body else {
            return Ok(Err("the members of a look-alike are known once it is trained".to_owned()));
        };
        if segment.frozen {
            return Ok(Err("it stands still, and cannot be evaluated".to_owned()));
        }
        let level = segment.file.level;
        let asked = Asked { rule, level, library, true_for: at, now: at };
        let members = self.patiently(caller, || {
            self.parts.shards.eval(&asked, caller)?.whole(self.parts.count)
        })?;
        Ok(Ok(members))
    }
}

fn traits(segment: &Segment, library: &Library) -> Vec<plan::TraitSpec> {
    let Body::Rule(rule) = &segment.file.body else { return Vec::new() };
    // One that stands still may name what is not there.
    traits_of([rule], library).unwrap_or_default()
}

/// What goes to each destination over several segments.
fn together<'e>(effects: impl Iterator<Item = &'e Effect>) -> Vec<Sent> {
    let mut all: BTreeMap<&str, Sent> = BTreeMap::new();
    for sent in effects.flat_map(|effect| &effect.destinations) {
        let none = || Sent { destination: sent.destination.clone(), adds: 0, removes: 0 };
        let sum = all.entry(&sent.destination).or_insert_with(none);
        sum.adds += sent.adds;
        sum.removes += sent.removes;
    }
    all.into_values().collect()
}

/// What is other than a plan was made on, in words.
fn others(planned: &Base, now: &Base) -> Vec<String> {
    let ids: BTreeSet<&String> = planned.keys().chain(now.keys()).collect();
    let other = ids.into_iter().filter_map(|id| {
        let what = match (planned.get(id), now.get(id)) {
            (Some(then), Some(now)) if then == now => return None,
            (Some(then), Some(now)) if then.is_empty() && !now.is_empty() => "has been added",
            (Some(_), Some(now)) if now.is_empty() => "has been removed",
            (Some(_), Some(_)) => "has been changed",
            (None, _) => "depends on it now, or it on that",
            (Some(_), None) => "has nothing to do with it any more",
        };
        Some(format!("{id} {what}"))
    });
    other.collect()
}

/// Whether each file is right by itself; beside the others is another matter.
fn are_right(files: &Changes) -> Result<(), EditError> {
    let mut told = Vec::new();
    for (id, text) in files {
        let Some(text) = text else { continue };
        let (_, diagnostics) = SegmentFile::parse(id, text);
        if has_errors(&diagnostics) {
            let file = format!("{id}.toml");
            told.extend(diagnostics.iter().map(|diagnostic| Told::new(&file, text, diagnostic)));
        }
    }
    told.truncate(super::MOST_TOLD);
    if told.is_empty() { Ok(()) } else { Err(EditError::Wrong(told)) }
}
