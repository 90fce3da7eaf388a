//! Many commands at once, each to the node that holds its key: one exchange with every node, all under way together.

use std::collections::BTreeMap;
use std::time::Duration;
use std::time::Instant;

use redis::Cmd;
use redis::RedisError;
use redis::Value;

use super::link::Link;
use super::link::Pause;
use super::nodes::Trouble;
use super::reply;
use super::route;
use super::route::Address;
use crate::store::StoreError;

/// How long one WAIT waits.
pub(super) const WAIT: Duration = Duration::from_millis(500);

/// A command on its way.
struct Call {
    slot: u16,
    cmd: Cmd,
    answer: Option<Value>,
    /// Where it is to be asked, by the node that does not have its key any more.
    asked: Option<Address>,
}

/// What one node is sent, by its place among the calls.
struct Part {
    node: Address,
    asking: bool,
    calls: Vec<usize>,
}

impl Link {
    /// Runs commands, each routed by its key, until all are answered; what is answered is not sent again. Their order
    /// may change, so none counts on another.
    ///
    /// With `replicas`, an answer counts when so many replicas of its node have what was written there before. A
    /// command that is repeated for their sake has to write nothing the second time.
    pub(super) fn spread(
        &self,
        cmds: Vec<(&str, Cmd)>,
        replicas: Option<u8>,
        patience: Duration,
    ) -> Result<Vec<Value>, StoreError> {
        let call = |(key, cmd)| Call { slot: route::slot(key), cmd, answer: None, asked: None };
        let mut calls: Vec<Call> = cmds.into_iter().map(call).collect();
        let mut pause = Pause::until(Instant::now() + patience);
        loop {
            match self.exchange_all(&mut calls, replicas) {
                Ok(()) => return Ok(calls.into_iter().filter_map(|call| call.answer).collect()),
                Err(trouble) => self.face(trouble, &mut pause)?,
            }
        }
    }

    /// Sends what has no answer yet, and takes the answers.
    fn exchange_all(&self, calls: &mut [Call], replicas: Option<u8>) -> Result<(), Trouble> {
        let mut trouble = None;
        let mut parts: Vec<Part> = Vec::new();
        // Many calls are of few slots: which part is theirs.
        let mut part_of: BTreeMap<u16, usize> = BTreeMap::new();
        for (at, call) in calls.iter_mut().enumerate().filter(|(_, call)| call.answer.is_none()) {
            let asked = call.asked.take();
            if asked.is_none()
                && let Some(part) = part_of.get(&call.slot)
            {
                parts[*part].calls.push(at);
                continue;
            }
            let (node, asking) = match asked {
                Some(node) => (node, true),
                None => match self.nodes.holder(call.slot) {
                    Ok(node) => (node, false),
                    Err(found) => {
                        self.note(&mut trouble, found)?;
                        continue;
                    }
                },
            };
            let is_its = |part: &Part| part.node == node && part.asking == asking;
            let place = parts.iter().position(is_its).unwrap_or_else(|| {
                parts.push(Part { node, asking, calls: Vec::new() });
                parts.len() - 1
            });
            parts[place].calls.push(at);
            if !asking {
                part_of.insert(call.slot, place);
            }
        }
        let wait = replicas.map(|replicas| {
            let mut wait = redis::cmd("WAIT");
            wait.arg(replicas).arg(WAIT.as_millis().to_string());
            wait
        });
        let mut under_way = Vec::new();
        for part in parts {
            let cmds: Vec<&Cmd> =
                part.calls.iter().map(|at| &calls[*at].cmd).chain(&wait).collect();
            match self.nodes.send(&part.node, &cmds, part.asking) {
                Ok(sent) => under_way.push((part, sent)),
                Err(found) => self.note(&mut trouble, found)?,
            }
        }
        for (part, sent) in under_way {
            let mut answers = match self.nodes.receive(sent) {
                Ok(answers) => answers,
                Err(found) => {
                    self.note(&mut trouble, found)?;
                    continue;
                }
            };
            if let Some(replicas) = replicas
                && let Err(found) = self.is_replicated(&part.node, answers.pop(), replicas)
            {
                self.note(&mut trouble, found)?;
                continue;
            }
            for (at, answer) in part.calls.into_iter().zip(answers) {
                let call = &mut calls[at];
                match answer {
                    Value::ServerError(error) => {
                        let found = self.heed(&part.node, call.slot, error)?;
                        if let Trouble::Ask(to) = &found {
                            call.asked = Some(to.clone());
                        }
                        self.note(&mut trouble, found)?;
                    }
                    answer => call.answer = Some(answer),
                }
            }
        }
        trouble.map_or(Ok(()), Err)
    }

    /// Whether the answer of WAIT is that so many replicas have everything.
    fn is_replicated(
        &self,
        node: &Address,
        answer: Option<Value>,
        replicas: u8,
    ) -> Result<(), Trouble> {
        let have = match answer {
            Some(Value::ServerError(error)) => return Err(self.nodes.judge(node, error)),
            answer => answer.as_ref().and_then(reply::number).unwrap_or(0),
        };
        if have >= u64::from(replicas) {
            return Ok(());
        }
        let told = format!("{have} of {replicas} replicas have what was appended");
        Err(Trouble::Wait(RedisError::from(std::io::Error::other(told))))
    }

    /// Keeps what has to be waited for, rather than what is met with another try at once.
    fn note(&self, trouble: &mut Option<Trouble>, found: Trouble) -> Result<(), Trouble> {
        match &found {
            Trouble::Never(_) => return Err(found),
            Trouble::Lost(_) => self.nodes.forget(),
            Trouble::Moved(_) | Trouble::Ask(_) | Trouble::Missing if trouble.is_some() => {
                return Ok(());
            }
            _ => {}
        }
        *trouble = Some(found);
        Ok(())
    }
}
