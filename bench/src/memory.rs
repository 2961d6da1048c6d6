//! Resident memory with a million accounts.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use es_core::log::embedded::{EmbeddedConfig, EmbeddedLog};
use es_core::{Engine, EngineConfig, SendError};
use es_tests::{Proc, free_port};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::Failure;
use crate::account::{Account, AccountCommand};
use crate::bank::bank;
use crate::embedded::folder;
use crate::figure::Figure;

const ACCOUNTS: usize = 1_000_000;
const CONNECTIONS: usize = 64;
/// How long the bank may take to answer at first.
const START: Duration = Duration::from_secs(30);

/// The peak of the bank that was asked for each account over HTTP.
pub(crate) async fn of_bank(name: &'static str) -> Result<Figure, Failure> {
    let dir = folder()?;
    let address = format!("127.0.0.1:{}", free_port());
    let mut serve = Command::new(bank()?);
    serve.args(["serve", "--listen", &address, "--data"]).arg(dir.path().join("data"));
    let mut bank = Proc::spawn(serve);
    await_ready(&mut bank, &address).await?;
    let next = Arc::new(AtomicUsize::new(0));
    let mut openers = JoinSet::new();
    for _ in 0..CONNECTIONS {
        openers.spawn(open_over_http(address.clone(), next.clone()));
    }
    while let Some(ended) = openers.join_next().await {
        ended??;
    }
    let peak = peak_mb(&bank.id().to_string())?;
    Ok(Figure { name, unit: "MB peak", value: peak, floor: None })
}

async fn await_ready(bank: &mut Proc, address: &str) -> Result<(), Failure> {
    let started = std::time::Instant::now();
    loop {
        if let Some(status) = bank.exited() {
            return Err(format!("`bank serve` ended with {status} instead of serving: {}", bank.stderr()).into());
        }
        if let Ok(mut connection) = Connection::open(address).await
            && connection.request("GET", "/readyz", "").await.is_ok_and(|status| status == 200)
        {
            return Ok(());
        }
        if started.elapsed() > START {
            return Err(format!("`bank serve` is not ready after {START:?}: {}", bank.stderr()).into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn open_over_http(address: String, next: Arc<AtomicUsize>) -> Result<(), Failure> {
    let mut connection = Connection::open(&address).await?;
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= ACCOUNTS {
            return Ok(());
        }
        let body = format!(r#"{{"id":"account-{number:07}","owner":"Owner {number}","overdraft_limit":0}}"#);
        loop {
            match connection.request("POST", "/api/accounts", &body).await? {
                201 => break,
                503 => tokio::time::sleep(Duration::from_millis(20)).await, // nothing was done
                status => return Err(format!("opening account {number} was answered with status {status}").into()),
            }
        }
    }
}

/// HTTP/1.1 with keep-alive, as little of it as is needed: a client library would take more time than the bank.
struct Connection(BufReader<TcpStream>);

impl Connection {
    async fn open(address: &str) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    async fn request(&mut self, method: &str, path: &str, body: &str) -> Result<u16, Failure> {
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: bank\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        self.0.write_all(request.as_bytes()).await?;
        let (mut line, mut status, mut length) = (String::new(), None, 0);
        loop {
            line.clear();
            if self.0.read_line(&mut line).await? == 0 {
                return Err("the bank closed the connection".into());
            }
            let text = line.trim_end().to_ascii_lowercase();
            if text.is_empty() {
                break;
            }
            if status.is_none() {
                status = text.split(' ').nth(1).and_then(|code| code.parse().ok());
            }
            if let Some(bytes) = text.strip_prefix("content-length:") {
                length = bytes.trim().parse()?;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await?;
        status.ok_or_else(|| "the bank's answer has no status".into())
    }
}

/// The peak of a process of this program that opens the accounts through the bus: the framework's part of the bank's.
pub(crate) async fn of_core(name: &'static str) -> Result<Figure, Failure> {
    let dir = folder()?;
    let mut open = Command::new(std::env::current_exe()?);
    open.arg("--open-accounts").arg(dir.path());
    let mut opener = Proc::spawn(open);
    let status = opener.wait(Duration::from_secs(600)).await;
    if !status.success() {
        return Err(format!("opening the accounts ended with {status}: {}", opener.stderr()).into());
    }
    Ok(Figure { name, unit: "MB peak", value: opener.stdout().trim().parse()?, floor: None })
}

/// Opens the accounts and prints the peak: what [`of_core`] starts.
pub(crate) async fn open_accounts(dir: &Path) -> Result<(), Failure> {
    let log = Arc::new(EmbeddedLog::open(dir.join("log"), EmbeddedConfig::default())?);
    let config = EngineConfig { state_dir: Some(dir.join("state")), ..EngineConfig::default() };
    let engine = Engine::new(log, config);
    let bus = engine.start::<Account>().await?;
    bus.ready().await?;
    let next = Arc::new(AtomicUsize::new(0));
    let mut openers = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (bus, next) = (bus.clone(), next.clone());
        openers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= ACCOUNTS {
                    return Ok::<_, SendError<_>>(());
                }
                let command = AccountCommand::Deposit { amount: 1, reference: format!("Owner {number}") };
                bus.send(&format!("account-{number:07}"), command).await?;
            }
        });
    }
    while let Some(ended) = openers.join_next().await {
        ended??;
    }
    println!("{:.1}", peak_mb("self")?);
    engine.shutdown().await;
    Ok(())
}

/// The most that was resident so far, in millions of bytes.
fn peak_mb(process: &str) -> Result<f64, Failure> {
    status_mb(process, "VmHWM:")
}

/// What is resident now, in millions of bytes.
pub(crate) fn resident_mb(process: &str) -> Result<f64, Failure> {
    status_mb(process, "VmRSS:")
}

fn status_mb(process: &str, field: &str) -> Result<f64, Failure> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let line = line.ok_or_else(|| format!("the system tells no {field}"))?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1_024.0 / 1_000_000.0)
}
