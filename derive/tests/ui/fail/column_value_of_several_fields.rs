include!("../read_models.rs");

#[derive(Debug, Clone, ColumnValue)]
struct Money(i64, String);

#[derive(Debug, Clone, ColumnValue)]
struct Named {
    amount: i64,
    currency: String,
}

#[derive(Debug, Clone, ColumnValue)]
struct Unit;

#[derive(Debug, Clone, ReadModel)]
#[read_model(name = "accounts")]
struct AccountRow {
    #[key]
    id: String,
    balance: Money,
}

fn main() {}
