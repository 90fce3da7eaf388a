//! Kills the server at each call that it makes to a platform, before what the call says is done and after. Meanwhile some
//! come and some opt out: whatever it was at, the platform ends with whom it should have, and nobody else.

use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;
use std::time::Instant;

use super::harness::{Server, post};
use super::standins::{Fault, StandIn};

/// A server with a destination, and what it pushes to.
pub(super) struct Pushes<'a> {
    pub(super) server: Server,
    pub(super) standin: &'a StandIn,
    pub(super) destination: &'a str,
    /// A person's event, which makes them a member.
    pub(super) event: &'a dyn Fn(u32) -> Value,
    /// Whether the platform has these people and nobody else.
    pub(super) has: &'a dyn Fn(&BTreeSet<u32>) -> bool,
}

impl Pushes<'_> {
    /// Kills the server at each call in turn.
    pub(super) fn survive_a_crash_at_any_call(mut self) {
        let (mut people, mut next) = (BTreeSet::new(), 0);
        self.come(0..6);
        people.extend(0..6);
        next += 6;
        self.come_in_step(&people);
        for is_done in [false, true] {
            for call in 0.. {
                assert!(call < 40, "it calls and calls");
                self.change(&mut people, &mut next);
                let kill = Fault::Kill { pid: self.server.pid(), is_done };
                self.standin.script((0..call).map(|_| Fault::Pass).chain([kill]));
                let was_killed = self.is_killed(&people);
                self.standin.relent();
                if was_killed {
                    self.server.run();
                    // A batch of which nobody knows what became of it says something that is not so any more.
                    self.change(&mut people, &mut next);
                }
                self.come_in_step(&people);
                if !was_killed {
                    assert!(call > 0, "it was never killed");
                    break;
                }
            }
        }
    }

    fn come(&self, people: std::ops::Range<u32>) {
        let events: Vec<Value> = people.map(self.event).collect();
        self.server.accepts(&events);
    }

    /// Two come, and the first and the last of those who were there opt out.
    fn change(&self, people: &mut BTreeSet<u32>, next: &mut u32) {
        for gone in [people.pop_first(), people.pop_last()].into_iter().flatten() {
            let url = format!("{}/v1/events", self.server.collect());
            let taken = post(&url, &(self.event)(gone).to_string(), &[("Sec-GPC", "1")]);
            assert_eq!(taken.json()["accepted"], 1, "{taken:?}");
        }
        self.come(*next..*next + 2);
        people.extend(*next..*next + 2);
        *next += 2;
    }

    /// Pushes; whether there is nothing left to do.
    fn push(&self, people: &BTreeSet<u32>) -> bool {
        let output = self.server.throng(&["destination", "push", self.destination, "--json"]);
        let Ok(said) = serde_json::from_slice::<Value>(&output.stdout) else { return false };
        let is_idle = said[0]["trouble"].is_null() && said[0]["pending"] == 0;
        is_idle && (self.has)(people)
    }

    fn is_killed(&mut self, people: &BTreeSet<u32>) -> bool {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let is_over = self.push(people);
            if self.server.is_dead() {
                return true;
            }
            if is_over {
                return false;
            }
            assert!(Instant::now() < until, "it does not come in step: {}", self.server.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn come_in_step(&self, people: &BTreeSet<u32>) {
        self.server.until("the platform is in step", || self.push(people));
    }
}
