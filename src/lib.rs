//! Throng: tracker pixels come in, audiences go out.
//!
//! # The path of an event
//! `collect` answers a pixel or a POST: it judges consent before any id is made, brings the event into its
//! canonical form (`ingest::canonical`) and hands it to the worker's recorder (`ingest::record`), which
//! appends batches to the journal (`store::journal`) and answers when they are durable. The fold
//! (`ingest`) reads the journal: one `(site, message_id)` counts once, the event belongs to the profile
//! of its first identifier, and each trait that asks for it gets a fact in its column (`bitmap`). What
//! was folded is committed to `store::state` with the position it came from, so state is always the fold
//! of the journal. Behind it `archive` keeps every counted event as Parquet.
//!
//! # The path of a segment
//! A file of `segments/` is parsed (`rules`), checked and lowered to traits and one graph (`plan`), and
//! held by `segment`, which fills new traits from the archive and on a short tick asks all rules of those of
//! whom something changed since the last one: by the fold, or by time alone. An auditor asks all of a shard anew in
//! the background, and compares. Each result is a generation: one consistent cut, true for one time. `activate` compares the eligible
//! members' identifiers with the ledger of what each destination acknowledged, and sends the difference.
//!
//! # Invariants
//! - Every collected event ends in exactly one outcome, every accepted one in exactly one at fold.
//! - State = fold(journal): a crash at any point resumes exactly.
//! - The archive trails the committed checkpoint, and the journal is released behind the archive: what is
//!   counted is in the archive or still in the journal, in one of them for a reader that pins both.
//! - What could not be made durable is not tried again: the process stops, and the next goes on from what
//!   was kept.
//! - Where several nodes share a store, whatever any of them acknowledged before its clock showed T is in the
//!   lanes (`cluster::horizon`), and T does not go back.
//! - Bitmaps, the one-profile evaluator and the naive oracle agree on every profile, and a refresh finds what all
//!   rules asked anew of all would.
//! - A module names only modules before it: model, consent, bitmap, rules, plan, config, metrics, net, store,
//!   archive, backup, ingest, cluster, segment, activate, privacy, collect, console, transfer. `src/tests/tidy.rs` holds the line.

pub mod activate;
pub mod app;
pub mod archive;
pub mod backup;
pub mod bitmap;
pub mod cli;
pub mod cluster;
pub mod collect;
pub mod config;
pub mod consent;
pub mod console;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzz;
pub mod ingest;
pub mod metrics;
pub mod model;
pub mod net;
pub mod plan;
pub mod privacy;
pub mod rules;
pub mod segment;
pub mod store;
pub mod transfer;
