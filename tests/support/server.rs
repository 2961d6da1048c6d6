//! What Kafka and PostgreSQL have in common: a process with a home that is started, stopped, killed and started again.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::home::Home;
use crate::process::{Proc, SIGCONT, SIGSTOP, Signal, tail};
use crate::wait::PAUSE;

/// Ample: on two cores with a build beside it, a broker that takes 4 s alone was seen to take 20 s.
const START_WITHIN: Duration = Duration::from_secs(120);
const STOP_WITHIN: Duration = Duration::from_secs(60);

/// How one kind of server is started, asked and ended.
pub(crate) trait Recipe: Send + 'static {
    /// For messages.
    const NAME: &'static str;
    /// Asks it to shut down in an orderly way.
    const STOP: Signal;
    /// Ends it at once when its test is over, without leaving anything behind.
    const ABANDON: Signal;

    /// The command that runs the server in the foreground.
    fn command(&self) -> Command;
    /// Whether the server, which wrote `log` since its start, really serves.
    fn answers(&self, log: &str) -> bool;
}

/// A server of one test or process. Its methods block; [`Handle`] calls them from async code.
pub(crate) struct Server<R: Recipe> {
    recipe: R,
    starts: u32,
    process: Option<Proc>,
    /// After the process, so that the folder goes when nothing writes to it any more.
    home: Home,
}

impl<R: Recipe> Server<R> {
    pub(crate) fn new(recipe: R, home: Home) -> Server<R> {
        Server { recipe, starts: 0, process: None, home }
    }

    pub(crate) fn start(&mut self) {
        assert!(self.process.is_none(), "{} runs already", R::NAME);
        self.starts += 1;
        let process = Proc::spawn_logged(self.recipe.command(), &self.log_file(), R::ABANDON);
        let process = self.process.insert(process);
        let started = Instant::now();
        loop {
            let ended = process.exited();
            let log = process.stderr();
            assert!(ended.is_none(), "{} did not start, {ended:?}; its log ends with\n{}", R::NAME, tail(&log));
            if self.recipe.answers(&log) {
                return;
            }
            let took = started.elapsed();
            assert!(
                took < START_WITHIN,
                "{} does not answer after {took:?}; its log ends with\n{}",
                R::NAME,
                tail(&log)
            );
            thread::sleep(PAUSE);
        }
    }

    pub(crate) fn stop(&mut self) {
        let mut process = self.process.take().unwrap_or_else(|| panic!("{} does not run", R::NAME));
        process.signal(R::STOP);
        let ended = process.wait_blocking(STOP_WITHIN);
        assert!(ended.is_some(), "{} does not stop; its log ends with\n{}", R::NAME, tail(&process.stderr()));
    }

    pub(crate) fn kill(&mut self) {
        let mut process = self.process.take().unwrap_or_else(|| panic!("{} does not run", R::NAME));
        process.kill9_with_children();
    }

    pub(crate) fn restart(&mut self) {
        if self.process.is_some() {
            self.stop();
        }
        self.start();
    }

    pub(crate) fn pause(&mut self) {
        self.running().signal(SIGSTOP);
    }

    pub(crate) fn resume(&mut self) {
        self.running().signal(SIGCONT);
    }

    /// What it wrote since its last start.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_file()).unwrap_or_default()).into_owned()
    }

    fn running(&mut self) -> &mut Proc {
        self.process.as_mut().unwrap_or_else(|| panic!("{} does not run", R::NAME))
    }

    /// One for each start, so that no line of an earlier life is taken for an answer.
    fn log_file(&self) -> PathBuf {
        self.home.path().join(format!("log-{}", self.starts))
    }
}

impl<R: Recipe> Drop for Server<R> {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            process.end_with(R::ABANDON);
        }
    }
}

/// A server whose blocking methods run on threads where they block nobody, not even on a runtime of one thread.
pub(crate) struct Handle<R: Recipe>(Arc<Mutex<Server<R>>>);

impl<R: Recipe> Handle<R> {
    /// Prepares a server and starts it.
    pub(crate) async fn start(prepare: impl FnOnce() -> Server<R> + Send + 'static) -> Handle<R> {
        let server = blocking(|| {
            let mut server = prepare();
            server.start();
            server
        });
        Handle(Arc::new(Mutex::new(server.await)))
    }

    pub(crate) async fn run<T: Send + 'static>(&self, work: impl FnOnce(&mut Server<R>) -> T + Send + 'static) -> T {
        let server = Arc::clone(&self.0);
        blocking(move || work(&mut server.lock().expect("an earlier call on this server failed"))).await
    }

    pub(crate) fn log(&self) -> String {
        self.0.lock().expect("an earlier call on this server failed").log()
    }
}

/// Refuses to go on where servers are forbidden: how `scripts/test` proves that a bare `cargo test` needs none.
pub(crate) fn assert_servers_allowed(name: &str) {
    assert!(
        std::env::var_os("ES_TESTS_NO_SERVERS").is_none(),
        "a test that needs {name} must say so: #[ignore = \"needs {name}: run scripts/test\"]"
    );
}

/// Runs a program that prepares something, to its end.
pub(crate) fn complete(command: &mut Command, what: &str) -> Output {
    let output = command.output().unwrap_or_else(|error| {
        panic!("{what}: starting {}: {error}; scripts/setup installs what is missing", command.get_program().display())
    });
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{what} failed, {}; scripts/setup installs what is missing\n{errors}",
        output.status
    );
    output
}

/// Runs what blocks on a thread of its own, and lets its panic be the caller's.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(failed) => std::panic::resume_unwind(failed.into_panic()),
    }
}
