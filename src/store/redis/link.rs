//! The way to Redis: routes commands by their key, and tries again until they are answered.
//!
//! Callers are threads; each borrows a connection for a call. Everything sent here may be sent again: an answer
//! that did not come says nothing about what was done. Redirections, nodes that cannot answer now, lost
//! connections and a library that a node does not know are all met with another try, until the caller's
//! patience ends. The routing is ours and not the client library's, whose cluster connection repeats calls out
//! of sight and keeps connections that have timed out.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Mutex;
use parking_lot::RwLock;
use redis::Cmd;
use redis::ConnectionAddr;
use redis::ConnectionInfo;
use redis::IntoConnectionInfo;
use redis::RedisError;
use redis::ServerError;
use redis::Value;
use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::TcpKeepalive;

use super::nodes::Nodes;
use super::nodes::Times;
use super::nodes::Trouble;
use super::route;
use super::route::Address;
use super::route::Topology;
use super::tls;
use crate::config::Trust;
use crate::store::StoreError;

/// One Redis server, or one Redis Cluster: which of them shows at the first call.
#[derive(Clone)]
pub struct Link {
    pub(super) nodes: Arc<Nodes>,
}

/// A server, and what it said or why it did not.
pub(super) type Said = (String, Result<Value, String>);

/// A peer that is gone without a word is noticed after this.
const GONE: Duration = Duration::from_secs(5);
/// So many redirections are followed at once; after that, each waits like any other trouble.
const AT_ONCE: u32 = 4;

/// A call on its way: what is answered, and where what is not is to be asked.
struct Round<'a> {
    cmds: &'a [Cmd],
    slot: u16,
    answers: Vec<Option<Value>>,
    asked: Vec<Option<Address>>,
    /// Whether the commands are one, on one connection.
    together: bool,
}

impl Link {
    /// As [`Link::open_trusting`], with TLS by whom the system trusts.
    pub fn open(urls: &str, times: Times) -> Result<Self, StoreError> {
        Self::open_trusting(urls, &Trust::default(), times)
    }

