//! The secret that cookies are checked with, kept in the data directory.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use crate::store::embedded::write_small_file;

/// 256 random bits. Who knows them can make cookies that count.
#[derive(Clone)]
pub struct Secret([u8; 32]);

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read or written.
    #[error("cannot {action} {}", .path.display())]
    Unavailable {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
    /// The file holds something else.
    #[error(
        "{} does not hold a cookie secret: restore it, or remove it and every cookie made so far counts \
         no more", .0.display()
    )]
    Malformed(PathBuf),
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    NoRandom(#[source] getrandom::Error),
}

impl Secret {
    /// The file's name in the data directory.
    pub const FILE: &'static str = "cookie.key";

    /// A secret from its bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Reads the secret of a data directory, or makes it (mode 0600) where there is none.
    pub fn load_or_create(data: &Path) -> Result<Self, SecretError> {
        let path = data.join(Self::FILE);
        let fail = |action: &'static str, path: &Path| {
            let path = path.to_owned();
            move |source| SecretError::Unavailable { action, path, source }
        };
        match fs::read(&path) {
            Ok(bytes) => {
                let bytes = bytes.try_into().map_err(|_| SecretError::Malformed(path))?;
                return Ok(Self(bytes));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(fail("read", &path)(error)),
        }
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(SecretError::NoRandom)?;
        write_small_file(&path, &bytes, 0o600).map_err(fail("write", &path))?;
        Ok(Self(bytes))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_secret_is_made_once_and_only_its_owner_reads_it() {
        let data = tempfile::tempdir().unwrap();
        let made = Secret::load_or_create(data.path()).unwrap();
        let read = Secret::load_or_create(data.path()).unwrap();
        assert_eq!(made.0, read.0);
        let path = data.path().join(Secret::FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(format!("{made:?}"), "[secret]");
        fs::write(&path, b"short").unwrap();
        assert!(matches!(Secret::load_or_create(data.path()), Err(SecretError::Malformed(_))));
    }
}
