//! Lanes that are read while their owners go on: their pins are renewed by a thread.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::MoveError;
use super::renewing::Renewing;
use super::unfit;
use crate::store::StoreError;
use crate::store::chain;
use crate::store::redis::NoPin;
use crate::store::redis::Pin;
use crate::store::redis::Store;

/// For how long lanes are pinned. What whoever reads them leaves behind when it dies stays no longer.
const KEEP: Duration = Duration::from_secs(10);
/// How often pins are renewed.
const RENEW: Duration = Duration::from_secs(2);

/// Pins of all lanes, each until it is let go.
pub(super) struct Pins {
    pins: Arc<Vec<Mutex<Option<Pin>>>>,
    renewing: Option<Renewing>,
}

impl Pins {
    /// Pins every lane, or tells who reads one.
    pub(super) fn take(store: &Store, reader: &str) -> Result<Self, MoveError> {
        let mut pins = Self { pins: Arc::default(), renewing: None };
        let mut taken = Vec::new();
        for lane in 0..store.layout().lanes() {
            let pin = match store.pin(lane, reader, KEEP) {
                Ok(Ok(pin)) => Ok(pin),
                Ok(Err(no)) => Err(refused(lane, no)),
                Err(error) => Err(error.into()),
            };
            match pin {
                Ok(pin) => taken.push(Mutex::new(Some(pin))),
                Err(error) => {
                    pins.pins = Arc::new(taken);
                    return Err(error);
                }
            }
        }
        pins.pins = Arc::new(taken);
        let renewed = pins.pins.clone();
        pins.renewing = Some(Renewing::start(RENEW, move || {
            for pin in renewed.iter() {
                let renewed = pin.lock().as_ref().map(|pin| pin.renew(KEEP));
                if let Some(Err(error)) = renewed {
                    // Where it was over by the end, that is told then.
                    tracing::warn!(error = %chain(&error), "a pin could not be renewed");
                }
            }
        })?);
        Ok(pins)
    }

    /// Lets a lane go that has been read. What was read is whole if the pin was never over.
    pub(super) fn let_go(&self, lane: u16) -> Result<(), MoveError> {
        let Some(pin) = self.pins.get(usize::from(lane)).and_then(|pin| pin.lock().take()) else {
            return Ok(());
        };
        let whole = pin.renew(KEEP)?;
        let gone = pin.let_go();
        whole.map_err(|no| refused(lane, no))?;
        Ok(gone?)
    }

    /// What an error is due to: contents are missing of a lane whose pin was over.
    pub(super) fn explain(&self, error: MoveError) -> MoveError {
        let may_be = matches!(
            &error,
            MoveError::Store(StoreError::Malformed { .. })
                | MoveError::Journal(_)
                | MoveError::Archive(_)
        );
        if !may_be {
            return error;
        }
        for (lane, pin) in (0..).zip(self.pins.iter()) {
            if let Some(pin) = &*pin.lock()
                && let Ok(Err(no)) = pin.renew(KEEP)
            {
                return refused(lane, no);
            }
        }
        error
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        self.renewing = None;
        for pin in self.pins.iter() {
            if let Some(pin) = pin.lock().take() {
                // Where it cannot be let go it ends by itself.
                let _ = pin.let_go();
            }
        }
    }
}

fn refused(lane: u16, no: NoPin) -> MoveError {
    let why = match no {
        NoPin::Nothing => "no node has ever had it: start one that works".to_owned(),
        NoPin::Taken(reader, left) => format!(
            "{reader} is under way: wait until it has ended; if its node is gone, for {} s",
            left.as_secs() + 1
        ),
        NoPin::Over => "what it held could not be kept until it was read: Redis failed over, or was out of reach \
                        for too long; take another backup"
            .to_owned(),
    };
    unfit(format!("lane {lane}"), why)
}
