//! A real PostgreSQL.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tokio::sync::OnceCell;

use crate::home::Home;
use crate::names::unique_name;
use crate::port::Port;
use crate::process::{SIGINT, SIGQUIT, Signal};
use crate::server::{Handle, Recipe, Server, assert_servers_allowed, blocking, complete};

/// Name of the superuser in the cluster, and of the account that a root user's server runs under.
const USER: &str = "postgres";
/// For tests: a process that is killed loses nothing by it, only a machine that loses power would.
const FAST: [(&str, &str); 2] = [("fsync", "off"), ("full_page_writes", "off")];

/// A real PostgreSQL cluster with a data folder and a port of its own, open to everybody on 127.0.0.1.
///
/// PostgreSQL refuses to run as root; there it runs as the user `postgres`, elsewhere as the current user.
/// Only a test that [started](Postgres::start) its own cluster has it mutable and can stop it, never one that shares
/// it.
pub struct Postgres {
    server: Handle<Cluster>,
    programs: PathBuf,
    port: u16,
}

impl Postgres {
    /// The cluster that all tests of this process share, started by the first that asks. It ends with the process.
    ///
    /// It does not sync to the disk, which makes it fast and takes nothing from a test.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn shared() -> &'static Postgres {
        static SHARED: OnceCell<Postgres> = OnceCell::const_new();
        SHARED.get_or_init(|| Postgres::start_with(&FAST)).await
    }

    /// Starts a cluster of the caller's own with PostgreSQL's own settings, durable, as benchmarks need it.
    /// It ends on drop.
    ///
    /// # Panics
    /// If PostgreSQL is not installed, if root has no user `postgres` to run it as, or if it does not answer within two
    /// minutes. The message ends with the server's log.
    pub async fn start() -> Postgres {
        Postgres::start_with(&[]).await
    }

    /// Starts a cluster with settings that differ from PostgreSQL's own, as `("fsync", "off")`.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn start_with(settings: &[(&str, &str)]) -> Postgres {
        assert_servers_allowed("PostgreSQL");
        let settings: Vec<String> = settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let programs = programs();
        let port = Port::reserve();
        let number = port.number();
        let server = {
            let programs = programs.clone();
            Handle::start(move || Cluster::prepare(programs, port, settings)).await
        };
        Postgres { server, programs, port: number }
    }

    /// Creates an empty database and returns its URL, `postgres://postgres@127.0.0.1:<port>/<name>`.
    ///
    /// # Panics
    /// If the server does not run.
    pub async fn database(&self) -> String {
        let name = unique_name("db");
        let mut create = Command::new(self.programs.join("createdb"));
        create.args(["--host=127.0.0.1", &format!("--port={}", self.port), "--username", USER, &name]);
        blocking(move || complete(&mut create, "creating a database")).await;
        format!("postgres://{USER}@127.0.0.1:{}/{name}", self.port)
    }

    /// The port that the server listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What the server has logged since its last start.
    pub fn log(&self) -> String {
        self.server.log()
    }

    /// `kill -9` of the server and all its helpers, which are gone when this returns.
    ///
    /// # Panics
    /// If it does not run.
    pub async fn kill(&mut self) {
        self.server.run(Server::kill).await;
    }

    /// Shuts the server down in an orderly way: connections are closed, open transactions rolled back.
    ///
    /// # Panics
    /// If it does not run, or does not end within a minute.
    pub async fn stop(&mut self) {
        self.server.run(Server::stop).await;
    }

    /// Starts the server again on the same data and port, after stopping it if it runs.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn restart(&mut self) {
        self.server.run(Server::restart).await;
    }
}

struct Cluster {
    programs: PathBuf,
    account: Option<Account>,
    home: PathBuf,
    /// Kept, so that no other server gets it while this one is down.
    port: Port,
    settings: Vec<String>,
}

impl Cluster {
    fn prepare(programs: PathBuf, port: Port, settings: Vec<String>) -> Server<Cluster> {
        let home = Home::new("postgres");
        let account = Account::for_root();
        if let Some(account) = account {
            home.give_to(account.uid, account.gid);
        }
        let cluster = Cluster { programs, account, home: home.path().to_owned(), port, settings };
        cluster.create();
        Server::new(cluster, home)
    }

    fn create(&self) {
        let mut initdb = self.program("initdb");
        // The same order of texts on every machine.
        initdb.args(["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--username", USER]);
        initdb.arg("--pgdata").arg(self.data());
        complete(&mut initdb, "creating a PostgreSQL cluster");
    }

    fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        // The account may not be allowed into the folder where the tests run.
        command.current_dir(&self.home);
        if let Some(account) = self.account {
            command.uid(account.uid).gid(account.gid);
        }
        command
    }
}

impl Recipe for Cluster {
    const NAME: &'static str = "PostgreSQL";
    // "Fast shutdown": it does not wait for clients to leave.
    const STOP: Signal = SIGINT;
    // "Immediate shutdown": like a crash, but its helpers and its shared memory go with it.
    const ABANDON: Signal = SIGQUIT;

    fn command(&self) -> Command {
        let mut postgres = self.program("postgres");
        postgres.arg("-D").arg(self.data());
        postgres.args(["-p", &self.port.number().to_string(), "-h", "127.0.0.1"]).arg("-k").arg(&self.home);
        // Many tests with a pool each.
        postgres.args(["-c", "max_connections=300"]);
        postgres.args(self.settings.iter().flat_map(|setting| ["-c", setting]));
        postgres
    }

    fn answers(&self, _log: &str) -> bool {
        let mut ask = Command::new(self.programs.join("pg_isready"));
        ask.args(["--quiet", "--host=127.0.0.1", &format!("--port={}", self.port.number())]);
        ask.stdin(Stdio::null()).status().is_ok_and(|status| status.success())
    }
}

/// An unprivileged user.
#[derive(Clone, Copy)]
struct Account {
    uid: u32,
    gid: u32,
}

impl Account {
    /// Whom root runs PostgreSQL as; `None` where the current user can do it.
    fn for_root() -> Option<Account> {
        let current = fs::metadata("/proc/self").expect("Linux has /proc").uid();
        (current == 0).then(|| {
            let users = fs::read_to_string("/etc/passwd").expect("/etc/passwd can be read");
            Account::find(&users).expect("root needs a user `postgres` to run PostgreSQL as: scripts/setup installs it")
        })
    }

    /// In the lines `name:password:uid:gid:…`.
    fn find(users: &str) -> Option<Account> {
        let fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let found = fields.into_iter().find(|fields| fields[0] == USER)?;
        Some(Account { uid: found.get(2)?.parse().ok()?, gid: found.get(3)?.parse().ok()? })
    }
}

/// The folder of PostgreSQL's programs: the newest of Debian's, which are off the path, else where the path has them.
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let numbered = versions.filter_map(|entry| {
        let version: u32 = entry.file_name().to_str()?.parse().ok()?;
        Some((version, entry.path().join("bin")))
    });
    let newest = numbered.filter(|(_, folder)| has_server(folder)).max().map(|(_, folder)| folder);
    let path = std::env::var_os("PATH").unwrap_or_default();
    newest.or_else(|| std::env::split_paths(&path).find(|folder| has_server(folder))).expect(
        "PostgreSQL's `initdb` and `postgres` are neither under /usr/lib/postgresql nor on the path: run scripts/setup",
    )
}

fn has_server(folder: &Path) -> bool {
    folder.join("initdb").is_file() && folder.join("postgres").is_file()
}
