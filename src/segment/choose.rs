//! Which version of each segment is live: the latest where it is right, and never a set with an error.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::folder::Files;
use super::live::Problem;
use super::live::Segment;
use crate::plan;
use crate::rules::Body;
use crate::rules::Diagnostic;
use crate::rules::SegmentFile;
use crate::rules::has_errors;

/// What is live, and what is told of the files that are not, or not whole.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) segments: BTreeMap<String, Arc<Segment>>,
    pub(super) problems: Vec<Problem>,
}

/// Chooses the latest good version of each segment, so that all that are evaluated together have no error.
///
/// A segment goes one way only: from the latest text to the last good one, from that to standing still
/// (`frozen`); from nothing to hidden; and what never was good is left out. So this ends.
pub(super) fn choose(
    files: &Files,
    good: &BTreeMap<String, String>,
    context: &plan::Context<'_>,
) -> Chosen {
    let mut choice = Choice { files, good, candidates: BTreeMap::new(), problems: BTreeMap::new() };
    choice.read();
    while choice.mend(context) {}
    choice.chosen()
}

struct Choice<'a> {
    files: &'a Files,
    good: &'a BTreeMap<String, String>,
    candidates: BTreeMap<String, Segment>,
    problems: BTreeMap<String, String>,
}

impl Choice<'_> {
    /// Starts with the latest version of every file that can be read by itself.
    fn read(&mut self) {
        for (id, text) in self.files {
            let problem = match text {
                Err(error) => format!("{id}.toml: {error}"),
                Ok(text) => {
                    let (file, diagnostics) = SegmentFile::parse(id, text);
                    if !has_errors(&diagnostics) {
                        let text = text.clone();
                        let segment = Segment { file, text, hidden: false, frozen: false };
                        self.candidates.insert(id.clone(), segment);
                        continue;
                    }
                    render(id, text, &diagnostics)
                }
            };
            self.problems.insert(id.clone(), problem);
            self.fall_back(id);
        }
    }

    /// Takes one step towards a set without errors; returns whether one was needed.
    fn mend(&mut self, context: &plan::Context<'_>) -> bool {
        let wrong = self.wrong(context);
        if wrong.is_empty() {
            return false;
        }
        if self.bring_back(&wrong) {
            return true;
        }
        // An edit is undone before anything is done to what nobody touched.
        let edited: Vec<&String> = wrong.keys().filter(|id| self.is_edited(id)).collect();
        if !edited.is_empty() {
            for id in edited {
                self.tell(id, || wrong[id].clone());
                self.fall_back(id);
            }
            return true;
        }
        let blamed = self.blamed(&wrong);
        if !blamed.is_empty() {
            for (id, victim) in blamed {
                self.tell(&id, || {
                    format!("{id}.toml makes the segment `{victim}` wrong:\n{}", wrong[&victim])
                });
                self.fall_back(&id);
            }
            return true;
        }
        // Nobody edited it, and it cannot be answered: the settings changed, or a copy was lost.
        for (id, rendered) in wrong {
            self.tell(&id, || rendered);
            if let Some(candidate) = self.candidates.get_mut(&id) {
                candidate.frozen = true;
            }
        }
        true
    }

    /// Those that are to be evaluated and cannot be, with what is said of them.
    fn wrong(&self, context: &plan::Context<'_>) -> BTreeMap<String, String> {
        let set: Vec<&SegmentFile> = self.candidates.values().map(|c| &c.file).collect();
        let mut wrong = BTreeMap::new();
        let mut doubles = self.doubles();
        for (id, mut diagnostics) in plan::check(&set, context) {
            let candidate = &self.candidates[&id];
            if candidate.frozen {
                continue;
            }
            diagnostics.extend(self.asks_frozen(candidate));
            diagnostics.extend(doubles.remove(&id));
            if has_errors(&diagnostics) {
                let rendered = render(&id, &candidate.text, &diagnostics);
                wrong.insert(id, rendered);
            }
        }
        wrong
    }

    /// Edited segments that have the name of another. Of two that nobody edited neither is told.
    fn doubles(&self) -> BTreeMap<String, Diagnostic> {
        let mut names: BTreeMap<&str, &str> = BTreeMap::new();
        let mut doubles = BTreeMap::new();
        for (id, candidate) in &self.candidates {
            if candidate.hidden {
                continue;
            }
            // A file that says no name has its id for one.
            let first = *names.entry(&candidate.file.name).or_insert(id);
            if first == id {
                continue;
            }
            let both = [(id.as_str(), first), (first, id.as_str())];
            if let Some((own, other)) = both.into_iter().find(|(own, _)| self.is_edited(own)) {
                let message = format!("another segment has this name: {other}.toml");
                let told = Diagnostic::error("duplicate", None, message);
                doubles.insert(own.to_owned(), told.with_hint("give one of them another name"));
            }
        }
        doubles
    }

    fn asks_frozen(&self, candidate: &Segment) -> Option<Diagnostic> {
        let names = plan::references_of(&candidate.file.body);
        let is_frozen = |id: &str| self.candidates.get(id).is_some_and(|asked| asked.frozen);
        let name = names.into_iter().find(|name| is_frozen(&name.text))?;
        Some(Diagnostic::error("frozen", name.span, frozen_text(&name.text)))
    }

    /// Brings back, hidden, what was deleted and is still asked.
    fn bring_back(&mut self, wrong: &BTreeMap<String, String>) -> bool {
        let mut gone = BTreeSet::new();
        let mut asking = Vec::new();
        for id in wrong.keys() {
            let names = plan::references_of(&self.candidates[id].file.body).into_iter();
            let missing: Vec<String> = names
                .map(|name| name.text.to_string())
                .filter(|name| !self.candidates.contains_key(name) && self.good.contains_key(name))
                .collect();
            if !missing.is_empty() {
                asking.push(id);
                gone.extend(missing);
            }
        }
        for id in asking {
            self.tell(id, || wrong[id].clone());
        }
        for id in &gone {
            self.fall_back(id);
        }
        !gone.is_empty()
    }

    /// Edited files that are right by themselves and make another wrong, with the one they make wrong.
    fn blamed(&self, wrong: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut blamed = BTreeMap::new();
        for id in wrong.keys() {
            for name in plan::references_of(&self.candidates[id].file.body) {
                let asked = self.candidates.get(&*name.text);
                let is_lookalike =
                    asked.is_some_and(|asked| matches!(asked.file.body, Body::Lookalike(_)));
                if is_lookalike && self.is_edited(&name.text) {
                    blamed.insert(name.text.to_string(), id.clone());
                }
            }
        }
        blamed
    }

    /// Whether a candidate is another version than the last good one.
    fn is_edited(&self, id: &str) -> bool {
        let text = self.candidates.get(id).map(|candidate| &candidate.text);
        text.is_some() && self.good.get(id) != text
    }

    /// Takes the last good version; leaves the segment out where there is none.
    fn fall_back(&mut self, id: &str) {
        let Some(text) = self.good.get(id) else {
            self.candidates.remove(id);
            return;
        };
        let (file, diagnostics) = SegmentFile::parse(id, text);
        let segment = Segment {
            file,
            text: text.clone(),
            hidden: !self.files.contains_key(id),
            // It was good, in the language of that day.
            frozen: has_errors(&diagnostics),
        };
        self.candidates.insert(id.to_owned(), segment);
    }

    /// What is the matter with a file; the first thing found stands.
    fn tell(&mut self, id: &str, rendered: impl FnOnce() -> String) {
        self.problems.entry(id.to_owned()).or_insert_with(rendered);
    }

    fn chosen(self) -> Chosen {
        let Self { candidates, problems, .. } = self;
        let problems = problems.into_iter().map(|(id, rendered)| {
            let candidate = candidates.get(&id);
            Problem {
                keeps_last_good: candidate.is_some(),
                frozen: candidate.is_some_and(|candidate| candidate.frozen),
                id,
                rendered,
            }
        });
        let problems = problems.collect();
        let segments = candidates.into_iter().map(|(id, segment)| (id, Arc::new(segment)));
        Chosen { segments: segments.collect(), problems }
    }
}

