//! Secrets that stand encrypted in the settings.
//!
//! ```text
//! enc:v1:  base64url of   nonce 12 · wrapped key 32 + 16 · nonce 12 · what is encrypted, + 16
//! ```
//!
//! Each secret has a key of its own, which the master key wraps: another master key is taken by wrapping these anew. All
//! is AES-256-GCM; what is authenticated with a secret is the setting that it is for.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::AES_256_GCM;
use ring::aead::Aad;
use ring::aead::LessSafeKey;
use ring::aead::NONCE_LEN;
use ring::aead::Nonce;
use ring::aead::UnboundKey;

use crate::config::SEALED;

const KEY: usize = 32;
const TAG: usize = 16;
const WRAPPED: usize = NONCE_LEN + KEY + TAG;
/// A secret is no longer than this, in bytes.
const MOST: usize = 64 << 10;
/// What is authenticated with a wrapped key.
const OF_KEY: &[u8] = b"throng secret key";

/// The master key. It is never shown.
pub struct MasterKey([u8; KEY]);

/// Why an envelope is not made or opened. Nothing of the secret is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// It is no key.
    #[error("the master key is not 64 hexadecimal digits: `throng secret new-key` prints one")]
    Key,
    /// It is no envelope.
    #[error("it is damaged: encrypt it again with `throng secret encrypt`")]
    Form,
    /// It does not open.
    #[error(
        "it does not open: it was encrypted with another master key, or for another setting, or was changed; encrypt it \
         again with `throng secret encrypt`"
    )]
    Closed,
    /// It is empty or too long.
    #[error("a secret is 1 to 65536 bytes of text")]
    Length,
    /// The system has no random bytes.
    #[error("the system gives no random bytes")]
    Random,
}

impl MasterKey {
    /// Reads a key.
    pub fn parse(text: &str) -> Result<Self, EnvelopeError> {
        let digits = text.trim().as_bytes();
        let digit = |at: usize| {
            digits
                .get(at)
                .and_then(|digit| char::from(*digit).to_digit(16))
                .ok_or(EnvelopeError::Key)
        };
        if digits.len() != 2 * KEY {
            return Err(EnvelopeError::Key);
        }
        let mut key = [0; KEY];
        for (at, byte) in key.iter_mut().enumerate() {
            let two = digit(2 * at)? * 16 + digit(2 * at + 1)?;
            *byte = u8::try_from(two).map_err(|_| EnvelopeError::Key)?;
        }
        Ok(Self(key))
    }

    /// A new key, as text.
    pub fn fresh() -> Result<String, EnvelopeError> {
        Ok(crate::model::hex(&random::<KEY>()?))
    }

    /// Encrypts a secret for a setting, such as `destination.crm.secret`.
    pub fn seal(&self, secret: &str, setting: &str) -> Result<String, EnvelopeError> {
        if secret.is_empty() || secret.len() > MOST {
            return Err(EnvelopeError::Length);
        }
        let key = random::<KEY>()?;
        let mut envelope = encrypt(&self.0, &key, OF_KEY)?;
        envelope.extend(encrypt(&key, secret.as_bytes(), setting.as_bytes())?);
        Ok(format!("{SEALED}{}", URL_SAFE_NO_PAD.encode(envelope)))
    }

    /// Decrypts the secret of a setting.
    pub fn open(&self, envelope: &str, setting: &str) -> Result<String, EnvelopeError> {
        let (wrapped, sealed) = parts(envelope)?;
        let key = decrypt(&self.0, &wrapped, OF_KEY)?;
        let key: [u8; KEY] = key.try_into().map_err(|_| EnvelopeError::Form)?;
        let secret = decrypt(&key, &sealed, setting.as_bytes())?;
        String::from_utf8(secret).map_err(|_| EnvelopeError::Form)
    }

    /// The same envelope for another master key.
    pub fn rewrap(&self, envelope: &str, new: &Self) -> Result<String, EnvelopeError> {
        let (wrapped, sealed) = parts(envelope)?;
        let key = decrypt(&self.0, &wrapped, OF_KEY)?;
        let mut envelope = encrypt(&new.0, &key, OF_KEY)?;
        envelope.extend(sealed);
        Ok(format!("{SEALED}{}", URL_SAFE_NO_PAD.encode(envelope)))
    }
}

