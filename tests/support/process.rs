//! Child processes that die with this one.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::{CommandExt, parent_id};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{LazyLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::wait::{PAUSE, at_most};

/// A signal, by the number that the kernel knows and the name that `kill` knows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Signal {
    number: libc::c_int,
    name: &'static str,
}

pub(crate) const SIGCONT: Signal = Signal { number: libc::SIGCONT, name: "CONT" };
pub(crate) const SIGINT: Signal = Signal { number: libc::SIGINT, name: "INT" };
pub(crate) const SIGKILL: Signal = Signal { number: libc::SIGKILL, name: "KILL" };
pub(crate) const SIGQUIT: Signal = Signal { number: libc::SIGQUIT, name: "QUIT" };
pub(crate) const SIGSTOP: Signal = Signal { number: libc::SIGSTOP, name: "STOP" };
pub(crate) const SIGTERM: Signal = Signal { number: libc::SIGTERM, name: "TERM" };

/// A running child process whose output is kept in files, killed on drop and when this process ends, however it ends.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use std::{process::Command, time::Duration};
/// let mut echo = Command::new("echo");
/// echo.arg("hello");
/// let mut echo = es_tests::Proc::spawn(echo);
/// assert!(echo.wait(Duration::from_secs(10)).await.success());
/// assert_eq!(echo.stdout(), "hello\n");
/// # }
/// ```
#[derive(Debug)]
pub struct Proc {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    /// Holds the files of output that nobody else keeps.
    _output: Option<TempDir>,
}

impl Proc {
    /// Starts `command` without standard input, its output captured.
    ///
    /// # Panics
    /// If the program can't be started.
    #[track_caller]
    pub fn spawn(command: Command) -> Proc {
        let output = tempfile::tempdir().expect("a folder for the output can be made");
        let (stdout, stderr) = (output.path().join("stdout"), output.path().join("stderr"));
        let child = start(command, &stdout, &stderr, SIGKILL);
        Proc { child, stdout, stderr, _output: Some(output) }
    }

    /// Starts `command` with all output in the file `log`; it gets `at_death` when this process ends.
    pub(crate) fn spawn_logged(command: Command, log: &Path, at_death: Signal) -> Proc {
        let child = start(command, log, log, at_death);
        Proc { child, stdout: log.to_owned(), stderr: log.to_owned(), _output: None }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What the process has written to its standard output so far.
    pub fn stdout(&self) -> String {
        read(&self.stdout)
    }

    /// What the process has written to its standard error so far.
    pub fn stderr(&self) -> String {
        read(&self.stderr)
    }

    /// The exit status, or `None` while the process runs; a stopped process counts as running.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("one's own child can be asked for")
    }

