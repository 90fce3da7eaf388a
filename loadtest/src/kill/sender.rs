//! Clients that post and load the pixel until the server is to be killed.

use super::ledger::{Ledger, Message, value, visitor};
use crate::http::Client;
use crate::random::Random;
use crate::server::Server;
use anyhow::{Result, bail};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// The most messages in one post.
const BATCH: u64 = 20;

/// What one client saw.
#[derive(Default)]
struct Seen {
    sent: Vec<Message>,
    accepted: Vec<Message>,
}

/// What the clients of one round share.
struct Round {
    target: SocketAddr,
    next: AtomicU32,
    answered: AtomicU64,
    dead: AtomicBool,
}

/// Sends until `answers` requests are answered, then kills the server in the middle of the rest.
pub(super) fn load(
    server: &mut Server,
    clients: usize,
    answers: u64,
    ledger: &mut Ledger,
    random: &mut Random,
) -> Result<()> {
    let round = Round {
        target: server.collect()?,
        next: AtomicU32::new(ledger.next()),
        answered: AtomicU64::new(0),
        dead: AtomicBool::new(false),
    };
    let open = ledger.open();
    let seen: Vec<Result<Seen>> = std::thread::scope(|scope| {
        let spawned: Vec<_> = (0..clients.max(2))
            .map(|client| {
                let mut random = Random::new(random.draw());
                // What had no answer is sent again by the first client, before anything else.
                let again = if client == 0 { open.clone() } else { Vec::new() };
                let round = &round;
                scope.spawn(move || {
                    if client % 2 == 0 {
                        post(round, again, &mut random)
                    } else {
                        hit(round, &mut random)
                    }
                })
            })
            .collect();
        while round.answered.load(Ordering::Relaxed) < answers
            && !spawned.iter().all(std::thread::ScopedJoinHandle::is_finished)
        {
            std::thread::yield_now();
        }
        let killed = server.kill();
        round.dead.store(true, Ordering::Relaxed);
        let joined = spawned.into_iter().map(|thread| thread.join());
        let mut seen: Vec<Result<Seen>> = joined
            .map(|seen| seen.unwrap_or_else(|_| Err(anyhow::anyhow!("a client panicked"))))
            .collect();
        seen.extend(killed.err().map(Err));
        seen
    });
    for seen in seen {
        let seen = seen?;
        seen.sent.into_iter().for_each(|message| ledger.sent(message));
        seen.accepted.into_iter().for_each(|message| ledger.accepted(message));
    }
    ledger.used(round.next.load(Ordering::Relaxed));
    Ok(())
}

impl Round {
    /// Takes `count` messages that nobody else sends.
    fn take(&self, count: u32) -> Vec<Message> {
        let first = self.next.fetch_add(count, Ordering::Relaxed);
        (first..first + count).collect()
    }

    /// Whether an error is that of a server that was killed; before that it is one to report.
    fn over(&self, error: anyhow::Error) -> Result<()> {
        if self.dead.load(Ordering::Relaxed) || was_cut(&error) {
            return Ok(());
        }
        Err(error)
    }
}

/// Whether the connection was cut. The kill shows here before it shows in `dead`; a server that ends by
/// itself shows at the kill, which then fails.
fn was_cut(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some()
        || error.to_string().contains("closed the connection")
}

fn post(round: &Round, again: Vec<Message>, random: &mut Random) -> Result<Seen> {
    let mut seen = Seen::default();
    let mut client = match Client::connect(round.target) {
        Ok(client) => client,
        Err(error) => return round.over(error).map(|()| seen),
    };
    let mut again = again.chunks(usize::try_from(BATCH)?);
    while !round.dead.load(Ordering::Relaxed) {
        let batch = match again.next() {
            Some(batch) => batch.to_vec(),
            None if random.below(20) == 0 && !seen.accepted.is_empty() => {
                seen.accepted[seen.accepted.len().saturating_sub(3)..].to_vec()
            }
            None => round.take(1 + u32::try_from(random.below(BATCH))?),
        };
        let events: Vec<String> = batch.iter().map(|message| event(*message)).collect();
        seen.sent.extend(&batch);
        match client.post("/v1/events", &format!("[{}]", events.join(","))) {
            Ok((head, _, body)) if head.status == 200 => {
                let answer: serde_json::Value = serde_json::from_slice(body)?;
                if answer["accepted"].as_u64() != Some(batch.len() as u64) {
                    bail!("of {} messages not all were accepted: {answer}", batch.len());
                }
                seen.accepted.extend(&batch);
                round.answered.fetch_add(1, Ordering::Relaxed);
            }
            Ok((head, _, _)) => bail!("a post was answered with {}", head.status),
            Err(error) => return round.over(error).map(|()| seen),
        }
    }
    Ok(seen)
}

fn hit(round: &Round, random: &mut Random) -> Result<Seen> {
    let mut seen = Seen::default();
    let mut client = match Client::connect(round.target) {
        Ok(client) => client,
        Err(error) => return round.over(error).map(|()| seen),
    };
    while !round.dead.load(Ordering::Relaxed) {
        let message = match seen.accepted.last() {
            Some(last) if random.below(20) == 0 => *last,
            _ => round.take(1)[0],
        };
        seen.sent.push(message);
        match client.get(&format!(
            "/pixel.gif?s=demo&e=kill_hit&m=k{message}&id.user_id=k{}&p.value={}&p.note=pixel",
            visitor(message),
            value(message)
        )) {
            Ok((head, _, _)) if head.status == 200 => {
                seen.accepted.push(message);
                round.answered.fetch_add(1, Ordering::Relaxed);
            }
            Ok((head, _, _)) => bail!("a hit was answered with {}", head.status),
            Err(error) => return round.over(error).map(|()| seen),
        }
    }
    Ok(seen)
}

fn event(message: Message) -> String {
    format!(
        r#"{{"site":"demo","event":"kill_hit","message_id":"k{message}","ids":{{"user_id":"k{}"}},"props":{{"value":{},"note":"post"}}}}"#,
        visitor(message),
        value(message)
    )
}
