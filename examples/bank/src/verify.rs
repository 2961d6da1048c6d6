//! `bank verify`: whether the log is what was recorded, and what the bank shows is what its log gives.

use std::io::{self, Write};
use std::path::PathBuf;

use es_core::log::{TopicKind, TopicSpec};
use es_core::seal::{Proof, PublicKey, seals_topic};
use es_core::verify::{Finding, Report, Verified, Verifier};
use es_core::{Aggregate, AggregateKey, StreamId, Version};
use serde_json::{Value, json};

use crate::app::{Options, Store};
use crate::domain::Account;
use crate::failure::Failure;
use crate::keys;
use crate::output::{say, stdout};
use crate::progress;
use crate::read_models_verify::compare;
use crate::time::shown;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Check that what these signed notes say is in the log: a file as `bank seals` wrote it, kept elsewhere since
    #[arg(long = "note", value_name = "FILE")]
    notes: Vec<PathBuf>,
    /// Check log, chain and seals alone, not the read models
    #[arg(long)]
    log_only: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Verifies log, chain and seals, then compares the read models with the log; fails with the first that is wrong.
pub(crate) async fn run(options: &Options, args: &Args) -> Result<(), Failure> {
    let mut notes = Vec::new();
    for file in &args.notes {
        let found = split(&keys::read(file)?);
        if found.is_empty() {
            return Err(Failure::new(format!("{} holds no notes: bank seals writes them", file.display())));
        }
        notes.extend(found);
    }
    let keys = options.keys.trusted()?;
    let has_keys = !keys.is_empty();
    if !notes.is_empty() && !has_keys {
        return Err(Failure::new(
            "notes can only be checked with their signer's public key: give it with --public-key FILE",
        ));
    }
    let store = Store::open(options).await?;
    let verifier = notes.into_iter().fold(verifier(options, &store, keys).await?, Verifier::note);
    let bar = progress::bar(0, "log {wide_bar} {human_pos}/{human_len} records {per_sec} {elapsed}");
    let report = verifier.run(|progress| {
        bar.set_length(progress.total.max(progress.done));
        bar.set_position(progress.done);
    });
    let report = report.await?;
    bar.finish_and_clear();
    // What is wrong with the log would be in the read models, too.
    let compared = if args.log_only || !report.is_sound() { None } else { Some(compare(&store).await?) };

    let mut out = stdout();
    if args.json {
        let read_models = compared.as_ref().map(|compared| compared.as_json());
        writeln!(out, "{}", json!({ "log": as_json(&report, has_keys), "read_models": read_models }))?;
    } else {
        write_lines(&mut out, &report, has_keys)?;
        write!(out, "{}", compared.as_ref().map_or_else(String::new, |compared| compared.lines()))?;
    }
    out.flush()?;
    drop(out);
    store.close().await;
    let wrong = report.first().map(ToString::to_string).or_else(|| report.notes.first().cloned());
    if let Some(wrong) = wrong {
        return Err(Failure::new(format!("the log is not what was recorded: {wrong}")));
    }
    match compared.and_then(|compared| compared.difference()) {
        Some(difference) => Err(Failure::new(difference)),
        None => Ok(()),
    }
}

/// What verifies this bank's log.
async fn verifier(options: &Options, store: &Store, keys: Vec<PublicKey>) -> Result<Verifier, Failure> {
    let verifier = Verifier::new(store.log.clone(), store.source.clone());
    if keys.is_empty() {
        return Ok(verifier);
    }
    let topic = seals_topic(&options.namespace, Account::NAME);
    store.log.prepare(&TopicSpec { name: topic.clone(), kind: TopicKind::Seals }).await?;
    Ok(verifier.seals(&topic, keys))
}

/// `bank seals`: the newest signed note of each partition, to be kept elsewhere.
pub(crate) async fn seals(options: &Options) -> Result<(), Failure> {
    let keys = needed(options)?;
    let store = Store::open(options).await?;
    let notes = verifier(options, &store, keys).await?.newest_notes().await?;
    store.close().await;
    if notes.is_empty() {
        say("bank: nothing is sealed yet: serve with --signing-key FILE");
    }
    let mut out = stdout();
    for note in notes {
        write!(out, "{note}")?;
    }
    Ok(out.flush()?)
}

