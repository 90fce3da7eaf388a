//! The integration tests, one binary: the tree's own rules, and the running product from outside.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod alerts;
mod archive;
mod audiences;
mod authorize;
mod backfill;
mod backup;
mod backup_shared;
mod browser;
#[path = "../store/redis/tests/certificates.rs"]
mod certificates;
mod clients;
mod clocks;
mod connections;
mod consent;
mod consent_channels;
mod consent_strings;
mod dashboards;
mod deletion;
mod disk;
mod doctor;
mod edges;
mod estimate;
mod gcs;
mod google;
mod harness;
mod import;
mod killed;
mod linkedin;
mod liveramp;
mod lookalike;
mod lookup;
mod lost;
mod management;
mod matches;
mod meta;
mod nodes;
#[path = "../archive/tests/object_store.rs"]
mod object_store;
mod outages;
mod pinterest;
mod plan;
mod prebid;
mod privacy;
mod prometheus;
#[path = "../store/redis/tests/proxy.rs"]
#[expect(dead_code, reason = "the unit tests use all of it")]
mod proxy;
mod push;
#[path = "../store/redis/tests/server.rs"]
#[expect(dead_code, reason = "the unit tests use all of it")]
mod redis_server;
mod replicas;
mod restart;
mod retention;
mod s3;
mod same;
mod secrets;
mod sftp;
mod snippet;
mod spool;
mod standins;
mod tag;
mod tidy;
mod tiktok;
mod tls;
mod trade_desk;
mod transfer;
mod webhook;
mod xandr;
