//! Which build of which read model there is, made by which version of its projection, and in which tables.

use std::sync::Arc;

use chrono::Utc;
use es_core::Cause;
use uuid::Uuid;

use crate::cut;
use crate::error::Error;
use crate::projection::Projection;
use crate::sql::{Change, Database, Named, Row, Table, Tx, Value, check_name, quoted};

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
    /// It was that: its tables are those of the one that replaced it.
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
            check_tables(&mut tx, build).await?;
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
    tx.take_time().await?;
    for table in &projection.tables() {
        tx.create(table).await?;
    }
    if build.state == State::Live {
        setup(&mut tx, projection).await?;
    }
    tx.commit().await
}

async fn setup(tx: &mut Tx, projection: &dyn Projection) -> Result<(), Error> {
    tx.take_time().await?;
    let done = projection.setup(tx).await;
    // Whatever it makes of the error: what may pass is tried again, and what has to be mended is told.
    match (done, tx.passed_over()) {
        (_, Some(error)) if error.is_retryable() => Err(error),
        (Err(source), Some(Error::Sql { database, .. })) => {
            Err(Error::Sql { doing: format!("the setup of projection {}", projection.name()), database, source })
        }
        (Err(source), _) if may_pass(&source) => {
            Err(tx.unavailable(&format!("the setup of projection {}", projection.name()), source))
        }
        (Err(source), _) => {
            Err(Error::Projection { projection: projection.name().into(), events: "its setup".into(), source })
        }
        (Ok(()), Some(error)) => Err(error),
        (Ok(()), None) => Ok(()),
    }
}

/// Whether a database told it, another one perhaps, and trying again may help.
fn may_pass(cause: &Cause) -> bool {
    let first = &**cause as &(dyn std::error::Error + 'static);
    std::iter::successors(Some(first), |error| error.source())
        .any(|error| error.downcast_ref().is_some_and(Error::is_retryable))
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
    refuse_foreign_tables(tx, &build).await?;
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

/// Refuses to make tables where something else has their names: it is not the framework's.
async fn refuse_foreign_tables(tx: &mut Tx, build: &Build) -> Result<(), Error> {
    for table in &build.tables {
        let name = format!("{}_{table}{}", tx.namespace(), build.suffix());
        refuse_foreign_table(tx, &build.projection, &name).await?;
    }
    Ok(())
}

async fn refuse_foreign_table(tx: &mut Tx, projection: &Arc<str>, name: &str) -> Result<(), Error> {
    match tx.find(name).await? {
        None => Ok(()),
        Some(_) => Err(Error::invalid(format!(
            "{name} is in the database already, and no read model's: rename or remove it, or give the table of projection \
             {projection} another name"
        ))),
    }
}

/// A read model whose table was removed by hand is not begun anew in silence, in the middle of the log.
async fn check_tables(tx: &mut Tx, build: &Build) -> Result<(), Error> {
    for table in &build.tables {
        let table = format!("{}_{table}", tx.namespace());
        if tx.find(&table).await? != Some(Named::Table) {
            let name = &build.projection;
            return Err(Error::invalid(format!(
                "table {table} of projection {name} is not there any more: remove the rest with \
                 `Database::remove_projection({name:?})`, and it is built anew"
            )));
        }
    }
    Ok(())
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
            "{read_model} has other columns or indexes than this program declares, and both say version {version}: raise \
             `Projection::version`, and {remedy}"
        )));
    }
    Ok(())
}

/// What becomes of the live tables when another build is made the read model: they stay, and take over its rows.
fn changes(tx: &Tx, projection: &dyn Projection, from: &Build, to: &Build) -> Result<Vec<Change>, Error> {
    let were = from.shape.lines().map(|shape| {
        let damaged =
            || Error::invalid(format!("the tables of projection {} are {shape:?}, which is no shape", from.projection));
        Table::of_shape(shape).ok_or_else(damaged)
    });
    let mut were = were.collect::<Result<Vec<_>, _>>()?;
    let change = |from: Option<Table>, to_be: Option<Table>| {
        let name = from.as_ref().or(to_be.as_ref()).map(|table| table.name().to_owned()).unwrap_or_default();
        let in_database = |suffix: &str| format!("{}_{name}{suffix}", tx.namespace());
        Change { name: in_database(""), from, to: to_be, built: in_database(&to.suffix()) }
    };
    let staying = projection.tables().into_iter().map(|table| {
        let was = were.iter().position(|was| was.name() == table.name()).map(|place| were.swap_remove(place));
        change(was, Some(table))
    });
    let mut changes: Vec<_> = staying.collect();
    changes.extend(were.into_iter().map(|gone| change(Some(gone), None)));
    Ok(changes)
}

/// Tells what would keep a build from becoming the read model, and changes nothing. False when another one is live meanwhile.
pub(crate) async fn try_switch(
    mut tx: Tx,
    projection: &dyn Projection,
    from: &Build,
    to: &Build,
) -> Result<bool, Error> {
    tx.lock_schema().await?;
    if !stands(&mut tx, from).await? {
        return tx.rollback().await.map(|()| false);
    }
    tx.take_time().await?;
    for change in &changes(&tx, projection, from, to)? {
        if change.from.is_none() {
            refuse_foreign_table(&mut tx, &projection.name().into(), &change.name).await?;
        }
        tx.try_change(change).await.map_err(|error| stands_in_the_way(projection, change, error))?;
    }
    tx.rollback().await.map(|()| true)
}

