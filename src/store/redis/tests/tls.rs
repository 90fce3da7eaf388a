//! Redis behind TLS: who is accepted and who is not, and what is said then.

use std::path::PathBuf;
use std::time::Duration;

use super::certificates::Certificates;
use super::fresh_keys;
use super::journal::journal;
use super::server::Cluster;
use super::server::Server;
use super::server::until;
use super::shipped::let_in;
use super::state;
use super::state::commit;
use super::state::deltas;
use super::times;
use crate::config::Trust;
use crate::store::StoreError;
use crate::store::chain;
use crate::store::health::Checkup as _;
use crate::store::journal::Journal as _;
use crate::store::journal::conformance::batch;
use crate::store::journal::conformance::read;
use crate::store::redis::Checkup;
use crate::store::redis::Link;
use crate::store::redis::Mode;
use crate::store::redis::Times;
use crate::store::state::State as _;

fn trust(ca: Option<PathBuf>, own: Option<(PathBuf, PathBuf)>) -> Trust {
    Trust { ca, own }
}

fn open(url: &str, trust: &Trust) -> Link {
    Link::open_trusting(url, trust, times()).unwrap()
}

/// What is said where there is no way in: at once, however long is waited for a server that may come back.
fn refused(url: &str, trust: &Trust) -> String {
    let patience = Duration::from_secs(3600);
    let link = Link::open_trusting(url, trust, Times { patience, ..times() }).unwrap();
    let mut cmd = redis::cmd("GET");
    let error = link.one("x", cmd.arg("x").clone()).unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    chain(&error)
}

#[test]
fn a_store_behind_tls_is_as_any_other() {
    let made = Certificates::make();
    let server = Server::start_with_tls(&made, &[]);
    let ca = trust(Some(made.file("ca.pem")), None);
    for host in ["localhost", "127.0.0.1"] {
        let link = open(&format!("rediss://{host}:{}", server.port), &ca);
        let keys = fresh_keys();
        let state = state(&link, &keys, "a");
        state.commit(&commit(1)).unwrap();
        let journal = journal(&link, &keys);
        // One that fills the buffers of TLS many times.
        journal.append(&batch(0..100_000)).unwrap();
        server.restart();
        state.commit(&commit(2)).unwrap();
        journal.append(&batch([100_000])).unwrap();
        assert_eq!(deltas(&state), [1, 2]);
        assert_eq!(read(&journal).len(), 100_001);
    }
    // The shipped user.
    let_in(&server);
    let url = |password| format!("rediss://throng:{password}@localhost:{}", server.port);
    let mut cmd = redis::cmd("GET");
    let link = open(&url("change-me"), &ca);
    link.one("throng:x", cmd.arg("acl1:x").clone()).unwrap();
    assert_eq!(Mode::Everysec.verify(&link).unwrap(), Vec::<String>::new());
    let said = refused(&url("wrong"), &ca);
    assert!(said.contains("Password authentication failed"), "{said}");
}

#[test]
fn who_is_not_who_they_should_be_is_refused_and_it_is_said_why() {
    let made = Certificates::make();
    let server = Server::start_with_tls(&made, &[]);
    let url = server.url_of_tls();
    let ca = trust(Some(made.file("ca.pem")), None);
    // Signed by somebody else, and by nobody whom the system knows.
    for trust in [trust(Some(made.file("other-ca.pem")), None), Trust::default()] {
        let said = refused(&url, &trust);
        assert!(said.contains("`store.ca`") && said.contains("UnknownIssuer"), "{said}");
    }
    let found = Checkup::new(open(&url, &Trust::default()), Mode::Everysec).check();
    assert!(found.iter().any(|finding| finding.found.contains("`store.ca`")), "{found:?}");

    // Made out to another host, and no more valid.
    for (certificate, why) in [("elsewhere", "not valid for name"), ("expired", "expired")] {
        let server = Server::start_with_tls(
            &made,
            &[
                "--tls-cert-file",
                made.file(&format!("{certificate}.pem")).to_str().unwrap(),
                "--tls-key-file",
                made.file(&format!("{certificate}.key")).to_str().unwrap(),
            ],
        );
        let said = refused(&server.url_of_tls(), &ca);
        assert!(said.contains("`store.ca`") && said.contains(why), "{said}");
    }

    // A server that wants to know who comes.
    let server = Server::start_with_tls(&made, &["--tls-auth-clients", "yes"]);
    let said = refused(&server.url_of_tls(), &ca);
    assert!(said.contains("`store.certificate`"), "{said}");
    let own = |name: &str| {
        let own = (made.file(&format!("{name}.pem")), made.file(&format!("{name}.key")));
        trust(Some(made.file("ca.pem")), Some(own))
    };
    let said = refused(&server.url_of_tls(), &own("stranger"));
    assert!(said.contains("`store.certificate`"), "{said}");
    journal(&open(&server.url_of_tls(), &own("server")), &fresh_keys())
        .append(&batch([1]))
        .unwrap();

    // Files that are none.
    for (wrong, why) in [
        (trust(Some(made.file("none")), None), "No such file"),
        (trust(Some(made.file("server.key")), None), "no certificate"),
        (trust(None, Some((made.file("ca.pem"), made.file("ca.pem")))), "PEM"),
    ] {
        let said = chain(&Link::open_trusting(&url, &wrong, times()).unwrap_err());
        assert!(said.contains(why), "{said}");
    }
    let insecure = Link::open(&format!("{url}/#insecure"), times()).unwrap_err();
    assert!(insecure.to_string().contains("are verified"), "{insecure}");
}

#[test]
fn a_cluster_behind_tls_is_followed_where_keys_go() {
    let made = Certificates::make();
    let cluster = Cluster::start_with_tls(&made);
    let ca = trust(Some(made.file("ca.pem")), None);
    let link = open(&cluster.nodes[0].url_of_tls(), &ca);
    for _ in 0..6 {
        let keys = fresh_keys();
        let state = state(&link, &keys, "a");
        state.commit(&commit(1)).unwrap();
        let journal = journal(&link, &keys);
        journal.append(&batch([1])).unwrap();
        assert_eq!((deltas(&state), read(&journal).len()), (vec![1], 1));
    }
    let names = |link: &Link| {
        let each = link.everywhere(redis::cmd("ECHO").arg("x")).unwrap();
        each.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    let known = names(&link);
    assert!(
        known.len() == 3 && known.iter().all(|name| name.starts_with("127.0.0.1:")),
        "{known:?}"
    );
    // By the names that their certificates are made out to.
    for node in &cluster.nodes {
        node.cli(&["config", "set", "cluster-announce-hostname", "localhost"]);
        node.cli(&["config", "set", "cluster-preferred-endpoint-type", "hostname"]);
    }
    until("all names are known", || {
        let known = names(&open(&cluster.nodes[0].url_of_tls(), &ca));
        known.len() == 3 && known.iter().all(|name| name.starts_with("localhost:"))
    });
    journal(&open(&cluster.nodes[0].url_of_tls(), &ca), &fresh_keys()).append(&batch([1])).unwrap();
}
