// What the read models of these cases follow.
#[allow(unused_imports)]
use es_core::doc::{Account, AccountEvent};
#[allow(unused_imports)]
use es_core::Recorded;
#[allow(unused_imports)]
use es_projections::{ColumnValue, Fold, ProjectionError, ReadModel, Rows};
