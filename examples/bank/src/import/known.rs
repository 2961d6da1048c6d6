//! Whose each `trans_id` is. A command id is known to the account that it was sent to, so another account would not know that
//! one comes again: that is looked for here, in the file and in what was imported before.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use es_core::Aggregate;
use es_projections::{Database, Error, Value};

use super::lanes::{ACTOR, command_id};
use super::pkdd99::Transaction;
use crate::domain::Account;
use crate::failure::Failure;

/// How long a database that does not answer is asked again.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(500);

/// The accounts of the `trans_id`s that are known.
pub(super) struct Known {
    /// Those of the file so far: a few bytes for each of its rows.
    seen: HashMap<u64, u64>,
    /// The audit trail, where it holds what was imported before.
    before: Option<Database>,
}

impl Known {
    /// What the audit trail holds, which must have caught up, and nothing of a file yet.
    pub(super) async fn open(database: &Database) -> Result<Self, Failure> {
        let sql = format!("SELECT 1 AS found FROM {} WHERE actor = ? LIMIT 1", database.table_name("audit"));
        let found = database.fetch(&sql, &[ACTOR.into()]).await?;
        let before = (!found.is_empty()).then(|| database.clone());
        Ok(Self { seen: HashMap::new(), before })
    }

    /// For each transaction the other account that has its `trans_id`, if there is one.
    pub(super) async fn others(&mut self, transactions: &[Transaction]) -> Result<Vec<Option<String>>, Failure> {
        let before = self.imported_before(transactions).await?;
        let other = |transaction: &Transaction| {
            let Transaction { id, account, .. } = transaction;
            let in_log = before.get(&command_id(*id)).filter(|accounts| !accounts.contains(&account.to_string()));
            if let Some(other) = in_log.and_then(|accounts| accounts.iter().min()) {
                return Some(other.clone());
            }
            let first = *self.seen.entry(*id).or_insert(*account);
            (first != *account).then(|| first.to_string())
        };
        Ok(transactions.iter().map(other).collect())
    }

    /// The accounts in the audit trail by command id.
    async fn imported_before(&self, transactions: &[Transaction]) -> Result<HashMap<String, HashSet<String>>, Failure> {
        let mut found: HashMap<String, HashSet<String>> = HashMap::new();
        let Some(database) = self.before.as_ref().filter(|_| !transactions.is_empty()) else { return Ok(found) };
        let marks = vec!["?"; transactions.len()].join(", ");
        let table = database.table_name("audit");
        let sql =
            format!("SELECT command_id, aggregate_id FROM {table} WHERE command_id IN ({marks}) AND category = ?");
        let ids = transactions.iter().map(|transaction| Value::from(command_id(transaction.id).as_str()));
        let args: Vec<Value> = ids.chain([Account::NAME.into()]).collect();
        for row in patiently(async || database.fetch(&sql, &args).await).await? {
            found.entry(row.get("command_id")?).or_default().insert(row.get("aggregate_id")?);
        }
        Ok(found)
    }
}

/// Asks again while the database can't be reached, as a command that was not done is sent again.
async fn patiently<T>(ask: impl AsyncFn() -> Result<T, Error>) -> Result<T, Failure> {
    let started = Instant::now();
    loop {
        match ask().await {
            Err(error) if error.is_retryable() && started.elapsed() < PATIENCE => tokio::time::sleep(PAUSE).await,
            answer => return Ok(answer?),
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::NaiveDate;

    use super::super::pkdd99::Direction;
    use super::*;
    use crate::domain::Money;

    fn row(id: u64, account: u64) -> Transaction {
        let date = NaiveDate::from_ymd_opt(1993, 1, 1).unwrap();
        let amount = Money::new(1).unwrap();
        Transaction { line: id, id, account, date, direction: Direction::Credit, amount, reference: None }
    }

    #[tokio::test]
    async fn an_id_is_one_accounts_in_the_file_and_before() {
        let database = Database::connect("sqlite::memory:", "bank").await.unwrap();
        let mut tx = database.begin().await.unwrap();
        let table = database.table_name("audit");
        let columns = "category TEXT, aggregate_id TEXT, command_id TEXT, actor TEXT";
        tx.execute(&format!("CREATE TABLE {table} ({columns})"), &[]).await.unwrap();
        for (account, command) in [("7", "pkdd99-1"), ("8", "pkdd99-2"), ("9", "pkdd99-2"), ("7", "by-hand")] {
            let sql = format!("INSERT INTO {table} VALUES ('account', ?, ?, 'import')");
            tx.execute(&sql, &[account.into(), command.into()]).await.unwrap();
        }
        tx.commit().await.unwrap();
        let mut known = Known::open(&database).await.unwrap();
        // Again, another's, another's of two, one of two, new, again in the file, another's in the file.
        let rows = [row(1, 7), row(1, 8), row(2, 7), row(2, 9), row(3, 7), row(3, 7), row(3, 8)];
        let others = known.others(&rows).await.unwrap();
        let others: Vec<_> = others.iter().map(Option::as_deref).collect();
        assert_eq!(others, [None, Some("7"), Some("8"), None, None, None, Some("7")]);
        // The rows of another batch are of the same file.
        assert_eq!(known.others(&[row(3, 9)]).await.unwrap(), [Some("7".into())]);
        assert_eq!(known.others(&[]).await.unwrap(), []);
    }
}
