//! What a listener shows to those who speak TLS to it: `[collect.tls]`, `[console.tls]`.

use serde::Deserialize;
use serde::Serialize;
use std::path::PathBuf;

/// The files of a certificate. They are read again when they change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tls {
    /// The certificate in PEM, followed by those that lead to one that clients know.
    pub certificate: PathBuf,
    /// Its private key in PEM, without a passphrase.
    pub key: PathBuf,
}