/// The keys that are trusted, of which there must be one.
fn needed(options: &Options) -> Result<Vec<PublicKey>, Failure> {
    let keys = options.keys.trusted()?;
    match keys.is_empty() {
        true => Err(Failure::new("it is not known whose seals to trust: give --public-key FILE or --signing-key FILE")),
        false => Ok(keys),
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct ProveArgs {
    /// The account
    account: AggregateKey,
    /// Which of its events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    version: u64,
}

/// `bank prove`: the proof that an event is among those sealed, as JSON.
pub(crate) async fn prove(options: &Options, args: &ProveArgs) -> Result<(), Failure> {
    let keys = needed(options)?;
    let store = Store::open(options).await?;
    let verifier = verifier(options, &store, keys).await?;
    let stream = StreamId { category: Account::NAME.into(), id: args.account.clone() };
    let event = verifier.find(&stream, Version::new(args.version)).await?;
    let event = event.ok_or_else(|| {
        Failure::new(format!("account {} has no event {}: see `bank history`", args.account, args.version))
    })?;
    let proof = verifier.prove(&event).await?;
    store.close().await;
    let mut out = stdout();
    writeln!(out, "{}", serde_json::to_string_pretty(&proof)?)?;
    Ok(out.flush()?)
}

#[derive(Debug, clap::Args)]
pub(crate) struct CheckProofArgs {
    /// The proof, as `bank prove` printed it
    #[arg(value_name = "FILE")]
    proof: PathBuf,
}

/// `bank check-proof`: checks a proof with nothing but the public key.
pub(crate) fn check_proof(options: &Options, args: &CheckProofArgs) -> Result<(), Failure> {
    let keys = needed(options)?;
    let text = keys::read(&args.proof)?;
    let what = || format!("the proof in {}", args.proof.display());
    let proof: Proof =
        serde_json::from_str(&text).map_err(|error| Failure::because(format!("{} can't be read", what()), &error))?;
    let (event, index, seal) =
        proof.verify(&keys).map_err(|error| Failure::because(format!("{} proves nothing", what()), &error))?;
    let mut out = stdout();
    let actor = event.actor.as_ref().map_or("-", |actor| actor.as_str());
    let (stream, version, kind) = (&event.stream, event.version, &event.event_type);
    let payload = String::from_utf8_lossy(&event.payload);
    writeln!(out, "{stream} version {version}: {kind} {payload} by {actor}, recorded {}", shown(event.recorded_at))?;
    let (of, at) = (seal.size, shown(seal.signed_at));
    writeln!(out, "is event {index} of the {of} of {} that were sealed at {at}", seal.origin)?;
    Ok(out.flush()?)
}

/// The notes in a text, one after the other: each ends with the lines of its signatures.
fn split(text: &str) -> Vec<String> {
    let (mut notes, mut note, mut is_signed) = (Vec::new(), String::new(), false);
    for line in text.split_inclusive('\n') {
        let is_signature = line.starts_with('\u{2014}');
        if is_signed && !is_signature {
            notes.push(std::mem::take(&mut note));
        }
        note.push_str(line);
        is_signed = is_signature;
    }
    if !note.is_empty() {
        notes.push(note);
    }
    notes
}

fn write_lines(out: &mut impl Write, report: &Report, has_keys: bool) -> io::Result<()> {
    let sum = |figure: fn(&Verified) -> u64| report.partitions.iter().map(figure).sum::<u64>();
    let (accounts, void, foreign) = (sum(|at| at.aggregates), sum(|at| at.void), sum(|at| at.foreign));
    let partitions = report.partitions.len();
    write!(out, "log: {} events of {accounts} accounts in {partitions} partitions", report.events())?;
    if void + foreign > 0 {
        write!(out, "; {void} void and {foreign} foreign records, which do not count")?;
    }
    writeln!(out)?;
    if has_keys {
        let (sealed, notes) = (report.sealed(), sum(|at| at.notes));
        let last = report.partitions.iter().filter_map(|at| at.sealed.as_ref()).max_by_key(|sealed| sealed.signed_at);
        write!(out, "seals: {notes} signed notes cover {sealed} events")?;
        match last {
            Some(last) => writeln!(out, "; the last is of {} by {}", shown(last.signed_at), last.by)?,
            None => writeln!(out, ": nothing is sealed")?,
        }
        if report.unsealed() > 0 {
            writeln!(out, "  {} events came after them and are not protected yet", report.unsealed())?;
        }
        for at in report.partitions.iter().filter(|at| at.sealed.is_none() && at.events > 0) {
            writeln!(out, "  nothing is sealed of the {} events of partition {}", at.events, at.partition)?;
        }
    } else {
        writeln!(out, "seals: not checked, since no public key was given: give --public-key FILE")?;
    }
    for erased in report.partitions.iter().flat_map(|at| &at.erased) {
        writeln!(
            out,
            "  {} was erased up to version {} at {}",
            erased.stream,
            erased.version,
            shown(erased.recorded_at)
        )?;
    }
    for finding in report.partitions.iter().flat_map(|at| &at.findings) {
        writeln!(out, "  {finding}")?;
    }
    for note in &report.notes {
        writeln!(out, "  {note}")?;
    }
    Ok(())
}

fn as_json(report: &Report, has_keys: bool) -> Value {
    let finding = |finding: &Finding| {
        let event = finding.event.as_ref();
        json!({
            "partition": finding.partition,
            "event": finding.index,
            "offset": finding.offset,
            "account": event.map(|(stream, _)| stream.id.as_str()),
            "version": event.map(|(_, version)| version.get()),
            "wrong": finding.wrong.to_string(),
        })
    };
    let partition = |at: &Verified| {
        let sealed = at.sealed.as_ref();
        let erased = at.erased.iter().map(|erased| {
            let at = shown(erased.recorded_at);
            json!({ "account": erased.stream.id.as_str(), "version": erased.version.get(), "recorded_at": at })
        });
        json!({
            "partition": at.partition,
            "events": at.events,
            "accounts": at.aggregates,
            "void": at.void,
            "foreign": at.foreign,
            "notes": at.notes,
            "unsealed": at.unsealed,
            "sealed": sealed.map(|sealed| json!({ "events": sealed.size, "at": shown(sealed.signed_at), "by": sealed.by })),
            "erased": erased.collect::<Value>(),
            "findings": at.findings.iter().map(finding).collect::<Value>(),
        })
    };
    json!({
        "sound": report.is_sound(),
        "seals_checked": has_keys,
        "events": report.events(),
        "sealed": report.sealed(),
        "notes": report.notes,
        "partitions": report.partitions.iter().map(partition).collect::<Value>(),
    })
}
