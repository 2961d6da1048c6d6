//! A table takes over what a build holds. Whoever reads it goes on meanwhile, save for the moment in which columns come and go.

use sqlx::postgres::PgDatabaseError;
use tokio::time::timeout;

use super::{Result, Tx, kind_name};
use crate::sql::DriverError;
use crate::sql::change::{Change, Columns, add_rows, take_rows};
use crate::sql::names::quoted;
use crate::sql::statement;
use crate::sql::table::Column;
use crate::sql::value::Kind;

/// "Dependent objects still exist".
const DEPENDENTS: &str = "2BP01";
/// "Insufficient privilege", which a policy is, too.
const NO_RIGHT: &str = "42501";

impl Tx {
    /// Does what may be refused, and takes it back: it holds no table while it asks for the next.
    pub(in crate::sql) async fn try_change(&mut self, change: &Change) -> Result<()> {
        self.script("SAVEPOINT tried").await?;
        self.do_what_may_be_refused(change).await?;
        self.script("ROLLBACK TO SAVEPOINT tried").await
    }

    async fn do_what_may_be_refused(&mut self, change: &Change) -> Result<()> {
        // With policies that bind this role it would see some rows only: told rather than passed over.
        self.script("SET LOCAL row_security = off").await?;
        let name = quoted(&change.name);
        if change.from.is_some() {
            self.define(&format!("DO $$ BEGIN PERFORM 1 FROM {name} LIMIT 1; END $$")).await?;
        }
        match change.columns() {
            Some(columns) if !change.is_of_rows() => {
                self.wait_for_free(&change.name, "SHARE UPDATE EXCLUSIVE").await?;
                self.refuse_references(&change.name, &columns).await?;
                self.refuse_losses(&change.name, &columns).await?;
                self.prepare(&change.name, &columns).await?;
                self.begin_columns(&change.name, &columns).await?;
                self.end_columns(&change.name, &columns).await
            }
            None if change.from.is_some() => {
                self.wait_for_free(&change.name, "SHARE UPDATE EXCLUSIVE").await?;
                self.define(&format!("DROP TABLE {name}")).await
            }
            _ => Ok(()),
        }
    }

    /// What keeps nobody waiting and hurts nobody that goes on as before.
    pub(in crate::sql) async fn prepare_change(&mut self, change: &Change) -> Result<()> {
        match change.columns() {
            Some(columns) if !change.is_of_rows() => {
                self.wait_for_free(&change.name, "SHARE UPDATE EXCLUSIVE").await?;
                self.prepare(&change.name, &columns).await
            }
            _ => Ok(()),
        }
    }

    /// Keeps everybody else from writing what changes.
    pub(in crate::sql) async fn hold(&mut self, change: &Change) -> Result<()> {
        match (&change.from, &change.to) {
            (None, _) => Ok(()),
            (Some(_), None) => self.wait_for_free(&change.name, "SHARE UPDATE EXCLUSIVE").await,
            (Some(_), Some(_)) => self.wait_for_free(&change.name, "SHARE ROW EXCLUSIVE").await,
        }
    }

    /// Takes over the rows, and what of the columns that takes.
    pub(in crate::sql) async fn take_over(&mut self, change: &Change) -> Result<()> {
        self.script("SET LOCAL row_security = off").await?;
        let (name, built) = (&change.name, &change.built);
        let Some(to) = &change.to else { return Ok(()) };
        let Some(columns) = change.columns() else {
            self.create(to, name).await?;
            return self.script(&add_rows(name, to, built)).await;
        };
        if !columns.has_another_key() {
            self.begin_columns(name, &columns).await?;
            for statement in take_rows(name, to, built, differs) {
                self.script(&statement).await?;
            }
            return Ok(());
        }
        self.refuse_references(name, &columns).await?;
        self.script(&format!("DELETE FROM {}", quoted(name))).await?;
        self.begin_columns(name, &columns).await?;
        self.script(&add_rows(name, to, built)).await
    }

