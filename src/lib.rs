//! Throng: tracker pixels come in, audiences go out.

pub mod activate;
pub mod archive;
pub mod bitmap;
pub mod collect;
pub mod config;
pub mod console;
pub mod ingest;
pub mod metrics;
pub mod model;
pub mod net;
pub mod plan;
pub mod rules;
pub mod segment;
pub mod store;
