//! Tokens of the private listener: made here, shown once, kept as SHA-256 of their secret.
//!
//! The operator's token stands in clear in `<data>/token` (mode 0600), so that commands on the same
//! machine find it; the others are in `<data>/tokens.json` as hashes, or on the shelf of a store that several
//! nodes share, where each node looks for them now and then.

use parking_lot::Mutex;
use parking_lot::RwLock;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use subtle::ConstantTimeEq;

use crate::model::Millis;
use crate::model::hex;
use crate::model::time::format_rfc3339;
use crate::net::Clock;
use crate::store::StoreError;
use crate::store::chain;
use crate::store::embedded::write_small_file;
use crate::store::shelf::Shelf;

/// The operator's token in the data directory.
pub(super) const OPERATOR: &str = "token";
/// The other tokens in the data directory.
pub(super) const OTHERS: &str = "tokens.json";

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Scope {
    /// Everything.
    Operator,
    /// Reads segments, audiences with their members, profiles, destinations, and how the server is.
    Read,
    /// Writes and removes segments.
    Segments,
    /// Pushes to destinations, pauses and tests them.
    Destinations,
    /// Imports events, and drops dead letters.
    Import,
    /// Erases people, and says what is held of them.
    Privacy,
    /// Makes and revokes tokens, reads the audit log, takes backups, retires nodes.
    Admin,
    /// `/metrics` alone.
    Metrics,
    /// On the public listener, the audiences of any identifier; nothing here.
    Lookup,
}

impl Scope {
    /// The word that is written.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Read => "read",
            Self::Segments => "segments",
            Self::Destinations => "destinations",
            Self::Import => "import",
            Self::Privacy => "privacy",
            Self::Admin => "admin",
            Self::Metrics => "metrics",
            Self::Lookup => "lookup",
        }
    }
}

/// A token as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Token {
    name: String,
    #[serde(default)]
    id: String,
    #[serde(default)]
    scopes: Vec<Scope>,
    /// What one that was made before there were several has.
    #[serde(default, skip_serializing)]
    scope: Option<Scope>,
    created: String,
    /// In milliseconds.
    #[serde(default)]
    expires: Option<Millis>,
    /// In milliseconds, a minute behind at most.
    #[serde(default)]
    last_used: Option<Millis>,
    sha256: Vec<u8>,
}

/// A token as it is listed.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "Token")]
pub(super) struct Listed {
    /// What its maker called it; unique.
    pub(super) name: String,
    /// What stands in it between `thr_` and the secret; nothing of an old one.
    pub(super) id: String,
    /// What it may do.
    pub(super) scopes: Vec<Scope>,
    /// When it was made.
    pub(super) created: String,
    /// From when on it opens nothing.
    pub(super) expires: Option<String>,
    /// When it last opened something, a minute behind at most.
    pub(super) last_used: Option<String>,
}

/// Who sends a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bearer {
    /// The name of the token.
    pub(super) name: String,
    /// Its id.
    pub(super) id: String,
    scopes: Vec<Scope>,
    /// From when on the token opens nothing.
    pub(super) expires: Option<Millis>,
}

impl Bearer {
    /// Somebody whose call another node passes on, which has seen to it that they may.
    pub(super) fn passed_on(name: &str, id: &str) -> Self {
        let (name, id) = (name.to_owned(), id.to_owned());
        Self { name, id, scopes: vec![Scope::Operator], expires: None }
    }

    /// Another node.
    pub(super) fn peer() -> Self {
        Self::passed_on("node", "")
    }

    /// Whether it may do this.
    pub(super) fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(&Scope::Operator) || self.scopes.contains(&scope)
    }
}

/// A token that is to be made.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    /// What its maker calls it.
    pub(super) name: &'a str,
    /// What it is to do.
    pub(super) scopes: &'a [Scope],
    /// From when on it is to open nothing.
    pub(super) expires: Option<Millis>,
}