    /// Reads the addresses and the files of TLS; connects at the first call. The URLs are those of one server, or of some nodes of a
    /// cluster, separated by commas: `redis://…` or, with TLS, `rediss://…`. User and password are the first one's.
    pub fn open_trusting(urls: &str, trust: &Trust, times: Times) -> Result<Self, StoreError> {
        let mut seeds = Vec::new();
        let mut template: Option<ConnectionInfo> = None;
        for url in urls.split(',').map(str::trim).filter(|url| !url.is_empty()) {
            // The text is not repeated in the error: it may hold a password.
            let wrong = |hint: &str| StoreError::Malformed {
                what: "the address of Redis".to_owned(),
                hint: format!(
                    "{hint}; write `redis://host:port` or `rediss://host:port`, for a cluster several with commas between"
                ),
                source: None,
            };
            let info = url.into_connection_info().map_err(|_| wrong("it is no URL"))?;
            seeds.push(match info.addr() {
                ConnectionAddr::TcpTls { insecure: true, .. } => {
                    return Err(wrong("certificates are verified: `#insecure` is not possible"));
                }
                ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                    (host.clone(), *port)
                }
                _ => return Err(wrong("it is not reached by TCP")),
            });
            let first = template.get_or_insert(info.clone());
            if std::mem::discriminant(first.addr()) != std::mem::discriminant(info.addr()) {
                return Err(wrong("some nodes have TLS and some have none"));
            }
        }
        let Some(template) = template else {
            return Err(StoreError::Malformed {
                what: "the address of Redis".to_owned(),
                hint: "it is empty".to_owned(),
                source: None,
            });
        };
        let keepalive = TcpKeepalive::new().with_time(GONE).with_interval(Duration::from_secs(1));
        let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
        #[cfg(target_os = "linux")]
        let tcp = tcp.set_user_timeout(GONE);
        let template = tls::equip(template, trust)?.set_tcp_settings(tcp);
        let nodes =
            Nodes { seeds, template, times, topology: RwLock::default(), idle: Mutex::default() };
        Ok(Self { nodes: Arc::new(nodes) })
    }

    /// Runs commands whose keys all have the slot of `key`, each until it is answered. Their order may change.
    pub(super) fn run(&self, key: &str, cmds: &[Cmd]) -> Result<Vec<Value>, StoreError> {
        self.until(key, cmds, false, Instant::now() + self.nodes.times.patience)
    }

    /// Runs commands one after the other on one connection: all of them again, where one has to be.
    pub(super) fn run_together(&self, key: &str, cmds: &[Cmd]) -> Result<Vec<Value>, StoreError> {
        self.until(key, cmds, true, Instant::now() + self.nodes.times.patience)
    }

    /// Runs one command.
    pub(super) fn one(&self, key: &str, cmd: Cmd) -> Result<Value, StoreError> {
        self.one_within(key, cmd, self.nodes.times.patience)
    }

    /// Runs one command, with more or less patience.
    pub(super) fn one_within(
        &self,
        key: &str,
        cmd: Cmd,
        patience: Duration,
    ) -> Result<Value, StoreError> {
        let answers = self.until(key, &[cmd], false, Instant::now() + patience)?;
        answers.into_iter().next().ok_or_else(|| self.odd("nothing"))
    }

    /// How long is waited for what.
    pub(super) fn times(&self) -> Times {
        self.nodes.times
    }

    /// Runs a command on every primary.
    pub(super) fn everywhere(&self, cmd: &Cmd) -> Result<Vec<(String, Value)>, StoreError> {
        let deadline = Instant::now() + self.nodes.times.patience;
        let mut pause = Pause::until(deadline);
        loop {
            let result = self.nodes.primaries().and_then(|nodes| {
                let ask = |node: Address| match self.nodes.exchange(&node, &[cmd], false)?.pop() {
                    Some(Value::ServerError(error)) => Err(self.nodes.judge(&node, error)),
                    Some(value) => Ok((format!("{}:{}", node.0, node.1), value)),
                    None => Err(Trouble::Missing),
                };
                nodes.into_iter().map(ask).collect()
            });
            match result {
                Ok(answers) => return Ok(answers),
                Err(trouble) => self.face(trouble, &mut pause)?,
            }
        }
    }

    /// Asks every primary that is known now, once; tells what each said, or why it did not.
    pub(super) fn each(&self, cmd: &Cmd) -> Result<Vec<Said>, StoreError> {
        // A connection may have gone while it was not used: then the first try tells nothing.
        let nodes = self.nodes.primaries().or_else(|_| self.nodes.primaries());
        let nodes = nodes.map_err(|trouble| self.unavailable(trouble.into_error()))?;
        let ask = |node: &Address| {
            let asked = || self.nodes.exchange(node, &[cmd], false);
            match asked().or_else(|_| asked()).map(|mut answers| answers.pop()) {
                Ok(Some(Value::ServerError(error))) => {
                    Err(format!("{} {}", error.code(), error.details().unwrap_or_default()))
                }
                Ok(Some(answer)) => Ok(answer),
                Ok(None) => Err("an answer is missing".to_owned()),
                // Its causes say the same once more.
                Err(trouble) => Err(trouble.into_error().to_string()),
            }
        };
        Ok(nodes.iter().map(|node| (format!("{}:{}", node.0, node.1), ask(node))).collect())
    }

    fn unavailable(&self, source: RedisError) -> StoreError {
        StoreError::Unavailable { what: self.to_string(), source: Box::new(source) }
    }

    /// The error of an answer that says what none should.
    pub(super) fn odd(&self, what: &str) -> StoreError {
        StoreError::Unavailable {
            what: self.to_string(),
            source: format!("an answer is not of the form expected: {what}").into(),
        }
    }

    fn until(
        &self,
        key: &str,
        cmds: &[Cmd],
        together: bool,
        deadline: Instant,
    ) -> Result<Vec<Value>, StoreError> {
        let slot = route::slot(key);
        let (answers, asked) = (vec![None; cmds.len()], vec![None; cmds.len()]);
        let mut round = Round { cmds, slot, answers, asked, together };
        let mut pause = Pause::until(deadline);
        loop {
            match self.round(&mut round) {
                Ok(()) => return Ok(round.answers.into_iter().flatten().collect()),
                Err(trouble) => self.face(trouble, &mut pause)?,
            }
        }
    }

    /// Sends what has no answer yet.
    fn round(&self, round: &mut Round<'_>) -> Result<(), Trouble> {
        let mut trouble = None;
        if round.together {
            let asked = round.asked[0].take();
            let asking = asked.is_some();
            let node = match asked {
                Some(node) => node,
                None => self.nodes.holder(round.slot)?,
            };
            let all: Vec<usize> = (0..round.cmds.len()).collect();
            self.send(round, &node, asking, &all, &mut trouble)?;
            if trouble.is_some() {
                round.answers.fill(None);
                let asked = round.asked.iter_mut().find_map(Option::take);
                round.asked[0] = asked;
            }
        } else {
            for at in 0..round.cmds.len() {
                // Only what a node has sent on: the target knows nothing of keys that are still at home.
                if let Some(node) = round.asked[at].take() {
                    self.send(round, &node, true, &[at], &mut trouble)?;
                }
            }
            let open: Vec<usize> = (0..round.cmds.len())
                .filter(|at| round.answers[*at].is_none() && round.asked[*at].is_none())
                .collect();
            if !open.is_empty() {
                let node = self.nodes.holder(round.slot)?;
                self.send(round, &node, false, &open, &mut trouble)?;
            }
        }
        trouble.map_or(Ok(()), Err)
    }

    fn send(
        &self,
        round: &mut Round<'_>,
        node: &Address,
        asking: bool,
        which: &[usize],
        trouble: &mut Option<Trouble>,
    ) -> Result<(), Trouble> {
        let cmds: Vec<&Cmd> = which.iter().map(|at| &round.cmds[*at]).collect();
        let answers = self.nodes.exchange(node, &cmds, asking)?;
        for (at, answer) in which.iter().zip(answers) {
            match answer {
                Value::ServerError(error) => match self.heed(node, round.slot, error)? {
                    Trouble::Ask(to) => {
                        round.asked[*at] = Some(to.clone());
                        trouble.get_or_insert(Trouble::Ask(to));
                    }
                    found @ (Trouble::Moved(_) | Trouble::Missing) => {
                        trouble.get_or_insert(found);
                    }
                    other => *trouble = Some(other),
                },
                answer => round.answers[*at] = Some(answer),
            }
        }
        Ok(())
    }

    /// What an error says that a node has answered, with what it asks for done: where a slot has moved to is noted,
    /// and a library that is missing is loaded. An error where it cannot be, or nothing helps.
    pub(super) fn heed(
        &self,
        node: &Address,
        slot: u16,
        error: ServerError,
    ) -> Result<Trouble, Trouble> {
        let found = self.nodes.judge(node, error);
        match &found {
            Trouble::Never(_) => return Err(found),
            Trouble::Moved(to) => {
                if let Some(Topology::Cluster(slots)) = &mut *self.nodes.topology.write() {
                    slots.moved(slot, to);
                }
            }
            Trouble::Missing => self.nodes.load(node)?,
            _ => {}
        }
        Ok(found)
    }

    /// Waits, or finds out where keys lie by now; an error where it is no use or too late.
    pub(super) fn face(&self, trouble: Trouble, pause: &mut Pause) -> Result<(), StoreError> {
        let unavailable = |source: RedisError| self.unavailable(source);
        let error = match trouble {
            Trouble::Never(error) => return Err(unavailable(error)),
            Trouble::Moved(_) | Trouble::Ask(_) | Trouble::Missing => {
                pause.at_once += 1;
                if pause.at_once <= AT_ONCE {
                    return Ok(());
                }
                self.nodes.forget();
                unavailable(RedisError::from(std::io::Error::other("it sends from node to node")))
            }
            Trouble::Lost(error) => {
                self.nodes.forget();
                unavailable(error)
            }
            Trouble::Wait(error) => unavailable(error),
            Trouble::Full(error) => {
                StoreError::Full { what: self.to_string(), source: Box::new(error) }
            }
        };
        if pause.wait() { Ok(()) } else { Err(error) }
    }
}

