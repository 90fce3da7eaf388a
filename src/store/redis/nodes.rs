//! The nodes of a link: a few connections to each, what their errors mean, and which of them holds what.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use parking_lot::RwLock;
use redis::Cmd;
use redis::Connection;
use redis::ConnectionAddr;
use redis::ConnectionInfo;
use redis::RedisError;
use redis::ServerError;
use redis::Value;

use super::functions;
use super::route;
use super::route::Address;
use super::route::Slots;
use super::route::Topology;
use super::tls;

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

/// What stands in the way of a call.
pub(super) enum Trouble {
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

/// Commands on their way to a node. Dropped, they are done or not, and nobody hears of it.
pub(super) struct Sent {
    node: Address,
    connection: Connection,
    count: usize,
    asking: bool,
}

impl Trouble {
    /// What was answered; of a redirection, that it was one.
    pub(super) fn into_error(self) -> RedisError {
        match self {
            Self::Lost(error) | Self::Wait(error) | Self::Full(error) | Self::Never(error) => error,
            Self::Moved(_) | Self::Ask(_) => {
                RedisError::from(std::io::Error::other("it sends to another node"))
            }
            Self::Missing => RedisError::from(std::io::Error::other("it has no library")),
        }
    }
}

/// So many unused connections to a node are kept.
const IDLE: usize = 8;

/// The nodes that are known, and how they are spoken to.
pub(super) struct Nodes {
    pub(super) seeds: Vec<Address>,
    /// Whatever is the same for all nodes: TLS, user and password.
    pub(super) template: ConnectionInfo,
    pub(super) times: Times,
    pub(super) topology: RwLock<Option<Topology>>,
    pub(super) idle: Mutex<HashMap<Address, Vec<Connection>>>,
}

impl Nodes {
    /// Sends commands on one connection and takes their answers, errors of the server among them.
    pub(super) fn exchange(
        &self,
        node: &Address,
        cmds: &[&Cmd],
        asking: bool,
    ) -> Result<Vec<Value>, Trouble> {
        self.receive(self.send(node, cmds, asking)?)
    }

    /// Sends commands on one connection.
    pub(super) fn send(
        &self,
        node: &Address,
        cmds: &[&Cmd],
        asking: bool,
    ) -> Result<Sent, Trouble> {
        let idle = self.idle.lock().get_mut(node).and_then(Vec::pop);
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
        match connection.send_packed_command(&bytes) {
            Ok(()) => Ok(Sent { node: node.clone(), connection, count: cmds.len(), asking }),
            Err(error) => Err(self.lost(node, error)),
        }
    }

    /// Takes the answers to what was sent.
    pub(super) fn receive(&self, sent: Sent) -> Result<Vec<Value>, Trouble> {
        let Sent { node, mut connection, count, asking } = sent;
        let mut talk = || -> Result<Vec<Value>, RedisError> {
            let mut answers = Vec::with_capacity(count);
            for _ in 0..count {
                if asking {
                    connection.recv_response()?;
                }
                answers.push(connection.recv_response()?);
            }
            Ok(answers)
        };
        match talk() {
            Ok(answers) => {
                let mut idle = self.idle.lock();
                let idle = idle.entry(node).or_default();
                if idle.len() < IDLE {
                    idle.push(connection);
                }
                Ok(answers)
            }
            Err(error) => Err(self.lost(&node, error)),
        }
    }

    /// A connection is given up: an answer may still come, and must not be taken for that of the next call. And
    /// the others have most likely met with the same.
    fn lost(&self, node: &Address, error: RedisError) -> Trouble {
        self.idle.lock().remove(node);
        Trouble::Lost(error)
    }

    fn connect(&self, node: &Address) -> Result<Connection, Trouble> {
        let address = match self.template.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => ConnectionAddr::TcpTls {
                host: node.0.clone(),
                port: node.1,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            },
            _ => ConnectionAddr::Tcp(node.0.clone(), node.1),
        };
        let info = self.template.clone().set_addr(address);
        let open = || -> Result<Connection, RedisError> {
            let client = redis::Client::open(info)?;
            let connection = client.get_connection_with_timeout(self.times.connect)?;
            connection.set_read_timeout(Some(self.times.response))?;
            connection.set_write_timeout(Some(self.times.response))?;
            Ok(connection)
        };
        open().map_err(|error| {
            let never = match error.kind() {
                redis::ErrorKind::AuthenticationFailed | redis::ErrorKind::InvalidClientConfig => {
                    error
                }
                _ => match tls::explain(&error) {
                    Some(explained) => explained,
                    None => return Trouble::Lost(error),
                },
            };
            // Another node may hold its slots by the next call.
            self.forget();
            Trouble::Never(never)
        })
    }

    pub(super) fn load(&self, node: &Address) -> Result<(), Trouble> {
        match self.exchange(node, &[&functions::load()], false)?.pop() {
            Some(Value::ServerError(error))
                if !functions::is_there(error.details().unwrap_or_default()) =>
            {
                Err(self.judge(node, error))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn judge(&self, node: &Address, error: ServerError) -> Trouble {
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

    pub(super) fn holder(&self, slot: u16) -> Result<Address, Trouble> {
        if let Some(node) = self.known_holder(slot) {
            return Ok(node);
        }
        self.discover()?;
        // Another thread may have forgotten it all by now.
        self.known_holder(slot).ok_or_else(|| {
            self.forget();
            Trouble::Wait(RedisError::from(std::io::Error::other("nobody holds the key's slot")))
        })
    }

    /// Who holds a slot as far as is known. No lock is held when it returns.
    fn known_holder(&self, slot: u16) -> Option<Address> {
        match &*self.topology.read() {
            Some(Topology::Single(node)) => Some(node.clone()),
            Some(Topology::Cluster(slots)) => slots.holder(slot).cloned(),
            None => None,
        }
    }

    pub(super) fn primaries(&self) -> Result<Vec<Address>, Trouble> {
        self.discover()?;
        Ok(match &*self.topology.read() {
            Some(Topology::Single(node)) => vec![node.clone()],
            Some(Topology::Cluster(slots)) => slots.nodes().to_vec(),
            None => Vec::new(),
        })
    }

    /// Asks one node after the other who holds what.
    fn discover(&self) -> Result<(), Trouble> {
        let mut nodes = self.seeds.clone();
        let known: Vec<Address> = self.idle.lock().keys().cloned().collect();
        nodes.extend(known);
        let mut cmd = redis::cmd("CLUSTER");
        cmd.arg("SLOTS");
        let mut trouble = None;
        for node in nodes {
            match self.exchange(&node, &[&cmd], false).map(|mut answers| answers.pop()) {
                Ok(Some(Value::ServerError(error))) => {
                    if error.details().is_some_and(|text| text.contains("cluster support disabled"))
                    {
                        *self.topology.write() = Some(Topology::Single(node));
                        return Ok(());
                    }
                    trouble = Some(self.judge(&node, error));
                }
                Ok(Some(answer)) => {
                    if let Some(slots) = Slots::parse(&answer, &node) {
                        *self.topology.write() = Some(Topology::Cluster(slots));
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

    pub(super) fn forget(&self) {
        *self.topology.write() = None;
    }
}
