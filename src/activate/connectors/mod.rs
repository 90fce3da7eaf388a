//! One file for each kind of destination.

mod adobe;
mod api;
mod authorize;
mod avro;
pub mod file;
mod fit;
pub mod gcs;
pub mod google;
mod http;
pub mod linkedin;
pub mod liveramp;
pub mod meta;
pub mod pinterest;
pub mod s3;
pub mod sftp;
#[cfg(test)]
mod testing;
pub mod tiktok;
pub mod trade_desk;
pub mod webhook;
pub mod xandr;

use std::sync::Arc;

pub use authorize::installed_app;

use super::connector::Connector;
use crate::config::Destination;
use crate::config::DestinationKind;
use crate::config::FileStyle;
use crate::net::Clock;
use crate::net::Outgoing;

/// The connector of a configured destination.
pub fn connector(
    destination: &Destination,
    outgoing: &Outgoing,
    clock: &Arc<dyn Clock>,
) -> Box<dyn Connector> {
    let spoken = spoken(destination, outgoing, clock);
    match style(&destination.kind) {
        Some(FileStyle { liveramp: Some(style), gzip, .. }) => {
            Box::new(liveramp::LiveRampConnector::new(style, *gzip, spoken))
        }
        _ => spoken,
    }
}

/// What files hold, of a destination that takes some.
fn style(kind: &DestinationKind) -> Option<&FileStyle> {
    match kind {
        DestinationKind::File { style, .. } => Some(style),
        DestinationKind::S3(to) => Some(&to.style),
        DestinationKind::Gcs(to) => Some(&to.style),
        DestinationKind::Sftp(to) => Some(&to.style),
        _ => None,
    }
}

/// What speaks to it, whatever it says.
fn spoken(
    destination: &Destination,
    outgoing: &Outgoing,
    clock: &Arc<dyn Clock>,
) -> Box<dyn Connector> {
    let allow_private = destination.allow_private;
    let outgoing = &outgoing.allowing_private(allow_private);
    match &destination.kind {
        DestinationKind::File { path, style } => {
            Box::new(file::FileConnector::new(path.clone(), style.clone()))
        }
        DestinationKind::Gcs(settings) => {
            Box::new(gcs::GcsConnector::new(settings.clone(), outgoing.clone()))
        }
        DestinationKind::Google(settings) => {
            Box::new(google::GoogleConnector::new(settings.clone(), outgoing.clone()))
        }
        DestinationKind::LinkedIn(settings) => {
            Box::new(linkedin::LinkedInConnector::new(settings.clone(), outgoing.clone()))
        }
        DestinationKind::Meta(settings) => {
            Box::new(meta::MetaConnector::new(settings.clone(), outgoing.clone()))
        }
        DestinationKind::Pinterest(settings) => {
            Box::new(pinterest::PinterestConnector::new(settings.clone(), outgoing.clone()))
        }
        DestinationKind::TradeDesk(settings) => {
            Box::new(trade_desk::TradeDeskConnector::new(settings.clone(), outgoing.clone()))
        }
        DestinationKind::TikTok(settings) => {
            Box::new(tiktok::TikTokConnector::new(settings.clone(), outgoing.clone()))
        }
        DestinationKind::Sftp(settings) => {
            Box::new(sftp::SftpConnector::new(settings.clone(), allow_private))
        }
        DestinationKind::Xandr(settings) => {
            Box::new(xandr::XandrConnector::new(settings.clone(), outgoing.clone()))
        }
        DestinationKind::S3(settings) => {
            Box::new(s3::S3Connector::new(settings.clone(), allow_private))
        }
        DestinationKind::Webhook { url, secret } => Box::new(webhook::WebhookConnector::new(
            url.clone(),
            secret.clone(),
            outgoing.clone(),
            Arc::clone(clock),
        )),
    }
}
