//! The contracts of the nodes' port, lost answers, and rows that others have written.

use super::both;
use super::fresh_keys;
use super::proxy::Proxy;
use super::server::shared_server;
use super::times;
use crate::store::nodes::Node;
use crate::store::nodes::Nodes;
use crate::store::nodes::conformance;
use crate::store::nodes::conformance::node;
use crate::store::redis::Keys;
use crate::store::redis::Link;
use crate::store::redis::Registry;
use crate::store::redis::Store;

fn registry(link: &Link, keys: &Keys) -> Registry {
    Registry::new(Store::open(link.clone(), keys.clone(), 4, 1).unwrap())
}

fn ids(registry: &Registry) -> Vec<String> {
    registry.list().unwrap().nodes.into_iter().map(|heard| heard.node.id).collect()
}

#[test]
fn it_keeps_the_contracts_of_the_port() {
    for (_, link) in both() {
        for contract in conformance::ALL {
            contract(&registry(&link, &fresh_keys()));
        }
    }
}

#[test]
fn a_lost_answer_changes_neither_the_leader_nor_the_nodes() {
    let proxy = Proxy::before(shared_server().port);
    let registry = registry(&Link::open(&proxy.url(), times()).unwrap(), &fresh_keys());
    let losing = |name, act: &mut dyn FnMut()| {
        let before = proxy.lost();
        proxy.lose(name);
        act();
        assert_eq!(proxy.lost(), before + 1, "{name}");
    };
    losing("_beat", &mut || registry.beat(&node("a"), 0).unwrap());
    losing("_nodes", &mut || assert_eq!(ids(&registry), ["a"]));
    let ttl = std::time::Duration::from_secs(600);
    let mut term = None;
    losing("_lead", &mut || term = registry.lead("a", ttl).unwrap());
    assert_eq!(registry.leader().unwrap(), Some(("a".to_owned(), term.unwrap())));
    losing("_resign", &mut || registry.resign("a").unwrap());
    assert_eq!(registry.leader().unwrap(), None);
    losing("HDEL", &mut || registry.leave("a").unwrap());
    assert_eq!(ids(&registry), Vec::<String>::new());
}

#[test]
fn a_row_that_cannot_be_read_is_left_out() {
    for (_, link) in both() {
        let keys = fresh_keys();
        let registry = registry(&link, &keys);
        registry.beat(&node("good"), 0).unwrap();
        let at = keys.store("nodes");
        let row = |id| serde_json::to_string(&node(id)).unwrap();
        for (id, row) in [
            ("a", String::new()),
            ("b", "1 2 - {}".to_owned()),
            ("c", format!("x 2 - {}", row("c"))),
            ("d", format!("1 2 - {}", row("another's"))),
            ("e", format!("1 2 - {}", row("e").replace("collect", "a role to come"))),
        ] {
            let mut cmd = redis::cmd("HSET");
            cmd.arg(&at).arg(id).arg(row);
            link.one(&at, cmd).unwrap();
        }
        assert_eq!(ids(&registry), ["good"]);
        assert!(registry.retire("a").unwrap());
    }
}

#[test]
fn who_is_long_gone_and_holds_nothing_back_gives_its_place_to_a_new_one() {
    for (_, link) in both() {
        let keys = fresh_keys();
        let registry = registry(&link, &keys);
        let at = keys.store("nodes");
        let put = |id: &str, heard: i64, mark: Option<i64>| {
            let text = mark.map_or("-".to_owned(), |mark| mark.to_string());
            let row = serde_json::to_string(&Node { mark, ..node(id) }).unwrap();
            let mut cmd = redis::cmd("HSET");
            cmd.arg(&at).arg(id).arg(format!("{heard} -3 {text} {row}"));
            link.one(&at, cmd).unwrap();
        };
        let now = registry.list().unwrap().store_time;
        put("heard now", now, None);
        put("holds back", 1_000, Some(-5));
        for number in 2..1024 {
            put(&format!("gone {number}"), 1_000, None);
        }
        // They are kept as long as there is room.
        registry.beat(&node("heard now"), 0).unwrap();
        assert_eq!(ids(&registry).len(), 1024);
        registry.beat(&node("new"), 0).unwrap();
        assert_eq!(ids(&registry), ["heard now", "holds back", "new"]);
    }
}
