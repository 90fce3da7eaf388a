//! T over several nodes: the time before which everything is in the lanes.
//!
//! ```text
//! T = least mark of all nodes that take events - spread of their clocks
//! ```
//! A mark is by its node's clock, a question by another's. The clocks are `spread` apart at most, so whatever was
//! acknowledged before any of them showed T has a receive time before T + spread, hence before every mark.
//! A node that is not heard of holds T back with its last mark, and its clock counts as it was.
//!
//! The clock of a node that takes no events is nobody's but its own: it may be wrong by a day and T goes on. Such a node
//! asks by the clocks of those that take events ([`Horizon::by_theirs`]).

use std::collections::BTreeMap;

use crate::model::Millis;
use crate::model::time::SECOND;
use crate::store::nodes::Heard;
use crate::store::nodes::Listed;

/// A node that was not heard for so long is silent.
pub const SILENT: Millis = 10 * SECOND;

/// How long the highest offset of a clock is remembered at least.
const REMEMBERED: Millis = 10 * SECOND;

/// What follows from a list of nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Horizon {
    /// T; `None` where nobody takes events, so that nothing is held back.
    pub t: Option<Millis>,
    /// How far the clocks that count are apart.
    pub spread: Millis,
    /// How far the one of them that is the least ahead of the store's is that, at most.
    pub least_ahead: Millis,
    /// How far the one of them that is the most ahead is that.
    pub most_ahead: Millis,
    /// How many nodes were heard of lately.
    pub heard: usize,
    /// The nodes that were not. Those of them that take events hold T back, until they return or are retired.
    pub silent: Vec<String>,
}

/// Follows the horizon over time. T does not go back: what was in the lanes stays there.
///
/// A beat that took long to arrive makes its clock look slower than it is, never faster. So the highest offset of
/// the last seconds counts for how far a clock is ahead, and the latest for how far it is behind.
#[derive(Debug, Default)]
pub struct Horizons {
    peaks: BTreeMap<String, Peak>,
    last: Option<Millis>,
}

/// The highest offset of one clock, in two windows, the older of which is dropped when the newer is full.
#[derive(Debug, Clone, Copy)]
struct Peak {
    since: Millis,
    now: Millis,
    before: Millis,
}

impl Horizon {
    /// The horizon of one list alone.
    pub fn of(listed: &Listed) -> Self {
        Self::with(listed, |heard| heard.offset)
    }

    fn with(listed: &Listed, highest: impl Fn(&Heard) -> Millis) -> Self {
        let is_silent = |heard: &Heard| listed.store_time.saturating_sub(heard.heard) >= SILENT;
        let mut least = None;
        let mut silent = Vec::new();
        for heard in &listed.nodes {
            if is_silent(heard) {
                silent.push(heard.node.id.clone());
            }
            if let Some(mark) = heard.node.mark {
                least = Some(least.map_or(mark, |least: Millis| least.min(mark)));
            }
        }
        let heard = listed.nodes.len() - silent.len();
        // Where none holds anything back, all are asked by each other's clocks.
        let counts = |heard: &&Heard| match least {
            Some(_) => heard.node.mark.is_some(),
            None => !is_silent(heard),
        };
        let counting = || listed.nodes.iter().filter(counts);
        let low = counting().map(|heard| heard.offset).min().unwrap_or(0);
        let (least_ahead, most_ahead) = counting()
            .map(&highest)
            .fold(None, |range, offset| {
                let (low, high) = range.unwrap_or((offset, offset));
                Some((low.min(offset), high.max(offset)))
            })
            .unwrap_or((0, 0));
        let spread = most_ahead.saturating_sub(low).max(0);
        let t = least.map(|least| least.saturating_sub(spread));
        Self { t, spread, least_ahead, most_ahead, heard, silent }
    }

    /// What the clocks of those that take events show at most when one shows `now` that is so far ahead of the store's:
    /// the same where it is among them. Nothing that was acknowledged before is received later than that.
    pub fn by_theirs(&self, now: Millis, offset: Millis) -> Millis {
        if self.t.is_none() {
            return now;
        }
        let theirs = offset.clamp(self.least_ahead, self.most_ahead);
        now.saturating_add(theirs.saturating_sub(offset))
    }
}

