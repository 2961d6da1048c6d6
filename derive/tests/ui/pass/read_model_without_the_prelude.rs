#![deny(warnings)]
#![no_implicit_prelude]

// The types have the names of the traits, and of what the generated code could mean by mistake.
#[derive(
    ::std::fmt::Debug, ::std::clone::Clone, ::std::cmp::PartialEq, ::std::cmp::Eq, ::std::hash::Hash,
    ::es_projections::ColumnValue,
)]
struct Value(u8);

#[derive(::std::clone::Clone, ::std::fmt::Debug, ::std::cmp::PartialEq, ::es_projections::ColumnValue)]
struct ColumnValue {
    value: ::std::option::Option<i64>,
}

#[derive(::std::clone::Clone, ::es_projections::ReadModel)]
#[read_model(name = "option")]
struct ReadModel {
    #[key]
    key: Value,
    table: ColumnValue,
    row: ::std::option::Option<Value>,
    #[column(json)]
    name: ::std::option::Option<::std::vec::Vec<u8>>,
    #[column(text)]
    place: ::std::option::Option<::std::string::String>,
}

fn main() {
    let row = ReadModel {
        key: Value(1),
        table: ColumnValue { value: ::std::option::Option::None },
        row: ::std::option::Option::None,
        name: ::std::option::Option::None,
        place: ::std::option::Option::None,
    };
    ::std::assert_eq!(::es_projections::ReadModel::key(&row), Value(1));
    ::std::assert!(::std::matches!(::es_projections::ReadModel::to_values(&row), ::std::result::Result::Ok(_)));
    ::std::assert_eq!((row.table.value, &row.row, &row.name, &row.place), Default());
}

#[allow(non_snake_case, clippy::type_complexity)]
fn Default() -> (
    ::std::option::Option<i64>,
    &'static ::std::option::Option<Value>,
    &'static ::std::option::Option<::std::vec::Vec<u8>>,
    &'static ::std::option::Option<::std::string::String>,
) {
    (::std::option::Option::None, &::std::option::Option::None, &::std::option::Option::None, &::std::option::Option::None)
}
