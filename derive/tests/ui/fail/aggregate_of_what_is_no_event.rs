include!("../bank.rs");

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Opened;

#[derive(Debug, Clone, Default, Serialize, Deserialize, Aggregate)]
#[aggregate(context = "bank", name = "account", id = u64, command = AccountCommand, event = Opened, error = AccountError)]
struct Account {
    balance: u64,
}

fn main() {}
