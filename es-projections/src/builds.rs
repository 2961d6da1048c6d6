//! Which build of which read model there is, made by which version of its projection, and in which tables.

use std::sync::Arc;

use chrono::Utc;
use uuid::Uuid;

use crate::cut;
use crate::error::Error;
use crate::projection::Projection;
use crate::sql::{Database, Row, Table, Tx, Value, check_name, quoted};

const PROJECTION_NAME_MAX: usize = 40;
/// More would make the names of tables too long.
const BUILDS_MAX: i64 = 9_999;
/// What a copy is as of, which is no time or place that a user can give.
const COPY: &str = "verify";

/// One build of a read model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Build {
    pub(crate) projection: Arc<str>,
    pub(crate) number: i64,
    pub(crate) state: State,
    /// The version of the projection that built it.
    pub(crate) version: u32,
    /// The name of a frozen one, and what it is as of.
    label: Option<String>,
    as_of: Option<String>,
    tables: Vec<String>,
    shape: String,
}

/// What a build is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It is the read model.
    Live,
    /// It is to become that.
    Building,
    /// It was that.
    Replaced,
    /// It is as of some time or place, or a copy that is compared with the live one.
    Frozen,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Building => "building",
            Self::Replaced => "replaced",
            Self::Frozen => "frozen",
        }
    }

    fn parse(text: &str) -> Result<Self, Error> {
        let all = [Self::Live, Self::Building, Self::Replaced, Self::Frozen];
        let found = all.into_iter().find(|state| state.as_str() == text);
        found.ok_or_else(|| Error::invalid(format!("a build of a read model is {text:?}, which no release knows")))
    }
}

impl Build {
    /// The database as this build's projection sees it: with this build's tables under their plain names.
    pub(crate) fn of(&self, database: &Database) -> Database {
        database.with_tables(&self.tables, &self.suffix())
    }

    /// The values that its rows in the framework's tables begin with.
    pub(crate) fn key(&self) -> [Value; 2] {
        [self.projection.clone().into(), self.number.into()]
    }

    pub(crate) fn tables(&self) -> &[String] {
        &self.tables
    }

    pub(crate) fn is_of(&self, projection: &dyn Projection) -> bool {
        self.version == projection.version() && self.shape == shape(projection)
    }

    fn suffix(&self) -> String {
        match self.state {
            State::Live => String::new(),
            _ => format!("_b{}", self.number),
        }
    }

    /// Whether it is what this one became.
    pub(crate) fn is_made_of(&self, other: &Self) -> bool {
        self.projection == other.projection && self.number == other.number
    }

    fn read(row: &Row) -> Result<Self, Error> {
        Ok(Self {
            projection: row.get::<String>("projection")?.into(),
            number: row.get("build")?,
            state: State::parse(&row.get::<String>("state")?)?,
            version: row.get("version")?,
            label: row.get("label")?,
            as_of: row.get("as_of")?,
            tables: row.get::<String>("tables")?.split_whitespace().map(str::to_owned).collect(),
            shape: row.get("shape")?,
        })
    }
}

fn shape(projection: &dyn Projection) -> String {
    projection.tables().iter().map(Table::shape).collect::<Vec<_>>().join("\n")
}

/// Makes the read model where there is none, or checks that the one that is there was built by the same version.
pub(crate) async fn live(database: &Database, projection: &dyn Projection) -> Result<Build, Error> {
    let mut tx = begin(database, projection).await?;
    let found = of_projection(&mut tx, projection.name()).await?;
    let build = match found.iter().find(|build| build.state == State::Live) {
        Some(build) => {
            check(database, projection, build)?;
            build.clone()
        }
        None => add(&mut tx, projection, &found, State::Live, None).await?,
    };
    finish(tx, projection, &build).await?;
    Ok(build)
}

/// A build to replace the read model: one that was begun before by the same version, or a new one.
pub(crate) async fn beside(database: &Database, projection: &dyn Projection) -> Result<Build, Error> {
    let mut tx = begin(database, projection).await?;
    let found = of_projection(&mut tx, projection.name()).await?;
    if !found.iter().any(|build| build.state == State::Live) {
        let name = projection.name();
        return Err(Error::invalid(format!("there is no read model {name} to be rebuilt: start a worker of it")));
    }
    let mut begun = None;
    for build in found.iter().filter(|build| build.state == State::Building) {
        match build.is_of(projection) {
            true => begun = Some(build.clone()),
            false => drop_build(&mut tx, build).await?,
        }
    }
    let build = match begun {
        Some(build) => build,
        None => add(&mut tx, projection, &found, State::Building, None).await?,
    };
    finish(tx, projection, &build).await?;
    Ok(build)
}

