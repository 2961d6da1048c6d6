//! The files of the PKDD'99 challenge: `trans.asc` and `account.asc`.

use std::path::Path;

use chrono::NaiveDate;

use super::file::{Encoding, Fields, Refused, Rows};
use crate::domain::Money;
use crate::failure::Failure;
use crate::time::yymmdd;

const TRANSACTION_COLUMNS: [&str; 10] =
    ["trans_id", "account_id", "date", "type", "operation", "amount", "balance", "k_symbol", "bank", "account"];
const ACCOUNT_COLUMNS: [&str; 4] = ["account_id", "district_id", "frequency", "date"];

/// A transaction of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Transaction {
    pub(super) line: u64,
    pub(super) id: u64,
    pub(super) account: u64,
    pub(super) date: NaiveDate,
    pub(super) direction: Direction,
    pub(super) amount: Money,
    pub(super) reference: Option<String>,
}

/// Which way the money goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Credit,
    Debit,
}

/// An account of the file: when it was opened, and in which district, where that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Opening {
    pub(super) account: u64,
    pub(super) date: NaiveDate,
    pub(super) district: Option<u64>,
}

/// A row, and how much of the file is read with it.
#[derive(Debug)]
pub(super) struct Read<T> {
    pub(super) end: u64,
    pub(super) result: Result<T, Refused>,
}

/// The rows of `trans.asc`.
pub(super) struct Transactions(Rows);

/// The rows of `account.asc`.
pub(super) struct Accounts(Rows);

impl Transactions {
    pub(super) fn open(path: &Path, encoding: Option<Encoding>) -> Result<Self, Failure> {
        Rows::open(path, &TRANSACTION_COLUMNS, encoding).map(Self)
    }

    /// The size of the file.
    pub(super) fn bytes(&self) -> u64 {
        self.0.bytes()
    }
}

impl Accounts {
    pub(super) fn open(path: &Path, encoding: Option<Encoding>) -> Result<Self, Failure> {
        Rows::open(path, &ACCOUNT_COLUMNS, encoding).map(Self)
    }
}

impl Iterator for Transactions {
    type Item = Result<Read<Transaction>, Failure>;
    fn next(&mut self) -> Option<Self::Item> {
        next(&mut self.0, transaction)
    }
}

impl Iterator for Accounts {
    type Item = Result<Read<Opening>, Failure>;
    fn next(&mut self) -> Option<Self::Item> {
        next(&mut self.0, opening)
    }
}