/// What one is told who asks a segment that stands still.
pub(super) fn frozen_text(id: &str) -> String {
    format!("the segment `{id}` is wrong and stands still, so it cannot be asked")
}

/// The errors as text: of what is not live nobody needs to know how it could be better.
fn render(id: &str, text: &str, diagnostics: &[Diagnostic]) -> String {
    let errors: Vec<Diagnostic> = diagnostics.iter().filter(|d| d.is_error()).cloned().collect();
    crate::rules::render(&format!("{id}.toml"), text, &errors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::NamespaceOrder;
    use crate::model::time::DAY;

    const LOOKALIKE: &str = "[lookalike]\nseed = 'c'\nreach = 0.1\n";

    /// What is live of `files` (`-` deletes), where `good` were the last good versions: id → text, with
    /// `hidden` and `frozen` said before it.
    fn live(
        files: &[(&str, &str)],
        good: &[(&str, &str)],
        retention: i64,
    ) -> (Vec<String>, Vec<(String, bool)>) {
        let files = files.iter().map(|(id, text)| ((*id).to_owned(), Ok((*text).to_owned())));
        let good = good.iter().map(|(id, text)| ((*id).to_owned(), (*text).to_owned())).collect();
        let order = NamespaceOrder::default();
        let context = plan::Context {
            namespaces: &order,
            seen: None,
            retention: retention * DAY,
            schema: None,
            now: None,
        };
        let chosen = choose(&files.collect(), &good, &context);
        let shown = chosen.segments.iter().map(|(id, segment)| {
            let hidden = if segment.hidden { " hidden" } else { "" };
            let frozen = if segment.frozen { " frozen" } else { "" };
            format!("{id}{hidden}{frozen}: {}", segment.text.trim_end())
        });
        let problems = chosen.problems.iter().map(|p| (p.id.clone(), p.keeps_last_good));
        (shown.collect(), problems.collect())
    }

    fn wrong(ids: &[&str]) -> Vec<(String, bool)> {
        ids.iter().map(|id| ((*id).to_owned(), true)).collect()
    }

    #[test]
    fn a_lowered_retention_freezes_what_reaches_too_far_and_what_asks_it() {
        let files = [
            ("a", "rule = 'segment b'"),
            ("b", "rule = 'did x in 60d'"),
            ("c", "rule = 'did x in 7d'"),
        ];
        let (segments, problems) = live(&files, &files, 30);
        assert_eq!(
            segments,
            [
                "a frozen: rule = 'segment b'",
                "b frozen: rule = 'did x in 60d'",
                "c: rule = 'did x in 7d'"
            ]
        );
        assert_eq!(problems, wrong(&["a", "b"]));
    }

    #[test]
    fn a_deleted_segment_that_reaches_too_far_is_no_endless_question() {
        let a = ("a", "rule = 'segment b'");
        let good = [a, ("b", "rule = 'did x in 60d'")];
        let (segments, _) = live(&[a], &good, 30);
        assert_eq!(
            segments,
            ["a frozen: rule = 'segment b'", "b hidden frozen: rule = 'did x in 60d'"]
        );
    }

    #[test]
    fn an_edit_that_closes_a_circle_is_undone_and_the_others_stay() {
        let a = ("a", "rule = 'segment b'");
        let good = [a, ("b", "rule = 'did x'")];
        let (segments, problems) = live(&[a, ("b", "rule = 'segment a'")], &good, 90);
        assert_eq!(segments, ["a: rule = 'segment b'", "b: rule = 'did x'"]);
        assert_eq!(problems, wrong(&["b"]));
    }

    #[test]
    fn an_edit_that_makes_another_segment_wrong_is_undone() {
        let (a, c) = (("a", "rule = 'segment b'"), ("c", "rule = 'everyone'"));
        let good = [a, ("b", "rule = 'did x'"), c];
        let (segments, problems) = live(&[a, ("b", LOOKALIKE), c], &good, 90);
        assert_eq!(
            segments,
            ["a: rule = 'segment b'", "b: rule = 'did x'", "c: rule = 'everyone'"]
        );
        assert_eq!(problems, wrong(&["b"]));
    }

    #[test]
    fn a_new_file_that_is_wrong_is_left_out_alone() {
        let a = ("a", "rule = 'did x'");
        let (segments, problems) = live(&[a, ("b", "rule = 'segment gone'")], &[a], 90);
        assert_eq!(segments, ["a: rule = 'did x'"]);
        assert_eq!(problems, [("b".to_owned(), false)]);
    }

    #[test]
    fn a_deleted_segment_stays_hidden_while_it_is_asked() {
        let a = ("a", "rule = 'segment b'");
        let good = [a, ("b", "rule = 'did x'"), ("c", "rule = 'did y'")];
        let (segments, problems) = live(&[a], &good, 90);
        assert_eq!(segments, ["a: rule = 'segment b'", "b hidden: rule = 'did x'"]);
        assert_eq!(problems, wrong(&["a"]));
    }

    #[test]
    fn an_edit_that_takes_the_name_of_another_is_undone() {
        let (a, b) = (("a", "name = 'X'\nrule = 'did x'"), ("b", "rule = 'did y'"));
        let taken = ("b", "name = 'X'\nrule = 'did y'");
        let (segments, problems) = live(&[a, taken], &[a, b], 90);
        assert_eq!(segments[1], "b: rule = 'did y'");
        assert_eq!(problems, wrong(&["b"]));
        // Whichever of the two was edited.
        let (_, problems) = live(&[a, taken], &[("a", "rule = 'did x'"), taken], 90);
        assert_eq!(problems, wrong(&["a"]));
        // What was taken so by an earlier version stays.
        let (segments, problems) = live(&[a, taken], &[a, taken], 90);
        assert_eq!((segments.len(), problems.len()), (2, 0));
    }

    #[test]
    fn a_last_good_version_that_is_no_more_read_stands_still() {
        let files = [("a", "rule = 'did'")];
        let (segments, problems) = live(&files, &files, 90);
        assert_eq!(segments, ["a frozen: rule = 'did'"]);
        assert_eq!(problems, wrong(&["a"]));
    }

    #[test]
    fn every_small_set_of_versions_is_chosen_from_in_the_end() {
        let texts =
            ["rule = 'segment a'", "rule = 'segment b'", "rule = 'did x in 60d'", LOOKALIKE];
        let ids = ["a", "b"];
        // Each of two ids: a file of one of the texts or none, and a last good version or none.
        let of = |number: usize| (number > 0).then(|| texts[number - 1]);
        for case in 0..5usize.pow(4) {
            let pick = |place: u32| of(case / 5usize.pow(place) % 5);
            let set = |first: u32| -> Vec<(&str, &str)> {
                let both = [pick(first), pick(first + 1)];
                ids.iter().zip(both).filter_map(|(id, text)| Some((*id, text?))).collect()
            };
            let (files, good) = (set(0), set(2));
            let (segments, _) = live(&files, &good, 30);
            // Who has a file and was good is never gone.
            for (id, _) in &files {
                let is_live = segments.iter().any(|shown| shown.starts_with(id));
                let was_good = good.iter().any(|(other, _)| other == id);
                assert!(is_live || !was_good, "{files:?} after {good:?}: {segments:?}");
            }
        }
    }
}
