//! The segments that rules may name.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::HashSet;

use super::window::Window;
use crate::model::time::Millis;
use crate::rules::Body;
use crate::rules::Rule;
use crate::rules::SegmentFile;
use crate::rules::ast::Name;
use crate::rules::ast::RuleKind;

/// How deep a rule may nest, those of the segments it names put in their place: as deep is every walk over it.
pub(super) const MAX_LEVELS: usize = 400;

/// Segments by id: what `segment X` means.
#[derive(Debug, Clone, Default)]
pub struct Library {
    segments: BTreeMap<Box<str>, Body>,
}

impl Library {
    /// No segments.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a segment, in place of one of the same id.
    pub fn insert(&mut self, id: &str, body: Body) {
        self.segments.insert(id.into(), body);
    }

    /// A segment's body.
    pub fn body(&self, id: &str) -> Option<&Body> {
        self.segments.get(id)
    }

    pub(super) fn get(&self, id: &str) -> Option<(&str, &Body)> {
        self.segments.get_key_value(id).map(|(id, body)| (&**id, body))
    }

    /// The ids, ascending.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.segments.keys().map(|id| &**id)
    }

    /// The first cycle that following references from a rule runs into: ids, the first repeated as the
    /// last.
    pub(super) fn cycle(&self, start: &[&Name]) -> Option<Vec<Box<str>>> {
        let mut path = Vec::new();
        let mut done = std::collections::HashSet::new();
        start.iter().find_map(|name| self.walk(&name.text, &mut path, &mut done))
    }

    fn walk<'a>(
        &'a self,
        id: &'a str,
        path: &mut Vec<&'a str>,
        done: &mut std::collections::HashSet<&'a str>,
    ) -> Option<Vec<Box<str>>> {
        if let Some(place) = path.iter().position(|other| *other == id) {
            return Some(path[place..].iter().chain([&id]).map(|id| Box::from(*id)).collect());
        }
        // What is deeper is an error of its own.
        if done.contains(id) || path.len() > MAX_LEVELS {
            return None;
        }
        path.push(id);
        let body = self.body(id);
        let found = body.and_then(|body| {
            references_of(body).iter().find_map(|name| self.walk(&name.text, path, done))
        });
        path.pop();
        done.insert(id);
        found
    }

    /// Whether a body nests more than [`MAX_LEVELS`] deep, with those of the segments it names. In a circle it does.
    pub(super) fn is_deep(&self, body: &Body) -> bool {
        self.levels(body, MAX_LEVELS, &mut HashMap::new()).is_none()
    }

    /// How many levels a body has; `None` where they are more than there is room for.
    fn levels<'a>(
        &'a self,
        body: &'a Body,
        room: usize,
        known: &mut HashMap<&'a str, usize>,
    ) -> Option<usize> {
        let own = match body {
            Body::Rule(rule) => levels_of(rule),
            Body::Lookalike(lookalike) => 1 + lookalike.within.as_ref().map_or(0, levels_of),
        };
        let room = room.checked_sub(own)?;
        let mut behind = 0;
        for name in references_of(body) {
            let Some((id, body)) = self.get(&name.text) else { continue };
            let levels = match known.get(id) {
                Some(levels) => *levels,
                None => self.levels(body, room, known)?,
            };
            known.insert(id, levels);
            behind = behind.max(levels);
        }
        (behind <= room).then_some(own + behind)
    }
}

/// How deep a rule nests, without those of the segments it names.
fn levels_of(rule: &Rule) -> usize {
    match &rule.kind {
        RuleKind::And(parts) | RuleKind::Or(parts) => {
            1 + parts.iter().map(levels_of).max().unwrap_or(0)
        }
        RuleKind::Not(part) => 1 + levels_of(part),
        _ => 1,
    }
}

impl<'a> FromIterator<&'a SegmentFile> for Library {
    fn from_iter<I: IntoIterator<Item = &'a SegmentFile>>(files: I) -> Self {
        let mut library = Self::new();
        for file in files {
            library.insert(&file.id, file.body.clone());
        }
        library
    }
}

/// The segments that a segment's body names, in order.
pub fn references_of(body: &Body) -> Vec<&Name> {
    match body {
        Body::Rule(rule) => references(rule),
        Body::Lookalike(lookalike) => {
            let mut names = vec![&lookalike.seed];
            names.extend(lookalike.within.iter().flat_map(references));
            names
        }
    }
}

/// The segments that a rule names, in order.
pub(super) fn references(rule: &Rule) -> Vec<&Name> {
    let mut names = Vec::new();
    each_part(rule, &mut |part| {
        if let RuleKind::Segment(name) = &part.kind {
            names.push(name);
        }
    });
    names
}

/// How far back the written windows of a rule reach, those of the segments it names included.
pub(super) fn reach(rule: &Rule, library: &Library) -> Option<Millis> {
    let mut seen: HashSet<&str> = HashSet::new();
    let mut waiting = vec![rule];
    let mut reach = None;
    while let Some(rule) = waiting.pop() {
        each_part(rule, &mut |part| {
            reach = reach.max(written_reach(part));
        });
        for name in references(rule) {
            if let Some((id, Body::Rule(rule))) = library.get(&name.text)
                && seen.insert(id)
            {
                waiting.push(rule);
            }
        }
    }
    reach
}

/// How far back the window of a clause reaches, where that is written.
pub(super) fn written_reach(rule: &Rule) -> Option<Millis> {
    let window = match &rule.kind {
        RuleKind::Did { window, .. }
        | RuleKind::Sequence { window, .. }
        | RuleKind::Measure { window, .. } => window.as_ref()?,
        RuleKind::First { window, .. } => window,
        _ => return None,
    };
    Window::new(Some(window)).reach()
}

/// Calls `f` with a rule and every rule inside it.
pub(super) fn each_part<'a>(rule: &'a Rule, f: &mut impl FnMut(&'a Rule)) {
    f(rule);
    match &rule.kind {
        RuleKind::And(parts) | RuleKind::Or(parts) => {
            for part in parts {
                each_part(part, f);
            }
        }
        RuleKind::Not(part) => each_part(part, f),
        _ => {}
    }
}
