//! Why a profile is a member or not, for people.

use serde_json::Value;

use crate::plan::Contribution;
use crate::plan::Membership;
use crate::plan::Need;
use crate::plan::Why;

/// A verdict, what is lacking, and a line for each clause, its parts and its events under it.
pub(super) fn of(segment: &str, membership: &Membership) -> String {
    let mut text = format!("the profile {} {segment}", verdict(membership));
    match &membership.since {
        Some(since) => text.push_str(&format!(", since {since}")),
        // What was before needs events that are no longer kept.
        None if membership.member => {
            text.push_str(&format!(", since before {}", membership.from));
        }
        None => {}
    }
    match (&membership.until, membership.member) {
        (Some(until), true) => text.push_str(&format!("; it leaves at {until}")),
        (Some(until), false) => text.push_str(&format!("; it enters at {until}")),
        (None, true) => text.push_str("; it stays"),
        (None, false) => text.push_str("; it stays out"),
    }
    text.push_str(" if nothing happens\n");
    for (place, need) in membership.nearest.iter().enumerate() {
        text.push_str(if place == 0 { "it lacks  " } else { "     and  " });
        text.push_str(&lacking(need));
        text.push('\n');
    }
    clause(&membership.rule, 0, &mut text);
    text
}

fn verdict(membership: &Membership) -> &'static str {
    match (membership.member, membership.known, membership.eligible) {
        (true, ..) => "is in",
        (_, false, _) => "is not in (no event of it is retained at this instant)",
        (_, _, false) => "is not in (it is no device, and members of the segment are)",
        _ => "is not in",
    }
}

fn lacking(need: &Need) -> String {
    match (&need.short, need.must_hold) {
        (Some(short), _) => format!("{} ({short} more would do)", need.clause),
        (None, true) => need.clause.clone(),
        (None, false) => format!("that it is not so: {}", need.clause),
    }
}

fn clause(why: &Why, depth: usize, text: &mut String) {
    let mut found: Vec<String> =
        why.found.iter().map(|(name, value)| format!("{name} {}", plain(value))).collect();
    found.extend(why.until.as_ref().map(|until| format!("until {until}")));
    let found = if found.is_empty() { String::new() } else { format!("   [{}]", found.join(", ")) };
    let mark = if why.holds { "✓" } else { "✗" };
    let indent = "  ".repeat(depth);
    text.push_str(&format!("{indent}{mark} {}{found}\n", why.clause));
    for contribution in &why.events {
        text.push_str(&format!("{indent}    · {}\n", event(contribution)));
    }
    if why.more_events > 0 {
        text.push_str(&format!("{indent}    and {} more before these\n", why.more_events));
    }
    for part in &why.parts {
        clause(part, depth + 1, text);
    }
}

fn event(event: &Contribution) -> String {
    let mut text = format!("{} {}", event.time, event.event);
    for (name, value) in &event.properties {
        text.push_str(&format!(" {name}={value}"));
    }
    if !event.complete {
        text.push_str(" …");
    }
    text
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
