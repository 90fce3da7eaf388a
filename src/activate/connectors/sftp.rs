//! `kind = "sftp"`: each batch is a file `<path>/<segment>/<generation>-<seq>.csv` or `.ndjson` on an SFTP server.
//!
//! What it says is what a file of `kind = "file"` says. It is written aside, its size is looked at, and then it is renamed, which
//! fails where something has its name: nobody sees half of one, and none is ever written over. The server's key has to be the
//! one that the configuration says.
//!
//! Tried with OpenSSH and a key of Ed25519, and with `AsyncSSH` and passwords; RSA is not spoken, for the library of it has a
//! known hole.

use std::fs::File;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use russh::MethodKind;
use russh::client;
use russh::client::AuthResult;
use russh::client::KeyboardInteractiveAuthResponse;
use russh::keys::HashAlg;
use russh::keys::PrivateKeyWithHashAlg;
use russh::keys::PublicKeyOrCertificate;
use russh_sftp::client::SftpSession;
use russh_sftp::client::error::Error as SftpError;
use russh_sftp::client::fs::File as SftpFile;
use russh_sftp::protocol::OpenFlags;
use russh_sftp::protocol::StatusCode;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;

use super::file;
use super::file::fill;
use crate::activate::connector::Caps;
use crate::activate::connector::Connector;
use crate::activate::connector::Encoded;
use crate::activate::connector::Verdict;
use crate::config::SecretSource;
use crate::config::Sftp;
use crate::model::Millis;
use crate::net::OffLimits;
use crate::net::is_reachable;
use crate::net::read_secret;
use crate::net::secret::secret_text;
use crate::store::ledger::Batch;

/// A file of this many lines is about 3 MiB.
const MAX_ROWS: usize = 50_000;
/// How long is waited for a connection, and then for all that is done with it.
const CONNECT: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(120);
/// So much of a whole file is read at once.
const BLOCK: usize = 256 << 10;
/// Bytes a second of a whole file, at least: it has so much longer.
const SLOWEST: u64 = 128 << 10;
/// How much a server may ask before it lets a user in.
const MAX_QUESTIONS: usize = 4;

/// Puts files on a server.
pub struct SftpConnector {
    settings: Sftp,
    allow_private: bool,
    caps: Caps,
}

/// Why something could not be done.
enum Trouble {
    /// Someone has to do something: what.
    Fatal(String),
    /// It may work later: why.
    Later(String),
}

impl From<Trouble> for Verdict {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Fatal(why) => Self::Fatal(why),
            Trouble::Later(why) => Self::Retry(why),
        }
    }
}

/// Lets a server through whose key is known, and remembers the one that is not.
struct KnownHost {
    known: Vec<String>,
    seen: Arc<Mutex<Option<String>>>,
}

impl client::Handler for KnownHost {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        shown: &PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        // One that vouches for others is not spoken of in the configuration.
        let PublicKeyOrCertificate::PublicKey { key, .. } = shown else { return Ok(false) };
        let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
        let is_known = self.known.contains(&fingerprint);
        *self.seen.lock() = Some(fingerprint);
        Ok(is_known)
    }
}

impl SftpConnector {
    /// A connector for a folder; nothing is asked of the server yet.
    pub fn new(settings: Sftp, allow_private: bool) -> Self {
        let caps =
            Caps { max_rows: MAX_ROWS, namespaces: None, mixes: true, ttl: None, min_size: None };
        Self { settings, allow_private, caps }
    }

    fn name(&self) -> String {
        let Sftp { host, port, path, .. } = &self.settings;
        format!("sftp://{host}:{port}/{}", path.trim_start_matches('/'))
    }

    /// Does something on a connection of its own, within two minutes.
    fn with<T, F: Future<Output = Result<T, Trouble>>>(
        &self,
        work: impl FnOnce(SftpSession) -> F,
    ) -> Result<T, Trouble> {
        self.within(PATIENCE, work)
    }

