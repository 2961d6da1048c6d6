//! A new release's version of a read model: built beside the one that serves, and then put in its place.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::pause::Pause;
use super::rebuild::{Check, RebuildProgress};
use super::{RunningProjection, Worker};
use crate::builds;
use crate::error::Error;
use crate::projection::Projection;

/// How often it is looked at what another process has built.
const LOOK: Duration = Duration::from_millis(200);
/// How long another process that builds may show nothing before this one goes on with its build.
const SILENCE_MIN: Duration = Duration::from_secs(5);

impl Worker {
    /// Starts a worker as [`Worker::start`] does. Where the read model is of an earlier version it is built anew first, beside the one
    /// that serves, as [`Worker::rebuild`] does it, and then put in its place.
    ///
    /// So a new release is deployed without an outage, in this order: a process of it is started beside those of the old one, which
    /// serve on; when this returns, the new version is live, and the process may serve; then the old ones are stopped. From the switch
    /// on their workers fold nothing in and [stand by](super::StandsBy::OtherVersion), while their handles wait for, and show, what
    /// those of the new release commit. Several processes may do so at once: one builds, and the others wait for it, or go on when it
    /// is gone. The workers must [share](Worker::share). At the switch the tables take over the rows of the new version: those of the
    /// old one are not kept.
    ///
    /// From when an earlier version was found, what may pass of database and log ends nothing: it is tried again, with a growing pause and
    /// a line in the log, and the build goes on where it was.
    ///
    /// # Errors
    /// As for [`Worker::start`] and [`Worker::rebuild`]; [`Error::OtherVersion`] when the read model is of a later version.
    pub async fn deploy(
        &self,
        projection: impl Projection,
        mut report: impl FnMut(RebuildProgress) + Send,
    ) -> Result<RunningProjection, Error> {
        let projection: Arc<dyn Projection> = Arc::new(projection);
        let (mut is_under_way, mut pause) = (false, Pause::new("deploying another version"));
        loop {
            match self.try_to_deploy(&projection, &mut is_under_way, &mut report).await {
                Ok(Some(handle)) => return Ok(handle),
                Ok(None) => {
                    pause.reset();
                }
                Err(error) if is_under_way && error.is_retryable() => {
                    tokio::time::sleep(pause.grow(projection.name(), &error)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// None where it has to be tried again. It is under way from when an earlier version was seen to be live: that does not come of a
    /// database that can't be used, and what is done so far is there still.
    async fn try_to_deploy(
        &self,
        projection: &Arc<dyn Projection>,
        is_under_way: &mut bool,
        report: &mut (impl FnMut(RebuildProgress) + Send),
    ) -> Result<Option<RunningProjection>, Error> {
        let refused = match self.start(projection.clone()).await {
            Err(error @ Error::OtherVersion(_)) => error,
            // It may be at the switch, for which it shuts out whoever begins.
            Err(error) if error.is_retryable() && self.another_builds(&**projection).await? => {
                *is_under_way = true;
                let projection_name = projection.name();
                tracing::warn!(
                    projection = projection_name,
                    error = &error as &dyn std::error::Error,
                    "waiting for another process"
                );
                self.wait_for_another(&**projection).await?;
                tokio::time::sleep(LOOK).await;
                return Ok(None);
            }
            started => return started.map(Some),
        };
        match builds::look_for_live(&self.database, projection.name()).await? {
            Some(live) if live.version < projection.version() => {}
            // Another process was quicker.
            Some(live) if live.is_of(&**projection) => return Ok(None),
            _ => return Err(refused),
        }
        *is_under_way = true;
        match self.rebuild(projection.clone(), Check::Nothing, report).await {
            Err(error) if error.is_fenced() => self.wait_for_another(&**projection).await?,
            rebuilt => rebuilt?,
        }
        Ok(None)
    }

    /// Whether an earlier version is live, and a build is there to replace it.
    async fn another_builds(&self, projection: &dyn Projection) -> Result<bool, Error> {
        let live = builds::look_for_live(&self.database, projection.name()).await?;
        let signs = builds::signs_of_building(&self.database, projection.name()).await?;
        Ok(live.is_some_and(|live| live.version < projection.version()) && signs.iter().any(Option::is_some))
    }

    /// Waits while another process builds this version, as long as it shows that it does.
    async fn wait_for_another(&self, projection: &dyn Projection) -> Result<(), Error> {
        let silence = self.share.unwrap_or_default().max(SILENCE_MIN);
        let mut shown = None;
        let mut since = Instant::now();
        loop {
            let live = builds::look_for_live(&self.database, projection.name()).await?;
            if live.is_none_or(|live| live.version >= projection.version()) {
                return Ok(());
            }
            let now = builds::signs_of_building(&self.database, projection.name()).await?;
            if shown.as_ref() != Some(&now) {
                (shown, since) = (Some(now), Instant::now());
            }
            if since.elapsed() > silence {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