impl Horizons {
    /// The horizon of a list, in the light of those before it.
    pub fn next(&mut self, listed: &Listed) -> Horizon {
        let known = std::mem::take(&mut self.peaks);
        for heard in &listed.nodes {
            let (time, offset) = (listed.store_time, heard.offset);
            let peak = match known.get(&heard.node.id) {
                // The store's clock may have been set.
                Some(peak) if (0..REMEMBERED).contains(&time.saturating_sub(peak.since)) => {
                    Peak { now: peak.now.max(offset), ..*peak }
                }
                Some(peak) => Peak { since: time, now: offset, before: peak.now },
                None => Peak { since: time, now: offset, before: offset },
            };
            self.peaks.insert(heard.node.id.clone(), peak);
        }
        let highest = |heard: &Heard| {
            let peak = self.peaks.get(&heard.node.id);
            peak.map_or(heard.offset, |peak| peak.now.max(peak.before))
        };
        let mut horizon = Horizon::with(listed, highest);
        if let Some(t) = &mut horizon.t {
            *t = self.last.map_or(*t, |last| last.max(*t));
            self.last = Some(*t);
        }
        horizon
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::nodes::Node;
    use crate::store::nodes::Roles;
    use proptest::prelude::*;

    const NOW: Millis = 1_000_000;

    fn heard(id: &str, mark: Option<Millis>, heard: Millis, offset: Millis) -> Heard {
        let node = Node {
            id: id.to_owned(),
            roles: Roles::ALL,
            address: None,
            mark,
            lanes: Vec::new(),
            version: String::new(),
        };
        Heard { node, heard, offset }
    }

    fn listed(nodes: &[Heard]) -> Listed {
        Listed { store_time: NOW, nodes: nodes.to_vec() }
    }

    #[test]
    fn t_is_the_least_mark_less_the_spread_of_the_clocks() {
        assert_eq!(Horizon::of(&listed(&[])), Horizon::default());
        // Who holds nothing back counts where nobody does.
        let two = [heard("c", None, NOW, 7), heard("d", None, NOW, -2)];
        assert_eq!(Horizon::of(&listed(&two)).spread, 9);
        let a = heard("a", Some(500), NOW, 40);
        let b = heard("b", Some(700), NOW - 9_999, -20);
        let asker = heard("c", None, NOW, 100);
        let horizon = Horizon::of(&listed(&[a.clone(), b.clone(), asker]));
        let (t, silent) = (Some(500 - 60), vec![]);
        let (least_ahead, most_ahead) = (-20, 40);
        assert_eq!(horizon, Horizon { t, spread: 60, least_ahead, most_ahead, heard: 3, silent });
        // Who only asks does so by theirs.
        let asked = [100, -20, -21, -90].map(|offset| horizon.by_theirs(1_000, offset));
        assert_eq!(asked, [940, 1_000, 1_001, 1_070]);
        let alone = Horizon::of(&listed(&[a]));
        assert_eq!((alone.t, alone.spread), (Some(500), 0));
        let nobody = Horizon::of(&listed(&[heard("c", None, NOW, 7)]));
        assert_eq!((nobody.t, nobody.heard), (None, 1));
        let least = heard("a", Some(Millis::MIN), NOW, Millis::MIN);
        let most = heard("b", Some(0), NOW, Millis::MAX);
        assert_eq!(Horizon::of(&listed(&[least, most])).t, Some(Millis::MIN));
    }

    #[test]
    fn a_silent_node_holds_t_back_until_it_is_struck_off() {
        let live = heard("live", Some(NOW - 5), NOW, 0);
        let gone = heard("gone", Some(300), NOW - SILENT, 50);
        // One that takes no events holds nothing back, and its clock is nobody's.
        let worker = heard("worker", None, NOW - SILENT, 9_000);
        let horizon = Horizon::of(&listed(&[gone, live.clone(), worker]));
        assert_eq!((horizon.t, horizon.spread, horizon.heard), (Some(250), 50, 1));
        assert_eq!(horizon.silent, ["gone", "worker"]);
        assert_eq!(Horizon::of(&listed(&[live])).t, Some(NOW - 5));
    }

    #[test]
    fn t_does_not_go_back() {
        let mut horizons = Horizons::default();
        let mut next = |nodes: &[Heard]| horizons.next(&listed(nodes)).t;
        assert_eq!(next(&[heard("a", Some(500), NOW, 0)]), Some(500));
        assert_eq!(next(&[heard("a", Some(400), NOW, 0)]), Some(500));
        assert_eq!(next(&[]), None);
        assert_eq!(next(&[heard("b", Some(450), NOW, 0)]), Some(500));
        assert_eq!(next(&[heard("b", Some(501), NOW, 0)]), Some(501));
    }

    #[test]
    fn a_beat_that_took_long_does_not_bring_the_clocks_together() {
        let mut horizons = Horizons::default();
        let mut spread = |time: Millis, offset: Millis| {
            let nodes =
                vec![heard("fast", Some(0), time, offset), heard("right", Some(0), time, 0)];
            horizons.next(&Listed { store_time: time, nodes }).spread
        };
        assert_eq!(spread(NOW, 1_000), 1_000);
        assert_eq!(spread(NOW + 100, 200), 1_000);
        // Nor apart for ever.
        assert_eq!(spread(NOW + REMEMBERED, 900), 1_000);
        assert_eq!(spread(NOW + 2 * REMEMBERED - 1, 900), 1_000);
        assert_eq!(spread(NOW + 2 * REMEMBERED, 900), 900);
        // A clock that looks slower is counted so at once.
        assert_eq!(spread(NOW + 2 * REMEMBERED + 1, -800), 1_700);
    }

    /// A node as it really is; times are true ones, and a beat arrives after `delay`.
    #[derive(Debug, Clone)]
    struct Real {
        ahead: Millis,
        shipped: Option<Millis>,
        is_silent: bool,
        delay: Millis,
    }

    fn real(longest: Millis) -> impl Strategy<Value = Real> {
        let shipped = proptest::option::weighted(0.7, NOW - 4_000..=NOW);
        (-3_000..3_000i64, shipped, any::<bool>(), 0..=longest).prop_map(
            |(ahead, shipped, is_silent, delay)| Real { ahead, shipped, is_silent, delay },
        )
    }

    fn list(nodes: &[Real], time: Millis) -> Listed {
        let row = |(at, real): (usize, &Real)| {
            let last = if real.is_silent { NOW - 2 * SILENT } else { time };
            // A mark is by the node's clock.
            let mark = real.shipped.map(|shipped| shipped + real.ahead);
            heard(&format!("{at:02}"), mark, last, real.ahead - real.delay)
        };
        Listed { store_time: time, nodes: nodes.iter().enumerate().map(row).collect() }
    }

    /// Whether everything that any node acknowledged before a clock showed T is shipped, for every clock of those
    /// who may ask; looked at millisecond by millisecond around what matters.
    fn is_whole(nodes: &[Real], horizon: &Horizon) -> bool {
        let Some(t) = horizon.t else { return true };
        let askers = nodes.iter().filter(|node| !node.is_silent || node.shipped.is_some());
        askers.into_iter().all(|asker| {
            let shifted = match asker.shipped {
                Some(_) => 0,
                None => horizon.by_theirs(0, asker.ahead - asker.delay),
            };
            let asked = t - shifted - asker.ahead;
            nodes.iter().filter_map(|node| Some((node, node.shipped?))).all(|(node, shipped)| {
                (asked - 3..asked).chain([asked - 5_000]).all(|acknowledged| {
                    let received = acknowledged + node.ahead;
                    received < shipped + node.ahead
                })
            })
        })
    }

    proptest! {
        #[test]
        fn all_that_was_acknowledged_before_t_is_shipped(
            nodes in proptest::collection::vec(real(0), 1..8)
        ) {
            let horizon = Horizon::of(&list(&nodes, NOW));
            prop_assert_eq!(horizon.t.is_some(), nodes.iter().any(|node| node.shipped.is_some()));
            if let Some(t) = horizon.t {
                prop_assert!(is_whole(&nodes, &horizon), "{t} of {nodes:?}");
                // And it is held back by no more than the clocks are apart.
                let least = nodes.iter().filter_map(|node| Some(node.shipped? + node.ahead)).min();
                prop_assert!(least.is_some_and(|least| t > least - 6_000));
            }
        }

        #[test]
        fn beats_that_take_long_change_nothing_of_it(
            nodes in proptest::collection::vec(real(0), 1..6),
            delays in proptest::collection::vec(proptest::collection::vec(0..2_000i64, 6), 1..20),
        ) {
            let mut horizons = Horizons::default();
            let mut last = horizons.next(&list(&nodes, NOW)).t;
            for (at, delays) in (1..).zip(&delays) {
                let late: Vec<Real> = nodes
                    .iter()
                    .zip(delays)
                    .map(|(node, delay)| Real { delay: *delay, ..node.clone() })
                    .collect();
                let horizon = horizons.next(&list(&late, NOW + at * 100));
                prop_assert!(horizon.t >= last);
                last = horizon.t;
                if let Some(t) = horizon.t {
                    prop_assert!(is_whole(&late, &horizon), "{t} of {late:?}");
                }
            }
        }
    }
}
