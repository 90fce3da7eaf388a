//! The contracts of the shelf's port, and a lost answer.

use std::sync::Arc;

use super::both;
use super::fresh_keys;
use super::proxy::Proxy;
use super::server::shared_server;
use super::times;
use crate::store::redis::Keys;
use crate::store::redis::Link;
use crate::store::redis::Shelf;
use crate::store::redis::Store;
use crate::store::shelf::Shelf as Port;
use crate::store::shelf::conformance;
use crate::store::suppression;

fn shelf(link: &Link, keys: &Keys) -> Shelf {
    Shelf::new(Store::open(link.clone(), keys.clone(), 4, 1).unwrap())
}

#[test]
fn it_keeps_the_contracts_of_the_port() {
    for (_, link) in both() {
        for contract in conformance::ALL {
            let keys = fresh_keys();
            contract(&|| Arc::new(shelf(&link, &keys)) as Arc<dyn Port>);
        }
    }
}

#[test]
fn it_keeps_what_was_erased_for_good_and_for_every_process() {
    for (_, link) in both() {
        let keys = fresh_keys();
        suppression::conformance::it_is_there_for_good_and_for_every_process(&|| {
            Arc::new(Shelf::privacy(Store::open(link.clone(), keys.clone(), 4, 1).unwrap()))
        });
    }
}

#[test]
fn a_swap_whose_answer_is_lost_is_done_and_said_to_be() {
    let proxy = Proxy::before(shared_server().port);
    let shelf = shelf(&Link::open(&proxy.url(), times()).unwrap(), &fresh_keys());
    let lose = |act: &dyn Fn()| {
        let before = proxy.lost();
        proxy.lose("_swap");
        act();
        assert_eq!(proxy.lost(), before + 1);
    };
    lose(&|| assert_eq!(shelf.keep("a", b"1").unwrap(), b"1"));
    lose(&|| assert_eq!(shelf.keep("a", b"2").unwrap(), b"1"));
    lose(&|| assert!(shelf.swap("a", Some(b"1"), Some(b"2")).unwrap()));
    assert_eq!(shelf.get("a").unwrap().as_deref(), Some(&b"2"[..]));
    lose(&|| assert!(shelf.swap("a", Some(b"2"), None).unwrap()));
    assert_eq!(shelf.get("a").unwrap(), None);
}