    /// Does something on a connection of its own, within bounded time.
    fn within<T, F: Future<Output = Result<T, Trouble>>>(
        &self,
        patience: Duration,
        work: impl FnOnce(SftpSession) -> F,
    ) -> Result<T, Trouble> {
        let later =
            |error: &dyn std::fmt::Display| Trouble::Later(format!("{}: {error}", self.name()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| later(&error))?;
        runtime.block_on(async {
            let all = async {
                let session = self.log_in().await?;
                let channel =
                    session.channel_open_session().await.map_err(|error| later(&error))?;
                channel.request_subsystem(true, "sftp").await.map_err(|error| later(&error))?;
                let sftp = SftpSession::new(channel.into_stream()).await;
                let done = work(sftp.map_err(|error| later(&error))?).await;
                // The server closes it, too.
                let _ = session.disconnect(russh::Disconnect::ByApplication, "", "").await;
                done
            };
            tokio::time::timeout(patience, all)
                .await
                .unwrap_or_else(|_| Err(later(&format!("not done in {} s", patience.as_secs()))))
        })
    }

    async fn log_in(&self) -> Result<client::Handle<KnownHost>, Trouble> {
        let name = self.name();
        let later = |error: &dyn std::fmt::Display| Trouble::Later(format!("{name}: {error}"));
        let Sftp { host, port, user, host_keys, key, password, .. } = &self.settings;
        let connect = async {
            let found = tokio::net::lookup_host((host.as_str(), *port)).await?;
            let found: Vec<SocketAddr> =
                found.filter(|one| is_reachable(one.ip(), self.allow_private)).collect();
            if found.is_empty() {
                return Err(std::io::Error::other(OffLimits(host.clone())));
            }
            tokio::net::TcpStream::connect(&found[..]).await
        };
        let stream = tokio::time::timeout(CONNECT, connect).await;
        let stream = stream.map_err(|_| later(&"no connection in ten seconds"))?;
        let stream = stream.map_err(|error| later(&error))?;
        let seen = Arc::default();
        let handler = KnownHost { known: host_keys.clone(), seen: Arc::clone(&seen) };
        let config =
            client::Config { inactivity_timeout: Some(PATIENCE), ..client::Config::default() };
        let mut session = match client::connect_stream(Arc::new(config), stream, handler).await {
            Ok(session) => session,
            Err(russh::Error::UnknownKey) => {
                let shown = seen.lock().clone().unwrap_or_else(|| "a certificate".to_owned());
                return Err(Trouble::Fatal(format!(
                    "{name} shows the key {shown}, which is not the one of `host_key`; if whoever runs it says that this is \
                     its key, write it there"
                )));
            }
            Err(error) => return Err(later(&error)),
        };
        let allowed = match (key, password) {
            (Some(key), _) => {
                let key = private_key(key)?;
                let key = PrivateKeyWithHashAlg::new(Arc::new(key), None);
                session.authenticate_publickey(user, key).await.map(|told| told.success())
            }
            (None, Some(password)) => {
                let password = read_secret("password", password).map_err(Trouble::Later)?;
                with_password(&mut session, user, &password).await
            }
            (None, None) => session.authenticate_none(user).await.map(|told| told.success()),
        };
        if !allowed.map_err(|error| later(&error))? {
            return Err(Trouble::Fatal(format!(
                "{name} does not let {user} in with this key or password"
            )));
        }
        Ok(session)
    }

    /// Puts a file under its name, where nothing else is.
    async fn put(&self, sftp: &SftpSession, address: &str, body: &[u8]) -> Result<(), Trouble> {
        let path = format!("{}/{address}", self.settings.path);
        let told = |error: SftpError| self.told(&path, &error);
        if self.holds(sftp, &path, body).await? {
            return Ok(());
        }
        if let Some((folder, _)) = path.rsplit_once('/')
            && sftp.metadata(folder).await.is_err()
        {
            sftp.create_dir(folder).await.map_err(told)?;
        }
        let aside = format!("{path}.tmp");
        let flags = OpenFlags::CREATE | OpenFlags::TRUNCATE | OpenFlags::WRITE;
        let mut file = sftp.open_with_flags(&aside, flags).await.map_err(told)?;
        let broken = |error: std::io::Error| Trouble::Later(format!("{}: {error}", self.name()));
        file.write_all(body).await.map_err(broken)?;
        self.finish(sftp, file, (&aside, &path), body.len() as u64).await
    }

    /// Puts a file of the own disk under its name, where nothing else is.
    async fn put_from(&self, sftp: &SftpSession, name: &str, from: &Path) -> Result<(), Trouble> {
        let path = format!("{}/{name}", self.settings.path);
        let told = |error: SftpError| self.told(&path, &error);
        let disk = |error: std::io::Error| Trouble::Later(format!("{}: {error}", from.display()));
        let broken = |error: std::io::Error| Trouble::Later(format!("{}: {error}", self.name()));
        let mut own = File::open(from).map_err(disk)?;
        let size = own.metadata().map_err(disk)?.len();
        let mut block = vec![0; BLOCK];
        match sftp.metadata(&path).await {
            Ok(there) => {
                let mut is_same = there.size.is_none_or(|there| there == size);
                let mut file = sftp.open(&path).await.map_err(told)?;
                let mut theirs = vec![0; BLOCK];
                loop {
                    let read = fill(&mut own, &mut block).map_err(disk)?;
                    if read == 0 || !is_same {
                        break;
                    }
                    let read = file.read_exact(&mut theirs[..read]).await.map(|_| read);
                    is_same = read.is_ok_and(|read| theirs[..read] == block[..read]);
                }
                // One that does not tell its size may be longer.
                if is_same && there.size.is_none() {
                    is_same = matches!(file.read(&mut [0]).await, Ok(0));
                }
                return if is_same { Ok(()) } else { Err(self.other_content(&path)) };
            }
            Err(SftpError::Status(status)) if status.status_code == StatusCode::NoSuchFile => {}
            Err(error) => return Err(told(error)),
        }
        let aside = format!("{path}.tmp");
        let flags = OpenFlags::CREATE | OpenFlags::TRUNCATE | OpenFlags::WRITE;
        let mut file = sftp.open_with_flags(&aside, flags).await.map_err(told)?;
        loop {
            let read = fill(&mut own, &mut block).map_err(disk)?;
            if read == 0 {
                break;
            }
            file.write_all(&block[..read]).await.map_err(broken)?;
        }
        self.finish(sftp, file, (&aside, &path), size).await
    }

    /// Closes a file that was written aside, and gives it its name.
    async fn finish(
        &self,
        sftp: &SftpSession,
        mut file: SftpFile,
        (aside, path): (&str, &str),
        size: u64,
    ) -> Result<(), Trouble> {
        let told = |error: SftpError| self.told(path, &error);
        let broken = |error: std::io::Error| Trouble::Later(format!("{}: {error}", self.name()));
        file.flush().await.map_err(broken)?;
        // Where the server knows how: else a file may have its name and, after a crash there, none of its bytes.
        file.sync_all().await.map_err(told)?;
        file.close().await.map_err(broken)?;
        let there = sftp.metadata(aside).await.map_err(told)?.size;
        if there.is_some_and(|there| there != size) {
            let (name, there) = (self.name(), there.unwrap_or(0));
            return Err(Trouble::Later(format!("{name} has {there} of {size} bytes")));
        }
        sftp.rename(aside, path).await.map_err(told)
    }

    /// Whether a file of these bytes is there; an error where another is.
    async fn holds(&self, sftp: &SftpSession, path: &str, body: &[u8]) -> Result<bool, Trouble> {
        let there = match sftp.metadata(path).await {
            Ok(there) => there,
            Err(SftpError::Status(status)) if status.status_code == StatusCode::NoSuchFile => {
                return Ok(false);
            }
            Err(error) => return Err(self.told(path, &error)),
        };
        if there.size.is_none_or(|size| size == body.len() as u64) {
            let told = |error: SftpError| self.told(path, &error);
            let file = sftp.open(path).await.map_err(told)?;
            let mut bytes = Vec::with_capacity(body.len());
            let read = file.take(body.len() as u64 + 1).read_to_end(&mut bytes).await;
            read.map_err(|error| Trouble::Later(format!("{}: {error}", self.name())))?;
            if bytes == body {
                return Ok(true);
            }
        }
        Err(self.other_content(path))
    }

    fn other_content(&self, path: &str) -> Trouble {
        Trouble::Fatal(format!(
            "{} holds a file {path} with other content, so it was written from another data directory; empty the folder, or \
             give the destination another path",
            self.name()
        ))
    }

    fn told(&self, path: &str, error: &SftpError) -> Trouble {
        let what = match error {
            SftpError::Status(status) => match status.status_code {
                StatusCode::PermissionDenied => "may not be written; let the user write there",
                StatusCode::NoSuchFile => "is not there; `path` has to be a folder that is",
                _ => "cannot be written",
            },
            _ => "cannot be written",
        };
        Trouble::Later(format!("{}: {path} {what} ({error})", self.name()))
    }
}

/// Logs in with a password, which some servers take only as an answer to a question.
async fn with_password(
    session: &mut client::Handle<KnownHost>,
    user: &str,
    password: &str,
) -> Result<bool, russh::Error> {
    match session.authenticate_password(user, password).await? {
        AuthResult::Success => return Ok(true),
        AuthResult::Failure { remaining_methods, .. } => {
            if !remaining_methods.contains(&MethodKind::KeyboardInteractive) {
                return Ok(false);
            }
        }
    }
    let mut told = session.authenticate_keyboard_interactive_start(user, None).await?;
    let mut is_said = false;
    for _ in 0..MAX_QUESTIONS {
        let answers = match told {
            KeyboardInteractiveAuthResponse::Success => return Ok(true),
            KeyboardInteractiveAuthResponse::Failure { .. } => return Ok(false),
            // What there is to read, and nothing to answer.
            KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. } if prompts.is_empty() => {
                Vec::new()
            }
            KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. } => {
                // A second question is not for the password.
                if is_said || prompts.len() > 1 || prompts[0].echo {
                    return Ok(false);
                }
                is_said = true;
                vec![password.to_owned()]
            }
        };
        told = session.authenticate_keyboard_interactive_respond(answers).await?;
    }
    Ok(false)
}

