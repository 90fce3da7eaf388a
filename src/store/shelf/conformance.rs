//! The contract of a [`Shelf`], run against every backend.

use std::sync::Arc;

use super::*;

/// Opens the store, the same one at each call.
pub(crate) type Open<'a> = &'a dyn Fn() -> Arc<dyn Shelf>;

/// Every contract. Each gets a store of its own.
pub(crate) const ALL: [fn(Open<'_>); 6] = [
    the_first_value_stands,
    a_swap_makes_changes_and_deletes,
    a_swap_that_is_repeated_says_that_it_is_done,
    names_are_listed_and_none_is_taken_for_another,
    everything_outlives_the_process,
    what_is_too_large_is_refused,
];

fn the_first_value_stands(open: Open<'_>) {
    let shelf = open();
    assert_eq!(shelf.get("key").unwrap(), None);
    assert_eq!(shelf.keep("key", b"one").unwrap(), b"one");
    assert_eq!(shelf.keep("key", b"two").unwrap(), b"one");
    assert_eq!(shelf.get("key").unwrap().as_deref(), Some(&b"one"[..]));
    // Of many at once, one is the first, and all are told which.
    let given: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let keep = |n: u8| {
            let shelf = shelf.clone();
            scope.spawn(move || shelf.keep("race", &[n]).unwrap())
        };
        let threads: Vec<_> = (0..8).map(keep).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(given.iter().all(|value| *value == given[0]), "{given:?}");
}

fn a_swap_makes_changes_and_deletes(open: Open<'_>) {
    let shelf = open();
    assert!(!shelf.swap("a", Some(b"x"), Some(b"y")).unwrap());
    assert!(shelf.swap("a", None, Some(b"")).unwrap());
    assert_eq!(shelf.get("a").unwrap().as_deref(), Some(&b""[..]));
    assert!(!shelf.swap("a", None, Some(b"y")).unwrap());
    assert!(!shelf.swap("a", Some(b"x"), Some(b"y")).unwrap());
    assert!(shelf.swap("a", Some(b""), Some(b"\0\n\xff")).unwrap());
    assert_eq!(shelf.get("a").unwrap().as_deref(), Some(&b"\0\n\xff"[..]));
    assert!(!shelf.swap("a", Some(b""), None).unwrap());
    assert!(shelf.swap("a", Some(b"\0\n\xff"), None).unwrap());
    assert_eq!(shelf.get("a").unwrap(), None);
    assert!(shelf.swap("a", None, None).unwrap());
    // Everybody adds one, and none is lost.
    shelf.keep("count", b"0").unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..5).for_each(|_| add_one(&*shelf)));
        }
    });
    assert_eq!(count(&shelf.get("count").unwrap().unwrap()), 20);
}

fn add_one(shelf: &dyn Shelf) {
    // Two who write the same are both told that it stands: so each writes its own.
    let me = format!("{:?}", std::thread::current().id());
    loop {
        let have = shelf.get("count").unwrap().unwrap();
        let next = format!("{} {me}", count(&have) + 1);
        if shelf.swap("count", Some(&have), Some(next.as_bytes())).unwrap() {
            return;
        }
    }
}

fn count(value: &[u8]) -> u32 {
    std::str::from_utf8(value).unwrap().split(' ').next().unwrap().parse().unwrap()
}

fn a_swap_that_is_repeated_says_that_it_is_done(open: Open<'_>) {
    let shelf = open();
    for _ in 0..2 {
        assert!(shelf.swap("a", None, Some(b"1")).unwrap());
    }
    for _ in 0..2 {
        assert!(shelf.swap("a", Some(b"1"), Some(b"2")).unwrap());
    }
    for _ in 0..2 {
        assert!(shelf.swap("a", Some(b"2"), None).unwrap());
    }
    assert_eq!(shelf.names("").unwrap(), Vec::<String>::new());
}

fn names_are_listed_and_none_is_taken_for_another(open: Open<'_>) {
    let shelf = open();
    let (long, longer) = ("é".repeat(MAX_NAME / 2), format!("{}x", "é".repeat(MAX_NAME / 2 - 1)));
    let mut names = vec![
        "a",
        "A",
        "a.new",
        "a/b",
        "a/../b",
        "..",
        ".",
        "~",
        "%61",
        "a b",
        "\u{1f600}",
        &long,
        &longer,
    ];
    for name in &names {
        shelf.keep(name, name.as_bytes()).unwrap();
    }
    for name in &names {
        assert_eq!(shelf.get(name).unwrap().as_deref(), Some(name.as_bytes()), "{name}");
    }
    names.sort_unstable();
    assert_eq!(shelf.names("").unwrap(), names);
    assert_eq!(shelf.names("a/").unwrap(), ["a/../b", "a/b"]);
    assert_eq!(shelf.names("nobody").unwrap(), Vec::<String>::new());
}

fn everything_outlives_the_process(open: Open<'_>) {
    let large = vec![7; MAX_VALUE];
    open().keep("large", &large).unwrap();
    let shelf = open();
    assert!(shelf.get("large").unwrap().as_ref() == Some(&large));
    assert!(shelf.swap("large", Some(&large), Some(b"small")).unwrap());
    assert_eq!(open().get("large").unwrap().as_deref(), Some(&b"small"[..]));
}

fn what_is_too_large_is_refused(open: Open<'_>) {
    let shelf = open();
    let (name, value) = ("x".repeat(MAX_NAME + 1), vec![0; MAX_VALUE + 1]);
    let refused = |error: StoreError| {
        assert!(matches!(error, StoreError::Refused { .. }), "{error:?}");
        assert!(!error.is_retryable());
    };
    for name in [&*name, "", "a\nb", "a\0"] {
        refused(shelf.keep(name, b"").unwrap_err());
        refused(shelf.get(name).unwrap_err());
        refused(shelf.swap(name, None, None).unwrap_err());
    }
    refused(shelf.keep("a", &value).unwrap_err());
    refused(shelf.swap("a", None, Some(&value)).unwrap_err());
    assert_eq!(shelf.names("").unwrap(), Vec::<String>::new());
}
