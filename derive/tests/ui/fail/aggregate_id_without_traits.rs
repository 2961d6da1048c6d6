include!("../bank.rs");

pub struct AccountId(String);

#[derive(Debug, Clone, Default, Serialize, Deserialize, Aggregate)]
#[aggregate(context = "bank", name = "account", id = AccountId, command = AccountCommand, event = AccountEvent)]
struct Account {
    balance: u64,
}

fn main() {}
