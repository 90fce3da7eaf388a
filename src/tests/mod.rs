//! The integration tests, one binary: the tree's own rules, and the running product from outside.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod archive;
mod audiences;
mod backup;
mod dashboards;
mod disk;
mod harness;
mod import;
mod prometheus;
mod push;
mod restart;
mod tidy;
