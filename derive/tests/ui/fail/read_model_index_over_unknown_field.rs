include!("../read_models.rs");

#[derive(Debug, Clone, ReadModel)]
#[read_model(name = "accounts", index(by_balance = [balanse, id]), index(by_holder = [holder]), index(by_time = [opened, id]))]
struct AccountRow {
    #[key]
    id: String,
    #[column(name = "holder")]
    owner: String,
    balance: i64,
}

fn main() {}
