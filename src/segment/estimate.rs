//! The size of any rule: exact where its traits are kept, otherwise soon from some shards, and then exact.
//!
//! A profile's shard follows from a hash of its identifier and from nothing that it does. So the profiles of some
//! shards are a sample of all, drawn without returning any, and the share of members among them is told with
//! Wilson's interval, narrowed as the sample comes to be the whole.

use std::time::Duration;
use std::time::Instant;

use parking_lot::Mutex;

use super::Asked;
use super::Caller;
use super::Segments;
use super::Told;
use super::ask::AskError;
use super::ask::Question;
use super::ask::instant;
use crate::model::Millis;
use crate::model::ShardId;
use crate::rules::Level;
use crate::rules::Rule;
use crate::rules::Span;
use crate::rules::ast::RuleKind;

/// The members of one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counted {
    /// The shard.
    pub shard: ShardId,
    /// How many of its profiles are members.
    pub members: u64,
}

/// How many members a rule has, as far as that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// The likeliest number; `None` while nobody is counted.
    pub count: Option<u64>,
    /// With 95 % confidence there are so many or more.
    pub low: u64,
    /// With 95 % confidence there are so many or fewer.
    pub high: u64,
    /// How many profiles were asked.
    pub sampled: u64,
    /// Of how many.
    pub of: u64,
    /// Whether all were, so that the number is exact.
    pub exact: bool,
}

/// An estimate's question as it was understood.
#[derive(Debug)]
pub struct Estimating {
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

/// Of the normal distribution, for an interval of 95 %.
const Z: f64 = 1.959_963_985;

impl Estimate {
    /// Of `members` among `sampled` profiles of `of`.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an estimate, which is kept within whole bounds"
    )]
    pub fn new(members: u64, sampled: u64, of: u64, exact: bool) -> Self {
        // What was folded between two looks can make the sample larger than the whole.
        let of = of.max(sampled);
        let rest = of - sampled;
        if exact || (rest == 0 && of > 0) {
            let count = Some(members);
            return Self { count, low: members, high: members, sampled, of, exact };
        }
        let (least, most) = (members, members + rest);
        if sampled == 0 {
            return Self { count: None, low: 0, high: of, sampled, of, exact };
        }
        let (n, total) = (sampled as f64, of as f64);
        let share = (members as f64 / n).min(1.0);
        // As many independent draws would tell as much.
        let n = n * (total - 1.0).max(1.0) / rest as f64;
        let spread = Z * Z / n;
        let centre = (share + spread / 2.0) / (1.0 + spread);
        let half = Z * (share * (1.0 - share) / n + spread / (4.0 * n)).sqrt() / (1.0 + spread);
        let bound = |share: f64| ((share * total).max(0.0) as u64).clamp(least, most);
        Self {
            count: Some(bound(share).max(least)),
            low: bound(centre - half),
            high: bound(centre + half + 1.0 / total),
            sampled,
            of,
            exact,
        }
    }
}

impl Segments {
    /// Tells about how many members a rule has, ever more exactly; the last is exact.
    pub fn estimate(
        &self,
        question: &Question,
        caller: &Caller,
        tell: &(dyn Fn(Estimate) + Sync),
    ) -> Result<Estimating, AskError> {
        let (rule, told) = self.rule(&question.rule)?;
        let started = Instant::now();
        let library = self.library(&self.live());
        let true_for = self.appended(caller)?;
        let now = instant(question.at.as_deref(), true_for)?;
        let level = question.level;
        let asked = Asked { rule: &rule, level, library: &library, true_for, now };
        let everyone = Rule { kind: RuleKind::Everyone, span: Span::default() };
        let everyone = Asked { rule: &everyone, ..asked };
        let all = self.patiently(caller, || {
            self.parts.shards.eval(&everyone, caller)?.whole(self.parts.count)
        })?;
        let of = all.len();
        tell(Estimate::new(0, 0, of, false));
        // The number of members of each shard: one that changes hands meanwhile may be counted again.
        let counts = Mutex::new(vec![None; usize::from(self.parts.count)]);
        let each = |counted: Counted| {
            let mut counts = counts.lock();
            if let Some(count) = counts.get_mut(usize::from(counted.shard)) {
                *count = Some(counted.members);
            }
            tell(sum(&counts, &all.shards, of));
        };
        self.patiently(caller, || {
            let of = self.parts.shards.counts(&asked, caller, &each)?;
            of.is_whole(self.parts.count)
        })?;
        let counts = counts.into_inner();
        if let Some(shard) = (0..self.parts.count).find(|s| counts[usize::from(*s)].is_none()) {
            return Err(AskError::Missing(shard));
        }
        tell(sum(&counts, &all.shards, of));
        Ok(Estimating { level, true_for, at: now, took: started.elapsed(), told })
    }
}

fn sum(
    counts: &[Option<u64>],
    all: &[std::sync::Arc<roaring::RoaringBitmap>],
    of: u64,
) -> Estimate {
    let counted = || counts.iter().zip(all).filter_map(|(count, all)| Some(((*count)?, all.len())));
    let members = counted().map(|(members, _)| members).sum();
    let sampled = counted().map(|(_, all)| all).sum();
    Estimate::new(members, sampled, of, counts.iter().all(Option::is_some))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_holds_the_truth_about_nineteen_times_in_twenty() {
        let total = 40_000u64;
        // A generator of numbers of its own, so that the test is the same each time.
        let mut state = 7u64;
        let mut draw = move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        };
        for (share, sampled) in [(1u64, 2_500usize), (50, 2_500), (400, 10_000), (9_990, 2_500)] {
            let (mut within, runs) = (0, 400);
            for _ in 0..runs {
                let in_sample: Vec<bool> = (0..total).map(|_| draw() % 10_000 < share).collect();
                let truth = in_sample.iter().filter(|is| **is).count() as u64;
                let members = in_sample[..sampled].iter().filter(|is| **is).count() as u64;
                let estimate = Estimate::new(members, sampled as u64, total, false);
                assert!(estimate.low <= estimate.count.unwrap());
                assert!(estimate.count.unwrap() <= estimate.high);
                within += u32::from((estimate.low..=estimate.high).contains(&truth));
            }
            assert!(within * 100 >= runs * 92, "{share} {sampled}: {within} of {runs}");
        }
    }

    #[test]
    fn a_sample_that_is_the_whole_is_exact_and_none_tells_nothing() {
        let exact = Estimate::new(7, 100, 100, true);
        assert_eq!((exact.count, exact.low, exact.high), (Some(7), 7, 7));
        let none = Estimate::new(0, 0, 100, false);
        assert_eq!((none.count, none.low, none.high), (None, 0, 100));
        let more = Estimate::new(7, 101, 100, false);
        assert_eq!((more.low, more.high, more.of), (7, 7, 101));
        assert_eq!(Estimate::new(0, 0, 0, true).count, Some(0));
        // Nobody was found: that there are some is not excluded.
        assert!(Estimate::new(0, 10, 1_000, false).high > 100);
    }
}
