//! The shelf: `throng:{store}:shelf`, a hash of values by name, that of the history: `throng:{store}:history`,
//! and that of what was erased: `throng:{store}:privacy`.

use redis::Value;

use super::functions;
use super::reply;
use super::store::Store;
use crate::store::StoreError;
use crate::store::shelf::Shelf as Port;
use crate::store::shelf::check_name;
use crate::store::shelf::check_value;

/// The shelf that all nodes share.
#[derive(Debug)]
pub struct Shelf {
    store: Store,
    key: String,
}

impl Shelf {
    /// The shelf of a store.
    pub fn new(store: Store) -> Self {
        let key = store.keys.store("shelf");
        Self { store, key }
    }

    /// Another one, for the history of audiences, whose values are many.
    pub fn history(store: Store) -> Self {
        let key = store.keys.store("history");
        Self { store, key }
    }

    /// Another one, for what was erased and the receipts of it.
    pub fn privacy(store: Store) -> Self {
        let key = store.keys.store("privacy");
        Self { store, key }
    }

    /// Swaps; the value that stands where it is another.
    fn swapped(
        &self,
        name: &str,
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
    ) -> Result<Result<(), Option<Vec<u8>>>, StoreError> {
        check_name(name)?;
        check_value(name, new.unwrap_or_default())?;
        let given = |value: Option<&[u8]>| if value.is_some() { &b"1"[..] } else { b"0" };
        let args = [
            name.as_bytes(),
            given(expected),
            expected.unwrap_or_default(),
            given(new),
            new.unwrap_or_default(),
        ];
        let call = functions::call("swap", &[&self.key], &args);
        match self.store.link.one(&self.key, call)? {
            Value::Array(answer) => {
                let mut answer = answer.into_iter();
                match (answer.next().as_ref().and_then(reply::text), answer.next()) {
                    (Some("OK"), _) => Ok(Ok(())),
                    (Some("OTHER"), have) => Ok(Err(have.and_then(reply::into_bytes))),
                    _ => Err(self.store.link.odd("a swap")),
                }
            }
            _ => Err(self.store.link.odd("a swap")),
        }
    }
}

impl Port for Shelf {
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        check_name(name)?;
        let mut cmd = redis::cmd("HGET");
        cmd.arg(&self.key).arg(name);
        match self.store.link.one(&self.key, cmd)? {
            Value::Nil => Ok(None),
            value => {
                reply::into_bytes(value).map(Some).ok_or_else(|| self.store.link.odd("a value"))
            }
        }
    }

    fn keep(&self, name: &str, bytes: &[u8]) -> Result<Vec<u8>, StoreError> {
        match self.swapped(name, None, Some(bytes))? {
            Ok(()) => Ok(bytes.to_vec()),
            Err(stands) => stands.ok_or_else(|| self.store.link.odd("a value that stands")),
        }
    }

    fn swap(
        &self,
        name: &str,
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
    ) -> Result<bool, StoreError> {
        Ok(self.swapped(name, expected, new)?.is_ok())
    }

    fn names(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let mut cmd = redis::cmd("HKEYS");
        cmd.arg(&self.key);
        let answer = self.store.link.one(&self.key, cmd)?;
        let all = reply::items(&answer).ok_or_else(|| self.store.link.odd("a list"))?;
        let names = all.iter().filter_map(reply::text).filter(|name| name.starts_with(prefix));
        let mut names: Vec<String> = names.map(str::to_owned).collect();
        names.sort_unstable();
        Ok(names)
    }
}
