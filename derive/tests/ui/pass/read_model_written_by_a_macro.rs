#![deny(warnings)]
use es_projections::{ColumnValue, Kind, ReadModel};

macro_rules! row {
    ($row:ident, $name:literal, $version:expr, $key:ident: $key_type:ty, $($field:ident: $inner:ty as $column:literal),*) => {
        #[derive(Debug, Clone, PartialEq, Eq, Hash, ColumnValue)]
        struct Id($key_type);

        #[derive(Debug, Clone, ReadModel)]
        #[read_model(name = $name, version = $version, index(by_field = [$($field),*]))]
        #[allow(dead_code)]
        struct $row {
            #[key]
            $key: Id,
            $(#[column(name = $column, json)] $field: Option<$inner>,)*
        }
    };
}

macro_rules! optional {
    ($row:ident: $type:ty) => {
        #[derive(Debug, Clone, ReadModel)]
        #[read_model(name = "optional")]
        #[allow(dead_code)]
        struct $row {
            #[key]
            id: u8,
            #[column(text)]
            text: $type,
        }
    };
}

row!(Row, "rows", 2, id: Vec<u8>, a: Vec<u64> as "one", b: String as "two");
optional!(Optional: Option<u8>);

fn main() {
    let table = Row::table();
    let columns: Vec<_> = table.columns().iter().map(|column| (column.name.as_str(), column.kind, column.optional)).collect();
    assert_eq!(columns, [("id", Kind::Bytes, false), ("one", Kind::Json, true), ("two", Kind::Json, true)]);
    assert_eq!((Row::NAME, Row::VERSION, Row { id: Id(vec![]), a: None, b: None }.key()), ("rows", 2, Id(vec![])));
    assert!(Optional::table().columns()[1].optional);
}
