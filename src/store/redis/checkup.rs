//! A checkup of the Redis servers: whether they answer, keep what was promised, and have room.

use std::collections::BTreeMap;

use super::link::Link;
use super::mode::Mode;
use super::reply;
use crate::store::chain;
use crate::store::health::Checkup as Port;
use crate::store::health::Finding;
use crate::store::health::SERVERS;
use crate::store::health::State;
use crate::store::health::bytes;

/// Looks at every primary of a link.
#[derive(Debug)]
pub struct Checkup {
    link: Link,
    mode: Mode,
}

/// A server, with what it tells of itself.
struct Server {
    name: String,
    info: BTreeMap<String, String>,
}

/// Functions are there since this version.
const LEAST: u32 = 7;
/// A server that uses more of its memory, in hundredths, is about to be full.
const FULL: u64 = 85;
/// How many slots a cluster has.
const SLOTS: &str = "16384";

impl Checkup {
    /// A checkup of the servers behind a link, for what a mode promises. The link's patience is how long it lasts.
    pub fn new(link: Link, mode: Mode) -> Self {
        Self { link, mode }
    }

    /// What a command says on every primary that answers it; the others are told, as are those that refuse it.
    fn ask(&self, check: &str, cmd: &[&str], found: &mut Vec<Finding>) -> Vec<Server> {
        let mut asked = redis::cmd(cmd[0]);
        asked.arg(&cmd[1..]);
        let answers = match self.link.each(&asked) {
            Ok(answers) => answers,
            Err(error) => {
                let advice = "start the servers of `store.url`, or mend the way to them and their user's password; \
                              collecting goes on meanwhile where events are kept on a disk first";
                found.push(Finding::ill(check, chain(&error), advice));
                return Vec::new();
            }
        };
        let mut servers = Vec::new();
        for (name, answer) in answers {
            match answer {
                Ok(answer) => {
                    let info = reply::text(&answer).map(parse).unwrap_or_default();
                    servers.push(Server { name, info });
                }
                Err(refused) if refused.contains("NOPERM") => found.push(Finding::note(
                    check,
                    format!("{name} does not let its user call {}", cmd.join(" ")),
                    "give the user what config/redis/users.acl has, so that this can be looked at",
                )),
                Err(trouble) => found.push(Finding::ill(
                    check,
                    format!("{name} does not answer: {trouble}"),
                    "start it, or mend the way to it; a cluster fails over to a replica where there is one",
                )),
            }
        }
        servers
    }

    fn durability(&self) -> Finding {
        const CHECK: &str = "durability";
        match self.mode.verify(&self.link) {
            Ok(advice) if advice.is_empty() => {
                Finding::well(CHECK, format!("every primary keeps what {} promises", self.mode))
            }
            Ok(advice) => Finding::ill(
                CHECK,
                format!("Redis does not keep what {} promises", self.mode),
                advice.join("; "),
            ),
            Err(error) => Finding::note(
                CHECK,
                format!("it cannot be verified: {}", chain(&error)),
                "where CONFIG is not allowed, see to it yourself: appendonly yes, appendfsync everysec, \
                 maxmemory-policy noeviction",
            ),
        }
    }
}

impl Port for Checkup {
    fn check(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        let servers = self.ask(SERVERS, &["INFO"], &mut found);
        if !servers.is_empty() {
            let of = |server: &Server| format!("{} ({})", server.name, server.is("redis_version"));
            let all: Vec<String> = servers.iter().map(of).collect();
            found.push(Finding::well(SERVERS, format!("Redis answers: {}", all.join(", "))));
        }
        let all_answer = found.iter().all(|finding| finding.state != State::Ill);
        if servers.is_empty() && !all_answer {
            return found;
        }
        found.extend(judge(&servers));
        if all_answer {
            found.push(self.durability());
        }
        if servers.iter().any(|server| server.is("cluster_enabled") == "1") {
            let mut refused = Vec::new();
            let nodes = self.ask("cluster", &["CLUSTER", "INFO"], &mut refused);
            // Who does not answer was told.
            found.extend(refused.into_iter().filter(|finding| finding.state != State::Ill));
            found.extend(cluster(&nodes));
        }
        found
    }
}

impl Server {
    fn is(&self, field: &str) -> &str {
        self.info.get(field).map_or("", String::as_str)
    }

    fn number(&self, field: &str) -> u64 {
        self.is(field).parse().unwrap_or(0)
    }
}

/// The fields of an INFO: lines of a name, a colon and a value.
fn parse(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter_map(|line| line.trim_end().split_once(':'));
    lines.map(|(field, value)| (field.to_owned(), value.to_owned())).collect()
}

