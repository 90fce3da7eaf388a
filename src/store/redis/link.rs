//! The way to Redis: routes commands by their key, keeps a few connections to each node, and tries again.
//!
//! Callers are threads; each borrows a connection for a call. Everything sent here may be sent again: an answer
//! that did not come says nothing about what was done. Redirections, nodes that cannot answer now, lost
//! connections and a library that a node does not know are all met with another try, until the caller's
//! patience ends. The routing is ours and not the client library's, whose cluster connection repeats calls out
//! of sight and keeps connections that have timed out.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Mutex;
use parking_lot::RwLock;
use redis::Cmd;
use redis::Connection;
use redis::ConnectionAddr;
use redis::ConnectionInfo;
use redis::IntoConnectionInfo;
use redis::RedisError;
use redis::ServerError;
use redis::Value;
use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::TcpKeepalive;

use super::functions;
use super::route;
use super::route::Address;
use super::route::Slots;
use super::route::Topology;
use crate::store::StoreError;

/// How long is waited for what.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// For a connection.
    pub connect: Duration,
    /// For an answer. Longer than any call takes, shorter than the patience.
    pub response: Duration,
    /// For a call with all its repeats.
    pub patience: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            response: Duration::from_secs(3),
            patience: Duration::from_secs(30),
        }
    }
}

/// One Redis server, or one Redis Cluster: which of them shows at the first call.
#[derive(Clone)]
pub struct Link {
    shared: Arc<Shared>,
}

struct Shared {
    seeds: Vec<Address>,
    /// Whatever is the same for all nodes: TLS, user and password.
    template: ConnectionInfo,
    times: Times,
    topology: RwLock<Option<Topology>>,
    idle: Mutex<HashMap<Address, Vec<Connection>>>,
}

/// So many unused connections to a node are kept.
const IDLE: usize = 8;
/// A peer that is gone without a word is noticed after this.
const GONE: Duration = Duration::from_secs(5);
/// So many redirections are followed at once; after that, each waits like any other trouble.
const AT_ONCE: u32 = 4;

