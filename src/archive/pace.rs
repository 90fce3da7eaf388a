//! How fast the archive works: nobody waits for it, so it works a little and rests longer, beside those somebody waits
//! for. A cut would take seconds of a processor at once, and on a small machine each event would show later meanwhile.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Condvar;
use parking_lot::Mutex;

/// Whether the archive's thread is to end, and what tells it so.
pub(super) type Stop = Arc<(Mutex<bool>, Condvar)>;

/// It rests after working so long,
const TURN: Duration = Duration::from_millis(4);
/// for so many times as long.
const REST: u32 = 3;
/// How many events pass between two looks at the clock.
const EVENTS: u32 = 32;

/// When to rest.
#[derive(Debug)]
pub struct Pace {
    /// `None` where there is somebody who waits.
    stop: Option<Stop>,
    is_hurried: bool,
    began: Cell<Instant>,
    events: Cell<u32>,
}

impl Pace {
    /// Without rest.
    pub fn hurried() -> Self {
        Self {
            stop: None,
            is_hurried: true,
            began: Cell::new(Instant::now()),
            events: Cell::new(0),
        }
    }

    /// With rests, which end when the thread is to.
    pub(super) fn resting(stop: Stop) -> Self {
        Self { stop: Some(stop), is_hurried: false, ..Self::hurried() }
    }

    /// From now on without rest, or with it again where there is any.
    pub(super) fn hurry(&mut self, is_hurried: bool) {
        self.is_hurried = is_hurried;
        self.began.set(Instant::now());
    }

    /// Said once for each event: rests where it is time to.
    pub(super) fn event(&self) {
        let Some(stop) = self.stop.as_ref().filter(|_| !self.is_hurried) else { return };
        self.events.set(self.events.get() + 1);
        if self.events.get() < EVENTS {
            return;
        }
        self.events.set(0);
        let worked = self.began.get().elapsed();
        if worked < TURN {
            return;
        }
        let mut stopped = stop.0.lock();
        if !*stopped {
            stop.1.wait_for(&mut stopped, worked * REST);
        }
        drop(stopped);
        self.began.set(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_unless_it_is_hurried() {
        let work = |pace: &Pace, events: u32| {
            let started = Instant::now();
            for _ in 0..events * EVENTS {
                std::thread::sleep(TURN / EVENTS);
                pace.event();
            }
            (started.elapsed(), pace.began.get() > started)
        };
        let stop = Stop::default();
        let mut pace = Pace::resting(stop);
        let (took, has_rested) = work(&pace, 2);
        assert!(has_rested && took >= TURN * (2 + 2 * REST));
        pace.hurry(true);
        assert!(!work(&pace, 2).1);
        assert!(!work(&Pace::hurried(), 2).1);
    }
}
