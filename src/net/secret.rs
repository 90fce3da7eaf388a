//! Secrets that the settings point to: keys of buckets, of destinations.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::config::SecretSource;

/// A file of secrets is no longer than this.
const MOST: u64 = 1 << 20;

/// Reads the secret of a setting from where it is, anew at each call, so that it may be changed while the server
/// runs. An error is a line for people that names the setting and does not repeat what was found.
pub fn read_secret(setting: &str, from: &SecretSource) -> Result<String, String> {
    let text = match from {
        SecretSource::Env(name) => {
            std::env::var(name).map_err(|_| format!("{setting}: the variable {name} is not set"))?
        }
        SecretSource::File(path) => text_of(path)
            .map_err(|error| format!("{setting}: cannot read {}: {error}", path.display()))?,
    };
    let secret = text.trim();
    if secret.is_empty() || secret.contains(char::is_control) {
        return Err(format!("{setting}: expected one line, at {from}"));
    }
    Ok(secret.to_owned())
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
