//! The figures on the embedded log.

use std::path::Path;
use std::sync::Arc;

use es_core::log::embedded::{EmbeddedConfig, EmbeddedLog};
use es_core::{Engine, EngineConfig};
use tempfile::TempDir;

use crate::Failure;
use crate::account::{Account, Deposits};
use crate::figure::Figure;
use crate::floor::{self, FileLoop, FileOnce};
use crate::load;

/// An engine on a log of its own, with its state on disk, as the bank runs it.
struct Setup {
    engine: Engine,
    deposits: Deposits,
    dir: TempDir,
    templates: Vec<Vec<u8>>,
}

impl Setup {
    async fn new(accounts: usize) -> Result<Self, Failure> {
        let dir = folder()?;
        let log = Arc::new(EmbeddedLog::open(dir.path().join("log"), EmbeddedConfig::default())?);
        let config = EngineConfig { state_dir: Some(dir.path().join("state")), ..EngineConfig::default() };
        let engine = Engine::new(log.clone(), config);
        let bus = engine.start::<Account>().await?;
        bus.ready().await?;
        let deposits = Deposits::new(bus.clone(), accounts);
        load::rate(64, floor::SAMPLING, &deposits).await;
        let templates = floor::templates(log.as_ref(), bus.source()).await?;
        let templates = templates.iter().map(floor::bytes).collect();
        Ok(Self { engine, deposits, dir, templates })
    }

    fn file(&self) -> impl AsRef<Path> {
        self.dir.path().join("floor")
    }
}

/// A folder beside the program: the system's place for temporary files may be in memory, where syncing is free.
pub(crate) fn folder() -> Result<TempDir, Failure> {
    let program = std::env::current_exe()?;
    let beside = program.parent().ok_or("a program is in a folder")?;
    Ok(tempfile::Builder::new().prefix("bench-").tempdir_in(beside)?)
}

pub(crate) async fn many(name: &'static str) -> Result<Figure, Failure> {
    let setup = Setup::new(1_000).await?;
    let floor = FileLoop::start(setup.file(), setup.templates.clone())?;
    let (ours, floor) = load::many(256, &setup.deposits, &floor).await;
    setup.engine.shutdown().await;
    Ok(Figure::of_medians(name, "commands/s", ours, floor))
}

pub(crate) async fn one(name: &'static str) -> Result<Figure, Failure> {
    let setup = Setup::new(1_000).await?;
    let floor = FileOnce::new(setup.file(), setup.templates.clone())?;
    let (ours, floor) = load::one(&setup.deposits, &floor).await;
    setup.engine.shutdown().await;
    Ok(Figure::of_medians(name, "ms p50", ours, floor))
}
