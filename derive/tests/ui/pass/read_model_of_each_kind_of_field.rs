#![deny(warnings)]
#![allow(dead_code)]
use es_projections::{ColumnValue, Kind, ReadModel};

mod inner {
    use es_projections::ReadModel;

    #[derive(Clone, Debug, ReadModel)]
    #[allow(non_snake_case)]
    #[read_model(name = "a1_")]
    pub(crate) struct Inner {
        #[key]
        pub(crate) r#type: super::r#struct,
        #[column(json)]
        r#in: (Option<u8>, [u8; 2]),
        #[deprecated]
        r#fn: Option<super::r#struct>,
        #[column(name = "very", text)]
        __very: core::option::Option<std::net::IpAddr>,
        #[cfg(any())]
        gone: NoSuchType,
        #[column(name = "upper")]
        UPPER: bool,
    }
}

#[allow(non_camel_case_types)]
#[derive(Clone, Debug, PartialEq, Eq, Hash, ColumnValue)]
pub struct r#struct {
    r#type: String,
}

/// Both are in one module with what `derive` writes inside of constants.
#[derive(Clone, Debug, PartialEq, Eq, Hash, ColumnValue)]
struct Field(u8);

fn main() {
    // In a function, of its types.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ColumnValue)]
    struct Local(i64);

    #[derive(Clone, ReadModel)]
    #[read_model(name = "a_name_of_24_characters_", version = 4294967295)]
    #[read_model(index(fourteen_chars = [id,]),)]
    struct Row
    where
        Local: Copy,
    {
        #[key]
        id: Local,
        #[key]
        field: Field,
    }

    assert_eq!(Row { id: Local(1), field: Field(2) }.key(), (Local(1), Field(2)));
    assert_eq!((Row::NAME, Row::VERSION), ("a_name_of_24_characters_", u32::MAX));
    let columns: Vec<_> = inner::Inner::table().columns().iter().map(|column| column.name.clone()).collect();
    assert_eq!(columns, ["type", "in", "fn", "very", "upper"]);
    assert_eq!(r#struct::KIND, Kind::Text);
}
