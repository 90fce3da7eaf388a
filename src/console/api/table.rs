//! Every call.

use actix_web::http::Method;

use super::Call;
use super::NDJSON;
use super::Need;
use super::openapi;
use crate::console::audiences;
use crate::console::audit;
use crate::console::backup;
use crate::console::cost;
use crate::console::destinations;
use crate::console::doctor;
use crate::console::estimate;
use crate::console::health;
use crate::console::history;
use crate::console::import;
use crate::console::letters;
use crate::console::lookalike;
use crate::console::nodes;
use crate::console::overlap;
use crate::console::partners;
use crate::console::privacy;
use crate::console::profiles;
use crate::console::quarantine;
use crate::console::rules;
use crate::console::segments;
use crate::console::store;
use crate::console::tokens::Scope;
use crate::segment::Plan;

/// What `/metrics` is, as Prometheus asks for it.
const METRICS: &str = "text/plain; version=0.0.4";
const TEXT: &str = "text/plain; charset=utf-8";
const TOML: &str = "application/toml";

macro_rules! calls {
    ($($method:ident $path:literal $need:expr, $handler:path, $summary:literal $(.$with:ident $(::<$kind:ty>)? ($($argument:expr),*))*;)*) => {
        vec![$(
            Call::new(Method::$method, $path, $handler, $need, $summary)$(.$with$(::<$kind>)?($($argument),*))*
        ),*]
    };
}

/// Makes the table.
pub(super) fn calls() -> Vec<Call> {
    let mut all = probes();
    all.extend(of_segments());
    all.extend(of_profiles());
    all.extend(of_privacy());
    all.extend(of_destinations());
    all.extend(of_events());
    all.extend(of_server());
    all
}

fn probes() -> Vec<Call> {
    calls! {
        GET "/livez" Need::Nothing, health::live, "Whether no thread has died that only a restart brings back"
            .gives_text(200, TEXT) .gives_text(503, TEXT);
        GET "/readyz" Need::Nothing, health::ready, "Whether events are taken and durable"
            .gives_text(200, TEXT) .gives_text(503, TEXT);
        GET "/metrics" Need::Metrics, health::metrics, "Metrics, as Prometheus reads them"
            .gives_text(200, METRICS);
        GET "/openapi.json" Need::Token, openapi, "This document"
            .gives::<super::shapes::Object>();
    }
}

fn of_segments() -> Vec<Call> {
    calls! {
        GET "/api/v1/segments" Scope::Read, segments::list, "The live segments, and what is wrong with files"
            .gives::<segments::Listed>();
        GET "/api/v1/segments/{id}" Scope::Read, segments::show, "A segment with the text of its file"
            .gives::<segments::Shown>();
        PUT "/api/v1/segments/{id}" Scope::Segments, segments::put, "Writes a segment's file; it is live when answered"
            .takes::<segments::Sent>() .takes_text(TOML)
            .gives::<segments::Written>() .gives_as::<segments::Written>(201) .refuses(&[409, 422]);
        DELETE "/api/v1/segments/{id}" Scope::Segments, segments::delete, "Removes a segment's file"
            .gives_nothing() .refuses(&[409, 422]);
        POST "/api/v1/plan" Scope::Read, segments::plan, "What other files would change; nothing does"
            .asks() .takes::<segments::Wanted>() .gives::<Plan>() .refuses(&[404, 409, 422]);
        POST "/api/v1/apply" Scope::Segments, segments::apply, "Does what a plan says, all or nothing; it is live when answered"
            .takes::<segments::Planned>() .gives::<segments::Applied>() .refuses(&[404, 409, 422]);
        GET "/api/v1/audiences" Scope::Read, audiences::list, "The audiences of the newest generation"
            .query::<audiences::List>() .gives::<audiences::Listed>();
        GET "/api/v1/audiences/{id}" Scope::Read, audiences::show, "An audience, and what its segment says"
            .gives::<audiences::Shown>();
        GET "/api/v1/audiences/{id}/members" Scope::Read, audiences::members, "A line of JSON for each identifier of members, each once, in no order"
            .query::<audiences::As>() .gives_members() .refuses(&[409, 422]);
        GET "/api/v1/audiences/{id}/history" Scope::Read, history::history, "The sizes of an audience, and who came and went, by hour or day"
            .query::<history::Asked>() .gives::<history::History>() .refuses(&[409, 422]);
        GET "/api/v1/audiences/{id}/lookalike" Scope::Read, lookalike::show, "What a look-alike has learnt"
            .gives::<super::shapes::Object>() .refuses(&[409]);
        POST "/api/v1/audiences/{id}/lookalike" Scope::Segments, lookalike::train, "Trains a look-alike now; answers when its members are published"
            .gives::<super::shapes::Object>() .refuses(&[409]);
        POST "/api/v1/overlap" Scope::Read, overlap::overlap, "The regions of up to six audiences, or what many share two by two"
            .asks() .takes::<overlap::Asked>() .gives::<overlap::Overlap>() .refuses(&[404, 409, 422]);
        GET "/api/v1/costs" Scope::Read, cost::costs, "What each live segment costs, all evaluated once"
            .gives::<cost::Costs>();
        POST "/api/v1/check" Scope::Read, rules::check, "What the author of a rule is told"
            .asks() .takes::<rules::Text>() .gives::<rules::Checked>();
        POST "/api/v1/eval" Scope::Read, rules::eval, "How many a rule holds; with `members` or `progress` lines of JSON"
            .asks() .takes::<rules::Asked>() .gives::<rules::Counted>() .or_gives_text(NDJSON) .refuses(&[409, 422]);
        POST "/api/v1/estimate" Scope::Read, estimate::estimate, "About how many a rule holds, in lines of JSON, ever more exactly"
            .asks() .takes::<estimate::Asked>() .gives_text(200, NDJSON) .refuses(&[409, 422]);
        POST "/api/v1/explain" Scope::Read, rules::explain, "How a rule is answered"
            .asks() .takes::<rules::ExplainAsked>() .gives::<rules::Explained>() .refuses(&[409, 422]);
    }
}

