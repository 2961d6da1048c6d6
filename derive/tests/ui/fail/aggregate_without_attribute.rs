include!("../bank.rs");

#[derive(Debug, Clone, Default, Serialize, Deserialize, Aggregate)]
struct Account {
    balance: u64,
}

fn main() {}
