//! Files on an SFTP server.

use serde::Serialize;

use super::Entry;
use super::FileStyle;
use super::STYLE_KEYS;
use crate::config::SecretSource;

/// A folder on a server that files are put into.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sftp {
    /// The server.
    pub host: String,
    /// Its port. Default 22.
    pub port: u16,
    /// Who logs in.
    pub user: String,
    /// The folder, which has to be there.
    pub path: String,
    /// What a file holds.
    #[serde(flatten)]
    pub style: FileStyle,
    /// The fingerprints of the server's keys, `SHA256:…`: a server that shows another is not spoken to.
    pub host_keys: Vec<String>,
    /// Where the private key is that logs in: OpenSSH's form, without a passphrase.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<SecretSource>,
    /// Where the password is, instead of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<SecretSource>,
}

const KEYS: [&str; 7] = ["host", "port", "user", "path", "host_key", "key", "password"];
/// How a fingerprint begins, and how long it is.
const FINGERPRINT: (&str, usize) = ("SHA256:", 50);

impl Entry<'_> {
    pub(super) fn sftp(&mut self) -> Option<Sftp> {
        self.refuse_unknown(&[&KEYS[..], &STYLE_KEYS].concat());
        let fits = |text: &str| !text.is_empty() && !text.contains(|c: char| c.is_control());
        let mut needed = |key: &str, what: &str| match self.text(key)? {
            Some(text) if fits(text) => Some(text.to_owned()),
            _ => {
                self.problem(key, &format!("missing: {what}"));
                None
            }
        };
        let host = needed("host", "the server's name");
        let user = needed("user", "who logs in");
        let path = needed("path", "the folder there, which has to be there");
        let port = match self.table.get("port").map(toml::Value::as_integer) {
            None => Some(22),
            Some(port) => {
                let port = port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
                if port.is_none() {
                    self.problem("port", "expected a number from 1 to 65535");
                }
                port
            }
        };
        let host_keys = self.host_keys();
        let (key, password) = match (self.text("key")?, self.text("password")?) {
            (Some(_), None) => (Some(self.parsed("key", "")?), None),
            (None, Some(_)) => (None, Some(self.parsed("password", "")?)),
            _ => {
                self.problem(
                    "key",
                    "expected where the private key is that logs in, or instead of it password",
                );
                return None;
            }
        };
        let style = self.style();
        Some(Sftp {
            host: host?,
            port: port?,
            user: user?,
            path: path?.trim_end_matches('/').to_owned(),
            style: style?,
            host_keys: host_keys?,
            key,
            password,
        })
    }

    /// One fingerprint or several. None at all is what somebody writes who does not know it yet: the destination says it.
    fn host_keys(&mut self) -> Option<Vec<String>> {
        let all = match self.table.get("host_key") {
            None => return Some(Vec::new()),
            Some(toml::Value::String(one)) => vec![one.clone()],
            Some(toml::Value::Array(all)) => {
                all.iter().filter_map(|one| one.as_str().map(str::to_owned)).collect()
            }
            Some(_) => Vec::new(),
        };
        let (begin, length) = FINGERPRINT;
        let is_well =
            !all.is_empty() && all.iter().all(|one| one.starts_with(begin) && one.len() == length);
        if !is_well {
            self.problem(
                "host_key",
                "expected the fingerprint of the server's key as ssh shows it, SHA256:…",
            );
            return None;
        }
        Some(all)
    }
}
