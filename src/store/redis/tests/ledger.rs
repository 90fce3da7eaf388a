//! The contracts of the ledger's port.

use std::sync::Arc;

use super::both;
use super::fresh_keys;
use crate::store::ledger::Changes;
use crate::store::ledger::Ledger as Port;
use crate::store::ledger::Target;
use crate::store::ledger::conformance;
use crate::store::redis::Keys;
use crate::store::redis::Ledger;
use crate::store::redis::Link;
use crate::store::redis::Store;

pub(super) fn ledger(link: &Link, keys: &Keys) -> Ledger {
    Ledger::new(Store::open(link.clone(), keys.clone(), 4, 2).unwrap())
}

#[test]
fn it_keeps_the_contracts_of_the_port() {
    for (_, link) in both() {
        for contract in conformance::ALL {
            let keys = fresh_keys();
            contract(&|| Arc::new(ledger(&link, &keys)) as Arc<dyn Port>);
        }
    }
}

#[test]
fn a_large_batch_is_settled_whole() {
    for (name, link) in both() {
        let ledger = ledger(&link, &fresh_keys());
        let target = Target::new("crm", "all of them");
        let namespace = crate::model::Namespace::new("user_id").unwrap();
        let user =
            |n| crate::model::Identifier::new(namespace.clone(), &format!("{n:06}")).unwrap();
        let adds: Vec<_> = (0..3_500).map(user).collect();
        let (gone, left) = adds.split_at(2_100);
        let changes = Changes { adds: adds.clone(), removes: Vec::new() };
        let batch = ledger.prepare(&target, 1, 0, changes, 0).unwrap();
        ledger.acknowledge(&batch, 1).unwrap();
        let changes = Changes { adds: Vec::new(), removes: gone.to_vec() };
        let batch = ledger.prepare(&target, 2, 0, changes, 0).unwrap();
        ledger.acknowledge(&batch, 1).unwrap();
        let held = ledger.held(&target, None, usize::MAX).unwrap();
        let held: Vec<_> = held.into_iter().map(|held| held.identifier).collect();
        assert!(held == left, "{name}");
        assert_eq!(ledger.standings().unwrap()[0].prepared, 0);
    }
}