fn of_profiles() -> Vec<Call> {
    calls! {
        GET "/api/v1/profiles/{namespace}/{value}" Scope::Read, profiles::show, "A profile: what is held of it"
            .gives::<super::shapes::Object>() .refuses(&[400, 422]);
        GET "/api/v1/profiles/{namespace}/{value}/audiences" Scope::Read, profiles::audiences, "The audiences that a profile is in"
            .gives::<profiles::Audiences>() .refuses(&[400, 422]);
        GET "/api/v1/profiles/{namespace}/{value}/why/{segment}" Scope::Read, profiles::why, "Clause by clause why a profile is in a segment or not, and until when"
            .query::<profiles::WhyAsked>() .gives::<super::shapes::Object>() .refuses(&[409, 422]);
        GET "/api/v1/schema" Scope::Read, profiles::schema, "The events and their properties, as they were seen"
            .gives::<profiles::Schema>();
    }
}

fn of_privacy() -> Vec<Call> {
    calls! {
        POST "/api/v1/privacy/access" Scope::Privacy, privacy::access, "All that is held of someone"
            .asks() .takes::<privacy::Subject>() .gives::<super::shapes::Object>() .refuses(&[422]);
        POST "/api/v1/privacy/erase" Scope::Privacy, privacy::erase, "Erases someone; 202 while anything is pending"
            .takes::<privacy::ToErase>() .gives::<super::shapes::Object>()
            .gives_as::<super::shapes::Object>(202) .refuses(&[422]);
        POST "/api/v1/privacy/opt-out" Scope::Privacy, privacy::opt_out, "Keeps someone out of every destination, or no longer"
            .takes::<privacy::Choosing>() .gives::<super::shapes::Object>() .refuses(&[422]);
        GET "/api/v1/privacy/receipts" Scope::Privacy, privacy::receipts, "The newest receipts of erasures, as they stand"
            .query::<privacy::Page>() .gives::<super::shapes::Object>();
        GET "/api/v1/privacy/receipts/{id}" Scope::Privacy, privacy::receipt, "A receipt, as it stands and signed now"
            .gives::<super::shapes::Object>();
        GET "/api/v1/privacy/key" Scope::Privacy, privacy::key, "What receipts are verified with"
            .gives::<super::shapes::Object>();
    }
}