/// A build that stays as it is once it is complete: one of the same version and label, or a new one.
pub(crate) async fn frozen(
    database: &Database,
    projection: &dyn Projection,
    label: &str,
    as_of: &str,
) -> Result<Build, Error> {
    let mut tx = begin(database, projection).await?;
    let found = of_projection(&mut tx, projection.name()).await?;
    let build = match found.iter().find(|build| build.label.as_deref() == Some(label)) {
        Some(build) if build.is_of(projection) && build.as_of.as_deref() == Some(as_of) => build.clone(),
        Some(build) if build.is_of(projection) => {
            let (was, name) = (build.as_of.as_deref().unwrap_or_default(), projection.name());
            return Err(Error::invalid(format!(
                "{label:?} is read model {name} as of {was} already: remove it, or give this one another name"
            )));
        }
        of_another_version => {
            if let Some(build) = of_another_version {
                drop_build(&mut tx, build).await?;
            }
            add(&mut tx, projection, &found, State::Frozen, Some((label, as_of))).await?
        }
    };
    finish(tx, projection, &build).await?;
    Ok(build)
}

/// A copy to compare the read model with. What an earlier comparison left behind is dropped; one that is at it still is told so
/// when it looks.
pub(crate) async fn copy(database: &Database, projection: &dyn Projection) -> Result<Build, Error> {
    let mut tx = begin(database, projection).await?;
    let mut found = of_projection(&mut tx, projection.name()).await?;
    check_live(database, projection, found.iter().find(|build| build.state == State::Live).cloned())?;
    for build in found.extract_if(.., |build| build.as_of.as_deref() == Some(COPY)) {
        drop_build(&mut tx, &build).await?;
    }
    // No two have the same, though they may have the same number.
    let label = format!("!verify {}", Uuid::new_v4().simple());
    let build = add(&mut tx, projection, &found, State::Frozen, Some((&label, COPY))).await?;
    finish(tx, projection, &build).await?;
    Ok(build)
}

/// The read model, if there is one of this version.
pub(crate) fn check_live(
    database: &Database,
    projection: &dyn Projection,
    live: Option<Build>,
) -> Result<Build, Error> {
    let name = projection.name();
    let missing = || Error::invalid(format!("there is no read model {name} to be verified: start a worker of it"));
    let live = live.ok_or_else(missing)?;
    check(database, projection, &live).map(|()| live)
}

/// The copies that comparisons of a read model are at, or left behind.
pub(crate) async fn copies(database: &Database, projection: &str) -> Result<Vec<Build>, Error> {
    let sql = format!("SELECT * FROM {} WHERE projection = ? AND as_of = ?", database.table_name("es_builds"));
    database.fetch(&sql, &[projection.into(), COPY.into()]).await?.iter().map(Build::read).collect()
}

/// Drops a copy. False when it was not there any more, whoever dropped it.
pub(crate) async fn remove_copy(mut tx: Tx, copy: &Build) -> Result<bool, Error> {
    tx.lock_schema().await?;
    let there = stands(&mut tx, copy).await?;
    if there {
        drop_build(&mut tx, copy).await?;
    }
    tx.commit().await.map(|()| there)
}

async fn begin(database: &Database, projection: &dyn Projection) -> Result<Tx, Error> {
    check_name("projection", projection.name(), PROJECTION_NAME_MAX)?;
    let mut tx = database.begin().await?;
    tx.lock_schema().await?;
    refuse_shared_tables(&mut tx, projection).await?;
    Ok(tx)
}

/// Makes the build's tables where they are missing, and commits.
async fn finish(mut tx: Tx, projection: &dyn Projection, build: &Build) -> Result<(), Error> {
    tx.see(build);
    for table in &projection.tables() {
        tx.create(table).await?;
    }
    if build.state == State::Live {
        setup(&mut tx, projection).await?;
    }
    tx.commit().await
}