fn parts(envelope: &str) -> Result<(Vec<u8>, Vec<u8>), EnvelopeError> {
    let text = envelope.strip_prefix(SEALED).ok_or(EnvelopeError::Form)?;
    let mut wrapped = URL_SAFE_NO_PAD.decode(text).map_err(|_| EnvelopeError::Form)?;
    if wrapped.len() <= WRAPPED + NONCE_LEN + TAG {
        return Err(EnvelopeError::Form);
    }
    let sealed = wrapped.split_off(WRAPPED);
    Ok((wrapped, sealed))
}

fn encrypt(key: &[u8; KEY], secret: &[u8], of: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
    let nonce = random::<NONCE_LEN>()?;
    let mut bytes = secret.to_vec();
    cipher(key)?
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(of), &mut bytes)
        .map_err(|_| EnvelopeError::Length)?;
    Ok([&nonce[..], &bytes].concat())
}

fn decrypt(key: &[u8; KEY], bytes: &[u8], of: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
    let (nonce, sealed) = bytes.split_first_chunk().ok_or(EnvelopeError::Form)?;
    let mut sealed = sealed.to_vec();
    let opened = cipher(key)?
        .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(of), &mut sealed)
        .map_err(|_| EnvelopeError::Closed)?;
    Ok(opened.to_vec())
}

fn cipher(key: &[u8; KEY]) -> Result<LessSafeKey, EnvelopeError> {
    Ok(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).map_err(|_| EnvelopeError::Key)?))
}

fn random<const N: usize>() -> Result<[u8; N], EnvelopeError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| EnvelopeError::Random)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> MasterKey {
        MasterKey::parse(&MasterKey::fresh().unwrap()).unwrap()
    }

    #[test]
    fn a_secret_opens_with_its_key_and_in_its_setting_alone() {
        let master = key();
        let secret = "s3cret\nof two lines";
        let envelope = master.seal(secret, "destination.crm.secret").unwrap();
        assert!(envelope.starts_with("enc:v1:") && !envelope.contains("s3cret"));
        assert_ne!(envelope, master.seal(secret, "destination.crm.secret").unwrap());
        assert_eq!(master.open(&envelope, "destination.crm.secret").unwrap(), secret);
        let closed = Err(EnvelopeError::Closed);
        assert_eq!(master.open(&envelope, "destination.ads.secret"), closed);
        assert_eq!(key().open(&envelope, "destination.crm.secret"), closed);
        let whole = URL_SAFE_NO_PAD.decode(&envelope[SEALED.len()..]).unwrap();
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            let changed = format!("{SEALED}{}", URL_SAFE_NO_PAD.encode(changed));
            assert_eq!(master.open(&changed, "destination.crm.secret"), closed, "{at}");
            let cut = format!("{SEALED}{}", URL_SAFE_NO_PAD.encode(&whole[..at]));
            assert!(master.open(&cut, "destination.crm.secret").is_err(), "{at}");
        }
        for wrong in ["", "enc:v1:", "enc:v1:!", "enc:v2:AAAA"] {
            assert_eq!(master.open(wrong, "x"), Err(EnvelopeError::Form), "{wrong}");
        }
    }

    #[test]
    fn another_master_key_wraps_it_anew_and_the_one_before_opens_it_no_more() {
        let (old, new) = (key(), key());
        let envelope = old.seal("s3cret", "cluster.secret").unwrap();
        let moved = old.rewrap(&envelope, &new).unwrap();
        assert_eq!(new.open(&moved, "cluster.secret").unwrap(), "s3cret");
        assert_eq!(old.open(&moved, "cluster.secret"), Err(EnvelopeError::Closed));
        assert_eq!(new.rewrap(&envelope, &old), Err(EnvelopeError::Closed));
    }

    #[test]
    fn what_is_no_key_or_no_secret_is_told() {
        for wrong in ["", "00", &"0".repeat(63), &"g".repeat(64), &"é".repeat(32)] {
            assert!(matches!(MasterKey::parse(wrong), Err(EnvelopeError::Key)), "{wrong}");
        }
        for wrong in [String::new(), "x".repeat(MOST + 1)] {
            assert_eq!(key().seal(&wrong, "x"), Err(EnvelopeError::Length));
        }
    }
}
