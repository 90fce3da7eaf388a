//! Questions about any rule, answered for everything acknowledged before they were asked.

use serde_json::Value;
use serde_json::json;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use super::Caller;
use super::InAudiences;
use super::Live;
use super::Segments;
use super::Told;
use super::choose::frozen_text;
use super::local::ScanError;
use super::shards::Asked;
use super::shards::Profile;
use crate::ingest::Schema;
use crate::model::Identifier;
use crate::model::Millis;
use crate::model::Namespace;
use crate::model::NamespaceOrder;
use crate::model::ShardId;
use crate::model::time;
use crate::model::time::format_rfc3339;
use crate::plan;
use crate::plan::Library;
use crate::plan::Members;
use crate::plan::TooEarly;
use crate::rules;
use crate::rules::Body;
use crate::rules::Diagnostic;
use crate::rules::Level;
use crate::rules::Rule;
use crate::rules::has_errors;
use crate::store::StoreError;
use crate::store::state::ImportProgress;

/// How long a question waits for shards that change hands.
const MOVING: Duration = Duration::from_secs(15);

/// A question about a rule.
#[derive(Debug, Clone)]
pub struct Question {
    /// The rule's text.
    pub rule: String,
    /// What one member is.
    pub level: Level,
    /// The instant: RFC 3339 with zone, or back from now (`-2h`); now where `None`.
    pub at: Option<String>,
}

/// The answer to a question.
#[derive(Debug)]
pub struct Answer {
    /// The members.
    pub members: Arc<Members>,
    /// How many there are.
    pub count: u64,
    /// What one member is.
    pub level: Level,
    /// T: everything acknowledged before it is in.
    pub true_for: Millis,
    /// The instant that was asked for.
    pub at: Millis,
    /// How long it took.
    pub took: Duration,
    /// Warnings.
    pub told: Vec<Told>,
}

/// How a rule is answered.
#[derive(Debug)]
pub struct Explained {
    /// For machines.
    pub json: Value,
    /// For people.
    pub text: String,
    /// Warnings.
    pub told: Vec<Told>,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The rule has errors.
    #[error("the rule has errors")]
    Rule(Vec<Told>),
    /// The instant cannot be read.
    #[error(
        "at {0:?}: expected a time such as 2011-12-09T12:50:00Z, or one before now such as -2h"
    )]
    At(String),
    /// The instant lies too far back for the rule.
    #[error(transparent)]
    TooEarly(#[from] TooEarly),
    /// There is no such segment or profile.
    #[error("{0}")]
    Unknown(String),
    /// It cannot be asked, or not so.
    #[error("{0}")]
    NotYet(String),
    /// The fold has not come so far.
    #[error("the fold has not come as far as the journal yet; try again")]
    Behind,
    /// The caller has gone, or the server stops.
    #[error("stopped before the answer was found")]
    Cancelled,
    /// A shard is in nobody's hands, or is changing hands.
    #[error("shard {0} is in no worker's hands at the moment; try again in some seconds")]
    Missing(ShardId),
    /// The shard of a profile is in nobody's hands, or is changing hands.
    #[error("the profile's shard is in no worker's hands at the moment; try again in some seconds")]
    Moving,
    /// The archive or the journal could not be read.
    #[error("the events could not be read")]
    Fill(#[source] ScanError),
    /// Another node cannot answer now.
    #[error("{0}")]
    Away(String),
    /// Something went wrong on another node.
    #[error("{0}")]
    Elsewhere(String),
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<ScanError> for AskError {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::Cancelled => Self::Cancelled,
            error => Self::Fill(error),
        }
    }
}

impl Segments {
    /// Everything that the author of a rule is told.
    pub fn check(&self, text: &str) -> Vec<Told> {
        let (_, diagnostics) = self.checked(text);
        let told = diagnostics.iter().map(|diagnostic| Told::new("rule", text, diagnostic));
        told.take(super::MOST_TOLD).collect()
    }

    /// Answers a rule.
    pub fn eval(&self, question: &Question, caller: &Caller) -> Result<Answer, AskError> {
        let (rule, told) = self.rule(&question.rule)?;
        let library = self.library(&self.live());
        let at = question.at.as_deref();
        let answer = self.answer(&rule, question.level, &library, at, caller)?;
        Ok(Answer { told, ..answer })
    }

    fn answer(
        &self,
        rule: &Rule,
        level: Level,
        library: &Library,
        at: Option<&str>,
        caller: &Caller,
    ) -> Result<Answer, AskError> {
        let started = Instant::now();
        let true_for = self.appended(caller)?;
        let now = instant(at, true_for)?;
        let asked = Asked { rule, level, library, true_for, now };
        let members = self.patiently(caller, || {
            self.parts.shards.eval(&asked, caller)?.whole(self.parts.count)
        })?;
        Ok(Answer {
            count: members.len(),
            members: Arc::new(members),
            level,
            true_for,
            at: now,
            took: started.elapsed(),
            told: Vec::new(),
        })
    }

