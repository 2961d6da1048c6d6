include!("../bank.rs");

#[derive(Debug, Clone, Default, Serialize, Deserialize, Aggregate)]
#[aggregate(context = "bank", name = "savings", id = u64, command = AccountCommand, event = AccountEvent, error = AccountError)]
struct Savings {
    balance: u64,
}

fn main() {}
