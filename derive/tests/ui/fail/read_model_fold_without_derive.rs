include!("../read_models.rs");

#[derive(Debug, Clone)]
struct AccountRow {
    id: String,
}

impl Fold<Account> for AccountRow {
    fn fold(_: &AccountEvent, _: &Recorded, _: &mut Rows) -> Result<(), ProjectionError> {
        Ok(())
    }
}

fn main() {}