    /// Says how a rule is answered.
    pub fn explain(&self, question: &Question, caller: &Caller) -> Result<Explained, AskError> {
        let (rule, told) = self.rule(&question.rule)?;
        let library = self.library(&self.live());
        let true_for = self.appended(caller)?;
        let now = instant(question.at.as_deref(), true_for)?;
        let level = question.level;
        let asked = Asked { rule: &rule, level, library: &library, true_for, now };
        let explained = self.patiently(caller, || {
            self.parts.shards.explain(&asked, caller)?.whole(self.parts.count)
        })?;
        Ok(Explained { json: json!(explained), text: explained.to_string(), told })
    }

    /// Says clause by clause why a profile is in a segment, or not. What only the events themselves tell is read from
    /// them for at most so long.
    pub fn why(
        &self,
        segment: &str,
        identifier: &Identifier,
        at: Option<&str>,
        read: Duration,
        caller: &Caller,
    ) -> Result<Value, AskError> {
        let live = self.live();
        if let (Some(found), None) = (live.segments.get(segment).filter(|s| !s.hidden), at)
            && let Body::Lookalike(lookalike) = &found.file.body
        {
            return self.why_lookalike(segment, lookalike, identifier, caller);
        }
        let (rule, level) = ruled(&live, segment)?;
        let library = self.library(&live);
        let true_for = self.appended(caller)?;
        let now = instant(at, true_for)?;
        let asked = Asked { rule, level, library: &library, true_for, now };
        let membership = self.patiently(caller, || {
            self.parts.shards.why(&asked, identifier, read, caller)?.ok_or(AskError::Moving)
        })?;
        let mut answer = json!(membership);
        answer["segment"] = json!(segment);
        answer["at"] = json!(format_rfc3339(now));
        answer["true_for"] = json!(format_rfc3339(true_for));
        answer["text"] = json!(super::why_text::of(segment, &membership));
        Ok(answer)
    }

    /// The members that a segment's rule has at an instant, by what is known now.
    pub fn members_at(&self, segment: &str, at: &str, caller: &Caller) -> Result<Answer, AskError> {
        let live = self.live();
        let (rule, level) = ruled(&live, segment)?;
        self.answer(rule, level, &self.library(&live), Some(at), caller)
    }

    /// What is held of a profile: its identifiers, and the audiences it is in.
    pub fn profile(&self, identifier: &Identifier, caller: &Caller) -> Result<Value, AskError> {
        let true_for = self.appended(caller)?;
        let Profile { shard, identifiers, .. } = self.patiently(caller, || {
            self.parts.shards.profile(identifier, true_for, caller)?.ok_or(AskError::Moving)
        })?;
        let identifiers: Vec<Value> = identifiers
            .iter()
            .map(|id| json!({ "namespace": id.namespace.as_str(), "value": id.value() }))
            .collect();
        let InAudiences { audiences, generation, true_for, .. } =
            self.patiently(caller, || self.audiences_of(identifier))?;
        Ok(json!({
            "shard": shard,
            "identifiers": identifiers,
            "audiences": audiences.iter().map(|id| &**id).collect::<Vec<_>>(),
            "generation": generation,
            "true_for": format_rfc3339(true_for),
        }))
    }

    /// Asks again while a shard changes hands, which takes some seconds, and somebody wants the answer.
    pub(super) fn patiently<T>(
        &self,
        caller: &Caller,
        ask: impl Fn() -> Result<T, AskError>,
    ) -> Result<T, AskError> {
        let until = Instant::now() + MOVING;
        loop {
            match ask() {
                Err(AskError::Missing(_) | AskError::Moving | AskError::Away(_))
                    if Instant::now() < until =>
                {
                    std::thread::sleep(super::SLICE);
                    caller.still_wanted()?;
                }
                done => return done,
            }
        }
    }

    /// Waits until everything acknowledged before now is folded.
    pub fn caught_up(&self, patience: Duration) -> Result<(), AskError> {
        let caller = Caller::default();
        let asked = self.appended(&caller)?;
        let reached = self.patiently(&caller, || {
            self.parts.shards.reach(asked, patience)?.whole(self.parts.count)
        })?;
        if reached < asked { Err(AskError::Behind) } else { Ok(()) }
    }

    /// How far an import is in the whole store, as far as it is folded.
    pub fn import(&self, name: &str) -> Result<Option<ImportProgress>, AskError> {
        self.patiently(&Caller::default(), || {
            self.parts.shards.import(name)?.whole(self.parts.count)
        })
    }

