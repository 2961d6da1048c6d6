//! The command line: usage, exit statuses, and one line for whatever fails.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use es_tests::{Proc, eventually, transactions};

use crate::bank::{Bank, LONG, output, program};

const HEADER: &str = "trans_id;account_id;date;type;operation;amount;balance;k_symbol;bank;account";

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output in UTF-8")
}

/// Exit status 1, nothing on standard output, and one line that holds each of `words`.
#[track_caller]
fn fails(output: &Output, words: &[&str]) {
    let (line, status) = (text(&output.stderr), output.status.code());
    assert_eq!((status, output.stdout.len()), (Some(1), 0), "{output:?}");
    assert_eq!(line.lines().count(), 1, "{line}");
    for word in words {
        assert!(line.contains(word), "{word} is not in: {line}");
    }
}

/// Shows: wrong usage is status 2, help is status 0, for every subcommand.
#[test]
#[ignore = "needs the bank binary: run scripts/test"]
fn usage_is_told_and_has_its_own_status() {
    let wrong: [&[&str]; 42] = [
        &["nonsense"],
        &["import"],
        &["import", "pkdd98", "x"],
        &["import", "pkdd99"],
        &["import", "pkdd99", "x", "--from", "1993-01-01"],
        &["balances", "--at", "yesterday"],
        &["balances", "--at", "1993-12-31T12:00:00"],
        &["rebuild", "branches"],
        &["account"],
        &["account", "7", "--at", "1993-12-31", "--version", "3"],
        &["account", "7", "--recorded", "1993-12-31T12:00:00"],
        &["explain", "day", "7", "yesterday"],
        &["parked", "show", "accounts"],
        &["parked", "retry", "accounts", "7"],
        &["parked", "skip", "accounts", "7", "--by", "ops", "--why", "an error"],
        &["parked", "skip", "accounts", "7", "--version", "1", "--by", "ops"],
        &["parked", "skip", "accounts", "7", "--version", "1", "--by", "ops", "--why", " "],
        &["audit", "--to", "930101"],
        &["serve", "--port", "1"],
        &["audit", "--from", "1993-01-02", "--to", "1993-01-01"],
        &["audit", "--recorded-from", "1993-01-02", "--recorded-to", "1993-01-01"],
        &["audit", "--recorded-to", "1993-01-02T12:00"],
        &["audit", "--type", "paid"],
        &["audit", "--field", "amount"],
        &["audit", "--limit", "1001"],
        &["audit", "--refused", "--type", "opened"],
        &["audit", "--refused", "--from", "1993-01-01"],
        &["--listen", "127.0.0.1:0", "balances"],
        &["serve", "--trust-actor-header=proxy.example"],
        &["import", "pkdd99", "x", "--from", "240101"],
        &["import", "pkdd99", "x", "--encoding", "ebcdic"],
        &["prove", "7"],
        &["prove", "7", "--version", "0"],
        &["check-proof"],
        &["serve", "--seal-every", "0"],
        &["export"],
        &["export", "--into", "x", "--check", "x"],
        &["export", "--check", "x", "--csv"],
        &["export", "--check", "x", "--account", "7"],
        &["export", "--into", "x", "--limit", "7"],
        &["export", "--into", "x", "--from", "1993-01-02", "--to", "1993-01-01"],
        &["import", "pkdd99", "x", "--from", "930102", "--to", "930101"],
    ];
    for args in wrong {
        assert_eq!(output(program(args)).status.code(), Some(2), "{args:?}");
    }
    for command in [
        "serve",
        "import",
        "balances",
        "audit",
        "export",
        "account",
        "history",
        "explain",
        "rebuild",
        "parked",
        "verify",
        "seals",
        "prove",
        "check-proof",
    ] {
        let help = output(program(&[command, "--help"]));
        assert!(help.status.success() && text(&help.stdout).contains("Usage: bank"), "{command}");
    }
    assert!(output(program(&["import", "pkdd99", "--help"])).status.success());
    let told = |args: &[&str]| text(&output(program(args)).stderr);
    let (no_zone, unknown) = (told(&["balances", "--at", "1993-12-31 12:00"]), told(&["rebuild", "branches"]));
    assert!(no_zone.contains("has no time zone: write 1993-12-31T12:00:00Z"), "{no_zone}");
    assert!(unknown.contains("possible values: accounts, statements, audit"), "{unknown}");
    let no_type = told(&["audit", "--type", "paid"]);
    assert!(no_type.contains("\"paid\": there are opened, deposited, withdrawn, closed"), "{no_type}");
}

