//! The secret that nodes of one store share: who knows it is one of them.

use std::env::VarError;
use std::fmt;
use std::fs::File;
use std::io;
use std::io::Read;
use std::sync::Arc;

use sha2::Digest;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::secret::secret_text;
use crate::config::SecretSource;

const LEAST: usize = 16;
const MOST: usize = 512;

/// What a node shows to another, as a bearer token.
#[derive(Clone)]
pub struct PeerSecret(Arc<str>);

/// Why there is no secret. None of them repeats what was found.
#[derive(Debug, thiserror::Error)]
pub enum BadSecret {
    /// It is encrypted and does not open.
    #[error("{0}")]
    Closed(String),
    /// It is too short, too long, or cannot be a token.
    #[error(
        "the secret of the nodes has to be {LEAST} to {MOST} characters of ASCII without spaces"
    )]
    Unfit,
    /// The variable is not set.
    #[error("the variable {0} is not set")]
    Unset(String),
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
}

impl PeerSecret {
    /// A secret from its text, without what is blank around it.
    pub fn new(text: &str) -> Result<Self, BadSecret> {
        let text = text.trim();
        if (LEAST..=MOST).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
        {
            Ok(Self(text.into()))
        } else {
            Err(BadSecret::Unfit)
        }
    }

    /// Reads the secret from where the settings say that it is.
    pub fn read(from: &SecretSource) -> Result<Self, BadSecret> {
        match from {
            SecretSource::Env(name) => Self::of_variable(name, std::env::var(name)),
            SecretSource::File(path) => {
                let mut text = String::new();
                let read = File::open(path)
                    .and_then(|file| file.take(2 * MOST as u64).read_to_string(&mut text));
                match read {
                    Ok(_) => Self::new(&text),
                    Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                        Err(BadSecret::Unfit)
                    }
                    Err(source) => {
                        Err(BadSecret::Unreadable { path: path.display().to_string(), source })
                    }
                }
            }
            SecretSource::Sealed(_) => {
                Self::new(&secret_text("cluster.secret", from).map_err(BadSecret::Closed)?)
            }
        }
    }

    fn of_variable(name: &str, found: Result<String, VarError>) -> Result<Self, BadSecret> {
        match found {
            Ok(text) => Self::new(&text),
            Err(VarError::NotPresent) => Err(BadSecret::Unset(name.to_owned())),
            Err(VarError::NotUnicode(_)) => Err(BadSecret::Unfit),
        }
    }

    /// Whether a token is this secret. The time it takes tells nothing of either.
    pub fn is(&self, token: &str) -> bool {
        let digest = |text: &str| -> [u8; 32] { Sha256::digest(text.as_bytes()).into() };
        digest(&self.0).ct_eq(&digest(token)).into()
    }

    /// The header that shows it.
    pub(super) fn bearer(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for PeerSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "0123456789abcdef";

    #[test]
    fn a_secret_is_known_again_and_never_shown() {
        let secret = PeerSecret::new(&format!("{GOOD}\n")).unwrap();
        assert!(secret.is(GOOD));
        for wrong in ["", "0", "0123456789abcdeg", "0123456789abcdef0", "0123456789abcdef\n"] {
            assert!(!secret.is(wrong), "{wrong:?}");
        }
        assert_eq!(format!("{secret:?}"), "[secret]");
    }

    #[test]
    fn a_secret_is_read_from_where_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let source = SecretSource::File(path.clone());
        let error = PeerSecret::read(&source).unwrap_err();
        assert!(error.to_string().contains("secret"), "{error}");
        for unfit in
            ["", "short-s3cret", "with a space s3cret", &"s3cret".repeat(100), "s3cret-é-s3cret"]
        {
            std::fs::write(&path, unfit).unwrap();
            let error = PeerSecret::read(&source).unwrap_err();
            assert!(matches!(error, BadSecret::Unfit), "{error:?}");
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
        }
        std::fs::write(&path, [0xff; 20]).unwrap();
        assert!(matches!(PeerSecret::read(&source), Err(BadSecret::Unfit)));
        std::fs::write(&path, format!("{GOOD}\n")).unwrap();
        assert!(PeerSecret::read(&source).unwrap().is(GOOD));
        let nowhere = SecretSource::Env("A_VARIABLE_THAT_NOBODY_SETS".into());
        assert!(matches!(PeerSecret::read(&nowhere), Err(BadSecret::Unset(_))));
        let found = PeerSecret::of_variable("A", Ok(GOOD.to_owned()));
        assert!(found.is_ok_and(|secret| secret.is(GOOD)));
    }
}
