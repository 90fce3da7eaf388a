//! `throng doctor` says what is not well, of a running server and without one.

use serde_json::Value;
use std::fs;
use std::process::Output;

use crate::harness::Server;
use crate::redis_server;

/// The exit code, and the checks that are not well.
fn ill(server: &Server, arguments: &[&str]) -> (Option<i32>, Vec<String>) {
    let output =
        server.throng(&[&["doctor", "--config", "throng.toml", "--json"], arguments].concat());
    let (code, checks) = (output.status.code(), checks(&output));
    let ill = checks.iter().filter(|check| check["state"] == "ill");
    (code, ill.map(|check| check["check"].as_str().unwrap().to_owned()).collect())
}

fn checks(output: &Output) -> Vec<Value> {
    let answer: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    answer["checks"].as_array().unwrap().clone()
}

fn of(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_server_that_is_well_and_one_that_is_not_and_none() {
    let mut server = Server::start(&[("buyers", "rule = 'did purchase'")]);
    assert_eq!(ill(&server, &[]), (Some(0), of(&[])));
    server.write_segment("buyers", "rule = 'did'");
    server.until("the mistake is told", || ill(&server, &[]) == (Some(1), of(&["segments"])));
    let said = server.throng(&["doctor", "--config", "throng.toml"]);
    let said = String::from_utf8(said.stdout).unwrap();
    let line = said.lines().find(|line| line.starts_with('✗')).unwrap();
    assert!(line.contains("wrong: buyers → `throng check segments`"), "{said}");
    assert!(said.lines().any(|line| line.starts_with("✓ threads")), "{said}");

    fs::write(server.folder().join("throng.toml"), "[store]\nbackend = \"paper\"\n").unwrap();
    assert_eq!(ill(&server, &[]), (Some(1), of(&["settings", "segments"])));
    server.kill();
    assert_eq!(ill(&server, &[]), (Some(3), of(&["settings", "server"])));
}

#[test]
fn a_node_looks_at_its_redis_and_so_does_the_command_where_no_server_runs() {
    let redis = redis_server::Server::start(&[]);
    let settings = format!(
        "[store]\nbackend = \"redis\"\nurl = \"{}\"\nshards = 16\nlanes = 16\n",
        redis.url()
    );
    let mut node = Server::start_with(&[], &settings, &[]);
    node.until("all is well", || ill(&node, &[]) == (Some(0), of(&[])));
    redis.cli(&["config", "set", "appendfsync", "no"]);
    assert_eq!(ill(&node, &[]), (Some(1), of(&["durability"])));
    redis.cli(&["config", "set", "maxmemory", "1"]);
    assert_eq!(ill(&node, &[]), (Some(1), of(&["memory", "durability"])));
    redis.cli(&["config", "set", "maxmemory", "0"]);
    redis.cli(&["config", "set", "appendfsync", "everysec"]);
    let gone = r#"1000 0 500 {"id":"gone","roles":["work"],"address":null,"mark":null,"lanes":[],"version":"0"}"#;
    redis.cli(&["hset", "throng:{store}:nodes", "gone", gone]);
    assert_eq!(ill(&node, &[]), (Some(1), of(&["nodes"])));
    redis.cli(&["hdel", "throng:{store}:nodes", "gone"]);

    // Neither a scrape nor a checkup waits for each lane of a server that does not answer.
    redis.freeze(true);
    assert_eq!(node.metric("throng_lanes_held"), 16.0);
    assert_eq!(ill(&node, &[]), (Some(1), of(&["servers"])));
    redis.freeze(false);
    node.until("all is well again", || ill(&node, &[]) == (Some(0), of(&[])));

    node.kill();
    assert_eq!(ill(&node, &[]), (Some(3), of(&["server"])));
    redis.kill();
    assert_eq!(ill(&node, &[]), (Some(3), of(&["server", "servers"])));
}
