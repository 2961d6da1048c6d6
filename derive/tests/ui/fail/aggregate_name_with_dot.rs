include!("../bank.rs");

#[derive(Debug, Clone, Default, Serialize, Deserialize, Aggregate)]
#[aggregate(context = "my.bank", name = "account", id = u64, command = AccountCommand, event = AccountEvent, error = AccountError)]
struct Account {
    balance: u64,
}

fn main() {}
