//! Tokens of the private listener: made here, shown once, kept as SHA-256 of their secret.
//!
//! The operator's token stands in clear in `<data>/token` (mode 0600), so that commands on the same
//! machine find it; the others are in `<data>/tokens.json` as hashes, or on the shelf of a store that several
//! nodes share, where each node looks for them now and then.

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use subtle::ConstantTimeEq;

use crate::model::Millis;
use crate::model::hex;
use crate::model::time::format_rfc3339;
use crate::store::StoreError;
use crate::store::chain;
use crate::store::embedded::write_small_file;
use crate::store::shelf::Shelf;

/// The operator's token in the data directory.
pub(super) const OPERATOR: &str = "token";
/// The other tokens in the data directory.
pub(super) const OTHERS: &str = "tokens.json";

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Scope {
    /// Everything.
    Operator,
    /// `/metrics` alone.
    Metrics,
    /// On the public listener, the audiences of any identifier; nothing here.
    Lookup,
}

/// A token as it is listed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Token {
    /// What its maker called it; unique.
    pub(super) name: String,
    /// What it may do.
    pub(super) scope: Scope,
    /// When it was made.
    pub(super) created: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    sha256: Vec<u8>,
}

/// Why a token cannot be made or revoked.
#[derive(Debug, thiserror::Error)]
pub(super) enum TokenError {
    #[error("a token named {0:?} exists; revoke it first, or take another name")]
    Taken(String),
    #[error("a name is 1 to 64 letters, digits, `-`, `_` or `.`")]
    Name,
    #[error("there is no token named {0:?}")]
    Unknown(String),
    #[error("the tokens cannot be saved")]
    Io(#[from] io::Error),
}

/// The tokens of one node.
pub struct Tokens {
    kept: Kept,
    operator: Vec<u8>,
    others: RwLock<Vec<Token>>,
}

/// Where the tokens are kept, but for the operator's.
enum Kept {
    File(PathBuf),
    Shelf(Arc<dyn Shelf>),
}

/// The name of the tokens on the shelf.
pub(super) const SHELVED: &str = "tokens";

impl Kept {
    fn read(&self) -> io::Result<Option<Vec<u8>>> {
        match self {
            Self::File(file) => match fs::read(file) {
                Ok(text) => Ok(Some(text)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            },
            Self::Shelf(shelf) => shelf.get(SHELVED).map_err(unavailable),
        }
    }

    /// Puts `new` in the place of what was read; tells whether it stands.
    fn swap(&self, read: Option<&[u8]>, new: &[u8]) -> io::Result<bool> {
        match self {
            Self::File(file) => write_small_file(file, new, 0o600).map(|()| true),
            Self::Shelf(shelf) => shelf.swap(SHELVED, read, Some(new)).map_err(unavailable),
        }
    }
}

fn unavailable(error: StoreError) -> io::Error {
    io::Error::other(chain(&error))
}

fn parse(text: Option<&[u8]>) -> io::Result<Vec<Token>> {
    Ok(text.map(serde_json::from_slice).transpose()?.unwrap_or_default())
}

impl Tokens {
    /// Reads the tokens; makes the operator's where there is none. The others are on the shelf where one is given.
    pub fn open(data: &Path, shelf: Option<Arc<dyn Shelf>>) -> io::Result<Self> {
        let path = data.join(OPERATOR);
        let operator = match fs::read_to_string(&path) {
            Ok(text) if is_secret(text.trim()) => text.trim().to_owned(),
            // Nobody was ever given an empty one.
            Ok(text) if text.trim().is_empty() => make(&path)?,
            Ok(_) => return Err(malformed(&path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => make(&path)?,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(malformed(&path));
            }
            Err(error) => return Err(error),
        };
        let operator = hash(&operator);
        let Some(shelf) = shelf else {
            let kept = Kept::File(data.join(OTHERS));
            let others = RwLock::new(parse(kept.read()?.as_deref())?);
            return Ok(Self { kept, operator, others });
        };
        // Read when the store answers: a node starts without it.
        Ok(Self { kept: Kept::Shelf(shelf), operator, others: RwLock::default() })
    }

    /// Whether other nodes may change them.
    pub(super) fn are_shared(&self) -> bool {
        matches!(self.kept, Kept::Shelf(_))
    }

    /// Takes what other nodes have changed.
    pub(super) fn reload(&self) -> io::Result<()> {
        let others = parse(self.kept.read()?.as_deref())?;
        *self.others.write() = others;
        Ok(())
    }

    /// What the bearer of a token may do; `None` of an unknown one.
    pub(super) fn scope(&self, token: &str) -> Option<Scope> {
        // Hashes are compared, so time tells nothing of the secret.
        let given = hash(token);
        if bool::from(given.ct_eq(&self.operator)) {
            return Some(Scope::Operator);
        }
        let others = self.others.read();
        others.iter().find(|t| bool::from(given.ct_eq(&t.sha256))).map(|t| t.scope)
    }

    /// Whether the bearer of a token may ask which audiences any identifier is in.
    pub fn may_look_up(&self, token: &str) -> bool {
        matches!(self.scope(token), Some(Scope::Operator | Scope::Lookup))
    }

    /// Makes a token and returns its secret, which is kept nowhere.
    pub(super) fn create(
        &self,
        name: &str,
        scope: Scope,
        now: Millis,
    ) -> Result<String, TokenError> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if name.is_empty() || name.len() > 64 || !name.bytes().all(fits) {
            return Err(TokenError::Name);
        }
        let secret = secret()?;
        self.change(|tokens| {
            if tokens.iter().any(|token| token.name == name) {
                return Err(TokenError::Taken(name.to_owned()));
            }
            tokens.push(Token {
                name: name.to_owned(),
                scope,
                created: format_rfc3339(now),
                sha256: hash(&secret),
            });
            Ok(())
        })?;
        Ok(secret)
    }

