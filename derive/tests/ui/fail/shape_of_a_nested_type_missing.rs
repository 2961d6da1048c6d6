include!("../bank.rs");

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Sums {
    paid: u64,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, Aggregate)]
#[aggregate(context = "bank", name = "account", id = u64, command = AccountCommand, event = AccountEvent, error = AccountError)]
pub struct Account {
    sums: Vec<Sums>,
}

fn main() {}
