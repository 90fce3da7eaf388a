//! Throng: tracker pixels come in, audiences go out.

pub mod bitmap;
pub mod model;
pub mod rules;