async fn setup(tx: &mut Tx, projection: &dyn Projection) -> Result<(), Error> {
    let done = projection.setup(tx).await;
    match tx.passed_over() {
        Some(error) if error.is_retryable() => return Err(error),
        _ => {}
    }
    done.map_err(|source| Error::Projection {
        projection: projection.name().into(),
        events: "its setup".into(),
        source,
    })
}

async fn refuse_shared_tables(tx: &mut Tx, projection: &dyn Projection) -> Result<(), Error> {
    let (tables, name) = (projection.tables(), projection.name());
    let sql = format!("SELECT * FROM {} WHERE projection <> ? AND state = 'live'", tx.table_name("es_builds"));
    for row in tx.fetch(&sql, &[name.into()]).await? {
        let other = Build::read(&row)?;
        if let Some(table) = tables.iter().find(|table| other.tables.iter().any(|theirs| theirs == table.name())) {
            let (table, owner) = (table.name(), &other.projection);
            return Err(Error::invalid(format!(
                "projection {name} has table {table:?}, which is projection {owner}'s"
            )));
        }
    }
    Ok(())
}

async fn of_projection(tx: &mut Tx, projection: &str) -> Result<Vec<Build>, Error> {
    let sql = format!("SELECT * FROM {} WHERE projection = ? ORDER BY build", tx.table_name("es_builds"));
    tx.fetch(&sql, &[projection.into()]).await?.iter().map(Build::read).collect()
}

async fn add(
    tx: &mut Tx,
    projection: &dyn Projection,
    others: &[Build],
    state: State,
    label: Option<(&str, &str)>,
) -> Result<Build, Error> {
    let number = others.last().map_or(1, |last| last.number + 1);
    if number > BUILDS_MAX {
        let name = projection.name();
        return Err(Error::invalid(format!("read model {name} was built {BUILDS_MAX} times: give it another name")));
    }
    let build = Build {
        projection: projection.name().into(),
        number,
        state,
        version: projection.version(),
        label: label.map(|(label, _)| label.to_owned()),
        as_of: label.map(|(_, as_of)| as_of.to_owned()),
        tables: projection.tables().iter().map(|table| table.name().to_owned()).collect(),
        shape: shape(projection),
    };
    let columns = "(projection, build, version, state, label, as_of, tables, shape, created_at)";
    let insert = format!("INSERT INTO {} {columns} VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", tx.table_name("es_builds"));
    let row = [
        build.version.into(),
        state.as_str().into(),
        build.label.clone().into(),
        build.as_of.clone().into(),
        build.tables.join(" ").into(),
        build.shape.clone().into(),
        Utc::now().into(),
    ];
    tx.execute(&insert, &[&build.key()[..], &row].concat()).await?;
    Ok(build)
}

fn check(database: &Database, projection: &dyn Projection, build: &Build) -> Result<(), Error> {
    let (name, version, stored) = (projection.name(), projection.version(), build.version);
    let remedy = format!(
        "build it anew beside it with `Worker::rebuild`, or remove it with `Database::remove_projection({name:?})`"
    );
    let read_model = format!("the read model of projection {name} in namespace {}", database.namespace());
    if stored != version {
        return Err(Error::OtherVersion(format!(
            "{read_model} was built by version {stored}, this program has version {version}: run the program that has \
             version {stored}, or {remedy}"
        )));
    }
    if build.shape != shape(projection) {
        return Err(Error::OtherVersion(format!(
            "{read_model} has other columns than this program declares, and both say version {version}: raise \
             `Projection::version`, and {remedy}"
        )));
    }
    Ok(())
}

/// Shuts everybody out of the tables of both builds, and fails soon where somebody is there: whoever reads a table keeps its
/// name, and whoever comes after waits behind the one that wants to change it.
pub(crate) async fn lock(tx: &mut Tx, from: &Build, to: &Build) -> Result<(), Error> {
    let named = |build: &Build| {
        let name = |table: &String| format!("{}_{table}{}", tx.namespace(), build.suffix());
        build.tables.iter().map(name).collect::<Vec<_>>()
    };
    let tables = [named(from), named(to)].concat();
    tx.lock_tables(&tables).await
}