    /// Keeps everybody from reading tables that become others. Each reader takes one lock after the other, and waits for the next
    /// with those that it has. So a view comes before its tables, as for its readers; and where the tables can't be
    /// had in one order, those that take them in the other one are in the way, and they can be had in theirs.
    pub(in crate::sql) async fn keep_readers_out(&mut self, changes: &[Change]) -> Result<()> {
        let tables = changes.iter().filter(|change| change.keeps_readers_out()).map(|change| change.name.as_str());
        let mut tables: Vec<_> = tables.collect();
        self.script("SAVEPOINT readers").await?;
        match self.lock_out(&tables).await {
            Err(DriverError::Unavailable(_)) if tables.len() > 1 => {}
            done => return done,
        }
        self.script("ROLLBACK TO SAVEPOINT readers").await?;
        tables.reverse();
        self.lock_out(&tables).await
    }

    async fn lock_out(&mut self, tables: &[&str]) -> Result<()> {
        for name in tables {
            for lock in self.locks_of_views(name).await? {
                self.define(&lock).await?;
            }
        }
        for name in tables {
            self.lock_table(name, "ACCESS EXCLUSIVE").await?;
        }
        Ok(())
    }

    /// Statements that lock the views over a table for this transaction alone, those that others are made of last. `LOCK TABLE` would
    /// lock all tables of a view as well.
    async fn locks_of_views(&mut self, name: &str) -> Result<Vec<String>> {
        let over = |relation: &str| {
            format!(
                "pg_depend AS d JOIN pg_rewrite AS r ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid \
                 WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = {relation} AND r.ev_class <> d.refobjid"
            )
        };
        let (direct, further) = (over("to_regclass(quote_ident(?))"), over("v.view"));
        let sql = format!(
            "WITH RECURSIVE views (view, height) AS (SELECT r.ev_class, 1 FROM {direct} \
             UNION SELECT r.ev_class, v.height + 1 FROM views AS v, {further}) \
             SELECT format('ALTER VIEW IF EXISTS %s OWNER TO %I', c.oid::regclass, pg_get_userbyid(c.relowner)) AS lock \
             FROM views AS v JOIN pg_class AS c ON c.oid = v.view WHERE c.relkind = 'v' AND pg_has_role(c.relowner, 'USAGE') \
             GROUP BY c.oid, c.relowner ORDER BY max(v.height) DESC, c.oid"
        );
        let locks = self.fetch(&sql, &[name.into()]).await?;
        let locks = locks.iter().map(|row| row.get("lock").map_err(|error| DriverError::Invalid(error.to_string())));
        locks.collect()
    }

    /// Does what is left to do when nobody reads a table any more that becomes another one.
    pub(in crate::sql) async fn end_change(&mut self, change: &Change) -> Result<()> {
        let name = &change.name;
        let Some(to) = &change.to else { return self.define(&format!("DROP TABLE {}", quoted(name))).await };
        let Some(columns) = change.columns() else { return Ok(()) };
        if change.is_of_rows() {
            return self.create(to, name).await; // an index may have been removed by hand
        }
        self.end_columns(name, &columns).await?;
        let required = |column: &&Column| !column.optional;
        for column in
            columns.added().chain(columns.of_another_kind()).chain(columns.otherwise_optional()).filter(required)
        {
            self.alter(name, &format!("ALTER COLUMN {} SET NOT NULL", quoted(&column.name))).await?;
        }
        if columns.has_another_key() {
            let key = statement::names(to.key_columns(), "");
            self.alter(name, &format!("ADD PRIMARY KEY ({key})")).await?;
        }
        self.create(to, name).await
    }

    /// Columns that come, as yet without values; those that go need none any more.
    async fn prepare(&mut self, name: &str, columns: &Columns<'_>) -> Result<()> {
        for column in columns.added() {
            let sql = "SELECT format_type(atttypid, atttypmod) AS type FROM pg_attribute \
                       WHERE attrelid = to_regclass(quote_ident(?)) AND attname = ? AND NOT attisdropped";
            let there = self.fetch(sql, &[name.into(), column.name.as_str().into()]).await?;
            let (kind, column) = (kind_name(column), &column.name);
            match there.first().and_then(|row| row.get::<String>("type").ok()) {
                None => self.alter(name, &format!("ADD COLUMN {} {kind}", quoted(column))).await?,
                Some(there) if kind.split(' ').next() == Some(written(&there)) => {}
                Some(there) => {
                    let why = format!("table {name:?} has a column {column:?} of type {there} already: remove it");
                    return Err(DriverError::Invalid(why));
                }
            }
        }
        // Those of the key can't be, as long as it is the key.
        for column in columns.emptied().filter(|column| !columns.is_in_key(column)) {
            self.alter(name, &format!("ALTER COLUMN {} DROP NOT NULL", quoted(&column.name))).await?;
        }
        Ok(())
    }

