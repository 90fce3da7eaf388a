//! The nodes that share the store: who is there, who leads, who holds the lanes, and how far their clocks are apart.

use std::collections::BTreeSet;

use crate::cluster::horizon::SILENT;
use crate::console::Peering;
use crate::console::Services;
use crate::console::nodes::Seen;
use crate::model::Millis;
use crate::model::time::SECOND;
use crate::store::chain;
use crate::store::health::Finding;

/// Clocks that are further apart are not kept by anything; questions wait so long for T.
const APART: Millis = SECOND;

/// What is found of the nodes.
pub(super) fn found(services: &Services, peering: &Peering) -> Vec<Finding> {
    let seen = match Seen::now(peering, &*services.clock) {
        Ok(seen) => seen,
        Err(error) => {
            return vec![Finding::ill("nodes", chain(&error), "see what is said of the store")];
        }
    };
    let mut found = vec![nodes(&seen), leader(&seen), lanes(&seen, peering.lanes), clocks(&seen)];
    found.extend(books(services));
    found
}

fn nodes(seen: &Seen) -> Finding {
    const CHECK: &str = "nodes";
    if seen.horizon.silent.is_empty() {
        let age = seen.t_age.map_or_else(String::new, |age| format!("; T is {age} ms old"));
        return Finding::well(CHECK, format!("{} are heard of{age}", seen.horizon.heard));
    }
    Finding::ill(
        CHECK,
        format!("not heard of: {}", seen.horizon.silent.join(", ")),
        "those that take events hold the audiences back: start them again, or `throng node retire` them",
    )
}

fn leader(seen: &Seen) -> Finding {
    match &seen.leader {
        Some(id) => Finding::well("leader", format!("{id} leads")),
        None => Finding::ill(
            "leader",
            "no node leads, so audiences stay as they are",
            "start a node with the role `all`, `work` or `console`; the logs of those there say why none leads",
        ),
    }
}

fn lanes(seen: &Seen, count: u16) -> Finding {
    const CHECK: &str = "lanes";
    let heard = seen.listed.nodes.iter().filter(|heard| seen.since(heard) < SILENT);
    let held: BTreeSet<u16> = heard.flat_map(|heard| heard.node.lanes.iter().copied()).collect();
    let free: Vec<String> =
        (0..count).filter(|lane| !held.contains(lane)).map(|lane| lane.to_string()).collect();
    if free.is_empty() {
        return Finding::well(CHECK, format!("all {count} are held"));
    }
    Finding::ill(
        CHECK,
        format!("of {count}, nobody holds {}", free.join(", ")),
        "their events wait to be folded: start a node with the role `all` or `work`; where there is one, its log says \
         why it does not open them",
    )
}

fn clocks(seen: &Seen) -> Finding {
    const CHECK: &str = "clocks";
    // Of all nodes: those that take no events have a spread of their own.
    let offsets = || seen.listed.nodes.iter().map(|heard| heard.offset);
    let all = offsets().max().unwrap_or(0).saturating_sub(offsets().min().unwrap_or(0));
    let spread = seen.horizon.spread.max(all);
    // From the store's clock: which node is wrong.
    let furthest = seen.listed.nodes.iter().max_by_key(|heard| heard.offset.saturating_abs());
    let furthest = furthest.map_or_else(String::new, |heard| {
        format!("; {} is {} ms off the store's", heard.node.id, heard.offset)
    });
    let found = format!("they are {spread} ms apart{furthest}");
    if spread < APART {
        return Finding::well(CHECK, found);
    }
    Finding::ill(
        CHECK,
        found,
        "audiences trail by so much: look at the time synchronisation of the machines",
    )
}

fn books(services: &Services) -> Option<Finding> {
    const CHECK: &str = "books";
    match services.lanes.imbalance() {
        Ok(None) => None,
        Ok(Some(0)) => Some(Finding::well(CHECK, "no frame of the lanes held here is missing")),
        Ok(Some(missing)) => Some(Finding::ill(
            CHECK,
            format!(
                "{missing} frames of the lanes held here are missing: something else has deleted them"
            ),
            "see that nobody but Throng writes below its keys, as config/redis/users.acl does",
        )),
        Err(error) => Some(Finding::note(CHECK, chain(&error), "see what is said of the store")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::horizon::Horizon;
    use crate::store::health::State;
    use crate::store::nodes::Heard;
    use crate::store::nodes::Listed;
    use crate::store::nodes::Node;
    use crate::store::nodes::Roles;

    const NOW: Millis = 1_000_000;

    /// Nodes with the time since they were heard of, their clocks' offsets and their lanes.
    fn seen(nodes: &[(Millis, Millis, &[u16])]) -> Seen {
        let heard = |(at, (since, offset, lanes)): (usize, &(Millis, Millis, &[u16]))| Heard {
            node: Node {
                id: format!("n{at}"),
                roles: Roles::ALL,
                address: None,
                mark: Some(NOW - since),
                lanes: lanes.to_vec(),
                version: String::new(),
            },
            heard: NOW - since,
            offset: *offset,
        };
        let nodes = nodes.iter().enumerate().map(heard).collect();
        let listed = Listed { store_time: NOW, nodes };
        let horizon = Horizon::of(&listed);
        Seen { listed, leader: None, horizon, t_age: Some(0) }
    }

    #[test]
    fn a_lane_of_a_silent_node_is_nobody_s() {
        let both = seen(&[(50, 0, &[0, 1]), (9_999, 0, &[2, 3])]);
        assert_eq!(lanes(&both, 4).state, State::Well);
        let one = seen(&[(50, 0, &[0, 1]), (SILENT, 0, &[2, 3])]);
        assert_eq!(lanes(&one, 4).found, "of 4, nobody holds 2, 3");
        assert_eq!(
            (nodes(&both).state, nodes(&one).found),
            (State::Well, "not heard of: n1".into())
        );
    }

    #[test]
    fn clocks_that_are_apart_are_told_with_the_node_that_is_furthest_off() {
        let well = seen(&[(0, 3, &[]), (0, -5, &[])]);
        assert_eq!(
            clocks(&well),
            Finding::well("clocks", "they are 8 ms apart; n1 is -5 ms off the store's")
        );
        let ill = clocks(&seen(&[(0, 3, &[]), (0, -APART, &[])]));
        assert!(ill.state == State::Ill && ill.found.contains("n1"), "{ill:?}");
    }

    #[test]
    fn a_store_that_nobody_leads_is_ill() {
        let none = seen(&[]);
        assert_eq!((leader(&none).state, lanes(&none, 1).state), (State::Ill, State::Ill));
        assert_eq!(leader(&Seen { leader: Some("a".into()), ..none }).state, State::Well);
    }
}