/// Makes one build the read model in place of another. The checkpoints of both are locked by the caller.
pub(crate) async fn switch(tx: &mut Tx, projection: &dyn Projection, from: &Build, to: &Build) -> Result<(), Error> {
    let namespace = tx.namespace().to_owned();
    let rename = |table: &str, from: &str, to: &str| {
        let name = |suffix: &str| quoted(&format!("{namespace}_{table}{suffix}"));
        format!("ALTER TABLE {} RENAME TO {}", name(from), name(to))
    };
    for table in from.tables() {
        tx.execute(&rename(table, "", &format!("_b{}", from.number)), &[]).await?;
    }
    for table in to.tables() {
        tx.execute(&rename(table, &to.suffix(), ""), &[]).await?;
    }
    let update = format!("UPDATE {} SET state = ? WHERE projection = ? AND build = ?", tx.table_name("es_builds"));
    for (build, state) in [(from, State::Replaced), (to, State::Live)] {
        tx.execute(&update, &[&[state.as_str().into()][..], &build.key()].concat()).await?;
    }
    // Views follow a table that is renamed, and are wanted on the one that has its name now.
    setup(tx, projection).await
}

/// Whether a build is there still and is what it was.
pub(crate) async fn stands(tx: &mut Tx, build: &Build) -> Result<bool, Error> {
    Ok(of_projection(tx, &build.projection).await?.contains(build))
}

/// The build that is the read model now.
pub(crate) async fn find_live(tx: &mut Tx, projection: &str) -> Result<Option<Build>, Error> {
    Ok(of_projection(tx, projection).await?.into_iter().find(|build| build.state == State::Live))
}

/// The same, outside a transaction.
pub(crate) async fn look_for_live(database: &Database, projection: &str) -> Result<Option<Build>, Error> {
    let sql = format!("SELECT * FROM {} WHERE projection = ? AND state = 'live'", database.table_name("es_builds"));
    database.fetch(&sql, &[projection.into()]).await?.first().map(Build::read).transpose()
}

async fn drop_build(tx: &mut Tx, build: &Build) -> Result<(), Error> {
    // First the checkpoints: a running worker holds its own while it writes, and can't move it any more.
    for table in ["es_checkpoints", "es_workers", "es_parked", "es_waiting", "es_skipped", "es_builds"] {
        let delete = format!("DELETE FROM {} WHERE projection = ? AND build = ?", tx.table_name(table));
        tx.execute(&delete, &build.key()).await?;
    }
    if let Some(label) = &build.label {
        cut::forget(tx, &cut::own(&build.projection, label)).await?;
    }
    for table in &build.tables {
        let table = quoted(&format!("{}_{table}{}", tx.namespace(), build.suffix()));
        tx.execute(&format!("DROP TABLE IF EXISTS {table}"), &[]).await?;
    }
    Ok(())
}

impl Database {
    /// Drops all builds of a projection's read model: its next worker builds it anew from the log. A worker that
    /// runs is shut out. False when there is no such projection.
    ///
    /// # Errors
    /// [`Error::Unavailable`], or [`Error::Sql`] when something of one's own depends on the tables.
    pub async fn remove_projection(&self, name: &str) -> Result<bool, Error> {
        self.remove_builds(name, |_| true).await
    }

    /// Drops what a rebuild replaced, and what one began that was not finished. False when there is nothing of it.
    ///
    /// # Errors
    /// As for [`Database::remove_projection`].
    pub async fn remove_replaced(&self, projection: &str) -> Result<bool, Error> {
        self.remove_builds(projection, |build| matches!(build.state, State::Replaced | State::Building)).await
    }

    async fn remove_builds(&self, projection: &str, which: impl Fn(&Build) -> bool) -> Result<bool, Error> {
        let mut tx = self.begin().await?;
        tx.lock_schema().await?;
        let mut builds = of_projection(&mut tx, projection).await?;
        builds.retain(which);
        for build in &builds {
            drop_build(&mut tx, build).await?;
        }
        tx.commit().await?;
        Ok(!builds.is_empty())
    }

    /// Drops a read model as of some time or place. False when there is none of this name.
    ///
    /// # Errors
    /// As for [`Database::remove_projection`].
    pub async fn remove_as_of(&self, projection: &str, name: &str) -> Result<bool, Error> {
        self.remove_builds(projection, |build| build.label.as_deref() == Some(name)).await
    }
}
