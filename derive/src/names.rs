//! The names that are stored, in the log and in databases: what each kind of them may be.

use std::fmt;

use heck::ToSnakeCase;

/// A kind of names.
pub(crate) struct Names {
    /// What it is called in messages.
    pub(crate) what: &'static str,
    /// The characters allowed besides lower case letters and digits.
    extra: &'static str,
    /// The most characters.
    max: usize,
    /// Why no more.
    because: &'static str,
    /// Whether those with `es_` before them are the framework's own.
    reserved: bool,
}

/// Contexts and aggregates. No dot: it separates the parts of a topic's name, which ends at 249.
pub(crate) const TOPIC: Names = Names { extra: "_-", ..MESSAGE };

/// Events and commands.
pub(crate) const MESSAGE: Names = Names {
    what: "a stored name",
    extra: "_-.",
    max: 100,
    because: "it stands in every record, so keep it short",
    reserved: false,
};

// PostgreSQL cuts names off at 63: that of an index is namespace, table and index, with underscores between.

/// Read models.
pub(crate) const TABLE: Names = Names {
    what: "a read model's name",
    extra: "_",
    max: 24,
    because: "names of tables and indexes begin with it, so keep it short",
    reserved: true,
};

/// Columns of read models.
pub(crate) const COLUMN: Names =
    Names { what: "a column's name", extra: "_", max: 60, because: "PostgreSQL cuts longer ones off", reserved: true };

/// Indexes of read models.
pub(crate) const INDEX: Names = Names {
    what: "an index's name",
    extra: "_",
    max: 14,
    because: "it stands behind the table's, and PostgreSQL cuts longer ones off",
    reserved: false,
};

const RESERVED: &str = "es_";

/// What is wrong with a name.
pub(crate) enum Wrong {
    Length { max: usize, length: usize, because: &'static str },
    Reserved,
    Empty,
    Has(char),
    BeginsWith(char),
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { max, length, because } => {
                write!(f, "has at most {max} characters, this one has {length}: {because}")
            }
            Self::Reserved => write!(f, "can't begin with {RESERVED:?}, as the framework's own do"),
            Self::Empty => f.write_str("can't be empty"),
            Self::Has(wrong) => write!(f, "can't have {wrong:?}"),
            Self::BeginsWith(wrong) => write!(f, "can't begin with {wrong:?}"),
        }
    }
}

impl Names {
    pub(crate) fn wrong_with(&self, name: &str) -> Option<Wrong> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || self.extra.contains(c);
        let length = name.chars().count();
        if length > self.max {
            return Some(Wrong::Length { max: self.max, length, because: self.because });
        }
        if let Some(wrong) = name.chars().find(|&c| !allowed(c)) {
            return Some(Wrong::Has(wrong));
        }
        match name.chars().next() {
            None => Some(Wrong::Empty),
            Some(first) if !first.is_ascii_lowercase() => Some(Wrong::BeginsWith(first)),
            Some(_) if self.reserved && name.starts_with(RESERVED) => Some(Wrong::Reserved),
            Some(_) => None,
        }
    }

    /// The remedy behind what is wrong with `name`.
    pub(crate) fn instead(&self, name: &str, wrong: &Wrong) -> String {
        let example = self.valid_like(name).map(|valid| format!(", for example {valid:?}")).unwrap_or_default();
        match wrong {
            Wrong::Length { .. } => String::new(),
            Wrong::Reserved => format!(": choose another{example}"),
            _ => format!(": use {}{example}", self.characters()),
        }
    }

    pub(crate) fn characters(&self) -> String {
        let mut all = vec!["lower case letters".to_owned(), "digits".into()];
        all.extend(self.extra.chars().map(|c| format!("`{c}`")));
        let last = all.pop().unwrap_or_default();
        format!("{} and {last}, a letter first", all.join(", "))
    }

    /// A name like this one that is allowed, where there is one.
    pub(crate) fn valid_like(&self, name: &str) -> Option<String> {
        let snake = name.to_snake_case();
        let own = if self.reserved { snake.trim_start_matches(RESERVED) } else { &snake };
        self.wrong_with(own).is_none().then(|| own.to_owned())
    }
}
