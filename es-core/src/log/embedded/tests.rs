use super::*;
use crate::testing::log_contract;

fn config() -> EmbeddedConfig {
    EmbeddedConfig { partitions: 3, ..EmbeddedConfig::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_holds() {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(dir.path(), config()).unwrap();
    log_contract::run_all(Arc::new(log), "contract").await;
}