/// The key that logs in.
fn private_key(from: &SecretSource) -> Result<russh::keys::PrivateKey, Trouble> {
    let text = secret_text("key", from).map_err(Trouble::Later)?;
    russh::keys::decode_secret_key(&text, None).map_err(|_| {
        Trouble::Fatal(format!(
            "key: {from} holds no private key of Ed25519 or ECDSA without a passphrase (ssh-keygen -t ed25519 makes one)"
        ))
    })
}

impl Connector for SftpConnector {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn check(&self, _now: Millis) -> Result<(), String> {
        let tried = self.with(async |sftp| {
            let probe = format!("{}/.throng-check", self.settings.path);
            let told = |error: SftpError| self.told(&probe, &error);
            let mut file = sftp.create(&probe).await.map_err(told)?;
            file.write_all(b"throng\n")
                .await
                .map_err(|error| Trouble::Later(format!("{}: {error}", self.name())))?;
            // What it says of the closing, the removal says, too.
            let _ = file.close().await;
            sftp.remove_file(&probe).await.map_err(told)
        });
        tried.map_err(|trouble| Verdict::from(trouble).why().unwrap_or_default())
    }

    fn encode(&self, batch: &Batch, _place: &str) -> Encoded {
        file::encode(&self.settings.style, batch)
    }

