//! A node whose Redis speaks TLS.

use serde_json::json;

use crate::certificates::Certificates;
use crate::harness::Server;
use crate::redis_server;

#[test]
fn a_node_reaches_redis_with_tls_and_the_doctor_says_what_is_wrong_with_a_certificate() {
    let made = Certificates::make();
    let redis = redis_server::Server::start_with_tls(&made, &["--tls-auth-clients", "yes"]);
    let file = |name: &str| made.file(name).display().to_string();
    let settings = |ca: &str| {
        format!(
            "[store]\nbackend = \"redis\"\nurl = \"{}\"\nshards = 8\nlanes = 4\nca = \"{}\"\n\
             certificate = \"{}\"\nkey = \"{}\"\n",
            redis.url_of_tls(),
            file(ca),
            file("server.pem"),
            file("server.key"),
        )
    };
    let node = Server::start_with(&[], &settings("ca.pem"), &[]);
    node.until("all lanes are held", || node.metric("throng_lanes_held") == 4.0);
    let event = json!({ "site": "t", "event": "purchase", "ids": { "user_id": "u1" } });
    assert_eq!(node.post_events(&event).status, 200);
    assert_eq!(node.count("did purchase"), 1);

    std::fs::write(node.folder().join("wrong.toml"), settings("other-ca.pem")).unwrap();
    let said = node.throng(&["doctor", "--config", "wrong.toml", "--data", "none"]);
    let text = String::from_utf8_lossy(&said.stdout);
    assert!(!said.status.success() && text.contains("`store.ca`"), "{said:?}");
}
