include!("../bank.rs");

#[derive(Debug, Clone, Default, Serialize, Deserialize, Aggregate)]
#[aggregate(context = "bank", name = "account", command = AccountCommand, event = AccountEvent, error = AccountError)]
struct Account {
    balance: u64,
}

impl es_core::Handle for Account {
    async fn handle(&self, _: AccountCommand, _: &es_core::Context) -> Result<Vec<AccountEvent>, AccountError> {
        Ok(vec![AccountEvent::Opened])
    }
}

fn main() {}
