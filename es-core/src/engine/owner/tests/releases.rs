//! Two releases of one aggregate type at once: what the older one does not know is not lost, and nobody is told that it
//! was not done.

use super::group::{Cluster, PARTITIONS, eventually, ids};
use super::*;

/// [`Counter`] in an earlier release, which had one command alone.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, Aggregate)]
#[aggregate(context = "test", name = "counter", id = String, command = Early, event = Done, error = No)]
struct Older {
    sum: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Command)]
enum Early {
    Take { n: u64 },
}

impl Handle for Older {
    fn handle(&self, command: Early, _: &Context) -> Result<Vec<Done>, No> {
        let Early::Take { n } = command;
        if n <= self.sum { Ok(vec![Done::Taken { n }]) } else { Err(No::TooFew { sum: self.sum }) }
    }
}

impl Apply for Older {
    fn apply(&mut self, event: &Done) {
        match event {
            Done::Added { n } => self.sum += n,
            Done::Taken { n } => self.sum -= n,
            Done::Panicked | Done::Said { .. } => {}
        }
    }
}

async fn older(cluster: &Cluster) -> (Engine, Bus<Older>) {
    let config = EngineConfig { node: "older".into(), ..cluster.world.config.clone() };
    let (log, group) = (Arc::new(cluster.world.log.clone()), Arc::new(cluster.group.clone()));
    let engine = Engine::shared(log, group, config);
    let bus = engine.start::<Older>().await.unwrap();
    bus.ready().await.unwrap();
    (engine, bus)
}

#[tokio::test(start_paused = true)]
async fn a_command_that_the_owner_does_not_know_waits_for_one_that_does() {
    let cluster = Cluster::new();
    let newer = cluster.process("newer").await;
    let (engine, bus) = older(&cluster).await;
    cluster.serves(&newer, 2).await;
    let id = ids(&newer, false).next().unwrap();
    let rejected = || bus.status().iter().map(|status| status.rejected).sum::<u64>();
    let sending = newer.sending(&id, "a", add(5));
    eventually("passed over", || rejected() > 0).await;
    engine.shutdown().await; // the deployment goes on
    assert_eq!(sending.await.unwrap().unwrap().version.get(), 1);
    assert_eq!(cluster.sum(&id).await, 5);
}

#[tokio::test(start_paused = true)]
async fn whoever_cannot_wait_for_the_newer_release_is_told_that_the_outcome_is_unknown_and_why() {
    let cluster = Cluster::new();
    let newer = cluster.process("newer").await;
    let (_engine, bus) = older(&cluster).await;
    cluster.serves(&newer, 2).await;
    let id = ids(&newer, false).next().unwrap();
    let sending = tokio::spawn({
        let (bus, id) = (newer.bus.clone(), id.clone());
        async move { bus.send(&id, add(5)).command_id("a").deadline(Duration::from_millis(600)).await }
    });
    eventually("sent again", || bus.status().iter().map(|status| status.rejected).sum::<u64>() > 1).await;
    let answer = sending.await.unwrap();
    let Err(SendError::OutcomeUnknown { reason: Some(reason), .. }) = &answer else { panic!("{answer:?}") };
    assert_eq!(reason, r#"node older does not know the command: the type "add" is not known to this program"#);
    // What it does know it decides.
    assert!(matches!(newer.send(&id, "b", Do::Take { n: 1 }).await, Err(SendError::Refused(No::TooFew { sum: 0 }))));
}

/// The clock jumps while a command is sent again and again: its id may be forgotten by then.
#[tokio::test(start_paused = true)]
async fn nothing_is_sent_again_once_the_clock_is_past_its_deadline() {
    let cluster = Cluster::new();
    let newer = cluster.process("newer").await;
    let (_engine, bus) = older(&cluster).await;
    cluster.serves(&newer, 2).await;
    let id = ids(&newer, false).next().unwrap();
    let sent = || {
        let of = |partition| cluster.world.log.partition("test.counter.commands", partition).records().len();
        (0..PARTITIONS).map(of).sum::<usize>()
    };
    let sending = newer.sending(&id, "a", add(5));
    eventually("passed over", || bus.status().iter().map(|status| status.rejected).sum::<u64>() > 0).await;
    cluster.world.clock.advance(8 * 86_400_000);
    let before = sent();
    let answer = sending.await.unwrap();
    assert!(matches!(answer, Err(SendError::OutcomeUnknown { .. })), "{answer:?}");
    assert!(sent() <= before + 1, "{before} were sent before, {} are now", sent());
}