    /// Waits until the process has ended by itself.
    ///
    /// # Panics
    /// If it still runs after six times `within`, as a quiet machine needs it; the message ends with what it wrote to standard error.
    pub async fn wait(&mut self, within: Duration) -> ExitStatus {
        let (started, within) = (Instant::now(), at_most(within));
        loop {
            if let Some(status) = self.exited() {
                return status;
            }
            let errors = || format!("its standard error ends with\n{}", tail(&self.stderr()));
            assert!(started.elapsed() < within, "process {} still runs after {within:?}; {}", self.id(), errors());
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// `kill -9`: the process is gone when this returns. Nothing happens if it has ended already.
    pub fn kill9(&mut self) {
        self.child.kill().expect("one's own child can be killed");
        self.child.wait().expect("a killed child can be waited for");
    }

    /// `SIGSTOP`: freezes the process, which keeps its memory, sockets and locks.
    ///
    /// # Panics
    /// If the process has ended.
    #[track_caller]
    pub fn sigstop(&mut self) {
        self.signal(SIGSTOP);
    }

    /// `SIGCONT`: lets a frozen process go on.
    ///
    /// # Panics
    /// If the process has ended.
    #[track_caller]
    pub fn sigcont(&mut self) {
        self.signal(SIGCONT);
    }

    /// `SIGTERM`: asks the process to end; [`wait`](Self::wait) tells when it has.
    ///
    /// # Panics
    /// If the process has ended.
    #[track_caller]
    pub fn sigterm(&mut self) {
        self.signal(SIGTERM);
    }

    /// `SIGINT`: what Ctrl-C sends.
    ///
    /// # Panics
    /// If the process has ended.
    #[track_caller]
    pub fn sigint(&mut self) {
        self.signal(SIGINT);
    }

    #[track_caller]
    pub(crate) fn signal(&mut self, signal: Signal) {
        // Once it is waited for, its id may belong to another process.
        let ended = self.exited();
        assert!(ended.is_none(), "sending SIG{} to process {}: it has ended, {ended:?}", signal.name, self.id());
        send(self.id(), signal);
    }

    /// Waits for the end, without a runtime. `None` if it still runs after `within`.
    pub(crate) fn wait_blocking(&mut self, within: Duration) -> Option<ExitStatus> {
        let started = Instant::now();
        loop {
            let ended = self.exited();
            if ended.is_some() || started.elapsed() > within {
                return ended;
            }
            thread::sleep(PAUSE);
        }
    }

    /// Sends `signal`, to a frozen process too, and gives it a moment to end. Nothing happens if it has ended already.
    pub(crate) fn end_with(&mut self, signal: Signal) {
        if self.exited().is_none() {
            send(self.id(), signal);
            send(self.id(), SIGCONT);
            self.wait_blocking(Duration::from_secs(5));
        }
    }

    /// Kills the process and its own children, as a machine that loses power does.
    pub(crate) fn kill9_with_children(&mut self) {
        if self.exited().is_none() {
            // Frozen first, so that it starts no more of them.
            self.signal(SIGSTOP);
            let children = children(self.id());
            self.kill9();
            children.iter().for_each(|child| send(*child, SIGKILL));
            while children.iter().any(|child| runs(*child)) {
                thread::sleep(PAUSE);
            }
        }
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// The last lines of a log, for messages.
pub(crate) fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

#[track_caller]
fn start(mut command: Command, stdout: &Path, stderr: &Path, at_death: Signal) -> Child {
    let open = |path| File::options().create(true).append(true).open(path).expect("a file for the output can be made");
    command.stdin(Stdio::null()).stdout(open(stdout)).stderr(open(stderr));
    die_with_this_process(&mut command, at_death);
    let program = command.get_program().to_owned();
    spawn_on_lasting_thread(command).unwrap_or_else(|error| panic!("starting {}: {error}", program.display()))
}

/// The kernel counts a child's parent as dead when the *thread* that spawned it ends, and each test has its own thread.
/// So all children are spawned by one thread that ends with the process.
fn spawn_on_lasting_thread(command: Command) -> io::Result<Child> {
    type Order = (Command, mpsc::Sender<io::Result<Child>>);
    static SPAWNER: LazyLock<mpsc::Sender<Order>> = LazyLock::new(|| {
        let (orders, queue) = mpsc::channel::<Order>();
        let spawn = move || queue.iter().for_each(|(mut command, reply)| drop(reply.send(command.spawn())));
        thread::Builder::new().name("spawner".into()).spawn(spawn).expect("a thread can be started");
        orders
    });
    let (reply, child) = mpsc::channel();
    SPAWNER.send((command, reply)).expect("the thread lasts as long as the process");
    child.recv().expect("the thread answers each order")
}

/// Has the kernel send `signal` to the child at the end of the thread that spawns it.
#[allow(unsafe_code)]
fn die_with_this_process(command: &mut Command, signal: Signal) {
    let this = std::process::id();
    let before_exec = move || {
        // SAFETY: a plain system call on the calling process; it touches no memory of ours.
        if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal.number) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // The parent may have died before the call, and then no signal will come.
        if parent_id() == this { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ESRCH)) }
    };
    // SAFETY: between fork and exec only what is safe in a signal handler may be done. Both calls are bare system
    // calls, and errors made from a number allocate nothing.
    unsafe { command.pre_exec(before_exec) };
}

/// Through the shell's own `kill`, which is everywhere and needs no second piece of unsafe code.
fn send(process: u32, signal: Signal) {
    // One that has ended meanwhile is fine: whoever cares asked before.
    let _ = Command::new("sh").arg("-c").arg(format!("kill -{} {process}", signal.name)).stderr(Stdio::null()).status();
}

fn children(process: u32) -> Vec<u32> {
    let list = read(Path::new(&format!("/proc/{process}/task/{process}/children")));
    list.split_whitespace().filter_map(|id| id.parse().ok()).collect()
}

/// Whether a process that may not be our child still runs; one that only waits to be waited for does not.
fn runs(process: u32) -> bool {
    let stat = read(Path::new(&format!("/proc/{process}/stat")));
    // `id (name) state …`, and the name may hold spaces and brackets.
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
}

fn read(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}
