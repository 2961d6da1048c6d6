include!("../bank.rs");

#[derive(Debug, Clone, Default, Serialize, Deserialize, Aggregate)]
#[aggregate(context = "Bank", name = "account", id = u64, command = AccountCommand, event = AccountEvent, error = AccountError)]
struct Account {
    balance: u64,
}

impl Apply for Account {
    fn apply(&mut self, _: &AccountEvent) {}
}

fn main() {}
