//! Real Redis processes for tests: started in temporary directories on free ports, ended with the test process.
//!
//! Each server runs below a shell that waits for the end of its input and then kills it: whatever ends the test
//! process, a panic or a signal, closes that pipe.

use std::io::BufRead;
use std::io::BufReader;
use std::net::TcpListener;
use std::net::TcpStream;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Mutex;
use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::kill_process;
use tempfile::TempDir;

use super::certificates::Certificates;

/// How long a test waits for what has to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until something holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "it never happened: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A port that nobody has now.
fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// One Redis server.
pub(crate) struct Server {
    pub(crate) port: u16,
    dir: TempDir,
    options: Vec<String>,
    /// How `redis-cli` reaches it, where that is with TLS.
    tls: Vec<String>,
    running: Mutex<Option<Running>>,
}

struct Running {
    shell: Child,
    pid: Pid,
}

impl Server {
    /// Starts a server that keeps an append-only file.
    pub(crate) fn start(options: &[&str]) -> Self {
        Self::start_as(options, &[])
    }

    /// Starts a server that is reached with TLS alone, and wants no certificate of who comes unless told to.
    pub(crate) fn start_with_tls(made: &Certificates, options: &[&str]) -> Self {
        let [ca, certificate, key] = ["ca.pem", "server.pem", "server.key"]
            .map(|name| made.file(name).display().to_string());
        let own =
            ["--tls-ca-cert-file", &*ca, "--tls-cert-file", &*certificate, "--tls-key-file", &*key];
        let own = [&own[..], &["--tls-auth-clients", "no", "--tls-replication", "yes"]].concat();
        // It is the tests that look at certificates.
        let own_of_cli = ["--cacert", &ca, "--cert", &certificate, "--key", &key];
        let cli = [&["--tls", "--insecure"][..], &own_of_cli].concat();
        Self::start_as(&[&own[..], options].concat(), &cli)
    }

    fn start_as(options: &[&str], tls: &[&str]) -> Self {
        // Another process may take a free port before the server does.
        for _ in 0..20 {
            let mut all: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
            if options.contains(&"--cluster-enabled") {
                all.extend(["--cluster-port".to_owned(), free_port().to_string()]);
            }
            let dir = tempfile::tempdir().unwrap();
            let tls = tls.iter().map(|option| (*option).to_owned()).collect();
            let server =
                Self { port: free_port(), dir, options: all, tls, running: Mutex::default() };
            if server.try_run() {
                return server;
            }
        }
        panic!("no port for a server");
    }

