//! The command line.

use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::app::Options;
use crate::failure::Failure;
use crate::output::say;
use crate::{audit, balances, export, import, log, parked, past, quarantine, rebuild, serve, verify};

/// A bank with an event log as its only truth: embedded in a folder, or on Kafka and PostgreSQL.
#[derive(Debug, Parser)]
#[command(
    name = "bank",
    version,
    after_help = "Without a command: serve. Exit status: 0 done, 1 failed, 2 wrong usage."
)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(flatten, next_help_heading = "Options of serve, which is done without a command")]
    serve: serve::Args,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run command owners, projections and the HTTP interface
    Serve(serve::Args),
    /// Send the transactions of a file as commands
    #[command(subcommand)]
    Import(Import),
    /// Show the balance of each account
    Balances(balances::Args),
    /// Show the audit trail
    Audit(audit::Args),
    /// Write events of the audit trail to a folder with a manifest of hashes, or check such a folder
    Export(export::Args),
    /// Show an account as it is, or as it was at a time or a version
    Account(past::AccountArgs),
    /// Show the events of an account, each with what it changed
    History(past::HistoryArgs),
    /// Show the event that last changed a row of a read model, and whose command it was
    Explain(past::ExplainArgs),
    /// Show records on the events topic that do not count: those that are not ours, and how many are of superseded processes
    Quarantine(quarantine::Args),
    /// Rebuild a read model beside the live one, then switch
    Rebuild(rebuild::Args),
    /// Show accounts that could not be folded into a read model, whose events wait; fold them in again, or leave events out
    Parked(parked::Args),
    /// Check that nobody changed the log, with the seals in it, and that the read models are what it gives
    Verify(verify::Args),
    /// Print the newest signed note of each partition: keep them where nobody can change them together with the log
    Seals,
    /// Prove to a third party that an event of an account was recorded, without any other event
    Prove(verify::ProveArgs),
    /// Check such a proof, with the public key alone
    CheckProof(verify::CheckProofArgs),
}

#[derive(Debug, Subcommand)]
enum Import {
    /// The file trans.asc of the PKDD'99 challenge
    Pkdd99(import::Args),
}

/// How long threads may go on after the command has ended.
const THREADS_MAX: Duration = Duration::from_secs(1);

/// Runs the program.
pub(crate) fn run() -> ExitCode {
    let cli = parse();
    log::if_asked();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => {
            let done = runtime.block_on(execute(cli));
            // A thread that still waits for a broker or a disk when all else has ended keeps nobody.
            runtime.shutdown_timeout(THREADS_MAX);
            done
        }
        Err(error) => Err(Failure::because("starting the async runtime", &error)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(format_args!("bank: {failure}"));
            ExitCode::FAILURE
        }
    }
}

/// Ends the program as clap does for what it finds itself, where arguments that are each right don't go together.
pub(crate) fn wrong_usage(what: &str) -> ! {
    Cli::command().error(ErrorKind::ValueValidation, what).exit()
}

/// Reads the command line. What is said of serving and goes with another command would be without effect, and is refused.
fn parse() -> Cli {
    let matches = Cli::command().get_matches();
    if let Some((name, _)) = matches.subcommand() {
        let of_serve = serve::Args::augment_args(clap::Command::new("serve"));
        let given = |arg: &&clap::Arg| matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine);
        if let Some(arg) = of_serve.get_arguments().find(given) {
            let option = arg.get_long().unwrap_or_default();
            wrong_usage(&match name {
                "serve" => format!("--{option} stands before `serve`: write it behind, as `bank serve --{option} …`"),
                _ => format!("--{option} is an option of serve: it goes behind `serve`, and not with `{name}`"),
            });
        }
    }
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

async fn execute(Cli { options, serve, command }: Cli) -> Result<(), Failure> {
    match command {
        None => serve::run(&options, &serve).await,
        Some(Command::Serve(args)) => serve::run(&options, &args).await,
        Some(Command::Import(Import::Pkdd99(args))) => import::run(&options, &args).await,
        Some(Command::Balances(args)) => balances::run(&options, &args).await,
        Some(Command::Audit(args)) => audit::run(&options, &args).await,
        Some(Command::Export(args)) => export::run(&options, &args).await,
        Some(Command::Account(args)) => past::account(&options, &args).await,
        Some(Command::History(args)) => past::history(&options, &args).await,
        Some(Command::Explain(args)) => past::row(&options, &args).await,
        Some(Command::Quarantine(args)) => quarantine::run(&options, &args).await,
        Some(Command::Rebuild(args)) => rebuild::run(&options, &args).await,
        Some(Command::Parked(args)) => parked::run(&options, &args).await,
        Some(Command::Verify(args)) => verify::run(&options, &args).await,
        Some(Command::Seals) => verify::seals(&options).await,
        Some(Command::Prove(args)) => verify::prove(&options, &args).await,
        Some(Command::CheckProof(args)) => verify::check_proof(&options, &args),
    }
}