/// What the servers tell of themselves, check by check: all that is wrong, or that nothing is.
fn judge(servers: &[Server]) -> Vec<Finding> {
    if servers.is_empty() {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut each = |check: &str, well: String, judge: &dyn Fn(&Server) -> Option<Finding>| {
        let before = found.len();
        found.extend(servers.iter().filter_map(judge));
        if found.len() == before {
            found.push(Finding::well(check, well));
        }
    };
    let oldest = servers.iter().map(|server| server.is("redis_version")).min().unwrap_or_default();
    each("version", format!("{oldest} or later"), &version);
    each("primaries", "all servers are".to_owned(), &role);
    each("persistence", "the last writes and rewrites went well".to_owned(), &persistence);
    let used = servers.iter().map(|server| server.number("used_memory")).sum();
    let most: u64 = servers.iter().map(|server| server.number("maxmemory")).sum();
    each("memory", format!("{} of {} used", bytes(used), bytes(most)), &memory);
    found
}

fn version(server: &Server) -> Option<Finding> {
    let version = server.is("redis_version");
    let major: u32 = version.split('.').next()?.parse().ok()?;
    (major < LEAST).then(|| {
        let found = format!("{} is Redis {version}", server.name);
        Finding::ill("version", found, format!("install Redis {LEAST}.0 or later there"))
    })
}

fn role(server: &Server) -> Option<Finding> {
    let role = server.is("role");
    (role == "slave").then(|| {
        let found = format!("{} is a replica, and takes no writes", server.name);
        Finding::ill("primaries", found, "name the primary in `store.url`, or make this one it")
    })
}

fn persistence(server: &Server) -> Option<Finding> {
    const CHECK: &str = "persistence";
    let name = &server.name;
    if server.is("loading") == "1" {
        let found = format!("{name} is still loading what it has kept");
        return Some(Finding::note(CHECK, found, "wait; it answers when it has"));
    }
    let failed: Vec<&str> =
        ["aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status"]
            .into_iter()
            .filter(|field| !matches!(server.is(field), "ok" | ""))
            .collect();
    (!failed.is_empty()).then(|| {
        Finding::ill(
            CHECK,
            format!("{name} could not keep what it has: {} failed", failed.join(", ")),
            "look at its log and the room of its disk; until it can write again it refuses what is to be kept",
        )
    })
}

fn memory(server: &Server) -> Option<Finding> {
    const CHECK: &str = "memory";
    let (name, used, most) =
        (&server.name, server.number("used_memory"), server.number("maxmemory"));
    if most == 0 {
        let advice = "set `maxmemory`, as config/redis/redis.conf does: a full server then refuses writes, and is \
                      not ended by the system";
        return Some(Finding::note(
            CHECK,
            format!("{name} uses {} and has no limit", bytes(used)),
            advice,
        ));
    }
    (used > most / 100 * FULL).then(|| {
        Finding::ill(
            CHECK,
            format!("{name} uses {} of {}", bytes(used), bytes(most)),
            "give it more (`maxmemory`), or another primary; its streams shrink once what is in them is folded and \
             archived, so look whether either is behind",
        )
    })
}

/// What the nodes of a cluster think of it.
fn cluster(nodes: &[Server]) -> Vec<Finding> {
    const CHECK: &str = "cluster";
    let mut found = Vec::new();
    for node in nodes {
        let number = |field| node.number(field);
        let (failing, doubted) = (number("cluster_slots_fail"), number("cluster_slots_pfail"));
        if node.is("cluster_state") != "ok"
            || node.is("cluster_slots_assigned") != SLOTS
            || failing > 0
        {
            found.push(Finding::ill(
                CHECK,
                format!(
                    "{}: state {}, {} of {SLOTS} slots assigned, {failing} failing",
                    node.name,
                    node.is("cluster_state"),
                    node.is("cluster_slots_assigned")
                ),
                "`redis-cli --cluster check` says which nodes are gone: start them, or fail over to their replicas",
            ));
        } else if doubted > 0 {
            let found_there =
                format!("{} does not hear of the holder of {doubted} slots", node.name);
            found.push(Finding::note(
                CHECK,
                found_there,
                "look at that node and at the network between them",
            ));
        }
    }
    if found.is_empty() && !nodes.is_empty() {
        let size = nodes.iter().map(|node| node.is("cluster_size")).next().unwrap_or_default();
        found.push(Finding::well(CHECK, format!("{size} primaries, all slots are held")));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(lines: &[&str]) -> Server {
        let sound = "redis_version:7.0.15\r\nrole:master\r\nloading:0\r\naof_last_write_status:ok\r\n\
                     rdb_last_bgsave_status:ok\r\nused_memory:100\r\nmaxmemory:1000\r\n";
        Server { name: "h:1".to_owned(), info: parse(&format!("{sound}{}", lines.join("\r\n"))) }
    }

    fn wrong(lines: &[&str]) -> Vec<(String, State)> {
        let found = judge(&[server(&[]), server(lines)]);
        let wrong = found.into_iter().filter(|finding| finding.state != State::Well);
        wrong.map(|finding| (finding.check, finding.state)).collect()
    }

    #[test]
    fn what_a_server_tells_of_itself_is_judged() {
        let is = |check: &str, state| vec![(check.to_owned(), state)];
        assert_eq!(wrong(&[]), []);
        assert_eq!(wrong(&["redis_version:6.2.7"]), is("version", State::Ill));
        assert_eq!(wrong(&["role:slave"]), is("primaries", State::Ill));
        assert_eq!(wrong(&["aof_last_write_status:err"]), is("persistence", State::Ill));
        assert_eq!(wrong(&["rdb_last_bgsave_status:err"]), is("persistence", State::Ill));
        assert_eq!(wrong(&["loading:1"]), is("persistence", State::Note));
        assert_eq!(wrong(&["used_memory:900"]), is("memory", State::Ill));
        assert_eq!(wrong(&["maxmemory:0"]), is("memory", State::Note));
    }

    #[test]
    fn a_cluster_is_well_when_every_primary_says_so() {
        let told = |lines: &[&str]| {
            cluster(&[Server { name: "h:1".to_owned(), info: parse(&lines.join("\n")) }])
        };
        let sound = [
            "cluster_state:ok",
            "cluster_slots_assigned:16384",
            "cluster_slots_fail:0",
            "cluster_size:3",
        ];
        assert_eq!(told(&sound)[0].state, State::Well);
        assert_eq!(
            told(&["cluster_state:fail", "cluster_slots_assigned:16384"])[0].state,
            State::Ill
        );
        assert_eq!(
            told(&["cluster_state:ok", "cluster_slots_assigned:16383"])[0].state,
            State::Ill
        );
        let doubted = [&sound[..], &["cluster_slots_pfail:9"]].concat();
        assert_eq!(told(&doubted)[0].state, State::Note);
    }
}
