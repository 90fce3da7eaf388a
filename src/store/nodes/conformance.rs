//! The contract of [`Nodes`], run against every backend.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;

/// Every contract. Each gets a store of its own.
pub(crate) const ALL: [fn(&dyn Nodes); 7] = [
    a_node_is_listed_as_it_last_told,
    who_leaves_or_is_retired_is_gone,
    one_leads_and_the_term_grows_with_every_change,
    a_lead_that_is_over_is_anyone_s,
    no_term_is_given_to_two,
    what_is_too_large_is_refused,
    there_is_room_for_so_many_nodes,
];

/// Longer than any test.
const LONG: Duration = Duration::from_secs(600);

/// A node that does everything.
pub(crate) fn node(id: &str) -> Node {
    Node {
        id: id.to_owned(),
        roles: Roles::ALL,
        address: Some("10.0.0.7:8081".to_owned()),
        mark: Some(1_000),
        lanes: vec![0, 3],
        version: "1.2.3".to_owned(),
    }
}

fn a_node_is_listed_as_it_last_told(nodes: &dyn Nodes) {
    let before = nodes.list().unwrap();
    assert_eq!(before.nodes, []);
    assert!(before.store_time > 0);
    let worker = Node {
        roles: Roles::from_iter([Role::Work]),
        address: None,
        mark: None,
        lanes: Vec::new(),
        ..node("w {1} \u{e9} 2")
    };
    let clock = before.store_time + 5_000;
    nodes.beat(&worker, clock).unwrap();
    nodes.beat(&node("a"), clock).unwrap();
    nodes.beat(&Node { mark: Some(-7), ..node("a") }, clock - 10_000).unwrap();
    let listed = nodes.list().unwrap();
    let [a, w] = &listed.nodes[..] else { panic!("{listed:?}") };
    assert_eq!(w.node, worker);
    assert_eq!(a.node, Node { mark: Some(-7), ..node("a") });
    assert!(before.store_time <= w.heard && w.heard <= a.heard && a.heard <= listed.store_time);
    assert_eq!(w.offset, clock - w.heard);
    assert_eq!(a.offset, clock - 10_000 - a.heard);
}

fn who_leaves_or_is_retired_is_gone(nodes: &dyn Nodes) {
    for id in ["a", "b", "c"] {
        nodes.beat(&node(id), 0).unwrap();
    }
    nodes.leave("b").unwrap();
    nodes.leave("b").unwrap();
    let heard = nodes.list().unwrap().nodes[0].heard;
    assert!(!nodes.strike("a", heard - 1).unwrap());
    assert!(nodes.strike("a", heard).unwrap());
    assert!(!nodes.strike("a", heard).unwrap());
    nodes.beat(&node("a"), 0).unwrap();
    assert!(nodes.retire("a").unwrap());
    assert!(!nodes.retire("a").unwrap());
    let left = nodes.list().unwrap().nodes;
    assert_eq!(left.iter().map(|heard| &*heard.node.id).collect::<Vec<_>>(), ["c"]);
    // Who is there after all is listed again.
    nodes.beat(&node("a"), 0).unwrap();
    assert_eq!(nodes.list().unwrap().nodes.len(), 2);
}

fn one_leads_and_the_term_grows_with_every_change(nodes: &dyn Nodes) {
    assert_eq!(nodes.leader().unwrap(), None);
    let first = nodes.lead("a", LONG).unwrap().unwrap();
    assert_eq!(nodes.lead("b", LONG).unwrap(), None);
    assert_eq!(nodes.lead("a", LONG).unwrap(), Some(first));
    assert_eq!(nodes.leader().unwrap(), Some(("a".to_owned(), first)));
    nodes.resign("b").unwrap();
    assert_eq!(nodes.leader().unwrap(), Some(("a".to_owned(), first)));
    nodes.resign("a").unwrap();
    nodes.resign("a").unwrap();
    assert_eq!(nodes.leader().unwrap(), None);
    let second = nodes.lead("b", LONG).unwrap().unwrap();
    assert!(second > first);
    assert_eq!(nodes.lead("a", LONG).unwrap(), None);
    // One who resigned does not go on with its old term.
    nodes.resign("b").unwrap();
    assert!(nodes.lead("b", LONG).unwrap().unwrap() > second);
}

fn a_lead_that_is_over_is_anyone_s(nodes: &dyn Nodes) {
    let first = nodes.lead("a", Duration::from_millis(30)).unwrap().unwrap();
    let second = loop {
        if let Some(term) = nodes.lead("b", LONG).unwrap() {
            break term;
        }
        std::thread::yield_now();
    };
    assert!(second > first);
    assert_eq!(nodes.lead("a", LONG).unwrap(), None);
    assert_eq!(nodes.leader().unwrap(), Some(("b".to_owned(), second)));
}

fn no_term_is_given_to_two(nodes: &dyn Nodes) {
    let race = |id: &'static str| {
        let mut terms = Vec::new();
        // Until the lead has come back some times, whatever the machine does meanwhile.
        while terms.len() < 5 {
            // Over at once, or soon.
            let ttl = Duration::from_millis(terms.len() as u64 % 3);
            if let Some(term) = nodes.lead(id, ttl).unwrap()
                && terms.last() != Some(&term)
            {
                terms.push(term);
            }
        }
        (id, terms)
    };
    let mut given: BTreeMap<u64, &str> = BTreeMap::new();
    std::thread::scope(|scope| {
        let threads = ["a", "b"].map(|id| scope.spawn(move || race(id)));
        for thread in threads {
            let (id, terms) = thread.join().unwrap();
            assert!(terms.is_sorted(), "{terms:?}");
            for term in terms {
                assert_eq!(given.insert(term, id), None, "{term} was given twice");
            }
        }
    });
}

fn what_is_too_large_is_refused(nodes: &dyn Nodes) {
    let long = "x".repeat(300);
    for wrong in [
        node(""),
        node("a\nb"),
        node(&long),
        Node { address: Some(long.clone()), ..node("a") },
        Node { version: long.clone(), ..node("a") },
        Node { lanes: vec![0; 5_000], ..node("a") },
    ] {
        let error = nodes.beat(&wrong, 0).unwrap_err();
        assert!(matches!(error, StoreError::Refused { .. }), "{error:?}");
    }
    assert_eq!(nodes.list().unwrap().nodes, []);
}

fn there_is_room_for_so_many_nodes(nodes: &dyn Nodes) {
    for number in 0..MAX_NODES {
        nodes.beat(&node(&format!("{number:05}")), 0).unwrap();
    }
    let error = nodes.beat(&node("one more"), 0).unwrap_err();
    assert!(error.to_string().contains("throng node retire"), "{error}");
    nodes.beat(&node("00007"), 0).unwrap();
    assert!(nodes.retire("00008").unwrap());
    nodes.beat(&node("one more"), 0).unwrap();
    let listed = nodes.list().unwrap().nodes;
    assert_eq!(listed.len(), MAX_NODES);
    assert!(listed.is_sorted_by_key(|heard| heard.node.id.clone()));
}
