//! The nodes of a store: who is there, how far each has shipped what it took, and which of them leads.

#[cfg(test)]
pub(crate) mod conformance;

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

use super::StoreError;
use crate::model::Millis;

/// So many nodes are known at most.
pub const MAX_NODES: usize = 1024;
/// A node that holds nothing back and was not heard for so long gives its place to a new one, where it has to.
pub const FORGOTTEN: Millis = crate::model::time::DAY;

const MAX_ID: usize = 128;
const MAX_ADDRESS: usize = 256;
const MAX_VERSION: usize = 64;
const MAX_LANES: usize = 4096;

/// What a node does.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Takes events.
    Collect,
    /// Holds lanes: folds and evaluates.
    Work,
    /// Answers the management API and the console.
    Console,
}

/// A set of roles.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Vec<Role>", into = "Vec<Role>")]
pub struct Roles(u8);

impl Role {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::Collect, Self::Work, Self::Console];
}

impl Roles {
    /// All roles: one process that does everything.
    pub const ALL: Self = Self(0b111);

    /// Whether a role is among them.
    pub fn has(self, role: Role) -> bool {
        self.0 & (1 << role as u8) != 0
    }

    /// Whether such a node may lead: one that only takes events does not.
    pub fn may_lead(self) -> bool {
        self.has(Role::Work) || self.has(Role::Console)
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        Self(roles.into_iter().fold(0, |set, role| set | 1 << role as u8))
    }
}

impl From<Vec<Role>> for Roles {
    fn from(roles: Vec<Role>) -> Self {
        roles.into_iter().collect()
    }
}

impl From<Roles> for Vec<Role> {
    fn from(roles: Roles) -> Self {
        Role::ALL.into_iter().filter(|role| roles.has(*role)).collect()
    }
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(Vec::from(*self)).finish()
    }
}

/// What a node tells of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name, the same after a restart: 1 to 128 bytes without control characters.
    pub id: String,
    /// What it does.
    pub roles: Roles,
    /// Where other nodes reach its private listener, `host:port`.
    pub address: Option<String>,
    /// By its clock: every event that it acknowledged before is in the lanes, and it will acknowledge none with an
    /// earlier receive time. `None` where it takes no events.
    pub mark: Option<Millis>,
    /// The lanes that it holds.
    pub lanes: Vec<u16>,
    /// The version of its program.
    pub version: String,
}

/// A node as the store last heard of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// What it told.
    pub node: Node,
    /// When, by the store's clock.
    pub heard: Millis,
    /// How far its clock was ahead of the store's, less the time that its beat took to arrive: never more than it is.
    pub offset: Millis,
}

/// All nodes at one time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listed {
    /// The time, by the store's clock.
    pub store_time: Millis,
    /// The nodes, in the order of their ids.
    pub nodes: Vec<Heard>,
}

/// A store's register of nodes. Calls block, for some seconds at most. All times but marks are the store's.
///
/// After an error nothing of the call was done, or all of it where only the answer was lost; each may be repeated.
pub trait Nodes: Send + Sync {
    /// Registers a node, or renews what is known of it; `clock` is its clock now. What a node may hold back counts
    /// from its first beat: that has to come before it acknowledges anything.
    fn beat(&self, node: &Node, clock: Millis) -> Result<(), StoreError>;

    /// Every node that has not left. What cannot be read, of another version perhaps, is told in the log and left out.
    fn list(&self) -> Result<Listed, StoreError>;

    /// Strikes a node off that has shipped all it took. Only its last beat may have come before.
    fn leave(&self, id: &str) -> Result<(), StoreError>;

    /// Strikes a node off that will not come back: what it has not shipped is not waited for any longer. Tells
    /// whether there was one; a repeat after a lost answer may find none.
    fn retire(&self, id: &str) -> Result<bool, StoreError>;

    /// Strikes a node off that was not heard of since it was `heard`; tells whether it is gone by this call.
    fn strike(&self, id: &str, heard: Millis) -> Result<bool, StoreError>;

    /// Takes the lead for `ttl` from now on, where nobody else has it, or holds on to it. Returns the term, which
    /// grows whenever the leader is another one and whenever the lead was over in between; `None` while another node
    /// leads.
    fn lead(&self, id: &str, ttl: Duration) -> Result<Option<u64>, StoreError>;

    /// Who leads now, and the term.
    fn leader(&self) -> Result<Option<(String, u64)>, StoreError>;

    /// Gives the lead up, where it is this node's.
    fn resign(&self, id: &str) -> Result<(), StoreError>;
}

impl Node {
    /// Refuses what is larger than the store takes.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let plain = |text: &str, most| text.len() <= most && !text.chars().any(char::is_control);
        let fits = plain(&self.id, MAX_ID)
            && !self.id.is_empty()
            && plain(self.address.as_deref().unwrap_or_default(), MAX_ADDRESS)
            && plain(&self.version, MAX_VERSION)
            && self.lanes.len() <= MAX_LANES;
        if fits {
            return Ok(());
        }
        Err(StoreError::Refused {
            what: "this node".to_owned(),
            hint: format!(
                "its id is 1 to {MAX_ID} bytes, its address at most {MAX_ADDRESS}, its version {MAX_VERSION}, without \
                 control characters, and it holds at most {MAX_LANES} lanes"
            ),
        })
    }
}

/// The error of a store that has no place for another node.
pub(super) fn crowded() -> StoreError {
    StoreError::Refused {
        what: "another node".to_owned(),
        hint: format!(
            "there are {MAX_NODES} already; `throng node retire` strikes off those that are gone"
        ),
    }
}