/// Shows: what can't work fails with one line that names what and what to do, and nothing is half done.
#[test]
#[ignore = "needs the bank binary: run scripts/test"]
fn what_fails_says_so_in_one_line() {
    let bank = Bank::embedded();
    let file = |name: &str, text: &str| {
        let path = bank.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let import = |file: &str| bank.run(&["import", "pkdd99", file]);
    fails(&import("no-such-file.asc"), &["no-such-file.asc"]);
    fails(&import(bank.dir.path().to_str().unwrap()), &["it is a folder"]);
    fails(&import(&file("empty", "")), &["column \"trans_id\" is missing", HEADER]);
    fails(&import(&file("missing", &HEADER.replace("amount;", ""))), &["column \"amount\" is missing", HEADER]);
    fails(&import(&file("unknown", &HEADER.replace("bank", "bunk"))), &["column \"bunk\" is unknown", HEADER]);
    assert!(!bank.data().exists(), "a file that can't be read leaves no data folder behind");
    fails(&bank.run(&["balances", "--database", "mysql://x"]), &["sqlite://", "postgres://"]);
    fails(&bank.run(&["balances", "--namespace", "Not Good"]), &["Not Good"]);
}

/// Shows: a folder that holds something else, or is of a newer release, or is in use, is refused and left as it is.
#[tokio::test]
#[ignore = "needs the bank binary: run scripts/test"]
async fn a_data_folder_that_is_not_this_ones_is_refused() {
    let foreign = Bank::embedded();
    fs::create_dir(foreign.data()).unwrap();
    fs::write(foreign.data().join("thesis.tex"), "x").unwrap();
    fails(&foreign.run(&["serve"]), &["is not a data folder of the bank", "thesis.tex", "--data"]);
    assert_eq!(fs::read_dir(foreign.data()).unwrap().count(), 1);

    let newer = Bank::embedded();
    newer.ok(&["balances"]);
    fs::write(newer.data().join("format"), "bank data 2\n").unwrap();
    fails(&newer.run(&["balances"]), &["bank data 2", "another release"]);

    let no_folder = Bank::embedded();
    fs::write(no_folder.data(), "a file").unwrap();
    fails(&no_folder.run(&["balances"]), &["opening the data folder", "--data"]);

    let used = Bank::embedded();
    let (_serving, _) = used.serve().await;
    for command in [&["balances"][..], &["balances", "--at", "1993-12-31"], &["rebuild"], &["parked"]] {
        fails(&used.run(command), &["in use by another process", "--data"]);
    }
}

/// Shows: a port in use, a broker and a database that are not there are each told in one line, after bounded tries.
#[test]
#[ignore = "needs the bank binary: run scripts/test"]
fn what_is_not_there_is_named() {
    let bank = Bank::embedded();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    fails(&bank.run(&["serve", "--listen", &address]), &[&address, "--listen"]);
    assert!(!bank.data().exists(), "nothing is opened where there is no address to serve on");
    let nobody = format!("127.0.0.1:{}", es_tests::free_port());
    fails(&bank.run(&["serve", "--listen", "127.0.0.1:0", "--kafka", &nobody]), &[&nobody]);
    let url = format!("postgres://bank:s3cret@{nobody}/bank");
    let output = bank.run(&["balances", "--database", &url]);
    fails(&output, &[&nobody]);
    assert!(!text(&output.stderr).contains("s3cret"));
}

/// Shows: a bank that is asked to stop while it still waits for its broker ends, as one that was asked later does.
#[tokio::test]
#[ignore = "needs the bank binary: run scripts/test"]
async fn a_start_is_broken_off_by_a_signal() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap(); // takes connections and never answers
    let kafka = silent.local_addr().unwrap().to_string();
    for stop in [Proc::sigint as fn(&mut Proc), Proc::sigterm] {
        let bank = Bank::embedded();
        let mut starting = Proc::spawn(bank.command(&["serve", "--listen", "127.0.0.1:0", "--kafka", &kafka]));
        let opening = eventually("the bank to open its folder", Duration::from_secs(20), async || {
            bank.data().join("format").exists().then_some(())
        });
        opening.await;
        stop(&mut starting);
        let status = starting.wait(Duration::from_secs(5)).await;
        assert_eq!((status.code(), starting.stderr().as_str()), (Some(0), ""));
    }
}

