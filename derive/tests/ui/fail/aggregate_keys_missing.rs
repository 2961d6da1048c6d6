include!("../bank.rs");

#[derive(Debug, Clone, Default, Serialize, Deserialize, Aggregate)]
#[aggregate(name = "account", id = u64, command = AccountCommand, error = AccountError)]
struct Account {
    balance: u64,
}

fn main() {}
