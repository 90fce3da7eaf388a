//! When something is true of a profile, for all that is known of it now: what holds at each instant, also at those to
//! come.
//!
//! Time alone moves a window over the facts of a profile, so what is true changes at few instants: where a fact
//! comes in at an edge of the window, or goes out at one.

use crate::model::time::MINUTE;
use crate::model::time::Millis;
use crate::model::time::day_start;
use crate::model::time::minute_start;
use crate::plan::window::Moment;
use crate::plan::window::Window;

/// What is true from an instant on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Course {
    first: bool,
    /// The instants at which it turns, in order.
    turns: Vec<Millis>,
}

impl Course {
    /// The same at every instant.
    pub(super) fn always(is: bool) -> Self {
        Self { first: is, turns: Vec::new() }
    }

    /// What `is` says of the instants from `start` on. It turns at no others than at `edges`.
    pub(super) fn of(
        start: Millis,
        mut edges: Vec<Millis>,
        mut is: impl FnMut(Millis) -> bool,
    ) -> Self {
        edges.retain(|edge| *edge > start);
        edges.sort_unstable();
        edges.dedup();
        let first = is(start);
        let mut last = first;
        let turns = edges.into_iter().filter(|edge| {
            let turned = is(*edge) != last;
            last ^= turned;
            turned
        });
        Self { first, turns: turns.collect() }
    }

    /// Where it is not so.
    pub(super) fn not(mut self) -> Self {
        self.first = !self.first;
        self
    }

    /// Where all are so.
    pub(super) fn all(parts: &[Self]) -> Self {
        Self::combine(parts, |holding| holding == parts.len())
    }

    /// Where at least one is.
    pub(super) fn any(parts: &[Self]) -> Self {
        Self::combine(parts, |holding| holding > 0)
    }

    fn combine(parts: &[Self], is: impl Fn(usize) -> bool) -> Self {
        let mut holding = parts.iter().filter(|part| part.first).count();
        let first = is(holding);
        // Each turn of a part, and whether it is one to true.
        let mut turns: Vec<(Millis, bool)> = Vec::new();
        for part in parts {
            let mut now = part.first;
            turns.extend(part.turns.iter().map(|turn| {
                now = !now;
                (*turn, now)
            }));
        }
        turns.sort_unstable();
        let mut last = first;
        let mut own = Vec::new();
        for same in turns.chunk_by(|a, b| a.0 == b.0) {
            for (_, to) in same {
                if *to { holding += 1 } else { holding -= 1 }
            }
            if is(holding) != last {
                last = !last;
                own.push(same[0].0);
            }
        }
        Self { first, turns: own }
    }

    /// Whether it is so at an instant.
    pub(super) fn at(&self, now: Millis) -> bool {
        self.first ^ (self.turns.partition_point(|turn| *turn <= now) % 2 == 1)
    }

    /// The last turn up to an instant, and the next one after it.
    pub(super) fn around(&self, now: Millis) -> (Option<Millis>, Option<Millis>) {
        let next = self.turns.partition_point(|turn| *turn <= now);
        (next.checked_sub(1).map(|last| self.turns[last]), self.turns.get(next).copied())
    }
}

/// The instants at which facts of these times come into a window, or go out of it, the retention's edge included.
pub(super) fn edges(window: Window, times: &[Millis], moment: Moment) -> Vec<Millis> {
    let mut edges = Vec::new();
    for time in times {
        // From this minute on, less a length of time, the fact lies before the minute's start.
        let minute = minute_start(*time).saturating_add(MINUTE);
        edges.extend([*time, minute.saturating_add(moment.retention)]);
        match window {
            Window::Retained | Window::Since(_) | Window::FromTo(..) => {}
            Window::In(length) => edges.push(minute.saturating_add(length)),
            Window::Between(from, to) => {
                edges.extend([minute.saturating_add(from), minute.saturating_add(to)]);
            }
        }
    }
    if let Window::FromTo(from, to) = window {
        edges.extend([day_start(from), day_start(to.saturating_add(1))]);
    }
    edges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_combined_turn_by_turn() {
        let a = Course::of(0, vec![3, 5, 9], |now| (3..5).contains(&now) || now >= 9);
        let b = Course::of(0, vec![4, 9], |now| (4..9).contains(&now));
        let parts = [a, b];
        let (all, any) = (Course::all(&parts), Course::any(&parts));
        assert_eq!(all, Course { first: false, turns: vec![4, 5] });
        // At 9 one ends as the other begins.
        assert_eq!(any, Course { first: false, turns: vec![3] });
        for now in 0..12 {
            let [a, b] = [0, 1].map(|part: usize| parts[part].at(now));
            assert_eq!((all.at(now), any.at(now)), (a && b, a || b), "{now}");
        }
        assert_eq!(all.around(4), (Some(4), Some(5)));
        assert_eq!(any.not().around(2), (None, Some(3)));
        assert_eq!(Course::all(&[]), Course::always(true));
        assert_eq!(Course::any(&[]), Course::always(false));
    }
}
