//! The contracts of the audit log's port, and a lost answer.

use std::sync::Arc;

use super::both;
use super::fresh_keys;
use super::proxy::Proxy;
use super::server::shared_server;
use super::times;
use crate::store::audit::AuditLog as Port;
use crate::store::audit::conformance;
use crate::store::redis::AuditLog;
use crate::store::redis::Keys;
use crate::store::redis::Link;
use crate::store::redis::Store;

fn log(link: &Link, keys: &Keys) -> AuditLog {
    AuditLog::new(Store::open(link.clone(), keys.clone(), 4, 1).unwrap())
}

#[test]
fn it_keeps_the_contracts_of_the_port() {
    for (_, link) in both() {
        for contract in conformance::ALL {
            let keys = fresh_keys();
            contract(&|| Arc::new(log(&link, &keys)) as Arc<dyn Port>);
        }
    }
}

#[test]
fn a_line_whose_answer_is_lost_is_appended_once_and_said_to_be() {
    let proxy = Proxy::before(shared_server().port);
    let log = log(&Link::open(&proxy.url(), times()).unwrap(), &fresh_keys());
    let before = proxy.lost();
    proxy.lose("XADD");
    assert!(log.append(1, "{\"mine\":1}").unwrap());
    assert_eq!(proxy.lost(), before + 1);
    assert!(!log.append(1, "{\"another\":1}").unwrap());
    assert_eq!(log.lines(0, 9).unwrap(), [(1, "{\"mine\":1}".to_owned())]);
}

#[test]
fn an_entry_that_somebody_puts_between_is_walked_over_too() {
    let (server, keys) = (shared_server(), fresh_keys());
    let link = Link::open(&server.url(), times()).unwrap();
    let log = log(&link, &keys);
    let key = keys.store("audit");
    let put = |id: &str, fields: &[&str]| {
        let mut cmd = redis::cmd("XADD");
        cmd.arg(&key).arg(id).arg(fields);
        link.one(&key, cmd).unwrap();
    };
    put("0-1", &["r", "none"]);
    for number in 1..=1_001 {
        assert!(log.append(number, "{}").unwrap());
        if number == 1_000 {
            put("1000-1", &["r", "forged"]);
            put("1000-2", &["r", "forged", "more", "forged"]);
        }
    }
    let mut walked = Vec::new();
    log.walk(&mut |number, line| {
        walked.push((number, line));
        true
    })
    .unwrap();
    assert_eq!(walked.len(), 1_004);
    assert_eq!(walked[0], (0, "none".to_owned()));
    let [forged, odd] = &walked[1_001..1_003] else { panic!("{walked:?}") };
    assert_eq!((forged, odd), (&(1_000, "forged".to_owned()), &(1_000, String::new())));
}
