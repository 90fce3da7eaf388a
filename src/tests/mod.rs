//! The integration tests, one binary: the tree's own rules, and the running product from outside.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod alerts;
mod archive;
mod audiences;
mod backup;
mod backup_shared;
mod dashboards;
mod disk;
mod doctor;
mod harness;
mod import;
mod nodes;
mod outages;
mod prometheus;
mod push;
#[path = "../store/redis/tests/server.rs"]
#[expect(dead_code, reason = "the unit tests use all of it")]
mod redis_server;
mod restart;
mod same;
mod tidy;
mod transfer;
