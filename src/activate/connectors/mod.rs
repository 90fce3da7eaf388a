//! One file for each kind of destination.

pub mod file;

use super::connector::Connector;
use crate::config::Destination;
use crate::config::DestinationKind;

/// The connector of a configured destination.
pub fn connector(destination: &Destination) -> Box<dyn Connector> {
    match &destination.kind {
        DestinationKind::File { path, format } => {
            Box::new(file::FileConnector::new(path.clone(), *format))
        }
    }
}