/// What stands in the way of a call.
enum Trouble {
    /// The key lies elsewhere.
    Moved(Address),
    /// The key is on its way elsewhere.
    Ask(Address),
    /// The node has no library.
    Missing,
    /// The node is no primary, or does not answer: who is may have changed.
    Lost(RedisError),
    /// It cannot be done now.
    Wait(RedisError),
    /// There is no memory.
    Full(RedisError),
    /// It cannot be done.
    Never(RedisError),
}

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
    /// Reads the addresses; connects at the first call. The URLs are those of one server, or of some nodes of a
    /// cluster, separated by commas: `redis://…` or, with TLS, `rediss://…`. User and password are the first one's.
    pub fn open(urls: &str, times: Times) -> Result<Self, StoreError> {
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
        let template = template.set_tcp_settings(tcp);
        let shared =
            Shared { seeds, template, times, topology: RwLock::default(), idle: Mutex::default() };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Runs commands whose keys all have the slot of `key`, each until it is answered. Their order may change.
    pub(super) fn run(&self, key: &str, cmds: &[Cmd]) -> Result<Vec<Value>, StoreError> {
        self.until(key, cmds, false, Instant::now() + self.shared.times.patience)
    }

    /// Runs commands one after the other on one connection: all of them again, where one has to be.
    pub(super) fn run_together(&self, key: &str, cmds: &[Cmd]) -> Result<Vec<Value>, StoreError> {
        self.until(key, cmds, true, Instant::now() + self.shared.times.patience)
    }

    /// Runs one command.
    pub(super) fn one(&self, key: &str, cmd: Cmd) -> Result<Value, StoreError> {
        self.one_within(key, cmd, self.shared.times.patience)
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
        self.shared.times
    }

    /// Runs a command on every primary.
    pub(super) fn everywhere(&self, cmd: &Cmd) -> Result<Vec<(String, Value)>, StoreError> {
        let deadline = Instant::now() + self.shared.times.patience;
        let mut pause = Pause::until(deadline);
        loop {
            let result = self.primaries().and_then(|nodes| {
                let ask = |node: Address| match self.exchange(&node, &[cmd], false)?.pop() {
                    Some(Value::ServerError(error)) => Err(self.judge(&node, error)),
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
                None => self.holder(round.slot)?,
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
                let node = self.holder(round.slot)?;
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
        let answers = self.exchange(node, &cmds, asking)?;
        for (at, answer) in which.iter().zip(answers) {
            let found = match answer {
                Value::ServerError(error) => self.judge(node, error),
                answer => {
                    round.answers[*at] = Some(answer);
                    continue;
                }
            };
            match found {
                Trouble::Never(error) => return Err(Trouble::Never(error)),
                Trouble::Ask(to) => {
                    round.asked[*at] = Some(to.clone());
                    trouble.get_or_insert(Trouble::Ask(to));
                }
                Trouble::Moved(to) => {
                    if let Some(Topology::Cluster(slots)) = &mut *self.shared.topology.write() {
                        slots.moved(round.slot, &to);
                    }
                    trouble.get_or_insert(Trouble::Moved(to));
                }
                Trouble::Missing => {
                    self.load(node)?;
                    trouble.get_or_insert(Trouble::Missing);
                }
                other => *trouble = Some(other),
            }
        }
        Ok(())
    }

    /// Waits, or finds out where keys lie by now; an error where it is no use or too late.
    fn face(&self, trouble: Trouble, pause: &mut Pause) -> Result<(), StoreError> {
        let unavailable = |source: RedisError| StoreError::Unavailable {
            what: self.to_string(),
            source: Box::new(source),
        };
        let error = match trouble {
            Trouble::Never(error) => return Err(unavailable(error)),
            Trouble::Moved(_) | Trouble::Ask(_) | Trouble::Missing => {
                pause.at_once += 1;
                if pause.at_once <= AT_ONCE {
                    return Ok(());
                }
                self.forget();
                unavailable(RedisError::from(std::io::Error::other("it sends from node to node")))
            }
            Trouble::Lost(error) => {
                self.forget();
                unavailable(error)
            }
            Trouble::Wait(error) => unavailable(error),
            Trouble::Full(error) => {
                StoreError::Full { what: self.to_string(), source: Box::new(error) }
            }
        };
        if pause.wait() { Ok(()) } else { Err(error) }
    }

    /// Sends commands on one connection and takes their answers, errors of the server among them.
    fn exchange(&self, node: &Address, cmds: &[&Cmd], asking: bool) -> Result<Vec<Value>, Trouble> {
        let idle = self.shared.idle.lock().get_mut(node).and_then(Vec::pop);
        let mut connection = match idle {
            Some(connection) => connection,
            None => self.connect(node)?,
        };
        let mut bytes = Vec::new();
        for cmd in cmds {
            if asking {
                redis::cmd("ASKING").write_packed_command(&mut bytes);
            }
            cmd.write_packed_command(&mut bytes);
        }
        let mut talk = || -> Result<Vec<Value>, RedisError> {
            connection.send_packed_command(&bytes)?;
            let mut answers = Vec::with_capacity(cmds.len());
            for _ in cmds {
                if asking {
                    connection.recv_response()?;
                }
                answers.push(connection.recv_response()?);
            }
            Ok(answers)
        };
        match talk() {
            Ok(answers) => {
                let mut idle = self.shared.idle.lock();
                let idle = idle.entry(node.clone()).or_default();
                if idle.len() < IDLE {
                    idle.push(connection);
                }
                Ok(answers)
            }
            Err(error) => {
                // An answer may still come: it must not be taken for that of the next call. And the others
                // have most likely met with the same.
                self.shared.idle.lock().remove(node);
                Err(Trouble::Lost(error))
            }
        }
    }

    fn connect(&self, node: &Address) -> Result<Connection, Trouble> {
        let address = match self.shared.template.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => ConnectionAddr::TcpTls {
                host: node.0.clone(),
                port: node.1,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            },
            _ => ConnectionAddr::Tcp(node.0.clone(), node.1),
        };
        let info = self.shared.template.clone().set_addr(address);
        let open = || -> Result<Connection, RedisError> {
            let client = redis::Client::open(info)?;
            let connection = client.get_connection_with_timeout(self.shared.times.connect)?;
            connection.set_read_timeout(Some(self.shared.times.response))?;
            connection.set_write_timeout(Some(self.shared.times.response))?;
            Ok(connection)
        };
        open().map_err(|error| match error.kind() {
            redis::ErrorKind::AuthenticationFailed | redis::ErrorKind::InvalidClientConfig => {
                Trouble::Never(error)
            }
            _ => Trouble::Lost(error),
        })
    }

    fn load(&self, node: &Address) -> Result<(), Trouble> {
        match self.exchange(node, &[&functions::load()], false)?.pop() {
            Some(Value::ServerError(error))
                if !functions::is_there(error.details().unwrap_or_default()) =>
            {
                Err(self.judge(node, error))
            }
            _ => Ok(()),
        }
    }

    fn judge(&self, node: &Address, error: ServerError) -> Trouble {
        let (code, detail) =
            (error.code().to_owned(), error.details().unwrap_or_default().to_owned());
        let to = || detail.split_once(' ').and_then(|(_, to)| route::address(to, node));
        let error = RedisError::from(error);
        match &*code {
            "MOVED" => to().map_or(Trouble::Lost(error), Trouble::Moved),
            "ASK" => to().map_or(Trouble::Wait(error), Trouble::Ask),
            "READONLY" | "MASTERDOWN" | "CLUSTERDOWN" => Trouble::Lost(error),
            "TRYAGAIN" | "LOADING" | "MISCONF" | "NOREPLICAS" | "BUSY" => Trouble::Wait(error),
            "OOM" => Trouble::Full(error),
            code if functions::is_missing(code, &detail) => Trouble::Missing,
            // A slot left while a function ran.
            "ERR" if detail.contains("non local key") => Trouble::Wait(error),
            _ => Trouble::Never(error),
        }
    }

    fn holder(&self, slot: u16) -> Result<Address, Trouble> {
        let known = |topology: &Option<Topology>| match topology {
            Some(Topology::Single(node)) => Some(node.clone()),
            Some(Topology::Cluster(slots)) => slots.holder(slot).cloned(),
            None => None,
        };
        if let Some(node) = known(&self.shared.topology.read()) {
            return Ok(node);
        }
        self.discover()?;
        known(&self.shared.topology.read()).ok_or_else(|| {
            self.forget();
            Trouble::Wait(RedisError::from(std::io::Error::other("nobody holds the key's slot")))
        })
    }

    fn primaries(&self) -> Result<Vec<Address>, Trouble> {
        self.discover()?;
        Ok(match &*self.shared.topology.read() {
            Some(Topology::Single(node)) => vec![node.clone()],
            Some(Topology::Cluster(slots)) => slots.nodes().to_vec(),
            None => Vec::new(),
        })
    }

    /// Asks one node after the other who holds what.
    fn discover(&self) -> Result<(), Trouble> {
        let mut nodes = self.shared.seeds.clone();
        let known: Vec<Address> = self.shared.idle.lock().keys().cloned().collect();
        nodes.extend(known);
        let mut cmd = redis::cmd("CLUSTER");
        cmd.arg("SLOTS");
        let mut trouble = None;
        for node in nodes {
            match self.exchange(&node, &[&cmd], false).map(|mut answers| answers.pop()) {
                Ok(Some(Value::ServerError(error))) => {
                    if error.details().is_some_and(|text| text.contains("cluster support disabled"))
                    {
                        *self.shared.topology.write() = Some(Topology::Single(node));
                        return Ok(());
                    }
                    trouble = Some(self.judge(&node, error));
                }
                Ok(Some(answer)) => {
                    if let Some(slots) = Slots::parse(&answer, &node) {
                        *self.shared.topology.write() = Some(Topology::Cluster(slots));
                        return Ok(());
                    }
                }
                Ok(None) => {}
                Err(found) => trouble = Some(found),
            }
        }
        Err(trouble.unwrap_or_else(|| {
            Trouble::Wait(RedisError::from(std::io::Error::other("no node knows the cluster")))
        }))
    }

    fn forget(&self) {
        *self.shared.topology.write() = None;
    }
}

/// The addresses, without user and password.
impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redis at ")?;
        for (at, (host, port)) in self.shared.seeds.iter().enumerate() {
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
struct Pause {
    deadline: Instant,
    next: Duration,
    at_once: u32,
}

impl Pause {
    fn until(deadline: Instant) -> Self {
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
