//! What each of several rules costs, where they share parts: a part that answers several is divided among them.

use std::ops::AddAssign;

use super::explain::Explanation;

/// What a rule cost in an evaluation of several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RuleCost {
    /// Nanoseconds, those of each part divided among the rules that it answers: those of all rules are what the
    /// evaluation took.
    pub nanoseconds: u64,
    /// Nanoseconds that it would take without the other rules.
    pub alone: u64,
    /// Bytes of columns, and of answers of parts, that were read for it, divided in the same way.
    pub bytes: u64,
    /// How many parts it is made of.
    pub parts: u64,
    /// How many of these other rules are made of too.
    pub shared: u64,
}

/// What it cost among other profiles is added; its parts are the same there.
impl AddAssign for RuleCost {
    fn add_assign(&mut self, other: Self) {
        self.nanoseconds += other.nanoseconds;
        self.alone += other.alone;
        self.bytes += other.bytes;
        self.parts = self.parts.max(other.parts);
        self.shared = self.shared.max(other.shared);
    }
}

impl Explanation {
    /// What each rule cost, in the order of the rules.
    pub fn costs(&self) -> Vec<RuleCost> {
        let of_rules: Vec<Vec<usize>> =
            self.rules.iter().map(|rule| self.parts_of(rule.part)).collect();
        let mut readers = vec![0_u64; self.parts.len()];
        of_rules.iter().flatten().for_each(|part| readers[*part] += 1);
        // How many have had their share of a part: shares of whole numbers that add up to the whole.
        let mut served = vec![0_u64; self.parts.len()];
        let cost = |parts: &Vec<usize>| {
            let mut cost = RuleCost { parts: parts.len() as u64, ..RuleCost::default() };
            for place in parts {
                let (part, readers) = (&self.parts[*place], readers[*place]);
                let before = served[*place];
                served[*place] += 1;
                let share = |whole: u64| {
                    let upto = |of: u64| u128::from(whole) * u128::from(of) / u128::from(readers);
                    u64::try_from(upto(before + 1) - upto(before)).unwrap_or(u64::MAX)
                };
                cost.nanoseconds += share(part.nanoseconds);
                cost.bytes += share(part.bytes);
                cost.alone += part.nanoseconds;
                cost.shared += u64::from(readers > 1);
            }
            cost
        };
        of_rules.iter().map(cost).collect()
    }

    /// A part with all that it is made of, each once.
    fn parts_of(&self, part: usize) -> Vec<usize> {
        let mut found = vec![part];
        let mut place = 0;
        while let Some(part) = found.get(place) {
            let parts = self.parts.get(*part).map(|part| &part.parts[..]).unwrap_or_default();
            // Rules have few parts.
            let new: Vec<usize> =
                parts.iter().copied().filter(|part| !found.contains(part)).collect();
            found.extend(new);
            place += 1;
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::ExplainedPart;
    use crate::plan::ExplainedRule;
    use crate::rules::Level;

    fn part(id: usize, parts: &[usize], nanoseconds: u64) -> ExplainedPart {
        ExplainedPart {
            id,
            what: id.to_string(),
            parts: parts.to_vec(),
            read_by: 1,
            estimated: 0,
            members: 0,
            nanoseconds,
            bytes: 10 * nanoseconds,
        }
    }

    #[test]
    fn what_is_shared_is_divided_and_nothing_is_lost() {
        // 0 is read by all, twice by the part 3; 4 by nobody else.
        let parts = vec![
            part(0, &[], 100),
            part(1, &[], 7),
            part(2, &[0, 1], 5),
            part(3, &[0, 2], 11),
            part(4, &[0], 1),
        ];
        let rules = [2, 3, 4]
            .map(|part| ExplainedRule { level: Level::Person, part })
            .into_iter()
            .collect();
        let costs = Explanation { rules, parts }.costs();
        let of = |of: fn(&RuleCost) -> u64| costs.iter().map(of).collect::<Vec<_>>();
        assert_eq!(of(|cost| cost.alone), [112, 123, 101]);
        assert_eq!(of(|cost| cost.parts), [3, 4, 2]);
        assert_eq!(of(|cost| cost.shared), [3, 3, 1]);
        assert_eq!(of(|cost| cost.nanoseconds), [33 + 3 + 2, 33 + 4 + 3 + 11, 34 + 1]);
        assert_eq!(of(|cost| cost.nanoseconds).iter().sum::<u64>(), 100 + 7 + 5 + 11 + 1);
        assert_eq!(of(|cost| cost.bytes).iter().sum::<u64>(), 1240);
    }
}
