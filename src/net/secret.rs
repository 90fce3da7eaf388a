//! Secrets that the settings point to: keys of buckets, of destinations.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use parking_lot::RwLock;

use super::envelope::MasterKey;
use crate::config::SecretSource;

/// A file of secrets is no longer than this.
const MOST: u64 = 1 << 20;

/// Where the master key is that secrets in the settings are encrypted with.
static MASTER: RwLock<Option<SecretSource>> = RwLock::new(None);

/// Says where the master key is, for all of the process.
pub fn use_master_key(from: Option<SecretSource>) {
    *MASTER.write() = from;
}

/// The master key, read anew at each call.
pub fn master_key(from: &SecretSource) -> Result<MasterKey, String> {
    let setting = "secrets.master_key";
    if let SecretSource::Sealed(_) = from {
        return Err(format!("{setting}: expected where the key is, env:NAME or file:PATH"));
    }
    let text = secret_text(setting, from)?;
    MasterKey::parse(&text).map_err(|error| format!("{setting}: {error}"))
}

/// Reads the secret of a setting from where it is, anew at each call, so that it may be changed while the server
/// runs. An error is a line for people that names the setting and does not repeat what was found.
pub fn read_secret(setting: &str, from: &SecretSource) -> Result<String, String> {
    let text = secret_text(setting, from)?;
    let secret = text.trim();
    if secret.is_empty() || secret.contains(char::is_control) {
        return Err(format!("{setting}: expected one line, at {from}"));
    }
    Ok(secret.to_owned())
}

/// Reads a secret that may have several lines, such as a key in PEM. As [`read_secret`].
pub fn secret_text(setting: &str, from: &SecretSource) -> Result<String, String> {
    match from {
        SecretSource::Env(name) => {
            std::env::var(name).map_err(|_| format!("{setting}: the variable {name} is not set"))
        }
        SecretSource::File(path) => text_of(path)
            .map_err(|error| format!("{setting}: cannot read {}: {error}", path.display())),
        SecretSource::Sealed(sealed) => {
            let master = MASTER.read().clone().ok_or_else(|| {
                format!("{setting}: it is encrypted, and secrets.master_key does not say where the key is")
            })?;
            let opened = master_key(&master)?.open(sealed.text(), sealed.setting());
            opened.map_err(|error| format!("{setting}: {error}"))
        }
    }
}

/// The text of a file of secrets.
pub fn text_of(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MOST).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_from_where_it_is_and_never_repeated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "s3cret\n").unwrap();
        assert_eq!(read_secret("k", &SecretSource::File(path.clone())).unwrap(), "s3cret");
        std::fs::write(&path, "s3cret\ntwo").unwrap();
        let error = read_secret("k", &SecretSource::File(path)).unwrap_err();
        assert!(error.starts_with("k: expected one line") && !error.contains("s3cret"), "{error}");
        let error = read_secret("k", &SecretSource::Env("THRONG_NO_SUCH".into())).unwrap_err();
        assert_eq!(error, "k: the variable THRONG_NO_SUCH is not set");
    }
}