/// Shows: who does not want to wait for requests under way signals again.
#[tokio::test]
#[ignore = "needs the bank binary: run scripts/test"]
async fn a_second_signal_ends_it_at_once() {
    let bank = Bank::embedded();
    let (mut serving, url) = bank.serve().await;
    let mut request = std::net::TcpStream::connect(url.trim_start_matches("http://")).unwrap();
    let head = "POST /api/accounts HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                Content-Length: 99\r\nExpect: 100-continue\r\n\r\n";
    std::io::Write::write_all(&mut request, head.as_bytes()).unwrap();
    let mut taken = [0; 21];
    std::io::Read::read_exact(&mut request, &mut taken).unwrap();
    assert!(taken.starts_with(b"HTTP/1.1 100 Continue"), "{}", String::from_utf8_lossy(&taken));
    serving.sigterm();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(serving.exited().is_none(), "it waits for the request: {}", serving.stderr());
    serving.sigint();
    let status = serving.wait(LONG).await;
    assert_eq!(status.code(), Some(1));
    assert!(serving.stderr().ends_with("at all\n"), "{}", serving.stderr());
}

/// Shows: a row that can't be taken is listed with its line and reason, is counted, and the others go on.
#[test]
#[ignore = "needs the bank binary: run scripts/test"]
fn malformed_rows_are_listed_and_the_others_go_on() {
    let bank = Bank::embedded();
    let rows = [
        "1;7;930101;\"PRIJEM\";\"VKLAD\";100.50;100.50;;;",
        "2;7;930102;\"PRIJEM\";\"VKLAD\";1.005;1.00;;;",
        "3;7;930102;\"GESCHENK\";;1.00;1.00;;;",
        "4;7;930230;\"PRIJEM\";;1.00;1.00;;;",
        "5;7;930103;\"PRIJEM\";;99999999999999999.00;1.00;;;",
        "6;7;930103;\"VYDAJ;;1.00;1.00;;;",
        "7;7;930103",
        "8;7;930103;\"VYBER\";;-1.00;1.00;;;",
        "9;7;930104;\"VYBER\";;0.50;100.00;;;",
        "1;7;930101;\"PRIJEM\";\"VKLAD\";100.51;100.50;;;",
        "10;7;930104;\"VYDAJ\";;10000000000.00;0.00;;;",
        "11;7;930105;\"PRIJEM\";\"VKLAD\";1.00;1.00;;;\r12;7;930105;\"PRIJEM\";\"VKLAD\";1.00;1.00;;;",
    ];
    let file = bank.dir.path().join("trans.asc");
    fs::write(&file, format!("{HEADER}\r\n{}\r\n", rows.join("\r\n"))).unwrap();
    let output = bank.run(&["import", "pkdd99", file.to_str().unwrap(), "--json"]);
    assert!(output.status.success(), "{output:?}");
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&summary["read"], &summary["accepted"]), (&12.into(), &2.into()));
    assert_eq!((&summary["refused"], &summary["accounts"]), (&10.into(), &1.into()));
    let listed = text(&output.stderr);
    assert_eq!(listed.lines().count(), 10, "{listed}");
    for (line, reason) in [
        (3, "\"1.005\" is not a number with at most two decimals"),
        (4, "type \"GESCHENK\""),
        (5, "\"930230\" is not a date: there is no such day"),
        (6, "out of range"),
        (7, "a quote is not closed"),
        (8, "it has 3 fields, not 10"),
        (9, "\"-1.00\""),
        (11, "was imported before with other contents"),
        (12, "may go down to"),
        (13, "a carriage return"),
    ] {
        let start = format!("line {line} refused: ");
        let found = listed.lines().any(|listed| listed.starts_with(&start) && listed.contains(reason));
        assert!(found, "{start}{reason} is not in\n{listed}");
    }
    assert_eq!(bank.balances(&[])["7"], (10_000, 3));
}

