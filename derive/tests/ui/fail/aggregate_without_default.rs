include!("../bank.rs");

#[derive(Debug, Clone, Serialize, Deserialize, Aggregate)]
#[aggregate(context = "bank", name = "account", command = AccountCommand, event = AccountEvent)]
struct Account {
    balance: u64,
}

fn main() {}