fn stands_in_the_way(projection: &dyn Projection, change: &Change, error: Error) -> Error {
    match error {
        Error::Invalid(reason) => {
            let (name, table) = (projection.name(), &change.name);
            Error::Invalid(format!(
                "read model {name} can't be rebuilt as this program declares it: table {table} would become another, and \
                 something that is not the framework's stands in the way ({reason}): remove that, rebuild, and make it anew"
            ))
        }
        other => other,
    }
}

/// Has the planner learn how much was built, while nothing else is held. Where it can't, the switch is slower, and that is all.
pub(crate) async fn analyze(database: &Database, build: &Build) {
    for table in &build.tables {
        let analyzed = async {
            let mut tx = database.begin().await?;
            tx.take_time().await?;
            tx.analyze(&format!("{}_{table}{}", tx.namespace(), build.suffix())).await?;
            tx.commit().await
        };
        if let Err(error) = analyzed.await {
            tracing::debug!(table, error = &error as &dyn std::error::Error, "counting what was built failed");
        }
    }
}

/// Does what can be done before the live one stands still, table by table: none is held while the next is asked for.
pub(crate) async fn prepare_switch(
    database: &Database,
    projection: &dyn Projection,
    from: &Build,
    to: &Build,
) -> Result<(), Error> {
    let mut prepared = 0;
    loop {
        let mut tx = database.begin().await?;
        tx.take_time().await?;
        tx.lock_schema().await?;
        if !stands(&mut tx, to).await? || !stands(&mut tx, from).await? {
            return tx.rollback().await; // it was removed or replaced meanwhile: the switch tells
        }
        let changes = changes(&tx, projection, from, to)?;
        let Some(change) = changes.get(prepared) else { return tx.rollback().await };
        tx.prepare_change(change).await.map_err(|error| stands_in_the_way(projection, change, error))?;
        tx.commit().await?;
        prepared += 1;
    }
}

/// Makes one build the read model in place of another: the live tables take over its rows, and its own are dropped. The
/// checkpoints of both are locked by the caller.
pub(crate) async fn switch(tx: &mut Tx, projection: &dyn Projection, from: &Build, to: &Build) -> Result<(), Error> {
    let changes = &changes(tx, projection, from, to)?;
    let in_the_way = |change| move |error| stands_in_the_way(projection, change, error);
    tx.wait_briefly_for_locks().await?;
    for change in changes {
        tx.hold(change).await.map_err(in_the_way(change))?;
    }
    let early = changes.iter().any(Change::keeps_readers_out_early);
    if early {
        tx.keep_readers_out(changes).await?;
    }
    for change in changes {
        tx.take_over(change).await.map_err(in_the_way(change))?;
    }
    if !early {
        tx.keep_readers_out(changes).await?;
    }
    for change in changes {
        tx.end_change(change).await.map_err(in_the_way(change))?;
    }
    tx.wait_for_vacuum().await?;
    drop_tables(tx, to).await?;
    tx.wait_briefly_for_locks().await?;
    // What was replaced has no tables any more; what it left out is told still.
    let update =
        format!("UPDATE {} SET state = ?, tables = ? WHERE projection = ? AND build = ?", tx.table_name("es_builds"));
    for (build, state, tables) in [(from, State::Replaced, String::new()), (to, State::Live, to.tables.join(" "))] {
        tx.execute(&update, &[&[state.as_str().into(), tables.into()][..], &build.key()].concat()).await?;
    }
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

/// Something that changes as long as somebody builds a read model beside the one that serves: what it has read, and its beats.
pub(crate) async fn signs_of_building(database: &Database, projection: &str) -> Result<Vec<Option<i64>>, Error> {
    let (builds, checkpoints) = (database.table_name("es_builds"), database.table_name("es_checkpoints"));
    let workers = database.table_name("es_workers");
    let sql = format!(
        "SELECT (SELECT sum(c.next_offset) FROM {checkpoints} AS c JOIN {builds} AS b ON b.projection = c.projection \
         AND b.build = c.build WHERE b.projection = ? AND b.state = 'building') AS read_to, \
         (SELECT sum(w.beat) FROM {workers} AS w WHERE w.projection = ? AND w.shares = 0) AS beats"
    );
    let rows = database.fetch(&sql, &[projection.into(), projection.into()]).await?;
    rows.iter().flat_map(|row| [row.get("read_to"), row.get("beats")]).collect()
}

async fn drop_build(tx: &mut Tx, build: &Build) -> Result<(), Error> {
    // First the checkpoints: a running worker holds its own while it writes, and can't move it any more.
    for table in ["es_checkpoints", "es_workers", "es_parked", "es_waiting", "es_skipped", "es_absent", "es_builds"] {
        let delete = format!("DELETE FROM {} WHERE projection = ? AND build = ?", tx.table_name(table));
        tx.execute(&delete, &build.key()).await?;
    }
    if let Some(label) = &build.label {
        cut::forget(tx, &cut::own(&build.projection, label)).await?;
    }
    drop_tables(tx, build).await
}

async fn drop_tables(tx: &mut Tx, build: &Build) -> Result<(), Error> {
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

    /// Forgets what a rebuild replaced, and drops what one began that was not finished. False when there is nothing of it.
    ///
    /// # Errors
    /// As for [`Database::remove_projection`].
    pub async fn remove_replaced(&self, projection: &str) -> Result<bool, Error> {
        self.remove_builds(projection, |build| matches!(build.state, State::Replaced | State::Building)).await
    }

    async fn remove_builds(&self, projection: &str, which: impl Fn(&Build) -> bool) -> Result<bool, Error> {
        let mut tx = self.begin_durably().await?;
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