/// The addresses, without user and password.
impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redis at ")?;
        for (at, (host, port)) in self.nodes.seeds.iter().enumerate() {
            write!(f, "{}{host}:{port}", if at == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({self})")
    }
}

/// The time between two tries: longer each time, never quite the same, and not beyond the deadline.
pub(super) struct Pause {
    deadline: Instant,
    next: Duration,
    at_once: u32,
}

impl Pause {
    pub(super) fn until(deadline: Instant) -> Self {
        Self { deadline, next: Duration::from_millis(4), at_once: 0 }
    }

    /// Waits; tells whether there is time for another try.
    fn wait(&mut self) -> bool {
        self.at_once = 0;
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        let dice = getrandom::u32().unwrap_or(u32::MAX / 2);
        let part = 0.5 + f64::from(dice) / f64::from(u32::MAX) / 2.0;
        std::thread::sleep(self.next.mul_f64(part).min(left));
        self.next = (self.next * 2).min(Duration::from_millis(500));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let urls = "rediss://admin:s3cret@a.example:7000, rediss://b.example:7001";
        let link = Link::open(urls, Times::default()).unwrap();
        assert_eq!(link.to_string(), "Redis at a.example:7000, b.example:7001");
        assert!(!format!("{link:?}").contains("s3cret"));
        for wrong in
            ["http://x:s3cret@y", "redis://x:s3cret@a,rediss://b", "s3cret", "unix:///s3cret"]
        {
            let error = Link::open(wrong, Times::default()).unwrap_err();
            assert!(!format!("{error}{error:?}").contains("s3cret"), "{error:?}");
            assert!(error.to_string().contains("redis://host:port"), "{error}");
        }
    }
}
