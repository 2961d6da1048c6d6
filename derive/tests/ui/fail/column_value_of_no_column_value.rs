include!("../read_models.rs");

#[derive(Debug, Clone, ColumnValue)]
struct Amount(f64);

#[derive(Debug, Clone, ReadModel)]
#[read_model(name = "accounts")]
struct AccountRow {
    #[key]
    id: String,
    amount: Amount,
}

fn main() {}
