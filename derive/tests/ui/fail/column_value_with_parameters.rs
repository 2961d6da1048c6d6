include!("../read_models.rs");

#[derive(Debug, Clone, ColumnValue)]
struct Tagged<T>(T);

#[derive(Debug, Clone, ColumnValue)]
struct Borrowed<'a>(&'a str);

#[derive(Debug, Clone, ColumnValue)]
struct Static(&'static str);

fn main() {}