/// Shows: days and accounts are chosen, and the audit trail and the balances of a day are those of the file.
#[test]
#[ignore = "needs the bank binary: run scripts/test"]
fn days_are_chosen_and_the_audit_trail_is_asked() {
    let bank = Bank::embedded();
    let file = bank.dir.path().join("trans.asc");
    let row = |id: u32, day: &str| format!("{id};7;{day};PRIJEM;VKLAD;{id}.00;0.00;;;\n");
    let rows = [row(1, "930101"), row(2, "930131"), row(3, "930201"), row(4, "930301")].concat();
    fs::write(&file, format!("{HEADER}\n{rows}")).unwrap();
    let accounts = bank.dir.path().join("account.asc");
    fs::write(&accounts, "account_id;district_id;frequency;date\n7;1;X;930101\n8;1;X;930115\n9;1;X;970101\n").unwrap();
    let accounts = accounts.to_str().unwrap();
    let summary = bank.import(&file, &["--from", "930102", "--to", "930201", "--accounts", accounts]);
    assert_eq!((&summary["read"], &summary["accepted"], &summary["accounts"]), (&2.into(), &2.into(), &2.into()));
    let expected = [("7".to_owned(), (500, 3)), ("8".to_owned(), (0, 1))];
    assert_eq!(bank.balances(&[]), expected.clone().into());
    let whole = bank.import(&file, &[]);
    assert_eq!((&whole["accepted"], &whole["duplicate"]), (&2.into(), &2.into()));

    assert_eq!(bank.balances(&["--at", "1993-01-31"])["7"].0, 300);
    assert_eq!(bank.balances(&["--at", "1993-01-30T23:59:59Z"])["7"].0, 100);
    assert!(bank.balances(&["--at", "1992-12-31"]).is_empty());

    let audit = |more: &[&str]| -> serde_json::Value {
        serde_json::from_str(&bank.ok(&[&["audit", "--json"], more].concat())).expect("one JSON object")
    };
    let count = |more: &[&str]| audit(more)["items"].as_array().map(Vec::len);
    assert_eq!(count(&[]), Some(6));
    assert_eq!(count(&["--account", "7"]), Some(5));
    assert_eq!(count(&["--actor", "import", "--type", "deposited"]), Some(4));
    assert_eq!(count(&["--actor", "somebody"]), Some(0));
    assert_eq!(count(&["--from", "1993-01-31", "--to", "1993-02-01"]), Some(2));
    assert_eq!(count(&["--correlation", "import-trans.asc"]), Some(6));
    assert_eq!(count(&["--command", "open-8"]), Some(1));
    assert_eq!(count(&["--caused-by", "open-8"]), Some(1));
    assert_eq!(count(&["--causation", "open-8"]), Some(0));
    assert_eq!(count(&["--recorded-to", "1993-12-31"]), Some(0));
    assert_eq!(count(&["--recorded-from", "1993-12-31", "--from", "1993-02-01", "--type", "deposited"]), Some(2));
    assert_eq!(count(&["--field", "amount=300"]), Some(1));
    assert_eq!(count(&["--field", "amount=300", "--field", "amount=400"]), Some(0));
    let whole = audit(&[]);
    let first = audit(&["--limit", "4"]);
    let rest = audit(&["--limit", "4", "--cursor", first["next"].as_str().expect("there is more")]);
    let items = |page: &serde_json::Value| page["items"].as_array().expect("a list").clone();
    assert_eq!([items(&first), items(&rest)].concat(), items(&whole));
    assert!(rest["next"].is_null() && whole["next"].is_null(), "{rest}");
    let first = &audit(&["--account", "8"])["items"][0];
    assert_eq!((&first["type"], &first["command_id"]), (&"opened".into(), &"open-8".into()));
    assert_eq!(first["occurred_at"], "1993-01-15T00:00:00Z");
}

