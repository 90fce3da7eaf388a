//! A segment as its file says it: the rule, who the members are, and where they go.
//!
//! What names mean (other segments, destinations, namespaces) is checked elsewhere.

mod format;
mod read;

use std::collections::BTreeMap;

use crate::rules::ast::Name;
use crate::rules::ast::Rule;
use crate::rules::ast::RuleKind;
use crate::rules::ast::Span;
use crate::rules::diagnostic::Diagnostic;

pub(crate) use read::read;

/// The longest id of a segment, in bytes.
pub const MAX_ID: usize = 64;
/// The longest segment file, in bytes.
pub const MAX_FILE: usize = 1024 * 1024;

/// One segment, as one file of `segments/` states it.
///
/// All spans in it, those of its rules included, are bytes of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentFile {
    /// The file's stem: `[a-z0-9][a-z0-9-]*`, at most [`MAX_ID`] bytes.
    pub id: String,
    /// What people call it; the id where the file has no name.
    pub name: String,
    /// What it is for; may be empty.
    pub description: String,
    /// Who answers for it; may be empty.
    pub owner: String,
    /// Who its members are.
    pub body: Body,
    /// What one member is.
    pub level: Level,
    /// Below it activation adds nobody; `None` takes the configured one.
    pub min_size: Option<u64>,
    /// Ids in the taxonomies of others, by taxonomy.
    pub taxonomy: BTreeMap<String, String>,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// Where its members go.
    pub activate: Vec<Activate>,
}

impl SegmentFile {
    /// Reads a segment file, whose stem is `id`. Never fails: the diagnostics have all that is wrong
    /// with it, and where one is an error the segment is not to be used.
    pub fn parse(id: &str, text: &str) -> (Self, Vec<Diagnostic>) {
        let read = read(id, text);
        (read.file, read.diagnostics)
    }

    /// The ids of the segments it names, in the order in which it names them.
    pub fn references(&self) -> Vec<&str> {
        let mut ids = Vec::new();
        let rule = match &self.body {
            Body::Rule(rule) => Some(rule),
            Body::Lookalike(lookalike) => {
                ids.push(&*lookalike.seed.text);
                lookalike.within.as_ref()
            }
        };
        if let Some(rule) = rule {
            named(rule, &mut ids);
        }
        ids
    }

    /// Prints a segment file's rules the one canonical way, and keeps everything else, comments in
    /// rules included.
    ///
    /// A file with errors comes back as it is, with what `parse` says of it. A rule that had to be left
    /// as it is has a warning.
    pub fn format(id: &str, text: &str) -> (String, Vec<Diagnostic>) {
        format::format(id, text)
    }
}

fn named<'r>(rule: &'r Rule, ids: &mut Vec<&'r str>) {
    match &rule.kind {
        RuleKind::And(parts) | RuleKind::Or(parts) => {
            for part in parts {
                named(part, ids);
            }
        }
        RuleKind::Not(part) => named(part, ids),
        RuleKind::Segment(id) => ids.push(&id.text),
        _ => {}
    }
}

/// Who the members of a segment are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Those of whom a rule is true.
    Rule(Rule),
    /// Those who resemble another segment's.
    Lookalike(Lookalike),
}

/// A segment of profiles that resemble another segment's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookalike {
    /// The id of the segment to resemble.
    pub seed: Name,
    /// The share of profiles outside the seed that is chosen.
    pub reach: Reach,
    /// Who may be chosen; everyone where `None`.
    pub within: Option<Rule>,
    /// Where its table stands.
    pub span: Span,
}

/// A share in parts per million: more than 0, at most 1,000,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reach(pub u32);

/// What one member of a segment is.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Default,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// All profiles linked into one person.
    #[default]
    Person,
    /// One identifier of a device namespace.
    Device,
}

impl Level {
    /// The word in files and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::Device => "device",
        }
    }
}

/// One destination that a segment's members go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activate {
    /// A name in `config/destinations.toml`.
    pub destination: Name,
    /// The namespaces that are sent; all that the destination takes where `None`.
    pub identifiers: Option<Vec<Name>>,
    /// Where its table stands.
    pub span: Span,
}
