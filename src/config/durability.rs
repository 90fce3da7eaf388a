//! When an event is answered as accepted.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// When an event is answered as accepted, and so what it survives from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// After `fdatasync` of the local journal: a power cut.
    Disk,
    /// After `write` to the local journal: a crash of the process; a power cut may take the last 200 ms.
    DiskBuffered,
    /// After Redis has it; there is no local journal.
    Redis(RedisMode),
}

/// What the answer of Redis is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedisMode {
    /// Redis has it in memory, and on its disk about a second later.
    Everysec,
    /// It is on the disk of the primary.
    Always,
    /// So many replicas have received it.
    Replicated(u8),
}

/// The text is none of the modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected `disk`, `disk-buffered`, `redis-everysec`, `redis-always` or `redis-replicated(1)`, with the number of replicas"
)]
pub struct UnknownDurability;

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk => f.write_str("disk"),
            Self::DiskBuffered => f.write_str("disk-buffered"),
            Self::Redis(mode) => mode.fmt(f),
        }
    }
}

impl fmt::Display for RedisMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everysec => f.write_str("redis-everysec"),
            Self::Always => f.write_str("redis-always"),
            Self::Replicated(replicas) => write!(f, "redis-replicated({replicas})"),
        }
    }
}

impl FromStr for Durability {
    type Err = UnknownDurability;

    fn from_str(text: &str) -> Result<Self, UnknownDurability> {
        match text {
            "disk" => Ok(Self::Disk),
            "disk-buffered" => Ok(Self::DiskBuffered),
            "redis-everysec" => Ok(Self::Redis(RedisMode::Everysec)),
            "redis-always" => Ok(Self::Redis(RedisMode::Always)),
            _ => {
                let number =
                    text.strip_prefix("redis-replicated(").and_then(|t| t.strip_suffix(')'));
                let replicas = number.and_then(|number| number.parse().ok()).filter(|n| *n > 0);
                let replicas = replicas.ok_or(UnknownDurability)?;
                Ok(Self::Redis(RedisMode::Replicated(replicas)))
            }
        }
    }
}

impl Serialize for Durability {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Durability {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'_, str>::deserialize(deserializer)?;
        text.parse().map_err(Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read_as_they_are_shown() {
        let redis = [RedisMode::Everysec, RedisMode::Always, RedisMode::Replicated(2)];
        let local = [Durability::Disk, Durability::DiskBuffered];
        for mode in redis.map(Durability::Redis).into_iter().chain(local) {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        for wrong in
            ["", "redis", "redis-replicated(0)", "redis-replicated(300)", "redis-replicated2"]
        {
            assert_eq!(wrong.parse::<Durability>(), Err(UnknownDurability), "{wrong}");
        }
    }
}
