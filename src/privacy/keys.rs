//! The keys that receipts and acknowledgements are signed with: made once for a store, and kept on its shelf.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use ring::rand::SystemRandom;
use ring::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
use ring::signature::EcdsaKeyPair;
use ring::signature::Ed25519KeyPair;
use ring::signature::KeyPair;

use crate::store::StoreError;
use crate::store::shelf::Shelf;

/// The names of the keys on the shelf.
const RECEIPTS: &str = "key/receipts";
const ACKNOWLEDGEMENTS: &str = "key/acknowledgements";

/// The keys of a store, once they were asked for.
#[derive(Default)]
pub(super) struct Keys {
    receipts: Mutex<Option<Arc<Ed25519KeyPair>>>,
    acknowledgements: Mutex<Option<Arc<EcdsaKeyPair>>>,
}

impl Keys {
    /// The key of receipts: Ed25519.
    pub(super) fn receipts(&self, shelf: &dyn Shelf) -> Result<Arc<Ed25519KeyPair>, StoreError> {
        let mut known = self.receipts.lock();
        if let Some(key) = &*known {
            return Ok(key.clone());
        }
        let fresh = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
        let fresh = fresh.map_err(|_| no_random())?;
        let stands = shelf.keep(RECEIPTS, fresh.as_ref())?;
        let key = Ed25519KeyPair::from_pkcs8(&stands).map_err(|_| damaged(RECEIPTS))?;
        Ok(known.insert(Arc::new(key)).clone())
    }

    /// The key of acknowledgements to those who ask by the Data Deletion Request Framework: ES256.
    pub(super) fn acknowledgements(
        &self,
        shelf: &dyn Shelf,
    ) -> Result<Arc<EcdsaKeyPair>, StoreError> {
        let mut known = self.acknowledgements.lock();
        if let Some(key) = &*known {
            return Ok(key.clone());
        }
        let (how, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let fresh = EcdsaKeyPair::generate_pkcs8(how, &random).map_err(|_| no_random())?;
        let stands = shelf.keep(ACKNOWLEDGEMENTS, fresh.as_ref())?;
        let key = EcdsaKeyPair::from_pkcs8(how, &stands, &random);
        let key = key.map_err(|_| damaged(ACKNOWLEDGEMENTS))?;
        Ok(known.insert(Arc::new(key)).clone())
    }
}

/// A public key as text.
pub(super) fn public(key: &impl KeyPair) -> String {
    URL_SAFE_NO_PAD.encode(key.public_key())
}

fn no_random() -> StoreError {
    StoreError::Unavailable {
        what: "the system's random numbers".to_owned(),
        source: "none were given".into(),
    }
}

fn damaged(name: &str) -> StoreError {
    StoreError::Malformed {
        what: format!("the key `{name}` of the store"),
        hint: "it is damaged; restore it from a backup".to_owned(),
        source: None,
    }
}
