//! A table takes over what a build holds, in the one transaction that writes. Whoever reads sees what was there before.

use super::{Result, Tx, kind_name};
use crate::sql::DriverError;
use crate::sql::change::{Change, Columns, add_rows, take_rows};
use crate::sql::names::quoted;
use crate::sql::statement;
use crate::sql::table::{Column, Table};
use crate::sql::value::Kind;

impl Tx {
    /// Does what may be refused, in a transaction that is rolled back.
    pub(in crate::sql) async fn try_change(&mut self, change: &Change) -> Result<()> {
        match change.columns() {
            Some(columns) if columns.has_another_key() => self.refuse_made_on(&change.name, columns.from()).await,
            Some(columns) => self.columns(&change.name, &columns).await,
            None => match &change.from {
                Some(from) => self.refuse_made_on(&change.name, from).await,
                None => Ok(()),
            },
        }
    }

    /// Takes over the rows, and what columns it takes for that.
    pub(in crate::sql) async fn take_over(&mut self, change: &Change) -> Result<()> {
        let (name, built) = (&change.name, &change.built);
        let drop = format!("DROP TABLE {}", quoted(name));
        let Some(to) = &change.to else {
            self.try_change(change).await?;
            return self.script(&drop).await;
        };
        match change.columns() {
            Some(columns) if !columns.has_another_key() => {
                self.columns(name, &columns).await?;
                for statement in take_rows(name, to, built, differs) {
                    self.script(&statement).await?;
                }
                self.create(to, name).await
            }
            Some(_) => {
                self.try_change(change).await?;
                self.script(&drop).await?;
                self.create(to, name).await?;
                self.script(&add_rows(name, to, built)).await
            }
            None => {
                self.create(to, name).await?;
                self.script(&add_rows(name, to, built)).await
            }
        }
    }

    /// Columns come and go. One that has to hold a value has a default, since there are rows: it is never used.
    async fn columns(&mut self, name: &str, columns: &Columns<'_>) -> Result<()> {
        // A column can't go while an index is over it; what is declared still is made again in the end.
        for index in columns.indexes_removed().chain(columns.indexes_over_changed()) {
            self.script(&format!("DROP INDEX IF EXISTS {}", quoted(&statement::index_name(name, index)))).await?;
        }
        let anew = || columns.of_another_kind().chain(columns.otherwise_optional());
        for column in columns.removed().chain(anew()) {
            let sql = format!("ALTER TABLE {} DROP COLUMN {}", quoted(name), quoted(&column.name));
            self.script(&sql).await.map_err(refused)?;
        }
        for column in columns.added().chain(anew()) {
            let default = match column.kind {
                _ if column.optional => "",
                Kind::Integer | Kind::Bool => " NOT NULL DEFAULT 0",
                Kind::Bytes => " NOT NULL DEFAULT x''",
                _ => " NOT NULL DEFAULT ''",
            };
            let (column, kind) = (quoted(&column.name), kind_name(column));
            let sql = format!("ALTER TABLE {} ADD COLUMN {column} {kind}{default}", quoted(name));
            self.script(&sql).await.map_err(refused)?;
        }
        Ok(())
    }

    /// Refuses where something was made on a table that would go with it, or stay behind and mean another.
    async fn refuse_made_on(&mut self, name: &str, table: &Table) -> Result<()> {
        let ours: Vec<_> = table.indexes().iter().map(|index| statement::index_name(name, index)).collect();
        // Names have no case there; those of the framework's tables are in lower case.
        let sql = "SELECT type || ' ' || name AS what, name FROM sqlite_schema \
                   WHERE tbl_name = ? COLLATE NOCASE AND (type = 'trigger' OR type = 'index' AND sql IS NOT NULL) \
                   OR type = 'view' AND instr(lower(sql), ?) > 0 \
                   UNION ALL SELECT 'foreign key of table ' || s.name, '' FROM sqlite_schema AS s, pragma_foreign_key_list(s.name) AS f \
                   WHERE s.type = 'table' AND f.\"table\" = ? COLLATE NOCASE ORDER BY 1";
        let mut made = Vec::new();
        for row in self.fetch(sql, &[name.into(), name.into(), name.into()]).await? {
            let text =
                |column: &str| row.get::<String>(column).map_err(|error| DriverError::Invalid(error.to_string()));
            if !ours.contains(&text("name")?) {
                made.push(text("what")?);
            }
        }
        for row in self.fetch("SELECT name FROM pragma_table_info(?) ORDER BY cid", &[name.into()]).await? {
            let column: String = row.get("name").map_err(|error| DriverError::Invalid(error.to_string()))?;
            if !table.columns().iter().any(|ours| ours.name == column) {
                made.push(format!("column {column}"));
            }
        }
        if made.is_empty() {
            return Ok(());
        }
        Err(DriverError::Invalid(format!(
            "table {name:?} has to be made anew, since its key changes or it goes, and this was made on it: {}",
            made.join(", ")
        )))
    }
}

/// What SQLite says when a view or an index needs the column.
fn refused(error: DriverError) -> DriverError {
    match error {
        DriverError::Sql(cause) => DriverError::Invalid(cause.to_string()),
        other => other,
    }
}

fn differs(column: &Column) -> String {
    format!("t.{0} IS NOT b.{0}", quoted(&column.name))
}