    /// What has to be done before rows are taken over.
    async fn begin_columns(&mut self, name: &str, columns: &Columns<'_>) -> Result<()> {
        if columns.has_another_key() {
            let sql = "SELECT conname::text AS name FROM pg_constraint \
                       WHERE conrelid = to_regclass(quote_ident(?)) AND contype = 'p'";
            for row in self.fetch(sql, &[name.into()]).await? {
                let key: String = row.get("name").map_err(|error| DriverError::Invalid(error.to_string()))?;
                self.alter(name, &format!("DROP CONSTRAINT {}", quoted(&key))).await?;
            }
            for column in columns.emptied().filter(|column| columns.is_in_key(column)) {
                self.alter(name, &format!("ALTER COLUMN {} DROP NOT NULL", quoted(&column.name))).await?;
            }
        }
        for column in columns.of_another_kind() {
            let kind = kind_name(column);
            let column = quoted(&column.name);
            self.alter(name, &format!("DROP COLUMN {column}")).await?;
            self.alter(name, &format!("ADD COLUMN {column} {kind}")).await?;
        }
        Ok(())
    }

    /// What can wait until they are.
    async fn end_columns(&mut self, name: &str, columns: &Columns<'_>) -> Result<()> {
        for index in columns.indexes_removed() {
            let index = quoted(&statement::index_name(name, index));
            self.define(&format!("DROP INDEX IF EXISTS {index}")).await?;
        }
        for column in columns.removed() {
            self.alter(name, &format!("DROP COLUMN {}", quoted(&column.name))).await?;
        }
        Ok(())
    }

    /// Rows that others refer to can't be taken out and put in again with another key.
    async fn refuse_references(&mut self, name: &str, columns: &Columns<'_>) -> Result<()> {
        if !columns.has_another_key() {
            return Ok(());
        }
        let sql = "SELECT string_agg(conname || ' of table ' || conrelid::regclass, ', ' ORDER BY conname) AS names \
                   FROM pg_constraint WHERE contype = 'f' AND confrelid = to_regclass(quote_ident(?))";
        let found = self.fetch(sql, &[name.into()]).await?;
        match found.first().and_then(|row| row.get::<Option<String>>("names").ok().flatten()) {
            None => Ok(()),
            Some(names) => Err(DriverError::Invalid(format!(
                "the key of table {name:?} changes, and foreign keys refer to it: {names}"
            ))),
        }
    }

    /// What is over a column goes with it without a word, and so do the rights to it. A key that changes takes all rows out, and with
    /// them what others keep in columns of their own.
    async fn refuse_losses(&mut self, name: &str, columns: &Columns<'_>) -> Result<()> {
        let literal = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let list = |names: Vec<String>| format!("ARRAY[{}]::text[]", names.join(", "));
        let (from, to) = (columns.from(), columns.to);
        let going =
            list(columns.removed().chain(columns.of_another_kind()).map(|column| literal(&column.name)).collect());
        let ours = list(from.indexes().iter().map(|index| literal(&statement::index_name(name, index))).collect());
        // Those that are made anew over a column that is, too.
        let dropped = columns.indexes_removed().chain(columns.indexes_over_changed());
        let dropped = list(dropped.map(|index| literal(&statement::index_name(name, index))).collect());
        let declared = list(from.columns().iter().chain(to.columns()).map(|column| literal(&column.name)).collect());
        let sql = format!(
            "WITH a AS (SELECT * FROM pg_attribute WHERE attrelid = to_regclass(quote_ident(?)) AND attnum > 0 AND NOT attisdropped), \
             gone AS (SELECT * FROM a WHERE attname::text = ANY ({going})) \
             SELECT string_agg(DISTINCT what COLLATE \"C\", ', ' ORDER BY what COLLATE \"C\") AS names FROM ( \
             SELECT pg_describe_object(d.classid, d.objid, d.objsubid) AS what FROM gone \
             JOIN pg_depend AS d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = attrelid AND d.refobjsubid = attnum \
             WHERE d.deptype = 'a' \
             AND NOT (d.classid = 'pg_class'::regclass AND EXISTS \
             (SELECT 1 FROM pg_class AS i WHERE i.oid = d.objid AND i.relname::text = ANY ({ours}))) \
             AND NOT (d.classid = 'pg_constraint'::regclass AND EXISTS \
             (SELECT 1 FROM pg_constraint AS c WHERE c.oid = d.objid AND c.contype IN ('p', 'n'))) \
             UNION ALL SELECT 'rights to column ' || attname FROM gone WHERE attacl IS NOT NULL \
             UNION ALL SELECT 'the comment on column ' || attname FROM gone WHERE col_description(attrelid, attnum) IS NOT NULL \
             UNION ALL SELECT 'the comment on index ' || c.relname FROM pg_class AS c \
             WHERE c.relname::text = ANY ({dropped}) AND c.relnamespace = (SELECT DISTINCT relnamespace FROM pg_class, a \
             WHERE pg_class.oid = a.attrelid) AND obj_description(c.oid, 'pg_class') IS NOT NULL \
             UNION ALL SELECT 'the comment on constraint ' || conname FROM pg_constraint \
             WHERE {} AND contype = 'p' AND conrelid IN (SELECT attrelid FROM a) AND obj_description(oid, 'pg_constraint') IS NOT NULL \
             UNION ALL SELECT 'column ' || attname FROM a WHERE {} AND attname::text <> ALL ({declared})) AS lost",
            columns.has_another_key(),
            columns.has_another_key()
        );
        let found = self.fetch(&sql, &[name.into()]).await?;
        let names = found.first().map(|row| row.get::<Option<String>>("names"));
        match names.transpose().map_err(|error| DriverError::Invalid(error.to_string()))?.flatten() {
            None => Ok(()),
            Some(names) => Err(DriverError::Invalid(format!(
                "columns of table {name:?} go or are made anew, and with them: {names}"
            ))),
        }
    }

