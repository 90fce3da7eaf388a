//! Reading the audit log, and checking it.

use actix_web::HttpResponse;
use actix_web::web;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use super::CheckError;
use crate::console::Services;
use crate::console::api::shapes::Limit;
use crate::console::asking::ask;
use crate::console::problem::Problem;
use crate::store::StoreError;
use crate::store::audit::Broken;
use crate::store::audit::Record;
use crate::store::chain;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "AuditAsked")]
pub(in crate::console) struct Page {
    /// The number of the last record that is known already; from the first where it is left out.
    #[serde(default)]
    #[schemars(range(max = 18_446_744_073_709_551_615_u64))]
    after: u64,
    /// How many at most.
    #[serde(default)]
    limit: Limit,
}

/// Records, from the oldest to the newest.
#[derive(Serialize, JsonSchema)]
pub(in crate::console) struct AuditPage {
    records: Vec<Record>,
    /// The numbers of those that cannot be read, or that this server has not written: somebody has changed them.
    unreadable: Vec<u64>,
    /// What `after` is of the next page; none where this is the last.
    next: Option<u64>,
}

/// What a check of the whole log found.
#[derive(Serialize, JsonSchema)]
pub(in crate::console) struct AuditCheck {
    /// Whether nothing was changed, left out or cut off.
    ok: bool,
    /// How many records follow each other without a fault.
    records: u64,
    /// The number of the first one that is kept.
    first: Option<u64>,
    /// The number of the last one.
    last: Option<u64>,
    /// The hash of the last one: who writes it down elsewhere can tell later whether all was replaced.
    hash: Option<String>,
    /// The number of the record where the log is broken.
    broken_at: Option<u64>,
    /// What is wrong there.
    why: Option<String>,
}

/// `GET /api/v1/audit`
pub(in crate::console) async fn list(
    services: web::Data<Services>,
    page: web::Query<Page>,
) -> Result<HttpResponse, Problem> {
    let Page { after, limit: Limit(limit) } = page.into_inner();
    let read = web::block(move || {
        let lines = services.audit.log.lines(after, limit)?;
        let told = services.audit.told(&lines)?;
        Ok::<_, StoreError>((lines, told))
    });
    let read = read.await.map_err(|error| Problem::internal(&error))?;
    let (lines, (records, unreadable)) = read.map_err(|error| unavailable(&error))?;
    // A forged number leads nowhere while there is a right one.
    let known = records.last().map(|record| record.number);
    let last = known.or(lines.last().map(|(number, _)| *number));
    let next = last.filter(|_| lines.len() == limit);
    Ok(HttpResponse::Ok().json(AuditPage { records, unreadable, next }))
}

/// `GET /api/v1/audit/check`: reads all of the log.
pub(in crate::console) async fn check(
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let found = ask(move |caller| match services.audit.check(&|| caller.still_wanted().is_ok()) {
        Ok(checked) => Ok::<_, Problem>(AuditCheck {
            ok: true,
            records: checked.records,
            first: checked.first,
            last: checked.last.as_ref().map(|(number, _)| *number),
            hash: checked.last.map(|(_, hash)| hash),
            broken_at: None,
            why: None,
        }),
        Err(CheckError::Broken(Broken { number, why })) => Ok(AuditCheck {
            ok: false,
            records: number.saturating_sub(1),
            first: None,
            last: None,
            hash: None,
            broken_at: Some(number),
            why: Some(why),
        }),
        Err(CheckError::Store(error)) => Err(unavailable(&error)),
    });
    Ok(HttpResponse::Ok().json(found.await?))
}

fn unavailable(error: &StoreError) -> Problem {
    Problem::unavailable(format!("the audit log cannot be read: {}", chain(error)))
}
