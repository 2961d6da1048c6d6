//! `bank serve`: command owners, projections and the HTTP interface in one process.

use std::io::Write;
use std::time::Duration;

use clap::Parser;
use es_core::NotDone;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::app::{Bank, Options};
use crate::failure::Failure;
use crate::{http, log};

/// How long requests that are under way may take after the process was asked to stop.
const DRAIN: Duration = Duration::from_secs(10);
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
    /// Read what other processes' accounts do too, so that taking them over is short. Without effect but with --kafka
    #[arg(long, env = "BANK_STANDBY")]
    standby: bool,
    /// How long an event may wait for the read models before /readyz says that this process is not ready; for ever unless given
    #[arg(long, env = "BANK_LAG_MAX", value_name = "SECONDS")]
    lag_max: Option<u64>,
}

impl Default for Args {
    /// As without options: what the environment says.
    fn default() -> Self {
        #[derive(clap::Parser)]
        struct Alone {
            #[command(flatten)]
            args: Args,
        }
        Alone::parse_from(["bank"]).args
    }
}

/// Serves until SIGINT or SIGTERM; a second one ends the process at once.
pub(crate) async fn run(options: &Options, args: &Args) -> Result<(), Failure> {
    let stop = CancellationToken::new();
    stop_on_signals(stop.clone())?;
    // First the address and then the rest, so that a port in use is told before anything is taken over.
    let listener = TcpListener::bind(&args.listen).await.map_err(|error| {
        Failure::because(format!("listening on {} failed (choose another address with --listen)", args.listen), &error)
    })?;
    let address = listener.local_addr()?;
    // What is half open when the process is asked to stop is dropped: nothing was promised to anyone yet.
    let bank = tokio::select! {
        opened = Bank::open(options, args.node.as_deref(), args.standby) => opened?,
        () = stop.cancelled() => return Ok(()),
    };
    let server = tokio::spawn(http::serve(listener, &bank, args.lag_max.map(Duration::from_secs), stop.clone()));
    let ready = tokio::select! {
        ready = bank.bus.ready() => ready,
        () = stop.cancelled() => Err(NotDone::Stopped),
    };
    if ready.is_ok() {
        log::while_serving();
        println!("listening on http://{address}");
        std::io::stdout().flush()?;
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
        eprintln!("bank: ended at once by a second signal: what was under way is in the log as a whole or not at all");
        std::process::exit(1);
    });
    Ok(())
}