    /// Takes a lock that keeps no reader waiting. It has time for it, since the server's vacuum makes way only for who has waited for
    /// a second; what follows fails soon again where somebody is in the way.
    async fn wait_for_free(&mut self, name: &str, mode: &str) -> Result<()> {
        self.wait_for_vacuum().await?;
        self.lock_table(name, mode).await?;
        self.wait_briefly().await
    }

    pub(in crate::sql) async fn wait_briefly(&mut self) -> Result<()> {
        self.script("SET LOCAL lock_timeout = '200ms'").await
    }

    /// For longer than `deadlock_timeout`, which is a second.
    pub(in crate::sql) async fn wait_for_vacuum(&mut self) -> Result<()> {
        self.script("SET LOCAL lock_timeout = '3s'").await
    }

    async fn lock_table(&mut self, name: &str, mode: &str) -> Result<()> {
        self.script(&format!("LOCK TABLE {} IN {mode} MODE", quoted(name))).await
    }

    async fn alter(&mut self, name: &str, what: &str) -> Result<()> {
        self.define(&format!("ALTER TABLE {} {what}", quoted(name))).await
    }

    /// A statement about the table itself; where something depends on it, the error tells what.
    async fn define(&mut self, sql: &str) -> Result<()> {
        let work = async {
            let done = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(self.lease.ask()).await;
            done.map(drop).map_err(refused)
        };
        let done = timeout(self.limit, work).await;
        self.lease.answered(self.limit, done)
    }
}

fn refused(error: sqlx::Error) -> DriverError {
    let known = error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
    match known.filter(|known| [DEPENDENTS, NO_RIGHT].contains(&known.code())) {
        Some(known) => {
            let detail = known.detail().map(|detail| format!(": {}", detail.replace('\n', "; ")));
            DriverError::Invalid(format!("{}{}", known.message(), detail.unwrap_or_default()))
        }
        None => super::failed(error),
    }
}

/// The name of a type as statements have it.
fn written(there: &str) -> &str {
    match there {
        "bigint" => "BIGINT",
        "text" => "TEXT",
        "boolean" => "BOOLEAN",
        "bytea" => "BYTEA",
        "json" => "JSON",
        "timestamp with time zone" => "TIMESTAMPTZ",
        "date" => "DATE",
        "numeric" => "NUMERIC",
        "uuid" => "UUID",
        other => other,
    }
}

/// Whether a column is another one. JSON has no equality, and numbers that are equal may be written otherwise.
fn differs(column: &Column) -> String {
    let name = quoted(&column.name);
    let text = if matches!(column.kind, Kind::Json | Kind::Decimal) { "::text" } else { "" };
    format!("t.{name}{text} IS DISTINCT FROM b.{name}{text}")
}
