include!("../read_models.rs");

#[derive(Debug, Clone)]
struct Address {
    city: String,
}

#[derive(Debug, Clone, serde::Serialize)]
struct Written;

#[derive(Debug, Clone, ReadModel)]
#[read_model(name = "accounts")]
struct AccountRow {
    #[key]
    id: String,
    #[column(json)]
    address: Address,
    #[column(json)]
    former: Option<Address>,
    #[column(json)]
    written: Written,
    #[column(text)]
    city: Address,
    #[column(text)]
    last: Option<Address>,
}

fn main() {}
