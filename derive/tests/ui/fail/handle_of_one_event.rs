include!("../bank.rs");

#[derive(Debug, Clone, Default, Serialize, Deserialize, Aggregate)]
#[aggregate(context = "bank", name = "account", command = AccountCommand, event = AccountEvent, error = AccountError)]
struct Account {
    balance: u64,
}

impl es_core::Handle for Account {
    fn handle(&self, _: AccountCommand, _: &es_core::Context) -> Result<AccountEvent, AccountError> {
        Ok(AccountEvent::Opened)
    }
}

fn main() {}
