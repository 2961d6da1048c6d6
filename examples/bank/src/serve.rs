//! `bank serve`: command owners, projections and the HTTP interface in one process.

use std::io::{self, Write};
use std::time::Duration;

use es_core::NotDone;
use tokio::net::{TcpSocket, lookup_host};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::app::{Bank, Options};
use crate::failure::Failure;
use crate::output::{say, stdout};
use crate::{http, log};

/// How long requests that are under way may take after the process was asked to stop.
const DRAIN: Duration = Duration::from_secs(10);
/// Connections that wait to be taken.
const BACKLOG: u32 = 1_024;
const LISTEN: &str = "127.0.0.1:8080";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The address for HTTP; port 0 takes any that is free
    #[arg(long, env = "BANK_LISTEN", value_name = "HOST:PORT", default_value = LISTEN)]
    listen: String,
    /// The name of this process among those on the same Kafka; under its old name it soon gets its accounts back after a
    /// restart. Made up unless given
    #[arg(long, env = "BANK_NODE", value_name = "NAME")]
    node: Option<String>,
    /// Read what other processes' accounts do too, so that taking them over is short. It has no effect without --kafka
    #[arg(long, env = "BANK_STANDBY")]
    standby: bool,
    /// How long an event may wait for the read models before /readyz says that this process is not ready; for ever unless given
    #[arg(long, env = "BANK_LAG_MAX", value_name = "SECONDS")]
    lag_max: Option<u64>,
    #[command(flatten)]
    trust: http::Trust,
}

/// Serves until SIGINT or SIGTERM; a second one ends the process at once.
pub(crate) async fn run(options: &Options, args: &Args) -> Result<(), Failure> {
    let stop = CancellationToken::new();
    stop_on_signals(stop.clone())?;
    // First the address and then the rest, so that a port in use is told before anything is taken over.
    let failed = |error: io::Error| {
        Failure::because(format!("listening on {} failed (choose another address with --listen)", args.listen), &error)
    };
    let socket = bind(&args.listen).await.map_err(failed)?;
    let address = socket.local_addr()?;
    // What is half open when the process is asked to stop is dropped: nothing was promised to anyone yet.
    let bank = tokio::select! {
        opened = Bank::open(options, args.node.as_deref(), args.standby) => opened?,
        () = stop.cancelled() => return Ok(()),
    };
    let serving = http::Serving {
        listen: args.listen.clone(),
        trust: args.trust.clone(),
        lag_max: args.lag_max.map(Duration::from_secs),
    };
    // Not before: a connection that nobody takes would look like a bank that is slow.
    let listener = socket.listen(BACKLOG).map_err(failed)?;
    let server = tokio::spawn(http::serve(listener, &bank, serving, stop.clone()));
    let ready = tokio::select! {
        ready = bank.bus.ready() => ready,
        () = stop.cancelled() => Err(NotDone::Stopped),
    };
    if ready.is_ok() {
        log::while_serving();
        told(&format!("listening on http://{address}"))?;
        stop.cancelled().await;
    }
    let asked = stop.is_cancelled();
    stop.cancel();
    if tokio::time::timeout(DRAIN, server).await.is_err() {
        tracing::warn!("requests are cut off that took longer than {DRAIN:?}");
    }
    bank.stop().await?;
    match ready {
        Err(error) if !asked => Err(Failure::because("taking over the accounts", &error)),
        _ => Ok(()),
    }
}

/// A socket with the address as its own, on which nobody can connect yet.
async fn bind(address: &str) -> io::Result<TcpSocket> {
    let mut failed = io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address");
    for address in lookup_host(address).await? {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // The connections of the process before are no obstacle.
        socket.set_reuseaddr(true)?;
        match socket.bind(address) {
            Ok(()) => return Ok(socket),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// On standard output, at once.
fn told(line: &str) -> Result<(), Failure> {
    let mut out = stdout();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

fn stop_on_signals(stop: CancellationToken) -> Result<(), Failure> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::spawn(async move {
        let mut asked = async || {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        asked().await;
        stop.cancel();
        asked().await;
        say("bank: ended at once by a second signal: what was under way is in the log as a whole or not at all");
        std::process::exit(1);
    });
    Ok(())
}