/// Why a token cannot be made or revoked.
#[derive(Debug, thiserror::Error)]
pub(super) enum TokenError {
    #[error("a token named {0:?} exists; revoke it first, or take another name")]
    Taken(String),
    #[error("the server keeps the name {0:?} for itself; take another")]
    Kept(String),
    #[error("a name is 1 to 64 letters, digits, `-`, `_` or `.`")]
    Name,
    #[error("a token with no scope opens nothing: give it one")]
    NoScope,
    #[error("it would have expired already")]
    Expired,
    #[error("there is no token named {0:?}")]
    Unknown(String),
    #[error("the tokens cannot be saved")]
    Io(#[from] io::Error),
}

/// How often a node looks for tokens that others have made or revoked.
const LOOK: Duration = Duration::from_secs(1);
/// After so many looks it is written down when tokens were used.
const LOOKS_TO_WRITE: u32 = 60;

/// The tokens of one node.
pub struct Tokens {
    kept: Kept,
    clock: Arc<dyn Clock>,
    operator: Vec<u8>,
    /// The id in the operator's.
    operator_id: String,
    others: RwLock<Vec<Token>>,
    /// When each was last used, by hash, where that is not written down yet.
    used: Mutex<HashMap<Vec<u8>, Millis>>,
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
    let mut tokens: Vec<Token> = text.map(serde_json::from_slice).transpose()?.unwrap_or_default();
    for token in &mut tokens {
        token.scopes.extend(token.scope.take());
    }
    Ok(tokens)
}

impl Tokens {
    /// Reads the tokens; makes the operator's where there is none. The others are on the shelf where one is given.
    pub fn open(
        data: &Path,
        shelf: Option<Arc<dyn Shelf>>,
        clock: Arc<dyn Clock>,
    ) -> io::Result<Self> {
        let path = data.join(OPERATOR);
        let operator = match fs::read_to_string(&path) {
            Ok(text) if is_token(text.trim()) => text.trim().to_owned(),
            // Nobody was ever given an empty one.
            Ok(text) if text.trim().is_empty() => make(&path)?,
            Ok(_) => return Err(malformed(&path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => make(&path)?,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(malformed(&path));
            }
            Err(error) => return Err(error),
        };
        let (kept, others) = match shelf {
            None => {
                let kept = Kept::File(data.join(OTHERS));
                let others = parse(kept.read()?.as_deref())?;
                (kept, others)
            }
            // Read when the store answers: a node starts without it.
            Some(shelf) => (Kept::Shelf(shelf), Vec::new()),
        };
        Ok(Self {
            kept,
            clock,
            operator_id: id_of(&operator).unwrap_or_default().to_owned(),
            operator: hash(&operator),
            others: RwLock::new(others),
            used: Mutex::default(),
        })
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

    /// Who bears a token; `None` of an unknown or expired one.
    pub(super) fn bearer(&self, token: &str) -> Option<Bearer> {
        // Hashes are compared, so time tells nothing of the secret.
        let given = hash(token);
        if bool::from(given.ct_eq(&self.operator)) {
            let (name, id) = (OPERATORS_NAME.to_owned(), self.operator_id.clone());
            return Some(Bearer { name, id, scopes: vec![Scope::Operator], expires: None });
        }
        let now = self.clock.now();
        let others = self.others.read();
        let found = others.iter().find(|token| bool::from(given.ct_eq(&token.sha256)))?;
        if found.expires.is_some_and(|expires| expires <= now) {
            return None;
        }
        self.used.lock().insert(given, now);
        let Token { name, id, scopes, expires, .. } = found.clone();
        Some(Bearer { name, id, scopes, expires })
    }

    /// Whether the bearer of a token may ask which audiences any identifier is in.
    pub fn may_look_up(&self, token: &str) -> bool {
        self.bearer(token).is_some_and(|bearer| bearer.may(Scope::Lookup))
    }

    /// Makes a token and returns it; its secret is kept nowhere.
    pub(super) fn create(&self, wanted: &Wanted<'_>) -> Result<String, TokenError> {
        let Wanted { name, scopes, expires } = *wanted;
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        let is_free = ![OPERATORS_NAME, &*Bearer::peer().name, SERVERS_NAME].contains(&name);
        if name.is_empty() || name.len() > 64 || !name.bytes().all(fits) {
            return Err(TokenError::Name);
        }
        if !is_free {
            return Err(TokenError::Kept(name.to_owned()));
        }
        if scopes.is_empty() {
            return Err(TokenError::NoScope);
        }
        let now = self.clock.now();
        if expires.is_some_and(|expires| expires <= now) {
            return Err(TokenError::Expired);
        }
        let token = new_token()?;
        self.change(|tokens| {
            if tokens.iter().any(|token| token.name == name) {
                return Err(TokenError::Taken(name.to_owned()));
            }
            let mut unique = Vec::new();
            for scope in scopes {
                if !unique.contains(scope) {
                    unique.push(*scope);
                }
            }
            tokens.push(Token {
                name: name.to_owned(),
                id: id_of(&token).unwrap_or_default().to_owned(),
                scopes: unique,
                scope: None,
                created: format_rfc3339(now),
                expires,
                last_used: None,
                sha256: hash(&token),
            });
            Ok(())
        })?;
        Ok(token)
    }

    /// Every token but the operator's, without what could be compared with a secret.
    pub(super) fn list(&self) -> Vec<Listed> {
        let (others, used) = (self.others.read(), self.used.lock());
        let listed = |token: &Token| Listed {
            name: token.name.clone(),
            id: token.id.clone(),
            scopes: token.scopes.clone(),
            created: token.created.clone(),
            expires: token.expires.map(format_rfc3339),
            last_used: used.get(&token.sha256).copied().max(token.last_used).map(format_rfc3339),
        };
        others.iter().map(listed).collect()
    }

    /// Writes down when tokens were last used. Calls block.
    pub(super) fn write_used(&self) -> io::Result<()> {
        let used = std::mem::take(&mut *self.used.lock());
        if used.is_empty() {
            return Ok(());
        }
        let noted = self.change(|tokens| {
            for token in tokens {
                token.last_used = used.get(&token.sha256).copied().max(token.last_used);
            }
            Ok(())
        });
        noted.map_err(|error| io::Error::other(error.to_string()))
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

/// Takes what other nodes change, and writes down when tokens were used, until the server stops.
pub(super) fn keep(tokens: &Tokens, draining: &AtomicBool) {
    let mut looks = 0;
    while !draining.load(Ordering::Acquire) {
        std::thread::sleep(LOOK);
        if tokens.are_shared()
            && let Err(error) = tokens.reload()
        {
            tracing::debug!(%error, "the tokens cannot be read now");
        }
        looks += 1;
        if looks % LOOKS_TO_WRITE == 0 {
            write_used(tokens);
        }
    }
    write_used(tokens);
}

fn write_used(tokens: &Tokens) {
    if let Err(error) = tokens.write_used() {
        tracing::warn!(%error, "when tokens were last used cannot be written down now");
    }
}

fn hash(token: &str) -> Vec<u8> {
    Sha256::digest(token.as_bytes()).to_vec()
}

/// The name of the operator's token where it is told who did something.
const OPERATORS_NAME: &str = "operator";
/// What the server itself is called there.
pub(super) const SERVERS_NAME: &str = "server";
/// What every token begins with, so that one that leaks is recognised.
const PREFIX: &str = "thr_";

/// Digits of an id, and of a secret.
const DIGITS: (usize, usize) = (16, 64);

/// `thr_<id>_<secret>`.
fn new_token() -> io::Result<String> {
    let mut bytes = [0u8; 40];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    let (id, secret) = bytes.split_at(8);
    Ok(format!("{PREFIX}{}_{}", hex(id), hex(secret)))
}

/// The id in a token; `None` of one that has none, as they were before.
fn id_of(token: &str) -> Option<&str> {
    token.strip_prefix(PREFIX)?.split_once('_').map(|(id, _)| id)
}

/// Whether a text has the form of a token made here: half of one is none.
fn is_token(text: &str) -> bool {
    let is_hex = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let Some(rest) = text.strip_prefix(PREFIX) else { return false };
    let (id, secret) = rest.split_once('_').map_or((None, rest), |(id, rest)| (Some(id), rest));
    id.is_none_or(|id| id.len() == DIGITS.0 && is_hex(id))
        && secret.len() == DIGITS.1
        && is_hex(secret)
}

fn make(path: &Path) -> io::Result<String> {
    let token = new_token()?;
    write_small_file(path, format!("{token}\n").as_bytes(), 0o600)?;
    Ok(token)
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
    use crate::net::SystemClock;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::AtomicI64;

    fn open(data: &Path) -> Tokens {
        Tokens::open(data, None, Arc::new(SystemClock::default())).unwrap()
    }

    fn wanted<'a>(name: &'a str, scopes: &'a [Scope]) -> Wanted<'a> {
        Wanted { name, scopes, expires: None }
    }

    fn scopes(tokens: &Tokens, token: &str) -> Option<Vec<Scope>> {
        Some(tokens.bearer(token)?.scopes)
    }

    #[test]
    fn a_token_opens_until_it_is_revoked() {
        let data = tempfile::tempdir().unwrap();
        let tokens = open(data.path());
        let operator = fs::read_to_string(data.path().join("token")).unwrap();
        assert_eq!(scopes(&tokens, operator.trim()), Some(vec![Scope::Operator]));
        let prometheus = wanted("prometheus", &[Scope::Metrics]);
        let token = tokens.create(&prometheus).unwrap();
        assert!(matches!(tokens.create(&prometheus), Err(TokenError::Taken(_))));
        for name in ["operator", "node", "server"] {
            let taken = tokens.create(&wanted(name, &[Scope::Read]));
            assert!(matches!(taken, Err(TokenError::Kept(_))));
        }
        assert!(matches!(tokens.create(&wanted("none", &[])), Err(TokenError::NoScope)));
        let again = open(data.path());
        assert_eq!(scopes(&again, &token), Some(vec![Scope::Metrics]));
        assert_eq!(scopes(&again, operator.trim()), Some(vec![Scope::Operator]));
        assert_eq!(again.bearer("thr_"), None);
        let bidder = again.create(&wanted("bidder", &[Scope::Lookup, Scope::Read])).unwrap();
        let may = [operator.trim(), &bidder, &token, "thr_"].map(|token| again.may_look_up(token));
        assert_eq!(may, [true, true, false, false]);
        again.revoke("prometheus").unwrap();
        assert_eq!(open(data.path()).bearer(&token), None);
    }

    #[test]
    fn a_token_is_an_id_and_a_secret_of_which_the_hash_alone_is_kept() {
        let data = tempfile::tempdir().unwrap();
        let tokens = open(data.path());
        let token = tokens.create(&wanted("one", &[Scope::Read])).unwrap();
        let parts: Vec<&str> = token.split('_').collect();
        let &["thr", id, secret] = &parts[..] else { panic!("{token}") };
        assert_eq!((id.len(), secret.len()), (16, 64));
        assert_eq!(tokens.list()[0].id, id);
        let kept = fs::read_to_string(data.path().join(OTHERS)).unwrap();
        assert!(kept.contains(id) && !kept.contains(secret), "{kept}");
        // The id alone, or another's secret behind it, opens nothing.
        for wrong in [format!("thr_{id}_"), format!("thr_{id}_{}", "0".repeat(64))] {
            assert_eq!(tokens.bearer(&wrong), None);
        }
    }

    /// A clock that is set.
    #[derive(Debug)]
    struct Set(AtomicI64);

    impl Clock for Set {
        fn now(&self) -> Millis {
            self.0.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn a_token_opens_nothing_once_it_has_expired_and_tells_when_it_was_used() {
        let data = tempfile::tempdir().unwrap();
        let clock = Arc::new(Set(AtomicI64::new(1_000)));
        let tokens = Tokens::open(data.path(), None, clock.clone()).unwrap();
        let mut brief = wanted("brief", &[Scope::Read]);
        brief.expires = Some(1_000);
        assert!(matches!(tokens.create(&brief), Err(TokenError::Expired)));
        brief.expires = Some(2_000);
        let token = tokens.create(&brief).unwrap();
        assert_eq!(tokens.list()[0].last_used, None);
        clock.0.store(1_999, Ordering::Relaxed);
        assert!(tokens.bearer(&token).is_some());
        let used = Some(format_rfc3339(1_999));
        assert_eq!(tokens.list()[0].last_used, used);
        tokens.write_used().unwrap();
        clock.0.store(2_000, Ordering::Relaxed);
        assert_eq!(tokens.bearer(&token), None);
        let again = Tokens::open(data.path(), None, clock).unwrap();
        assert_eq!(again.bearer(&token), None);
        assert_eq!(again.list()[0].last_used, used);
    }

    #[test]
    fn a_token_of_before_opens_what_it_did() {
        let data = tempfile::tempdir().unwrap();
        let old = format!("thr_{}", "ab".repeat(32));
        let kept = serde_json::json!([{
            "name": "old", "scope": "metrics", "created": "2026-01-01T00:00:00.000Z", "sha256": hash(&old),
        }]);
        fs::write(data.path().join(OTHERS), kept.to_string()).unwrap();
        fs::write(data.path().join(OPERATOR), format!("thr_{}\n", "cd".repeat(32))).unwrap();
        let tokens = open(data.path());
        assert_eq!(scopes(&tokens, &old), Some(vec![Scope::Metrics]));
        let operator = format!("thr_{}", "cd".repeat(32));
        assert_eq!(scopes(&tokens, &operator), Some(vec![Scope::Operator]));
        tokens.create(&wanted("new", &[Scope::Read])).unwrap();
        assert_eq!(scopes(&open(data.path()), &old), Some(vec![Scope::Metrics]));
    }

    #[test]
    fn a_token_that_another_node_made_opens_after_a_look() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let shelf = || -> Option<Arc<dyn Shelf>> {
            Some(Arc::new(crate::store::embedded::Shelf::open(one.path()).unwrap()))
        };
        let clock = || Arc::new(SystemClock::default());
        let here = Tokens::open(one.path(), shelf(), clock()).unwrap();
        let there = Tokens::open(two.path(), shelf(), clock()).unwrap();
        let token = here.create(&wanted("prometheus", &[Scope::Metrics])).unwrap();
        assert_eq!(there.bearer(&token), None);
        there.reload().unwrap();
        assert_eq!(scopes(&there, &token), Some(vec![Scope::Metrics]));
        there.revoke("prometheus").unwrap();
        here.reload().unwrap();
        assert_eq!(here.bearer(&token), None);
    }

    #[test]
    fn what_is_no_whole_token_opens_nothing_and_is_told() {
        let data = tempfile::tempdir().unwrap();
        let file = data.path().join("token");
        drop(open(data.path()));
        let whole = fs::read_to_string(&file).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let upper = whole.to_uppercase();
        for wrong in ["x", "thr_", &whole[..40], &upper, &format!("{}0", whole.trim())] {
            fs::write(&file, wrong).unwrap();
            let error =
                Tokens::open(data.path(), None, Arc::new(SystemClock::default())).err().unwrap();
            assert!(error.to_string().contains("remove it"), "{error}");
        }
        fs::write(&file, whole.trim()).unwrap();
        drop(open(data.path()));
    }
}
