include!("../read_models.rs");

#[derive(Debug, Clone, ReadModel)]
#[read_model(name = "Accounts", version = "2", index(by_owner = [owner]))]
struct AccountRow {
    id: String,
    #[column(nmae = "es_owner")]
    holder: Vec<String>,
    #[column(json, name = "ID")]
    note: String,
}

impl Fold<Account> for AccountRow {
    fn fold(_: &AccountEvent, _: &Recorded, rows: &mut Rows) -> Result<(), ProjectionError> {
        rows.change(&"1".to_owned(), |row: &mut AccountRow| row.note.clear())
    }
}

fn main() {}
