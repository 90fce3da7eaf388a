//! The contract of an [`AuditLog`], run against every backend.

use std::sync::Arc;

use super::*;

/// Opens the log, the same one at each call.
pub(crate) type Open<'a> = &'a dyn Fn() -> Arc<dyn AuditLog>;

/// Every contract. Each gets a log of its own.
pub(crate) const ALL: [fn(Open<'_>); 4] = [
    a_number_is_given_once_and_none_before_it_afterwards,
    of_many_who_append_at_once_each_gets_a_number,
    everything_outlives_the_process,
    what_is_to_be_kept_is_never_given_up,
];

fn a_number_is_given_once_and_none_before_it_afterwards(open: Open<'_>) {
    let log = open();
    assert_eq!(log.last().unwrap(), None);
    assert_eq!(log.lines(0, 10).unwrap(), []);
    assert!(log.append(1, "{\"a\":\"é\"}").unwrap());
    assert!(!log.append(1, "{\"b\":2}").unwrap());
    assert!(log.append(2, "{\"number\":2}").unwrap());
    assert!(!log.append(1, "{}").unwrap());
    // Whoever has seen a seal of a longer log goes on behind that.
    assert!(log.append(7, "{\"number\":7}").unwrap());
    let all: Vec<(u64, String)> =
        [(1, "{\"a\":\"é\"}"), (2, "{\"number\":2}"), (7, "{\"number\":7}")]
            .map(|(number, line)| (number, line.to_owned()))
            .to_vec();
    assert_eq!(log.lines(0, 10).unwrap(), all);
    assert_eq!(log.lines(1, 1).unwrap(), all[1..2]);
    assert_eq!(log.lines(2, 10).unwrap(), all[2..]);
    assert_eq!(log.lines(7, 10).unwrap(), []);
    assert_eq!(log.lines(u64::MAX, 10).unwrap(), []);
    let mut walked = Vec::new();
    let mut walk = |most: usize| {
        walked.clear();
        log.walk(&mut |number, line| {
            walked.push((number, line));
            walked.len() < most
        })
        .unwrap();
        walked.clone()
    };
    assert_eq!(walk(10), all);
    assert_eq!(walk(2), all[..2]);
    assert_eq!(log.last().unwrap(), Some(all[2].clone()));
}

fn of_many_who_append_at_once_each_gets_a_number(open: Open<'_>) {
    let log = open();
    let append = |me: u32| {
        for part in 0..5 {
            let line = format!("\"{me}.{part}\"");
            while !log.append(log.last().unwrap().map_or(1, |(last, _)| last + 1), &line).unwrap() {
            }
        }
    };
    std::thread::scope(|scope| {
        for me in 0..4 {
            scope.spawn(move || append(me));
        }
    });
    let lines = log.lines(0, 100).unwrap();
    assert!(lines.iter().map(|(number, _)| *number).eq(1..=20), "{lines:?}");
    let unique: std::collections::BTreeSet<&String> = lines.iter().map(|(_, line)| line).collect();
    assert_eq!(unique.len(), 20);
}

fn everything_outlives_the_process(open: Open<'_>) {
    let log = open();
    assert_eq!(log.seal().unwrap(), None);
    let long = format!("\"{}\"", "x".repeat(MAX_LINE - 2));
    for number in 1..=3 {
        assert!(log.append(number, &long).unwrap());
        log.put_seal(&format!("seal {number}")).unwrap();
    }
    drop(log);
    let log = open();
    assert_eq!(log.last().unwrap(), Some((3, long.clone())));
    assert_eq!(log.lines(0, 9).unwrap().len(), 3);
    assert_eq!(log.seal().unwrap().as_deref(), Some("seal 3"));
    assert!(!log.append(3, "{}").unwrap());
    assert!(log.append(4, &long).unwrap());
    let error = log.append(5, &format!("{long}x")).unwrap_err();
    assert!(matches!(error, StoreError::Refused { .. }) && !error.is_retryable(), "{error:?}");
}

fn what_is_to_be_kept_is_never_given_up(open: Open<'_>) {
    let log = open();
    for number in 1..=3 {
        assert!(log.append(number, "{}").unwrap());
        assert_eq!(log.keep_from(number).unwrap(), None);
    }
    log.give_up(3).unwrap();
    assert_eq!(log.lines(2, 9).unwrap(), [(3, "{}".to_owned())]);
    assert_eq!(log.last().unwrap(), Some((3, "{}".to_owned())));
    assert!(!log.append(3, "{\"another\":3}").unwrap());
    assert!(log.append(4, "{}").unwrap());
}