    fn try_run(&self) -> bool {
        let script = "redis-server \"$@\" >/dev/null 2>&1 & pid=$!; echo $pid; \
                      cat >/dev/null; kill -9 $pid 2>/dev/null; wait";
        let mut command = Command::new("sh");
        command.arg("-c").arg(script).arg("sh");
        let port = self.port.to_string();
        match self.tls.is_empty() {
            true => command.args(["--port", &port]),
            false => command.args(["--port", "0", "--tls-port", &port]),
        };
        command.args(["--bind", "127.0.0.1"]);
        command.args(["--dir", self.dir.path().to_str().unwrap(), "--appendonly", "yes"]);
        command.args(["--save", "", "--daemonize", "no"]).args(&self.options);
        let mut shell = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let pid = Pid::from_raw(line.trim().parse().unwrap()).unwrap();
        *self.running.lock() = Some(Running { shell, pid });
        let deadline = Instant::now() + PATIENCE;
        loop {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok()
                && self.cli(&["ping"]).contains("PONG")
            {
                return true;
            }
            if rustix::process::test_kill_process(pid).is_err() || Instant::now() > deadline {
                self.kill();
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&self) {
        if let Some(Running { mut shell, pid }) = self.running.lock().take() {
            let _ = kill_process(pid, Signal::KILL);
            drop(shell.stdin.take());
            shell.wait().unwrap();
        }
    }

    /// Starts it again on what it has kept.
    pub(crate) fn restart(&self) {
        self.kill();
        until("the server starts again", || self.try_run());
    }

    /// How long its append-only file is. What it has answered lies before, where it syncs always.
    pub(crate) fn kept(&self) -> u64 {
        std::fs::metadata(self.file()).unwrap().len()
    }

    /// Starts it again on no more of its append-only file than that, as after a power cut, or as a replica would go
    /// on that had received no more.
    pub(crate) fn take_back(&self, kept: u64) {
        self.kill();
        let file = std::fs::OpenOptions::new().write(true).open(self.file()).unwrap();
        assert!(file.metadata().unwrap().len() > kept, "nothing was added");
        file.set_len(kept).unwrap();
        until("the server starts again", || self.try_run());
    }

    /// Ends it, and deletes all that it has kept.
    pub(crate) fn wipe(&self) {
        self.kill();
        std::fs::remove_dir_all(self.dir.path().join("appendonlydir")).unwrap();
    }

    fn file(&self) -> std::path::PathBuf {
        let files = std::fs::read_dir(self.dir.path().join("appendonlydir")).unwrap();
        let mut paths = files.map(|file| file.unwrap().path());
        paths.find(|path| path.to_string_lossy().ends_with(".incr.aof")).unwrap()
    }

    /// Stops it without a word, or lets it go on.
    pub(crate) fn freeze(&self, frozen: bool) {
        let signal = if frozen { Signal::STOP } else { Signal::CONT };
        kill_process(self.running.lock().as_ref().unwrap().pid, signal).unwrap();
    }

    /// Runs `redis-cli` and returns what it prints.
    pub(crate) fn cli(&self, args: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        command.args(["-p", &self.port.to_string()]).args(&self.tls).args(args);
        String::from_utf8_lossy(&command.output().expect("redis-cli is installed").stdout)
            .into_owned()
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn url_of_tls(&self) -> String {
        format!("rediss://localhost:{}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

const CLUSTERED: [&str; 6] = [
    "--cluster-enabled",
    "yes",
    "--cluster-node-timeout",
    "2000",
    "--repl-diskless-sync-delay",
    "0",
];

/// Three primaries with a replica each.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Server>,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        Self::of((0..6).map(|_| Server::start(&CLUSTERED)).collect())
    }

    /// One whose nodes are reached with TLS alone, by each other too.
    pub(crate) fn start_with_tls(made: &Certificates) -> Self {
        let options = [&CLUSTERED[..], &["--tls-cluster", "yes"]].concat();
        Self::of((0..6).map(|_| Server::start_with_tls(made, &options)).collect())
    }

    fn of(nodes: Vec<Server>) -> Self {
        let addresses: Vec<_> =
            nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        let made = Command::new("redis-cli")
            .args(&nodes[0].tls)
            .args(["--cluster", "create"])
            .args(&addresses)
            .args(["--cluster-replicas", "1", "--cluster-yes"])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
        let cluster = Self { nodes };
        until("all nodes agree", || {
            cluster.nodes.iter().all(|node| {
                let state = node.cli(&["cluster", "info"]);
                let replication = node.cli(&["info", "replication"]);
                state.contains("cluster_state:ok")
                    && (replication.contains("role:master")
                        || replication.contains("master_link_status:up"))
            })
        });
        until("every replica is known", || {
            cluster.nodes[0]
                .cli(&["cluster", "slots"])
                .lines()
                .filter(|l| l.contains("127.0.0.1"))
                .count()
                >= 6
        });
        cluster
    }

    pub(crate) fn url(&self) -> String {
        // Not all of them: the others are found.
        format!("{},{}", self.nodes[0].url(), self.nodes[1].url())
    }
}

/// One server for all tests that leave it as it is.
pub(crate) fn shared_server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::start(&[]))
}

/// One cluster for all tests that leave it whole.
pub(crate) fn shared_cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(Cluster::start)
}