/// Shows: whoever stops reading our output gets no complaint and changes no exit status, for every subcommand, on either stream.
#[test]
#[ignore = "needs the bank binary: run scripts/test"]
fn a_reader_that_goes_is_no_failure() {
    let bank = Bank::embedded();
    bank.import(&transactions(), &[]);
    let public = bank.dir.path().join("public.pem");
    fs::write(&public, crate::bank_verify::PUBLIC_KEY).unwrap();
    let bad = bank.dir.path().join("bad.asc");
    fs::write(&bad, format!("{HEADER}\n{}", "1;7;930102;PRIJEM;VKLAD;1.005;1.00;;;\n".repeat(50))).unwrap();
    let (export, nothing) = (bank.dir.path().join("export"), bank.dir.path().join("nothing"));
    let account = bank.balances(&[]).into_keys().next().expect("an account");
    let runs: &[(&[&str], i32)] = &[
        (&["import", "pkdd99", shown(&bad)], 0),
        (&["import", "pkdd99", shown(&bad), "--json"], 0),
        (&["import", "pkdd99", shown(&nothing)], 1),
        (&["balances"], 0),
        (&["balances", "--csv"], 0),
        (&["balances", "--at", "1993-06-30"], 0),
        (&["audit"], 0),
        (&["audit", "--json"], 0),
        (&["audit", "--limit", "3"], 0),
        (&["audit", "--refused"], 0),
        (&["export", "--into", shown(&export)], 0),
        (&["export", "--check", shown(&export)], 0),
        (&["export", "--check", shown(&nothing)], 1),
        (&["account", &account], 0),
        (&["account", "nobody"], 1),
        (&["history", &account], 0),
        (&["history", "nobody"], 1),
        (&["explain", "account", &account], 0),
        (&["quarantine"], 0),
        (&["rebuild", "accounts"], 0),
        (&["parked"], 0),
        (&["parked", "retry", "accounts", "nobody", "--version", "1"], 1),
        (&["verify"], 0),
        (&["seals", "--public-key", shown(&public)], 0),
        (&["prove", &account, "--version", "1", "--public-key", shown(&public)], 1),
        (&["check-proof", shown(&nothing), "--public-key", shown(&public)], 1),
        (&["--help"], 0),
        (&["help"], 2), // since a folder is named behind it
        (&["nonsense"], 2),
    ];
    let help = bank.ok(&["--help"]);
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    for command in listed.filter_map(|line| line.strip_prefix("  ")?.split(' ').next().filter(|name| !name.is_empty()))
    {
        assert!(command == "serve" || runs.iter().any(|(args, _)| args[0] == command), "{command} is not among them");
    }
    for (args, status) in runs {
        for closed in ["stdout", "stderr", "both"] {
            let _ = fs::remove_dir_all(if args.contains(&"--into") { &export } else { &nothing });
            let mut command = bank.command(args);
            if closed != "stderr" {
                command.stdout(broken_pipe());
            }
            if closed != "stdout" {
                command.stderr(broken_pipe());
            }
            let output = output(command);
            assert_eq!(output.status.code(), Some(*status), "{args:?} without {closed}: {output:?}");
            let complaint = text(&output.stderr);
            assert!(!complaint.contains("panicked") && !complaint.contains("pipe"), "{args:?}: {complaint}");
        }
    }
}

/// Shows: a bank serves on, whatever becomes of what it prints and logs.
#[tokio::test]
#[ignore = "needs the bank binary: run scripts/test"]
async fn a_bank_whose_output_nobody_reads_serves() {
    let bank = Bank::embedded();
    let listen = format!("127.0.0.1:{}", es_tests::free_port());
    let mut command = bank.command(&["serve", "--listen", &listen]);
    command.env("RUST_LOG", "debug").stdout(broken_pipe()).stderr(broken_pipe());
    let mut serving = command.spawn().expect("the bank can be started");
    let client = reqwest::Client::new();
    let opened = eventually("the bank to open an account", Duration::from_secs(60), async || {
        let request = client.post(format!("http://{listen}/api/accounts")).header("Idempotency-Key", "k");
        let request = request.header("Content-Type", "application/json").body(r#"{"id":"a","owner":"Ada"}"#);
        request.send().await.ok().filter(|answer| answer.status() == 201)
    });
    opened.await;
    assert!(serving.try_wait().unwrap().is_none(), "it goes on");
    let stopped = std::process::Command::new("kill").args(["-TERM", &serving.id().to_string()]).status();
    assert!(stopped.expect("kill is there").success());
    let ended = eventually("the bank to end", Duration::from_secs(60), async || serving.try_wait().unwrap());
    assert!(ended.await.success());
}

/// The end of a pipe whose reader has gone.
fn broken_pipe() -> std::io::PipeWriter {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer
}

fn shown(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}