    /// Every token but the operator's, without what could be compared with a secret.
    pub(super) fn list(&self) -> Vec<Token> {
        let others = self.others.read();
        others.iter().map(|token| Token { sha256: Vec::new(), ..token.clone() }).collect()
    }

    /// Makes a token worthless.
    pub(super) fn revoke(&self, name: &str) -> Result<(), TokenError> {
        self.change(|tokens| {
            let before = tokens.len();
            tokens.retain(|token| token.name != name);
            if tokens.len() == before {
                return Err(TokenError::Unknown(name.to_owned()));
            }
            Ok(())
        })
    }

    /// Changes what is kept, which others may change at the same time.
    fn change(
        &self,
        change: impl Fn(&mut Vec<Token>) -> Result<(), TokenError>,
    ) -> Result<(), TokenError> {
        let mut others = self.others.write();
        loop {
            let read = self.kept.read()?;
            let mut tokens = parse(read.as_deref())?;
            change(&mut tokens)?;
            let text = serde_json::to_vec_pretty(&tokens).map_err(io::Error::from)?;
            if self.kept.swap(read.as_deref(), &text)? {
                *others = tokens;
                return Ok(());
            }
        }
    }
}

fn hash(token: &str) -> Vec<u8> {
    Sha256::digest(token.as_bytes()).to_vec()
}

/// What every secret begins with, so that one that leaks is recognised.
const PREFIX: &str = "thr_";

fn secret() -> io::Result<String> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(format!("{PREFIX}{}", hex(&bytes)))
}

/// Whether a text has the form of a secret made here: half of one is no token.
fn is_secret(text: &str) -> bool {
    text.strip_prefix(PREFIX).is_some_and(|digits| {
        digits.len() == 64 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

fn make(path: &Path) -> io::Result<String> {
    let secret = secret()?;
    write_small_file(path, format!("{secret}\n").as_bytes(), 0o600)?;
    Ok(secret)
}

fn malformed(path: &Path) -> io::Error {
    let path = path.display();
    io::Error::other(format!(
        "{path} does not hold a token of this server: restore it, or remove it and the next start makes \
         another"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_token_opens_until_it_is_revoked() {
        let data = tempfile::tempdir().unwrap();
        let tokens = Tokens::open(data.path(), None).unwrap();
        let operator = fs::read_to_string(data.path().join("token")).unwrap();
        assert_eq!(tokens.scope(operator.trim()), Some(Scope::Operator));
        let secret = tokens.create("prometheus", Scope::Metrics, 0).unwrap();
        assert!(matches!(
            tokens.create("prometheus", Scope::Metrics, 0),
            Err(TokenError::Taken(_))
        ));
        let again = Tokens::open(data.path(), None).unwrap();
        assert_eq!(again.scope(&secret), Some(Scope::Metrics));
        assert_eq!(again.scope(operator.trim()), Some(Scope::Operator));
        assert_eq!(again.scope("thr_"), None);
        let bidder = again.create("bidder", Scope::Lookup, 0).unwrap();
        let may = [operator.trim(), &bidder, &secret, "thr_"].map(|token| again.may_look_up(token));
        assert_eq!(may, [true, true, false, false]);
        again.revoke("prometheus").unwrap();
        assert_eq!(Tokens::open(data.path(), None).unwrap().scope(&secret), None);
    }

    #[test]
    fn a_token_that_another_node_made_opens_after_a_look() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let shelf = || -> Option<Arc<dyn Shelf>> {
            Some(Arc::new(crate::store::embedded::Shelf::open(one.path()).unwrap()))
        };
        let here = Tokens::open(one.path(), shelf()).unwrap();
        let there = Tokens::open(two.path(), shelf()).unwrap();
        let secret = here.create("prometheus", Scope::Metrics, 0).unwrap();
        assert_eq!(there.scope(&secret), None);
        there.reload().unwrap();
        assert_eq!(there.scope(&secret), Some(Scope::Metrics));
        there.revoke("prometheus").unwrap();
        here.reload().unwrap();
        assert_eq!(here.scope(&secret), None);
    }

    #[test]
    fn what_is_no_whole_token_opens_nothing_and_is_told() {
        let data = tempfile::tempdir().unwrap();
        let file = data.path().join("token");
        drop(Tokens::open(data.path(), None).unwrap());
        let whole = fs::read_to_string(&file).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let upper = whole.to_uppercase();
        for wrong in ["x", "thr_", &whole[..40], &upper, &format!("{}0", whole.trim())] {
            fs::write(&file, wrong).unwrap();
            let error = Tokens::open(data.path(), None).err().unwrap().to_string();
            assert!(error.contains("remove it"), "{error}");
        }
        fs::write(&file, whole.trim()).unwrap();
        assert!(Tokens::open(data.path(), None).is_ok());
    }
}
