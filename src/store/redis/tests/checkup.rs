//! The checkup of real servers.

use super::both;
use super::impatient;
use super::server::Cluster;
use super::server::Server;
use super::server::shared_server;
use crate::store::health::Checkup as _;
use crate::store::health::Finding;
use crate::store::health::SERVERS;
use crate::store::health::State;
use crate::store::redis::Checkup;
use crate::store::redis::Link;
use crate::store::redis::Mode;

fn wrong(link: &Link, mode: Mode) -> Vec<Finding> {
    let found = Checkup::new(link.clone(), mode).check();
    assert!(!found.is_empty());
    // The servers of tests have no limit.
    let is_told = |finding: &Finding| finding.state != State::Well && finding.check != "memory";
    found.into_iter().filter(is_told).collect()
}

#[test]
fn servers_that_are_well_are_found_so() {
    for (name, link) in both() {
        assert_eq!(wrong(&link, Mode::Everysec), [], "{name}");
    }
}

#[test]
fn what_a_server_does_not_keep_is_told_with_what_to_set() {
    let link = impatient(&shared_server().url());
    let found = wrong(&link, Mode::Always);
    assert_eq!((found.len(), &*found[0].check, found[0].state), (1, "durability", State::Ill));
    assert!(found[0].advice.as_ref().unwrap().contains("`appendfsync always`"), "{found:?}");
}

#[test]
fn a_server_that_has_gone_is_told_and_one_that_is_back_is_asked_anew() {
    let server = Server::start(&[]);
    let link = impatient(&server.url());
    assert_eq!(wrong(&link, Mode::Everysec), []);
    server.kill();
    let found = wrong(&link, Mode::Everysec);
    assert_eq!((found.len(), &*found[0].check, found[0].state), (1, "servers", State::Ill));
    server.restart();
    assert_eq!(wrong(&link, Mode::Everysec), []);
}

#[test]
fn a_primary_that_does_not_answer_is_told_beside_those_that_do() {
    let cluster = Cluster::start();
    // None takes its place.
    for node in &cluster.nodes {
        node.cli(&["config", "set", "cluster-replica-no-failover", "yes"]);
    }
    let link = impatient(&cluster.url());
    assert_eq!(wrong(&link, Mode::Everysec), []);
    let primary = cluster.nodes.iter().rfind(|node| node.cli(&["role"]).starts_with("master"));
    let primary = primary.unwrap();
    primary.freeze(true);
    let found = Checkup::new(link, Mode::Everysec).check();
    primary.freeze(false);
    let servers: Vec<_> = found.iter().filter(|finding| finding.check == SERVERS).collect();
    let told =
        |finding: &&Finding| (finding.state, finding.found.contains(&primary.port.to_string()));
    assert_eq!(
        servers.iter().map(told).collect::<Vec<_>>(),
        [(State::Ill, true), (State::Well, false)]
    );
}
