//! What a profile lacks: the fewest clauses that would have to turn, the nearest first.

use serde_json::Value as Json;

use super::decimal;
use crate::plan::number::Band;

/// A clause that has to turn for a profile to become a member.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Need {
    /// The clause, as the printer writes it.
    pub clause: String,
    /// Whether it has to become true; where not, it has to become false.
    pub must_hold: bool,
    /// How much more of what it counts or sums up would do, where more would.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub short: Option<Json>,
}

/// How far a clause is from turning: how many events or changes do it at least.
#[derive(Debug, Clone)]
pub(super) struct Distance {
    far: f64,
    short: Option<Json>,
}

/// No event turns it: only time, or nothing.
const TIME: f64 = 1e12;

impl Distance {
    /// One event, or one change, away.
    pub(super) fn event() -> Self {
        Self { far: 1.0, short: None }
    }

    /// Of a clause that one event makes true, and none makes false.
    pub(super) fn of_event(holds: bool) -> Self {
        Self { far: if holds { TIME } else { 1.0 }, short: None }
    }

    /// From a value to the numbers that pass, or out of them where it is one. `unit` is how many of it are one: those of
    /// counts are events, and of all else one event may bring any.
    #[expect(clippy::cast_precision_loss, reason = "a distance that is compared with others")]
    pub(super) fn to(band: Band, value: i128, unit: i128) -> Self {
        let is_count = unit == 1;
        let upwards = |to: i128| match to.saturating_sub(value) {
            ..=0 => TIME,
            missing if is_count => missing as f64,
            // Of two, the one of which less is missing.
            missing => 1.0 + (missing as f64 / to.unsigned_abs().max(1) as f64).min(1.0) / 2.0,
        };
        let is_near = band.lo <= value && value <= band.hi;
        let far = match (is_near, band.outside) {
            // Above the last of them.
            (true, _) if band.hi < i128::MAX => upwards(band.hi + 1),
            (true, _) => TIME,
            (false, _) => upwards(band.lo),
        };
        let missing = band.lo.saturating_sub(value);
        if band.outside || missing <= 0 || band.lo <= 0 || band.lo == i128::MAX {
            return Self { far, short: None };
        }
        let short =
            if is_count { Json::from(i64::try_from(missing).ok()) } else { decimal(missing) };
        Self { far, short: Some(short) }
    }
}

/// How a part can come to be true, and how it can come to be false.
#[derive(Debug, Clone)]
pub(super) struct Ways {
    /// What has to turn for it to be true.
    yes: Way,
    no: Way,
}

/// Clauses that have to turn, as places in [`Needs`], and how far off they are together.
#[derive(Debug, Clone, Default)]
struct Way {
    far: f64,
    needs: Vec<usize>,
}

impl Way {
    /// It is so already.
    fn here() -> Self {
        Self::default()
    }

    /// It can not come to be so.
    fn never() -> Self {
        Self { far: f64::INFINITY, needs: Vec::new() }
    }

    fn together<'a>(ways: impl Iterator<Item = &'a Self>) -> Self {
        ways.fold(Self::here(), |mut sum, way| {
            sum.far += way.far;
            for need in &way.needs {
                if !sum.needs.contains(need) {
                    sum.needs.push(*need);
                }
            }
            sum
        })
    }

    fn nearest<'a>(ways: impl Iterator<Item = &'a Self>) -> Self {
        ways.min_by(|a, b| a.far.total_cmp(&b.far)).cloned().unwrap_or_else(Self::never)
    }
}

impl Ways {
    /// Of what is the same whatever happens.
    pub(super) fn fixed(holds: bool) -> Self {
        let this = Self { yes: Way::here(), no: Way::never() };
        if holds { this } else { this.not() }
    }

    /// Of a negation.
    pub(super) fn not(self) -> Self {
        Self { yes: self.no, no: self.yes }
    }

    /// Of a conjunction.
    pub(super) fn all(parts: &[Self]) -> Self {
        Self {
            yes: Way::together(parts.iter().map(|part| &part.yes)),
            no: Way::nearest(parts.iter().map(|part| &part.no)),
        }
    }

    /// Of a disjunction.
    pub(super) fn any(parts: &[Self]) -> Self {
        Self {
            yes: Way::nearest(parts.iter().map(|part| &part.yes)),
            no: Way::together(parts.iter().map(|part| &part.no)),
        }
    }
}

/// The clauses that could turn.
#[derive(Debug, Default)]
pub(super) struct Needs {
    all: Vec<(Need, f64)>,
}

impl Needs {
    /// The ways of a clause that is so now, or is not.
    pub(super) fn clause(&mut self, clause: &str, holds: bool, distance: Distance) -> Ways {
        let Distance { far, short } = distance;
        let need = Need {
            clause: clause.to_owned(),
            must_hold: !holds,
            short: if holds { None } else { short },
        };
        let same = self.all.iter().position(|(other, _)| *other == need);
        let place = same.unwrap_or_else(|| {
            self.all.push((need, far));
            self.all.len() - 1
        });
        let turn = Way { far, needs: vec![place] };
        if holds {
            Ways { yes: Way::here(), no: turn }
        } else {
            Ways { yes: turn, no: Way::here() }
        }
    }

    /// What has to turn for a part to be true, the nearest first; empty where it is, or never can be.
    pub(super) fn of(self, ways: &Ways) -> Vec<Need> {
        let mut needs: Vec<(Need, f64)> =
            ways.yes.needs.iter().map(|place| self.all[*place].clone()).collect();
        needs.sort_by(|a, b| a.1.total_cmp(&b.1));
        needs.into_iter().map(|(need, _)| need).collect()
    }
}
