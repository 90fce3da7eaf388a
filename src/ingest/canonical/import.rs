//! Lines of an import, trusted as to where they come from, under the same rules for values.

use super::Agents;
use super::Arrival;
use super::Code;
use super::Dropped;
use super::Rejection;
use super::Sent;
use super::Window;
use super::sent::Unreadable;
use crate::model::Event;
use crate::model::ImportLines;
use crate::model::Millis;
use crate::model::NamespaceOrder;
use crate::model::RejectedLine;
use crate::model::Source;
use crate::model::record::ImportedEvent;

/// What all lines of one import share.
#[derive(Debug, Clone, Copy)]
pub struct Import<'a> {
    /// The file's hash, or the name that its user gave: what message ids are made from.
    pub name: &'a str,
    /// When the lines were received.
    pub received: Millis,
    /// The order in which an identifier owns an event.
    pub order: &'a NamespaceOrder,
    /// The country of each site's phone numbers without `+`, for the sites that state one.
    pub phone_countries: &'a [(&'a str, &'a str)],
}

/// Reads whole lines of NDJSON, the first of them with the number `first_line`, from 1.
///
/// Blank lines count as lines and are neither accepted nor rejected. What identifiers were dropped is
/// added to `dropped`.
pub fn import_lines(
    import: &Import<'_>,
    first_line: u64,
    text: &[u8],
    agents: &mut Agents,
    dropped: &mut Dropped,
) -> ImportLines {
    let mut taken = ImportLines {
        import: import.name.into(),
        first_line,
        lines: 0,
        events: Vec::new(),
        rejected: Vec::new(),
    };
    if text.is_empty() {
        return taken;
    }
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    for line_text in text.split(|byte| *byte == b'\n') {
        let line = first_line + taken.lines;
        taken.lines += 1;
        let bom: &[u8] = if line == 1 { b"\xef\xbb\xbf" } else { b"" };
        let line_text = line_text.strip_prefix(bom).unwrap_or(line_text).trim_ascii();
        if line_text.is_empty() {
            continue;
        }
        match import_line(import, line_text, agents, dropped) {
            Ok(mut event) => {
                let own_message_id = event.message_id.is_some();
                if !own_message_id {
                    event.message_id = Some(format!("{}:{line}", import.name).into());
                }
                taken.events.push(ImportedEvent { line, own_message_id, event });
            }
            Err(rejection) => taken.rejected.push(RejectedLine {
                line,
                code: rejection.code.as_str().into(),
                message: rejection.message.into(),
            }),
        }
    }
    taken
}

fn import_line(
    import: &Import<'_>,
    text: &[u8],
    agents: &mut Agents,
    dropped: &mut Dropped,
) -> Result<Event, Rejection> {
    let sent = Sent::parse(text).map_err(Unreadable::into_rejection)?;
    let site = sent.site()?;
    if site.is_empty() || site.len() > 128 || site.chars().any(char::is_control) {
        let message = "site: expected 1 to 128 bytes without control characters";
        return Err(Rejection::new(Code::Site, message));
    }
    let phone_country =
        import.phone_countries.iter().find(|(key, _)| *key == site).map(|(_, country)| *country);
    let arrival = Arrival {
        source: Source::Import,
        received: import.received,
        window: Window::Any,
        order: import.order,
        phone_country,
        cookie: None,
        user_agent: None,
        country: None,
        locale: None,
        consent: None,
    };
    sent.into_event(&arrival, agents, &mut || None, dropped)
}
