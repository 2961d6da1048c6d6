//! The servers that figures need: those named on the command line, else started when first asked for. And what several
//! figures share on them.

use es_tests::{Kafka, Postgres};

use crate::takeover::Accounts;
use crate::{Args, Failure};

pub(crate) struct Servers {
    kafka: Option<String>,
    own_kafka: Option<Kafka>,
    database: Option<String>,
    own_postgres: Option<Postgres>,
    accounts: Option<Accounts>,
}

impl Servers {
    pub(crate) fn new(args: &Args) -> Self {
        let (kafka, database) = (args.kafka.clone(), args.database.clone());
        Self { kafka, own_kafka: None, database, own_postgres: None, accounts: None }
    }

    /// The broker's address.
    pub(crate) async fn kafka(&mut self) -> String {
        if let Some(given) = &self.kafka {
            return given.clone();
        }
        if self.own_kafka.is_none() {
            self.own_kafka = Some(Kafka::start().await);
        }
        self.own_kafka.as_ref().map(Kafka::bootstrap).expect("started just now")
    }

    /// A million accounts, the same for every figure.
    pub(crate) async fn accounts(&mut self) -> Result<&Accounts, Failure> {
        if self.accounts.is_none() {
            self.accounts = Some(Accounts::open(self.kafka().await).await?);
        }
        Ok(self.accounts.as_ref().expect("opened just now"))
    }

    /// Databases, each empty; the one that was named is the only one.
    pub(crate) async fn databases(&mut self, count: usize) -> Vec<String> {
        if let Some(given) = &self.database {
            return vec![given.clone()];
        }
        if self.own_postgres.is_none() {
            self.own_postgres = Some(Postgres::start().await);
        }
        let server = self.own_postgres.as_ref().expect("started just now");
        let mut databases = Vec::new();
        for _ in 0..count {
            databases.push(server.database().await);
        }
        databases
    }
}
