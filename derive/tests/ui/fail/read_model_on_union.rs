include!("../read_models.rs");

#[derive(ReadModel)]
#[read_model(name = "accounts")]
union AccountRow {
    balance: u64,
}

fn main() {}
