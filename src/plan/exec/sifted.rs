//! Facts that came, sifted before a row is read: most change nothing.
//!
//! A fact changes the answer of a rule only where the profile has all else that the rule needs, now, and so before:
//! what it had then is less. The head of a profile tells that it lacks something, and that it was known already. Of
//! whom it does not, that is left to its row.

use super::came::Came;
use super::dirty::Candidates;
use super::dirty::Fact;
use super::tables::Reached;
use super::tables::Tables;
use crate::bitmap::Head;
use crate::bitmap::Interval;
use crate::bitmap::Rows;
use crate::bitmap::TraitId;

/// What is left of the facts that came to a block. All its memory is used again.
#[derive(Debug, Default)]
pub(super) struct Sifted {
    heads: Vec<Head>,
    /// Profiles, and the outputs that may be other of each, in order; nothing else of them is. The lowest bit is set
    /// where the output may only have become true, the next are the output, and those above them the profile.
    pairs: Vec<u64>,
    /// The profiles of these.
    pub(super) list: Vec<u16>,
}

impl Sifted {
    /// Finds who of those who are no candidates yet is to be asked what; who may not have been known before, when
    /// `retained` counted, becomes a candidate.
    pub(super) fn sift(
        &mut self,
        came: Came<'_>,
        rows: &Rows,
        tables: &Tables,
        retained: Interval,
        candidates: &mut Candidates,
    ) {
        let Self { heads, pairs, list } = self;
        rows.heads(came.runs.iter().map(|run| run.ordinal), heads);
        // More than are left: each is put down, and is left there where it passes.
        let mut count = 0;
        // Every event is one of these, and hardly a rule asks for them.
        let of_any = tables.reached(TraitId::ANY);
        for (run, head) in came.runs.iter().zip(heads) {
            let ordinal = run.ordinal;
            if candidates.has(ordinal) {
                continue;
            }
            let facts = came.facts(run);
            // An event that counted, and that is none of those that came.
            let is_known = head.event().is_some_and(|event| {
                let is_it = |(_, id, time): &Fact| *id == TraitId::ANY && event.holds(*time);
                retained.covers(event) && !facts.iter().any(is_it)
            });
            if !is_known {
                candidates.add(ordinal);
                continue;
            }
            let signature = head.signature();
            for (_, id, _) in facts {
                let reached = if *id == TraitId::ANY { of_any } else { tables.reached(*id) };
                if pairs.len() < count + reached.len() {
                    pairs.resize((count + reached.len()).next_power_of_two(), 0);
                }
                for reached in reached {
                    pairs[count] = pair(ordinal, reached);
                    count += usize::from(reached.rest.may_have(signature));
                }
            }
        }
        pairs.truncate(count);
        // One of another run may have become a candidate since.
        pairs.retain(|pair| !candidates.has(profile_of(*pair)));
        pairs.sort_unstable();
        // Who did much is asked once. What one fact may make false, and another one true, may have become either.
        pairs.dedup_by_key(|pair| *pair >> 1);
        list.clear();
        list.extend(pairs.chunk_by(is_of_one).map(|of_one| profile_of(of_one[0])));
    }

    /// The outputs to be asked of each of the list, and whether each may only have become true.
    pub(super) fn each(&self) -> impl Iterator<Item = impl Iterator<Item = (u32, bool)>> {
        let each = self.pairs.chunk_by(is_of_one);
        each.map(|of_one| of_one.iter().map(|pair| (output_of(*pair), pair & 1 == 1)))
    }
}

fn pair(ordinal: u16, reached: &Reached) -> u64 {
    u64::from(ordinal) << 33 | u64::from(reached.output) << 1 | u64::from(reached.is_rising)
}

fn profile_of(pair: u64) -> u16 {
    // There is nothing above it.
    u16::try_from(pair >> 33).unwrap_or(0)
}

fn output_of(pair: u64) -> u32 {
    // Above it is the profile.
    u32::try_from(pair >> 1 & u64::from(u32::MAX)).unwrap_or(0)
}

fn is_of_one(one: &u64, other: &u64) -> bool {
    one >> 33 == other >> 33
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bitmap::Signature;
    use crate::plan;
    use crate::plan::Library;
    use crate::plan::Question;
    use crate::plan::TraitSet;
    use crate::plan::compile::Program;
    use crate::rules;
    use crate::rules::Level;

    fn tables(text: &str) -> (Tables, TraitSet) {
        let (rule, diagnostics) = rules::parse(text);
        assert!(diagnostics.is_empty(), "{text}: {diagnostics:?}");
        let library = Library::new();
        let mut traits = TraitSet::new();
        for (id, spec) in (1..).zip(plan::traits_of([&rule], &library).unwrap()) {
            traits.insert(TraitId(id), spec).unwrap();
        }
        let question = Question { rule: &rule, level: Level::Person };
        (Tables::new(&Program::compile(&[question], &library, &traits).unwrap()), traits)
    }

    #[test]
    fn a_fact_makes_a_rule_true_only_where_more_is_never_less() {
        let is_rising = |text: &str, event: &str| {
            let (tables, traits) = tables(text);
            let (id, _) = traits.iter().find(|(_, spec)| spec.event() == event).unwrap();
            tables.reached(id)[0].is_rising
        };
        for (text, expected) in [
            ("did x in 1d", true),
            ("not did x in 1d", false),
            ("did y and not (did y or not did x)", true),
            ("did x in 1d and not did x in 2d", false),
            ("count x in 1d >= 2", true),
            ("days x > 1", true),
            ("count x in 1d < 2", false),
            ("count x in 1d = 2", false),
            ("count x in 1d != 2", false),
            ("not count x in 1d < 2", false),
            ("sum x.v in 1d > 2", false),
            ("min x.v in 1d > 2", false),
            ("max x.v in 1d > 2", false),
            ("avg x.v in 1d > 2", false),
            ("first x in 1d", false),
            ("last x after last y", true),
            ("last y after last x", false),
            ("did x then y within 1h", true),
            ("did y then x within 1h", true),
            ("not did y then x within 1h", false),
        ] {
            assert_eq!(is_rising(text, "x"), expected, "{text}");
        }
    }

    #[test]
    fn what_is_needed_beside_a_fact_is_seen_from_the_head() {
        // The traits x, y and z are those of the numbers 1, 2 and 3.
        let [x, y, z] = [1, 2, 3].map(|id| Signature::of(TraitId(id)));
        let left = |text: &str, has: &[Signature]| {
            let has = has.iter().copied().fold(Signature::default(), Signature::union);
            tables(text).0.reached(TraitId(1))[0].rest.may_have(has)
        };
        for (text, has, expected) in [
            ("did x and did y", &[x][..], false),
            ("did x and did y", &[x, y], true),
            ("did x or did y", &[x], true),
            ("did x and (did y or did z)", &[x], false),
            ("did x and (did y or did z)", &[x, z], true),
            ("did x and not did y", &[x], true),
            ("did x and count y >= 2", &[x], false),
            ("did x and count y < 2", &[x], true),
            ("did x and sum y.v = 0", &[x], true),
            ("did x and sum y.v > 0", &[x], false),
            ("did x and max y.v < 0", &[x], false),
            ("did x and (did y or has user_id)", &[x], true),
            ("not did x and did y", &[x], false),
        ] {
            assert_eq!(left(text, has), expected, "{text}");
        }
    }
}