    fn delivered(&self, encoded: &Encoded) -> bool {
        let control = file::control(&self.settings.style, encoded);
        let is_there = self.with(async |sftp| {
            let at = |name: &str| format!("{}/{name}", self.settings.path);
            let is_there = self.holds(&sftp, &at(&encoded.address), &encoded.body).await?;
            match &control {
                Some((name, bytes)) if is_there => self.holds(&sftp, &at(name), bytes).await,
                _ => Ok(is_there),
            }
        });
        is_there.unwrap_or(false)
    }

    fn deliver(&self, encoded: &Encoded, _now: Millis) -> Verdict {
        let control = file::control(&self.settings.style, encoded);
        let put = self.with(async |sftp| {
            self.put(&sftp, &encoded.address, &encoded.body).await?;
            match &control {
                Some((name, bytes)) => self.put(&sftp, name, bytes).await,
                None => Ok(()),
            }
        });
        // A repeat finds what is there.
        put.map_or_else(Verdict::from, |()| Verdict::Accepted)
    }

    fn put_file(&self, name: &str, from: &Path, _now: Millis) -> Verdict {
        let size = from.metadata().map_or(0, |told| told.len());
        let patience = PATIENCE + Duration::from_secs(size / SLOWEST);
        let put = self.within(patience, async |sftp| self.put_from(&sftp, name, from).await);
        put.map_or_else(Verdict::from, |()| Verdict::Accepted)
    }
}
