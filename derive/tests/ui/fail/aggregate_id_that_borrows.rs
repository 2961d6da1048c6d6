include!("../bank.rs");

#[derive(Debug, Clone, Default, Serialize, Deserialize, Aggregate)]
#[aggregate(context = "bank", name = "account", id = &str, command = AccountCommand, event = AccountEvent)]
struct Account {
    balance: u64,
}

fn main() {}