fn of_destinations() -> Vec<Call> {
    calls! {
        GET "/api/v1/destinations" Scope::Read, destinations::list, "The destinations, and how they stand"
            .gives::<destinations::Listed>();
        GET "/api/v1/destinations/{name}" Scope::Read, destinations::show, "A destination, and how it stands"
            .gives::<super::shapes::Object>();
        GET "/api/v1/destinations/{name}/deliveries" Scope::Read, destinations::deliveries, "The newest batches, and what became of them"
            .query::<destinations::Page>() .gives::<destinations::Deliveries>();
        GET "/api/v1/destinations/{name}/refused" Scope::Read, destinations::refused, "The identifiers that it would not take"
            .query::<destinations::Page>() .gives::<destinations::RefusedList>();
        GET "/api/v1/destinations/{name}/waterfall" Scope::Read, destinations::waterfall, "What is left of audiences at each step, and why"
            .query::<destinations::OfSegment>() .gives::<destinations::Waterfalls>();
        POST "/api/v1/destinations/{name}/push" Scope::Destinations, destinations::push, "Pushes now what everything acknowledged says"
            .query::<destinations::Push>() .gives::<destinations::Reports>();
        POST "/api/v1/destinations/{name}/test" Scope::Destinations, destinations::test, "Whether a batch would be taken; none is sent"
            .asks() .gives::<destinations::Tested>();
        POST "/api/v1/destinations/{name}/pause" Scope::Destinations, destinations::pause, "Pauses it"
            .gives::<destinations::Paused>();
        POST "/api/v1/destinations/{name}/resume" Scope::Destinations, destinations::resume, "Lets it go on"
            .gives::<destinations::Paused>();
        POST "/api/v1/destinations/{name}/replay" Scope::Destinations, destinations::replay, "Sends all that it holds again"
            .gives::<destinations::Reports>();
        POST "/api/v1/destinations/{name}/resync" Scope::Destinations, destinations::resync, "Sends again what is not known for sure to be there"
            .gives::<destinations::Reports>();
        POST "/api/v1/destinations/{name}/reseed" Scope::Destinations, destinations::reseed, "Empties it and fills it anew"
            .gives::<destinations::Reports>();
    }
}

fn of_events() -> Vec<Call> {
    calls! {
        GET "/api/v1/import/events" Scope::Import, import::status, "How far an import has come"
            .query::<import::Asked>() .gives::<import::Status>() .refuses(&[422]);
        POST "/api/v1/import/events" Scope::Import, import::take, "Takes lines of JSON, durable when answered"
            .query::<import::Given>() .takes_text(NDJSON) .takes_text("text/plain") .gives::<import::Taken>() .refuses(&[409, 413, 422]);
        GET "/api/v1/dead-letters" Scope::Read, letters::list, "What was accepted and could not be folded"
            .query::<letters::Page>() .gives::<letters::Listed>();
        GET "/api/v1/dead-letters/{number}" Scope::Read, letters::show, "A dead letter with its bytes"
            .gives::<letters::Shown>() .refuses(&[400]);
        DELETE "/api/v1/dead-letters/{number}" Scope::Import, letters::drop, "Drops a dead letter"
            .gives_nothing() .refuses(&[400]);
        GET "/api/v1/quarantine" Scope::Read, quarantine::list, "Who kept sending and is set aside, on this node"
            .gives::<super::shapes::Object>();
        POST "/api/v1/quarantine/{namespace}/{value}/restore" Scope::Import, quarantine::restore, "Puts the events of one who was set aside into the journal"
            .gives::<super::shapes::Object>() .refuses(&[400, 422]);
        GET "/api/v1/partners" Scope::Read, partners::list, "The partners that cookies are synced with, and how many of their ids count"
            .gives::<super::shapes::Object>();
    }
}

fn of_server() -> Vec<Call> {
    calls! {
        POST "/api/v1/backup" Scope::Admin, backup::take, "Copies the store into a directory of the server; lines of JSON tell how far it is"
            .takes::<backup::Asked>() .gives_text(200, NDJSON) .refuses(&[409]);
        GET "/api/v1/store/size" Scope::Read, store::size, "What the store takes"
            .gives::<store::Sizes>();
        GET "/api/v1/doctor" Scope::Read, doctor::look, "A checkup of the server and of what it stands on"
            .gives::<doctor::Checkup>();
        GET "/api/v1/nodes" Scope::Read, nodes::list, "The nodes that share the store"
            .gives::<nodes::Nodes>() .refuses(&[404]);
        DELETE "/api/v1/nodes/{node}" Scope::Admin, nodes::retire, "Strikes a node off: what it has not shipped is not waited for"
            .query::<nodes::Retire>() .gives::<nodes::Retired>() .refuses(&[409]);
        GET "/api/v1/audit" Scope::Admin, audit::list, "Who changed what, from the oldest record to the newest"
            .query::<audit::Page>() .gives::<audit::AuditPage>();
        GET "/api/v1/audit/check" Scope::Admin, audit::check, "Whether the audit log is as it was written"
            .gives::<audit::AuditCheck>();
        GET "/api/v1/tokens" Scope::Admin, health::tokens, "The tokens, without their secrets"
            .gives::<health::TokensListed>();
        POST "/api/v1/tokens" Scope::Admin, health::create_token, "Makes a token; its secret is shown this once"
            .takes::<health::NewToken>() .gives::<health::Made>() .refuses(&[409, 422]);
        DELETE "/api/v1/tokens/{name}" Scope::Admin, health::revoke_token, "Makes a token worthless"
            .gives_nothing();
    }
}
