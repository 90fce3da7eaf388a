//! What an append to a stream waits for, and whether a server is set up to keep that promise.

use super::link::Link;
use super::reply;
use crate::store::StoreError;

pub use crate::config::RedisMode as Mode;

impl Mode {
    /// How many replicas are waited for, where any are.
    pub(super) fn replicas(self) -> Option<u8> {
        match self {
            Self::Replicated(replicas) => Some(replicas),
            Self::Everysec | Self::Always => None,
        }
    }

    /// Compares the mode with the configuration of every primary; says what to change, nothing where all is well.
    pub fn verify(self, link: &Link) -> Result<Vec<String>, StoreError> {
        let mut cmd = redis::cmd("CONFIG");
        cmd.arg("GET");
        cmd.arg(&["appendonly", "appendfsync", "maxmemory-policy", "min-replicas-to-write"]);
        let mut advice = Vec::new();
        for (node, answer) in link.everywhere(&cmd)? {
            let pairs = reply::pairs(answer).ok_or_else(|| link.odd("a configuration"))?;
            let is = |name: &str| {
                let found = pairs.iter().find(|(key, _)| key == name.as_bytes());
                found
                    .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
                    .unwrap_or_default()
            };
            let mut want = |name: &str, fits: &dyn Fn(&str) -> bool, value: &str, why: &str| {
                let found = is(name);
                if !fits(&found) {
                    advice.push(format!(
                        "{node}: `{name}` is `{found}`; set `{name} {value}`: {why}"
                    ));
                }
            };
            want("appendonly", &|v| v == "yes", "yes", "without it a restart forgets everything");
            want(
                "maxmemory-policy",
                &|v| v == "noeviction",
                "noeviction",
                "any other deletes what counts",
            );
            match self {
                Self::Everysec => {
                    let fits = |v: &str| v == "everysec" || v == "always";
                    want(
                        "appendfsync",
                        &fits,
                        "everysec",
                        "the mode promises the disk within seconds",
                    );
                }
                Self::Always => {
                    let why = "the mode promises the disk before the answer";
                    want("appendfsync", &|v| v == "always", "always", why);
                }
                Self::Replicated(replicas) => {
                    let fits = |v: &str| v == "everysec" || v == "always";
                    want("appendfsync", &fits, "everysec", "a replica keeps what it has received");
                    let enough = |v: &str| v.parse().is_ok_and(|n: u64| n >= u64::from(replicas));
                    want(
                        "min-replicas-to-write",
                        &enough,
                        &replicas.to_string(),
                        "else a primary that is cut off takes what is lost",
                    );
                }
            }
        }
        Ok(advice)
    }
}
