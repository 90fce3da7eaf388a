//! What a list says of a profile is what the audiences say.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use super::LONG;
use super::Rig;
use crate::bitmap::Mark;
use crate::metrics::Metrics;
use crate::model::Identifier;
use crate::model::Namespace;
use crate::net::Clock;
use crate::net::Workers;
use crate::segment::AudienceState;
use crate::segment::refresh::Last;

const RULES: [&str; 5] =
    ["did a", "count a >= 2 or did b", "did b and not did a", "segment s0 and did c", "everyone"];
const USERS: u32 = 40;

fn dice(sides: u32) -> u32 {
    getrandom::u32().unwrap() % sides
}

fn user(number: u32) -> Identifier {
    Identifier::new(Namespace::new("user_id").unwrap(), &number.to_string()).unwrap()
}

/// Compares all lists with all audiences.
fn agree(rig: &Rig) {
    let generation = rig.segments.generation();
    let pin = rig.engine.pin();
    let mut out = pin.marked(Mark::OptedOut);
    out.iter_mut().zip(pin.unconsented(None)).for_each(|(out, more)| *out |= more);
    for number in 0..USERS + 3 {
        let profile = rig.engine.find(&user(number));
        let is_in = |audience: &crate::segment::Audience| {
            let (shard, ordinal) = profile?;
            Some(audience.members.as_ref()?.shards.get(usize::from(shard))?.contains(ordinal))
        };
        let expected: BTreeSet<&str> = generation
            .audiences
            .iter()
            .filter(|(_, audience)| is_in(audience) == Some(true))
            .map(|(id, _)| id.as_str())
            .collect();
        let found = rig.segments.audiences_of(&user(number)).unwrap();
        let told: BTreeSet<&str> = found.audiences.iter().map(|id| &**id).collect();
        assert_eq!((told.len(), &told), (found.audiences.len(), &expected), "user {number}");
        let is_out = profile.is_some_and(|(shard, of)| out[usize::from(shard)].contains(of));
        assert_eq!(found.is_barred, is_out && !expected.is_empty(), "user {number}");
        assert_eq!((found.generation, found.true_for), (generation.number, generation.true_for));
    }
}

#[test]
fn a_list_has_the_segments_whose_members_have_the_profile() {
    let mut rig = Rig::new(&[("s0", "rule = 'did a'")]);
    assert!(rig.segments.audiences_of(&user(1)).is_err(), "nothing was evaluated yet");
    rig.engine.start(&Workers::new(Metrics::new())).unwrap();
    let mut last = Last::default();
    for round in 0..25 {
        if round % 8 == 7 {
            rig = rig.reopen(1_000);
            agree(&rig);
            rig.engine.start(&Workers::new(Metrics::new())).unwrap();
            last = Last::default();
        }
        for _ in 0..dice(8) {
            let (user, name) = (dice(USERS).to_string(), ["a", "b", "c"][dice(3) as usize]);
            match dice(4) {
                0 => rig.consent(&user, name, dice(2) == 0),
                _ => rig.event(&user, name, 0),
            }
        }
        if dice(2) == 0 {
            rig.choose(&dice(USERS).to_string(), dice(3) > 0);
        }
        // Edited, added, removed.
        let id = format!("s{}", 1 + dice(4));
        match dice(4) {
            0 => drop(std::fs::remove_file(rig.file(&id))),
            _ => {
                let rule = RULES[dice(5) as usize];
                std::fs::write(rig.file(&id), format!("rule = '{rule}'")).unwrap();
            }
        }
        rig.clock.0.fetch_add(1_000, Ordering::Relaxed);
        rig.engine.settle(LONG).unwrap();
        rig.segments.scan_folder();
        let is_done = || {
            let generation = rig.segments.generation();
            generation.true_for == rig.clock.now()
                && generation.version == rig.segments.live().version
                && generation.audiences.values().all(|a| a.state == AudienceState::Live)
        };
        while !is_done() {
            rig.segments.refresh(&mut last);
        }
        agree(&rig);
    }
    rig.engine.stop();
}
