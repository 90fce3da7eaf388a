//! From the members of an audience to what a destination has of them: how many are left at each step, and why the others
//! are not.

use schemars::JsonSchema;
use serde::Serialize;

use super::report::PushReport;
use crate::model::Millis;

/// The steps of one segment at one destination. Times are RFC 3339.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Waterfall {
    /// The destination's name.
    pub destination: String,
    /// The segment's id.
    pub segment: String,
    /// The audience's generation.
    pub generation: Option<u64>,
    /// The time that the audience is true for.
    #[serde(with = "crate::model::rfc3339::option")]
    #[schemars(with = "Option<String>")]
    pub true_for: Option<Millis>,
    /// From the first to the last.
    pub steps: Vec<Step>,
    /// What the platform says that it found of those it accepted; most say nothing.
    pub matched: Option<Matched>,
    /// What stands in the way of knowing all of it.
    pub trouble: Option<String>,
}

/// How many are left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "WaterfallStep")]
pub struct Step {
    /// Its name: `members`, `reachable`, `consented`, `fresh`, `above_minimum`, `identifiers`, `sent` or `accepted`.
    pub step: &'static str,
    /// How many, of profiles up to `above_minimum` and then of identifiers.
    pub count: u64,
    /// Who is not among them any more, and why.
    pub lost: Vec<Lost>,
}

/// Who did not get to a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Lost {
    /// Why, for people.
    pub why: String,
    /// How many.
    pub count: u64,
}

/// How many of an audience a platform knows: between these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Matched {
    /// At least.
    pub least: u64,
    /// At most.
    pub most: u64,
}

impl Waterfall {
    /// What a run has found, or a dry one.
    pub(super) fn of(report: &PushReport, matched: Option<Matched>) -> Self {
        let mut steps = vec![Step { step: "members", count: report.members, lost: Vec::new() }];
        let mut next = |step, lost: Vec<(String, u64)>| {
            let before = steps.last().map_or(0, |step: &Step| step.count);
            let lost: Vec<Lost> = lost
                .into_iter()
                .filter(|(_, count)| *count > 0)
                .map(|(why, count)| Lost { why, count })
                .collect();
            let count = before - lost.iter().map(|lost| lost.count).sum::<u64>().min(before);
            steps.push(Step { step, count, lost });
        };
        let unreachable = report.members - report.reachable;
        next("reachable", vec![("no identifier that the destination takes".into(), unreachable)]);
        let kept_out = |is_stale| {
            let of_kind = report.kept_out.iter().filter(move |one| one.is_stale == is_stale);
            of_kind.map(|one| (one.why.clone(), one.profiles)).collect()
        };
        next("consented", kept_out(false));
        next("fresh", kept_out(true));
        let too_few = if report.below_minimum { report.eligible } else { 0 };
        let minimum = match report.min_size == report.min_of_platform {
            true => format!("fewer than the platform's minimum of {}", report.min_size),
            false => format!("fewer than min_size, {}", report.min_size),
        };
        next("above_minimum", vec![(minimum, too_few)]);
        let PushReport { in_step, withheld, .. } = *report;
        let (adds, refused) = (report.adds - report.settled, report.refused - report.not_removed);
        let (added, waiting) = if report.dry_run { (0, adds) } else { (adds, 0) };
        let count = in_step + added + waiting + refused + withheld;
        steps.push(Step { step: "identifiers", count, lost: Vec::new() });
        let mut next = |step, count, lost: [(&str, u64); 2]| {
            let lost = lost.into_iter().filter(|(_, count)| *count > 0);
            let lost = lost.map(|(why, count)| Lost { why: why.to_owned(), count }).collect();
            steps.push(Step { step, count, lost });
        };
        let sent = in_step + added + refused;
        let waits = "to be sent, or not known to have arrived";
        next("sent", sent, [(waits, waiting), ("the audience is below its minimum", withheld)]);
        next("accepted", sent - refused, [("the destination refused them", refused), ("", 0)]);
        Self {
            destination: report.destination.clone(),
            segment: report.segment.clone(),
            generation: report.generation,
            true_for: report.true_for,
            steps,
            matched,
            trouble: report.trouble.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activate::KeptOut;
    use crate::store::ledger::Target;

    fn report(dry_run: bool) -> PushReport {
        let kept_out =
            |why: &str, profiles, is_stale| KeptOut { why: why.into(), profiles, is_stale };
        PushReport {
            members: 1_000,
            reachable: 900,
            kept_out: vec![kept_out("opted out", 40, false), kept_out("stale", 60, true)],
            eligible: 800,
            min_size: 100,
            adds: 30,
            in_step: 1_100,
            refused: 7,
            ..PushReport::new(&Target::new("ads", "buyers"), dry_run)
        }
    }

    fn counts(waterfall: &Waterfall) -> Vec<(&str, u64)> {
        waterfall.steps.iter().map(|step| (step.step, step.count)).collect()
    }

    #[test]
    fn each_step_is_the_one_before_without_whom_it_loses() {
        let dry = Waterfall::of(&report(true), None);
        let expected = [
            ("members", 1_000),
            ("reachable", 900),
            ("consented", 860),
            ("fresh", 800),
            ("above_minimum", 800),
            ("identifiers", 1_137),
            ("sent", 1_107),
            ("accepted", 1_100),
        ];
        assert_eq!(counts(&dry), expected);
        for pair in dry.steps.windows(2).filter(|pair| pair[1].step != "identifiers") {
            let lost: u64 = pair[1].lost.iter().map(|lost| lost.count).sum();
            assert_eq!(pair[0].count - lost, pair[1].count, "{pair:?}");
        }
        let done = Waterfall::of(&report(false), None);
        assert_eq!(done.steps[6].count, 1_137);
        assert_eq!(
            done.steps[7],
            Step {
                step: "accepted",
                count: 1_130,
                lost: vec![Lost { why: "the destination refused them".into(), count: 7 }],
            }
        );
    }

    #[test]
    fn an_audience_below_its_minimum_says_whose_minimum() {
        let small = PushReport {
            min_size: 900,
            below_minimum: true,
            adds: 0,
            withheld: 30,
            ..report(true)
        };
        let shown = Waterfall::of(&small, None);
        assert_eq!(
            (shown.steps[4].count, &*shown.steps[4].lost[0].why),
            (0, "fewer than min_size, 900")
        );
        assert_eq!(shown.steps[6].count, 1_107);
        let small = PushReport { min_of_platform: 900, ..small };
        let why = &Waterfall::of(&small, None).steps[4].lost[0].why;
        assert_eq!(&**why, "fewer than the platform's minimum of 900");
    }
}
