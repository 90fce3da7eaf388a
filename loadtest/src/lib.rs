//! Load on Throng from outside, through its listeners and its command line, as a stranger would put it.
//!
//! [`pixel`] makes hits and measures answers, [`bare`] is the server to compare with, [`mod@bench`] sets the
//! two side by side, [`kill`] counts what survives, [`segments`] loads ten thousand of them. Nothing here links the product: what is
//! measured is the binary that people run.

pub mod bare;
pub mod bench;
pub mod erase;
pub mod export;
pub mod fresh;
pub mod histogram;
pub mod http;
pub mod kill;
pub mod lookup;
pub mod pixel;
pub mod probe;
pub mod random;
pub mod redis;
pub mod request;
pub mod scrape;
pub mod segments;
pub mod server;
