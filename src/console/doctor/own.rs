//! The process itself: its threads, its fold, its disk, and what it was given to do.

use std::path::Path;

use crate::activate::PushError;
use crate::console::Services;
use crate::ingest::Health;
use crate::model::Millis;
use crate::model::time::MINUTE;
use crate::segment::AudienceState;
use crate::store::chain;
use crate::store::health::Finding;
use crate::store::health::Room;
use crate::store::health::bytes;
use crate::store::nodes::Role;

/// A disk with less is about to be full.
const LEAST_ROOM: u64 = 1 << 30;
/// A disk of which less than this part is free is worth a look.
const SMALL_PART: u64 = 20;
/// Events that wait longer to be folded are too late.
const LATE: Millis = 5 * MINUTE;

/// What is found of the process; what asks the store is left out where that does not answer.
pub(super) fn found(services: &Services, store_answers: bool) -> Vec<Finding> {
    let mut found = vec![threads(services), fold(services, store_answers), intake(services)];
    found.push(room("disk", &services.data));
    found.extend(archive(services));
    found.push(clock(services));
    found.push(segments(services));
    if store_answers {
        found.extend(destinations(services));
    }
    found
}

fn threads(services: &Services) -> Finding {
    match services.workers.trouble() {
        None => Finding::well("threads", "all run"),
        Some(trouble) => Finding::ill(
            "threads",
            trouble,
            "the next start goes on from what was kept; the log has the panic, please report it",
        ),
    }
}

fn fold(services: &Services, store_answers: bool) -> Finding {
    const CHECK: &str = "fold";
    if services.lanes.held().is_empty() {
        return Finding::well(CHECK, "no lanes are held here");
    }
    match services.lanes.health() {
        Health::FoldWaits(why) => Finding::ill(
            CHECK,
            format!("it waits: {why}"),
            "mend that, and it goes on; nothing is lost meanwhile",
        ),
        Health::CommitWaits(why) => Finding::ill(
            CHECK,
            format!("nothing is committed: {why}"),
            "mend that, and it goes on; what is folded meanwhile is folded again after a restart",
        ),
        Health::Well if !store_answers => Finding::note(
            CHECK,
            "how far it is cannot be told now",
            "see what is said of the store",
        ),
        Health::Well => match services.lanes.stats().lag {
            lag if lag > LATE => Finding::ill(
                CHECK,
                format!("events wait for {} min to be counted", lag / MINUTE),
                "look for a site that floods, and at the time that commits take; more nodes share more lanes",
            ),
            lag => Finding::well(CHECK, format!("{lag} ms behind; commits go well")),
        },
    }
}

fn intake(services: &Services) -> Finding {
    const CHECK: &str = "intake";
    if let Some(trouble) = services.sink.trouble() {
        let advice = "events are refused with 503 until that is mended; hits of pixels are lost";
        return Finding::ill(CHECK, trouble, advice);
    }
    match services.sink.lost() {
        0 => Finding::well(CHECK, "events are taken and kept"),
        lost => Finding::note(
            CHECK,
            format!("a failover took {} that had been acknowledged since the start", bytes(lost)),
            "it cannot be had back; `journal.durability = \"redis-replicated(1)\"` waits for a replica",
        ),
    }
}

fn room(check: &str, dir: &Path) -> Finding {
    let place = dir.display();
    let room = match Room::of(dir) {
        Ok(room) => room,
        Err(error) => {
            return Finding::ill(
                check,
                format!("{place}: {error}"),
                "see that it is there, and mounted",
            );
        }
    };
    let found = format!("{} of {} free for {place}", bytes(room.free), bytes(room.total));
    let advice = "free some room or grow the volume before it is full: then events are refused";
    if room.free < LEAST_ROOM {
        Finding::ill(check, found, advice)
    } else if room.free < room.total / SMALL_PART {
        Finding::note(check, found, advice)
    } else {
        Finding::well(check, found)
    }
}

