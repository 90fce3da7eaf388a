//! The library of functions that every primary needs, and calls of them.
//!
//! The library's name carries a hash of its text: two versions of Throng live side by side on one server,
//! and a name that a server knows always means this very text.

use std::sync::LazyLock;

use redis::Cmd;
use redis::ToRedisArgs;
use sha2::Digest;
use sha2::Sha256;

use crate::model::hex;

static LIBRARY: LazyLock<Library> = LazyLock::new(|| {
    let text = include_str!("throng.lua");
    let digest: [u8; 32] = Sha256::digest(text.as_bytes()).into();
    let name = format!("throng_{}", hex(&digest[..4]));
    Library { text: text.replace("@LIBRARY@", &name), name }
});

struct Library {
    name: String,
    text: String,
}

/// A call of a function; what it touches is among its keys.
pub(super) fn call<K: ToRedisArgs>(function: &str, keys: &[K], args: &[&[u8]]) -> Cmd {
    let mut cmd = redis::cmd("FCALL");
    cmd.arg(format!("{}_{function}", LIBRARY.name)).arg(keys.len());
    for key in keys {
        cmd.arg(key);
    }
    for arg in args {
        cmd.arg(*arg);
    }
    cmd
}

/// Loads the library.
pub(super) fn load() -> Cmd {
    let mut cmd = redis::cmd("FUNCTION");
    cmd.arg("LOAD").arg(&LIBRARY.text);
    cmd
}

/// Whether a node says that it has no such function, where it takes functions at all.
pub(super) fn is_missing(code: &str, detail: &str) -> bool {
    code == "ERR" && detail.starts_with("Function not found")
}

/// Whether a node refuses the library because it has it.
pub(super) fn is_there(detail: &str) -> bool {
    detail.starts_with("Library '") && detail.ends_with("already exists")
}