    /// Waits until everything acknowledged before now is appended to the journals, and tells that time.
    pub(super) fn appended(&self, caller: &Caller) -> Result<Millis, AskError> {
        self.parts.watermark.appended(&|| caller.still_wanted())
    }

    /// The tree of a rule without errors, and its warnings.
    pub(super) fn rule(&self, text: &str) -> Result<(Rule, Vec<Told>), AskError> {
        let (rule, diagnostics) = self.checked(text);
        let is_wrong = has_errors(&diagnostics);
        let told: Vec<Told> = diagnostics
            .iter()
            .filter(|diagnostic| !is_wrong || diagnostic.is_error())
            .filter(|diagnostic| diagnostic.severity != rules::Severity::Note)
            .map(|diagnostic| Told::new("rule", text, diagnostic))
            .take(super::MOST_TOLD)
            .collect();
        if is_wrong { Err(AskError::Rule(told)) } else { Ok((rule, told)) }
    }

    fn checked(&self, text: &str) -> (Rule, Vec<Diagnostic>) {
        let (rule, mut diagnostics) = rules::parse(text);
        if !has_errors(&diagnostics) {
            let live = self.live();
            let library = self.library(&live);
            let seen = self.parts.shards.namespaces();
            let order = self.parts.config.namespace_order();
            let schema = self.parts.shards.schema();
            let context = self.context(&order, &seen, Some(&schema));
            diagnostics.extend(plan::check_rule(&rule, &library, &context));
            let body = Body::Rule(rule);
            let is_frozen = |id: &str| live.segments.get(id).is_some_and(|s| s.frozen);
            for name in plan::references_of(&body) {
                if is_frozen(&name.text) {
                    let told = Diagnostic::error("frozen", name.span, frozen_text(&name.text));
                    diagnostics.push(told);
                }
            }
            let Body::Rule(rule) = body else { unreachable!("made a rule above") };
            return (rule, diagnostics);
        }
        (rule, diagnostics)
    }

    /// What a check knows of the world.
    pub(super) fn context<'a>(
        &self,
        order: &'a NamespaceOrder,
        seen: &'a BTreeSet<Namespace>,
        schema: Option<&'a Schema>,
    ) -> plan::Context<'a> {
        let retention = self.parts.config.events.retention.0;
        plan::Context {
            namespaces: order,
            seen: Some(seen),
            retention,
            schema: schema.map(|s| s as _),
            now: Some(self.parts.clock.now()),
        }
    }
}

/// The rule of a live segment, and its level.
fn ruled<'a>(live: &'a Live, segment: &str) -> Result<(&'a Rule, Level), AskError> {
    let found = live.segments.get(segment).filter(|s| !s.hidden);
    let found = found.ok_or_else(|| AskError::Unknown(format!("there is no segment {segment}")))?;
    if found.frozen {
        return Err(AskError::NotYet(frozen_text(segment)));
    }
    match &found.file.body {
        Body::Rule(rule) => Ok((rule, found.file.level)),
        Body::Lookalike(_) => Err(AskError::NotYet(format!(
            "{segment} is a look-alike: its members are those of its last training, and of no other instant"
        ))),
    }
}

/// Reads `--at`: an instant, or a length of time before now.
pub fn instant(at: Option<&str>, now: Millis) -> Result<Millis, AskError> {
    let Some(text) = at.map(str::trim) else { return Ok(now) };
    let wrong = || AskError::At(text.to_owned());
    let Some(back) = text.strip_prefix('-') else {
        return time::parse_rfc3339(text).ok_or_else(wrong);
    };
    let units: BTreeMap<&str, Millis> = BTreeMap::from([
        ("s", time::SECOND),
        ("m", time::MINUTE),
        ("h", time::HOUR),
        ("d", time::DAY),
        ("w", 7 * time::DAY),
    ]);
    let split = back.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let count: Millis = back[..split].parse().map_err(|_| wrong())?;
    let unit = units.get(&back[split..]).ok_or_else(wrong)?;
    Ok(now.saturating_sub(count.saturating_mul(*unit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_is_a_time_or_lies_before_now() {
        assert_eq!(instant(None, 7).unwrap(), 7);
        assert_eq!(instant(Some("-2h"), 0).unwrap(), -2 * time::HOUR);
        assert_eq!(instant(Some("1970-01-01T00:00:01Z"), 0).unwrap(), 1000);
        for wrong in ["", "-", "-2", "-h", "2h", "yesterday", "-2y", "1970-01-01T00:00:01"] {
            assert!(matches!(instant(Some(wrong), 0), Err(AskError::At(_))), "{wrong}");
        }
    }
}
