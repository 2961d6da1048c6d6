//! Which version of which projection built the read models that are there.

use chrono::Utc;

use crate::error::Error;
use crate::projection::Projection;
use crate::sql::{Database, Row, Table, check_name, quoted};

const PROJECTION_NAME_MAX: usize = 40;

/// Makes the projection's tables, or checks that those that are there were built by the same version of it.
pub(crate) async fn prepare(database: &Database, projection: &dyn Projection) -> Result<(), Error> {
    let name = projection.name();
    check_name("projection", name, PROJECTION_NAME_MAX)?;
    let tables = projection.tables();
    let shape = tables.iter().map(|table| table.shape()).collect::<Vec<_>>().join("\n");
    let mut tx = database.begin().await?;
    tx.lock_schema().await?;
    let registry = tx.table_name("es_projections");
    let all = tx.fetch(&format!("SELECT * FROM {registry}"), &[]).await?;
    let mut found = None;
    for row in &all {
        let owner: String = row.get("projection")?;
        if owner == name {
            found = Some(row);
        } else if let Some(table) = shared_table(&tables, &row.get::<String>("tables")?) {
            return Err(Error::invalid(format!(
                "projection {name} has table {table:?}, which is projection {owner}'s"
            )));
        }
    }
    match found {
        Some(row) => check(database, name, projection.version(), &shape, row)?,
        None => {
            let names = tables.iter().map(|table| table.name()).collect::<Vec<_>>().join(" ");
            let insert = "(projection, version, tables, shape, created_at) VALUES (?, ?, ?, ?, ?)";
            let row = [name.into(), projection.version().into(), names.into(), shape.into(), Utc::now().into()];
            tx.execute(&format!("INSERT INTO {registry} {insert}"), &row).await?;
        }
    }
    for table in &tables {
        tx.create(table).await?;
    }
    projection.setup(&mut tx).await.map_err(|source| Error::Projection {
        projection: name.into(),
        events: "its setup".into(),
        source,
    })?;
    tx.commit().await
}

/// A table that is among those of another projection.
fn shared_table<'a>(tables: &'a [Table], of_other: &str) -> Option<&'a str> {
    let is_there = |name: &&str| of_other.split_whitespace().any(|other| other == *name);
    tables.iter().map(Table::name).find(is_there)
}

fn check(database: &Database, name: &str, version: u32, shape: &str, row: &Row) -> Result<(), Error> {
    let stored: u32 = row.get("version")?;
    let remedy = format!("remove it with `Database::remove_projection({name:?})` to build it anew from the log");
    let read_model = format!("the read model of projection {name} in namespace {}", database.namespace());
    if stored != version {
        return Err(Error::OtherVersion(format!(
            "{read_model} was built by version {stored}, this program has version {version}: run the program that has \
             version {stored}, or {remedy}"
        )));
    }
    if row.get::<String>("shape")? != shape {
        return Err(Error::OtherVersion(format!(
            "{read_model} has other columns than this program declares, and both say version {version}: raise \
             `Projection::version`, and {remedy}"
        )));
    }
    Ok(())
}

impl Database {
    /// Drops a projection's tables and checkpoints: its next worker builds them anew from the log. A worker that
    /// runs is shut out. False when there is no such projection.
    ///
    /// # Errors
    /// [`Error::Unavailable`], or [`Error::Sql`] when something of one's own depends on the tables.
    pub async fn remove_projection(&self, name: &str) -> Result<bool, Error> {
        let mut tx = self.begin().await?;
        tx.lock_schema().await?;
        let (registry, checkpoints) = (tx.table_name("es_projections"), tx.table_name("es_checkpoints"));
        // First the checkpoints: a running worker holds its own while it writes, and can't move it any more.
        tx.execute(&format!("DELETE FROM {checkpoints} WHERE projection = ?"), &[name.into()]).await?;
        let delete = format!("DELETE FROM {registry} WHERE projection = ? RETURNING tables");
        let Some(row) = tx.fetch(&delete, &[name.into()]).await?.into_iter().next() else { return Ok(false) };
        for table in row.get::<String>("tables")?.split_whitespace() {
            let table = quoted(&format!("{}_{table}", self.namespace()));
            tx.execute(&format!("DROP TABLE IF EXISTS {table}"), &[]).await?;
        }
        tx.commit().await?;
        Ok(true)
    }
}