fn archive(services: &Services) -> Option<Finding> {
    const CHECK: &str = "archive";
    let home = &services.archive;
    if !services.roles.has(Role::Work) || services.lanes.held().is_empty() {
        return None;
    }
    Some(match (home.try_out(), home.folder()) {
        (Ok(()), Some(dir)) => room(CHECK, dir),
        (Ok(()), None) => Finding::well(CHECK, format!("{home} takes files")),
        (Err(error), folder) => Finding::ill(
            CHECK,
            format!("{home} takes nothing: {error}"),
            match folder {
                Some(_) => {
                    "see that it is there, mounted, and the server's own; until then the journal grows"
                }
                None => "until it does the journal grows, and nothing is lost",
            },
        ),
    })
}

fn clock(services: &Services) -> Finding {
    match services.clock.behind() {
        0 => Finding::well("clock", "it goes on"),
        behind => Finding::ill(
            "clock",
            format!("the system's clock is {behind} ms behind a time that was used before"),
            "times stand still until it has come so far: look at the machine's time synchronisation",
        ),
    }
}

fn segments(services: &Services) -> Finding {
    const CHECK: &str = "segments";
    if !services.segments.leads() {
        return Finding::well(CHECK, "the node that leads reads them; ask it");
    }
    let live = services.segments.live();
    if let Some(trouble) = &live.folder {
        let advice = "the segments that were live stay; mend the folder and its rights";
        return Finding::ill(CHECK, trouble, advice);
    }
    let generation = services.segments.generation();
    let failing = generation.audiences.iter().find_map(|(id, audience)| match &audience.state {
        AudienceState::Failing { reason } => Some((id, reason)),
        AudienceState::Live | AudienceState::Backfilling { .. } | AudienceState::Training => None,
    });
    if let (Some((id, reason)), true) = (failing, live.problems.is_empty()) {
        return Finding::ill(
            CHECK,
            format!("the audience {id} is failing: {reason}"),
            "its members are those of before; `throng audience list` shows all that are",
        );
    }
    if live.problems.is_empty() {
        return Finding::well(CHECK, format!("{} are live", live.count()));
    }
    let wrong: Vec<&str> = live.problems.iter().map(|problem| &*problem.id).collect();
    Finding::ill(
        CHECK,
        format!("{} are live; wrong: {}", live.count(), wrong.join(", ")),
        "`throng check segments` points at the places; the last good versions are in use",
    )
}

fn destinations(services: &Services) -> Vec<Finding> {
    const CHECK: &str = "destinations";
    let statuses = match services.pusher.status() {
        Ok(statuses) => statuses,
        Err(error @ PushError::NotReady) => {
            return vec![Finding::note(CHECK, error.to_string(), "ask again in a moment")];
        }
        Err(error) => {
            return vec![Finding::ill(CHECK, chain(&error), "see what is said of the store")];
        }
    };
    let astray = match services.pusher.astray(false) {
        Ok(astray) => astray,
        Err(error) => {
            return vec![Finding::ill(CHECK, chain(&error), "see what is said of the store")];
        }
    };
    let astray = astray.into_iter().map(|report| {
        let trouble = report.trouble.unwrap_or_default();
        // The trouble says what to do.
        let found = Finding::note(CHECK, format!("{}: {trouble}", report.segment), "");
        Finding { advice: None, ..found }
    });
    if statuses.is_empty() {
        return std::iter::once(Finding::well(CHECK, "none are named")).chain(astray).collect();
    }
    let judged = statuses.iter().map(|status| {
        let name = &status.destination.name;
        let check = format!("destination {name}");
        if let Ok(Err(trouble)) = services.pusher.check(name) {
            let advice = format!("once mended, `throng destination test {name}` says so");
            return Finding::ill(&check, trouble, advice);
        }
        let segment = status.segments.iter().find_map(|segment| {
            let trouble = segment.trouble.as_ref()?;
            Some((format!("{}: {trouble}", segment.segment), segment.parked))
        });
        let whole = status.trouble.clone().map(|trouble| (trouble, false));
        match whole.or(segment) {
            None => Finding::well(&check, "takes batches"),
            Some((trouble, true)) => Finding::ill(
                &check,
                trouble,
                format!("it is not tried again by itself: mend it, then `throng destination push {name}`"),
            ),
            Some((trouble, false)) => Finding::ill(
                &check,
                trouble,
                format!("it is tried again by itself; `throng destination push {name}` does so now"),
            ),
        }
    });
    judged.chain(astray).collect()
}
