include!("../read_models.rs");

#[derive(Debug, Clone, ReadModel)]
#[read_model(nam = "accounts", idx(by_owner = [owner]))]
struct AccountRow {
    #[key]
    id: String,
    #[column(named = "holder")]
    owner: String,
    #[column(blob)]
    photo: Vec<u8>,
    #[column]
    balance: i64,
}

fn main() {}