fn next<T>(rows: &mut Rows, parse: fn(&Fields<'_>) -> Result<T, Refused>) -> Option<Result<Read<T>, Failure>> {
    let result = match rows.next().transpose()? {
        Ok(row) => row.and_then(|fields| parse(&fields)),
        Err(failure) => return Some(Err(failure)),
    };
    Some(Ok(Read { end: rows.at(), result }))
}

fn transaction(fields: &Fields<'_>) -> Result<Transaction, Refused> {
    let direction = match fields.get("type") {
        "PRIJEM" => Direction::Credit,
        "VYDAJ" | "VYBER" => Direction::Debit,
        other => return Err(fields.refuse(format!("type {other:?} is none of PRIJEM, VYDAJ and VYBER"))),
    };
    let amount = amount(fields.get("amount")).map_err(|reason| fields.refuse(reason))?;
    Ok(Transaction {
        line: fields.line,
        id: number(fields, "trans_id")?,
        account: number(fields, "account_id")?,
        date: date(fields)?,
        direction,
        amount,
        reference: reference(fields),
    })
}

fn opening(fields: &Fields<'_>) -> Result<Opening, Refused> {
    let district = Some(number(fields, "district_id")?);
    Ok(Opening { account: number(fields, "account_id")?, date: date(fields)?, district })
}

fn number(fields: &Fields<'_>, column: &str) -> Result<u64, Refused> {
    let text = fields.get(column);
    let digits = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
    let number = text.parse().ok().filter(|_| digits);
    number.ok_or_else(|| fields.refuse(format!("{column} {text:?} is not a whole number")))
}

fn date(fields: &Fields<'_>) -> Result<NaiveDate, Refused> {
    yymmdd(fields.get("date")).map_err(|reason| fields.refuse(format!("date {reason}")))
}

/// What the money was for, as far as the file says.
fn reference(fields: &Fields<'_>) -> Option<String> {
    let words = [fields.get("operation"), fields.get("k_symbol")];
    let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
    (!words.is_empty()).then(|| words.join(" "))
}

/// Decimal text with at most two decimals, in minor units; exact, so without a float on the way.
fn amount(text: &str) -> Result<Money, String> {
    let wrong = || format!("amount {text:?} is not a number with at most two decimals");
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|digit| digit.is_ascii_digit());
    if !digits(whole) || !digits(decimals) || decimals.len() > 2 {
        return Err(wrong());
    }
    let minor_units = format!("{whole}{decimals:0<2}").parse::<i64>().ok().and_then(|units| Money::new(units).ok());
    let money = minor_units.ok_or_else(|| format!("amount {text:?} is out of range"))?;
    if money.is_positive() { Ok(money) } else { Err(format!("amount {text:?} is not above 0")) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const HEADER: &str =
        r#""trans_id";"account_id";"date";"type";"operation";"amount";"balance";"k_symbol";"bank";"account""#;

    fn read(text: impl AsRef<[u8]>) -> Result<Vec<Result<Transaction, String>>, Failure> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trans.asc");
        fs::write(&path, text).unwrap();
        let rows = Transactions::open(&path, None)?;
        Ok(rows.map(|row| row.unwrap().result.map_err(|refused| refused.to_string())).collect())
    }

    /// The first rows of the real file, in its own bytes, and one in Latin-1 with a quoted separator.
    #[test]
    fn rows_are_read_as_the_bank_wrote_them() {
        let mut text =
            format!("{HEADER}\r\n695247;2378;930101;\"PRIJEM\";\"VKLAD\";700.00;700.00;\"\";;\r\n").into_bytes();
        text.extend(b"3530438;2378;930131;\"VYBER\";\"V\xddB\xccR; X\";14.60;685.40;\"SLUZBY\";AB;12\n\r\n");
        let rows = read(text).unwrap();
        let first = rows[0].clone().unwrap();
        assert_eq!((first.line, first.id, first.account), (2, 695_247, 2_378));
        assert_eq!((first.direction, first.amount.get()), (Direction::Credit, 70_000));
        assert_eq!(first.reference.as_deref(), Some("VKLAD"));
        let second = rows[1].clone().unwrap();
        assert_eq!((second.direction, second.amount.get()), (Direction::Debit, 1_460));
        assert_eq!(second.reference.as_deref(), Some("VÝBÌR; X SLUZBY"));
        assert_eq!(rows.len(), 2);
    }

    /// Shows: letters are those of the file, and where that can't be told the import asks.
    #[test]
    fn letters_are_read_as_they_were_written() {
        let file = |text: &[u8]| {
            [HEADER.as_bytes(), b"\n1;7;930101;PRIJEM;VKLAD;1.00;1.00;;;\n2;7;930101;PRIJEM;", text, b";1.00;2.00;;;\n"]
                .concat()
        };
        let with_bom = |text: &[u8]| [b"\xef\xbb\xbf", file(text).as_slice()].concat();
        let (utf8, latin1) = ("\u{10c}\u{c1}STKA".as_bytes(), b"V\xddB\xccR".as_slice());
        let (utf8_text, latin1_text) = ("\u{10c}\u{c1}STKA", "V\u{dd}B\u{cc}R");
        let second = |text: Vec<u8>, encoding| -> Result<String, String> {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("trans.asc");
            fs::write(&path, text).unwrap();
            let failed = |failure: Failure| failure.to_string();
            let mut rows = Transactions::open(&path, encoding).map_err(failed)?.skip(1);
            let row = rows.next().unwrap().map_err(failed)?.result.map_err(|refused| refused.to_string())?;
            Ok(row.reference.unwrap())
        };
        assert_eq!(second(file(latin1), None).as_deref(), Ok(latin1_text));
        assert_eq!(second(file(latin1), Some(Encoding::Latin1)).as_deref(), Ok(latin1_text));
        assert_eq!(second(with_bom(utf8), None).as_deref(), Ok(utf8_text));
        for text in [with_bom(utf8), file(utf8)] {
            assert_eq!(second(text, Some(Encoding::Utf8)).as_deref(), Ok(utf8_text));
        }
        let asked = second(file(utf8), None).unwrap_err();
        assert!(asked.contains("line 3 of") && asked.contains("say which it is with --encoding"), "{asked}");
        let not_utf8 = "line 3 refused: it is not UTF-8";
        assert_eq!(second(file(latin1), Some(Encoding::Utf8)).unwrap_err(), not_utf8);
        assert_eq!(second(with_bom(latin1), None).unwrap_err(), not_utf8);
        let both = second(with_bom(utf8), Some(Encoding::Latin1)).unwrap_err();
        assert!(both.contains("byte order mark"), "{both}");
    }

    #[test]
    fn amounts_are_exact() {
        for (text, minor_units) in [("0.29", 29), ("1.1", 110), ("7", 700), ("90071992547409.91", (1 << 53) - 1)] {
            assert_eq!(amount(text).unwrap().get(), minor_units, "{text}");
        }
        for wrong in ["", ".", "1.", ".5", "1.234", "-5.00", "+5", "1e3", "1,50", "0.00", "90071992547409.92", "NaN"] {
            assert!(amount(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_row_that_does_not_fit_is_refused_with_its_line_and_the_rest_goes_on() {
        let table = [
            ("1;2;930101;PRIJEM;;1.234;;;;", "amount \"1.234\" is not a number with at most two decimals"),
            ("1;2;930101;PRIJEM;;99999999999999999999;;;;", "is out of range"),
            ("1;2;930101;GIFT;;1.00;;;;", "type \"GIFT\" is none of"),
            ("1;2;930230;PRIJEM;;1.00;;;;", "\"930230\" is not a date"),
            ("1;x;930101;PRIJEM;;1.00;;;;", "account_id \"x\" is not a whole number"),
            (";2;930101;PRIJEM;;1.00;;;;", "trans_id \"\" is not a whole number"),
            ("1;2;930101;PRIJEM", "it has 4 fields, not 10"),
            ("1;2;930101;\"PRIJEM;;1.00;;;;", "a quote is not closed"),
        ];
        for (row, reason) in table {
            let rows = read(format!("{HEADER}\n{row}\n9;2;930101;PRIJEM;;1.00;;;;\n")).unwrap();
            let refused = rows[0].clone().unwrap_err();
            assert!(refused.starts_with("line 2 refused: ") && refused.contains(reason), "{refused}");
            assert_eq!(rows[1].clone().unwrap().id, 9, "{row}");
        }
    }

    #[test]
    fn accounts_are_read_with_their_districts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("account.asc");
        let header = "\"account_id\";\"district_id\";\"frequency\";\"date\"";
        let rows = "576;55;\"POPLATEK MESICNE\";930101\r\n1;;X;930101\r\n2;5x;X;930101\r\n3;5;X;931301\r\n4;5;X";
        fs::write(&path, format!("{header}\r\n{rows}")).unwrap();
        let rows = Accounts::open(&path, None).unwrap();
        let mut rows = rows.map(|row| row.unwrap().result.map_err(|refused| refused.to_string()));
        let date = NaiveDate::from_ymd_opt(1993, 1, 1).unwrap();
        assert_eq!(rows.next(), Some(Ok(Opening { account: 576, date, district: Some(55) })));
        let refused: Vec<_> = rows.map(Result::unwrap_err).collect();
        let expected = [
            "line 3 refused: district_id \"\" is not a whole number",
            "line 4 refused: district_id \"5x\" is not a whole number",
            "line 5 refused: date \"931301\" is not a date: there is no such day",
            "line 6 refused: it has 3 fields, not 4",
        ];
        assert_eq!(refused, expected);
    }

    #[test]
    fn a_line_without_an_end_is_refused_and_not_kept() {
        let long = "x".repeat(1 << 20);
        let rows = read(format!("{HEADER}\n{long}\n9;2;930101;PRIJEM;;1.00;;;;")).unwrap();
        assert_eq!(rows[0].clone().unwrap_err(), "line 2 refused: it is longer than 4096 bytes");
        assert_eq!(rows[1].clone().unwrap().line, 3);
    }

    #[test]
    fn a_header_that_does_not_fit_names_the_column_and_what_is_expected() {
        for (header, reason) in [
            ("", "column \"trans_id\" is missing"),
            (&HEADER.replace("\"amount\";", "") as &str, "column \"amount\" is missing"),
            (&HEADER.replace("k_symbol", "symbol"), "column \"symbol\" is unknown"),
            (&HEADER.replace("\"bank\"", "\"date\""), "column \"date\" is there twice"),
        ] {
            let failure = read(format!("{header}\n")).unwrap_err().to_string();
            assert!(failure.contains(reason), "{failure}");
            assert!(failure.contains("expected is trans_id;account_id;date;type;"), "{failure}");
        }
    }
}
