#![deny(warnings)]
include!("../bank.rs");

#[derive(Debug, Clone, Default, Serialize, Deserialize, Aggregate)]
#[aggregate(context = "bank", name = "account", command = AccountCommand, event = AccountEvent)]
struct Account {
    balance: u64,
}

impl es_core::Handle for Account {
    fn handle(&self, _: AccountCommand, _: &es_core::Context) -> Result<Vec<AccountEvent>, es_core::Rejection> {
        Err("the account is closed".into())
    }
}

fn main() {
    let _: <Account as Aggregate>::Id = String::from("42");
}
