//! Errors of databases, sorted by what to do next: who else is to be tried, and whose fault it is.

use es_core::Cause;

use super::DriverError;

/// Whose fault an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    /// The database's, and it may pass by itself: it is away, busy, full, or read-only.
    Passing,
    /// The same, and the server has ended the connection with it.
    Gone,
    /// That of the rows which were to be written: the same rows fail again, others do not.
    Data,
    /// Neither: the statement, its tables or the rights to them are not as they should be. Somebody has to mend that.
    Refused,
}

/// What an error code means, and what helps.
pub(super) type Meaning = (Sort, &'static str);

/// An error that a database answered with, with its code and what helps.
#[derive(Debug, thiserror::Error)]
#[error("{message} ({name} {code}: {remedy})")]
struct Answer {
    message: String,
    name: &'static str,
    code: String,
    remedy: &'static str,
}

/// The time of a piece of work is over, and nobody knows what became of it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Late(String);

/// Whether an error says that something took too long.
pub(crate) fn is_late(error: &(dyn std::error::Error + 'static)) -> bool {
    const CANCELED: &str = "57014";
    let is_late = |error: &(dyn std::error::Error + 'static)| {
        error.is::<Late>() || error.downcast_ref::<Answer>().is_some_and(|answer| answer.code == CANCELED)
    };
    std::iter::successors(Some(error), |error| error.source()).any(is_late)
}

impl DriverError {
    /// That there was no answer in time.
    pub(super) fn late(reason: String) -> Self {
        Self::Lost(Late(reason).into())
    }

    /// Sorts what the driver says; `meaning` knows the database's own codes, which it calls `name`.
    pub(super) fn of(error: sqlx::Error, name: &'static str, meaning: impl Fn(&str, &str) -> Meaning) -> Self {
        use sqlx::Error as E;
        match error {
            E::Configuration(reason) => Self::Invalid(reason.to_string()),
            E::Database(answer) => {
                let code = answer.code().unwrap_or_default().into_owned();
                let (sort, remedy) = meaning(&code, answer.message());
                let message = answer.message().to_owned();
                let cause = Cause::from(Answer { message, name, code, remedy });
                match sort {
                    Sort::Passing => Self::Unavailable(cause),
                    Sort::Gone => Self::Lost(cause),
                    Sort::Data => Self::Data(cause),
                    Sort::Refused => Self::Sql(cause),
                }
            }
            E::Io(_) | E::Tls(_) | E::Protocol(_) | E::PoolTimedOut | E::PoolClosed | E::WorkerCrashed => {
                Self::Lost(error.into())
            }
            _ => Self::Sql(error.into()),
        }
    }
}

/// PostgreSQL's codes, by their first two letters where all of them mean the same.
pub(super) fn of_sqlstate(code: &str) -> Meaning {
    use Sort::{Data, Gone, Passing, Refused};
    match (code.get(..2).unwrap_or_default(), code) {
        (_, "25006") => (Passing, "the server is read-only: it may be a standby, or about to take over"),
        (_, "25P03" | "25P04") => (Gone, "the transaction waited too long and was ended"),
        ("08", _) => (Gone, "the connection failed"),
        ("40", _) => (Passing, "another transaction was in the way"),
        ("53", _) => (Passing, "the server lacks disk, memory or connections: make room, or allow more"),
        (_, "55P03" | "55006") => (Passing, "something else holds it: find out what locks it"),
        (_, "57014") => {
            (Passing, "statement_timeout ended it: find out what locks the tables, or raise it for this role")
        }
        (_, "57P01" | "57P02" | "57P03" | "57P04" | "57P05") => {
            (Gone, "an operator stopped it, or the server stops or starts")
        }
        ("57", _) => (Passing, "an operator stopped it, or the server stops or starts"),
        ("58", _) => (Passing, "the server's disk or system failed: see its log"),
        ("21" | "22" | "23" | "44" | "54", _) | (_, "P0001") => (Data, "the rows do not fit the tables"),
        ("28", _) => (Refused, "the user or the password is not right: mend the URL or the server's pg_hba.conf"),
        ("3D", _) => (Refused, "there is no such database: create it, or mend the URL"),
        ("3F", _) => (Refused, "there is no such schema: create it, or mend the role's search_path"),
        (_, "42501") => (Refused, "the role lacks a right: GRANT it"),
        (_, "42P01") => (Refused, "there is no such table: restore it, or build the read model anew"),
        ("42", _) => (Refused, "the statement does not fit the tables: mend either"),
        ("XX", _) => (Refused, "the server found damage: see its log, and restore or build anew"),
        ("F0", _) => (Refused, "the server's configuration is not valid: see its log"),
        _ => (Refused, "mend the statement, or what it works on"),
    }
}

/// SQLite's codes. It has one for everything that is wrong with a statement, and for two things that are wrong with a value.
pub(super) fn of_sqlite(code: &str, message: &str) -> Meaning {
    use Sort::{Data, Passing, Refused};
    let values = ["malformed JSON", "integer overflow"];
    match code.parse::<i32>().map_or(0, |code| code & 0xff) {
        5 | 6 => (Passing, "another process holds it"),
        7 => (Passing, "there is no memory left"),
        8 => (Passing, "the file can't be written: give this user the right to, or mount it so"),
        9 => (Passing, "it was interrupted"),
        10 => (Passing, "reading or writing the file failed: look at the disk"),
        13 => (Passing, "the disk is full: make room"),
        14 => (Passing, "the file can't be opened: look at its folder, and at the limit of open files"),
        15 | 17 => (Passing, "another process changes it"),
        18..=20 => (Data, "the rows do not fit the tables"),
        1 if values.iter().any(|value| message.contains(value)) => (Data, "the rows do not fit the tables"),
        11 | 26 => (Refused, "the file is damaged: restore it, or remove it and build the read models anew"),
        23 => (Refused, "it is not allowed"),
        _ => (Refused, "the statement does not fit the tables: mend either"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows: of each class of PostgreSQL's codes it is decided whose fault it is; events are at fault for those only that depend on rows.
    #[test]
    fn every_class_of_sqlstate_has_a_meaning() {
        let passing = ["25006", "40001", "40P01", "53100", "53300", "55P03", "55006", "57014", "58030"];
        let gone = ["08006", "25P03", "25P04", "57P01", "57P02", "57P03", "57P04", "57P05"];
        let data = ["21000", "22003", "22P02", "22P05", "23502", "23505", "23514", "44000", "54000", "P0001"];
        let refused = [
            "03000", "09000", "0A000", "0B000", "0F000", "0L000", "0P000", "0Z000", "20000", "24000", "25001", "25P02",
            "26000", "27000", "28000", "28P01", "2B000", "2D000", "2F000", "34000", "38000", "39000", "3B000", "3D000",
            "3F000", "42501", "42601", "42703", "42804", "42P01", "55000", "55P02", "55P04", "72000", "F0000", "HV000",
            "P0000", "XX000", "XX001",
        ];
        let sorts =
            [(Sort::Passing, &passing[..]), (Sort::Gone, &gone), (Sort::Data, &data), (Sort::Refused, &refused)];
        for (sort, codes) in sorts {
            for code in codes {
                assert_eq!(of_sqlstate(code).0, sort, "{code}");
            }
        }
    }

    #[test]
    fn every_code_of_sqlite_has_a_meaning() {
        for code in 1..=28 {
            let sort = match code {
                5..=10 | 13..=15 | 17 => Sort::Passing,
                18..=20 => Sort::Data,
                _ => Sort::Refused,
            };
            assert_eq!(of_sqlite(&code.to_string(), "").0, sort, "{code}");
        }
        assert_eq!(of_sqlite("1299", "").0, Sort::Data, "an extended code: NOT NULL");
        assert_eq!(of_sqlite("1", "malformed JSON").0, Sort::Data);
        assert_eq!(of_sqlite("1", "no such table: malformed").0, Sort::Refused);
    }

    /// Shows: what is told has the code and what helps.
    #[test]
    fn an_answer_tells_its_code_and_what_helps() {
        let answer = Answer {
            message: "cannot execute UPDATE in a read-only transaction".into(),
            name: "SQLSTATE",
            code: "25006".into(),
            remedy: of_sqlstate("25006").1,
        };
        let told = "cannot execute UPDATE in a read-only transaction (SQLSTATE 25006: the server is read-only: it may be a standby, or \
                    about to take over)";
        assert_eq!(answer.to_string(), told);
    }
}
