//! The shapes of types of the standard library, and of those crates that this one depends on anyway.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, LinkedList, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use super::{Kind, Link, Node, Shape, Shapes};
use crate::domain::ids::{
    Actor, AggregateKey, CausationId, CommandId, CorrelationId, Epoch, EventId, ExpectedVersion, Position, StreamId,
    Version,
};

macro_rules! named {
    ($($name:literal: $($type:ty),+;)+) => {$($(
        impl Shape for $type {
            fn shape(_: &mut Shapes) -> Node {
                Node::opaque($name)
            }
        }
    )+)+};
}

named! {
    "bool": bool;
    "i8": i8, std::num::NonZeroI8;
    "i16": i16, std::num::NonZeroI16;
    "i32": i32, std::num::NonZeroI32;
    "i64": i64, std::num::NonZeroI64;
    "i128": i128, std::num::NonZeroI128;
    "isize": isize, std::num::NonZeroIsize;
    "u8": u8, std::num::NonZeroU8;
    "u16": u16, std::num::NonZeroU16;
    "u32": u32, std::num::NonZeroU32;
    "u64": u64, std::num::NonZeroU64;
    "u128": u128, std::num::NonZeroU128;
    "usize": usize, std::num::NonZeroUsize;
    "f32": f32;
    "f64": f64;
    "char": char;
    "text": str, String, std::path::Path, std::path::PathBuf;
    "unit": ();
    "duration": std::time::Duration;
    "system-time": std::time::SystemTime;
    "ip": std::net::IpAddr;
    "ipv4": std::net::Ipv4Addr;
    "ipv6": std::net::Ipv6Addr;
    "socket": std::net::SocketAddr;
    "time": chrono::DateTime<chrono::Utc>;
    "time-with-offset": chrono::DateTime<chrono::FixedOffset>;
    "local-time": chrono::NaiveDateTime;
    "date": chrono::NaiveDate;
    "time-of-day": chrono::NaiveTime;
    "weekday": chrono::Weekday;
    "month": chrono::Month;
    "uuid": uuid::Uuid, EventId;
    "json": serde_json::Value;
    "json-object": serde_json::Map<String, serde_json::Value>;
    "json-number": serde_json::Number;
    "id": AggregateKey, CommandId, CorrelationId, CausationId, Actor;
    "version": Version;
    "position": Position;
    "stream-id": StreamId;
    "epoch": Epoch;
    "expected-version": ExpectedVersion;
}

macro_rules! same {
    ($($type:ty),+ $(,)?) => {$(
        impl<T: Shape + ?Sized> Shape for $type {
            fn shape(shapes: &mut Shapes) -> Node {
                Node::same(shapes.of::<T>())
            }
        }
    )+};
}

same!(Box<T>, Rc<T>, Arc<T>, &'static T);

macro_rules! same_sized {
    ($($type:ty),+ $(,)?) => {$(
        impl<T: Shape> Shape for $type {
            fn shape(shapes: &mut Shapes) -> Node {
                Node::same(shapes.of::<T>())
            }
        }
    )+};
}

same_sized!(
    std::cell::Cell<T>,
    std::cell::RefCell<T>,
    std::num::Wrapping<T>,
    std::num::Saturating<T>,
    std::cmp::Reverse<T>
);

impl<T: Shape + ToOwned + ?Sized> Shape for Cow<'static, T> {
    fn shape(shapes: &mut Shapes) -> Node {
        Node::same(shapes.of::<T>())
    }
}

impl<T: 'static + ?Sized> Shape for std::marker::PhantomData<T> {
    fn shape(_: &mut Shapes) -> Node {
        Node::opaque("unit")
    }
}

impl<T: Shape> Shape for Option<T> {
    fn shape(shapes: &mut Shapes) -> Node {
        Node::new(Kind::Option(shapes.of::<T>()))
    }
}

macro_rules! collection {
    ($kind:ident: $($type:ty),+) => {$(
        impl<T: Shape> Shape for $type {
            fn shape(shapes: &mut Shapes) -> Node {
                Node::new(Kind::$kind(shapes.of::<T>()))
            }
        }
    )+};
}

collection!(List: [T], Vec<T>, VecDeque<T>, LinkedList<T>);
collection!(Set: BTreeSet<T>, BinaryHeap<T>);

impl<T: Shape, S: 'static> Shape for HashSet<T, S> {
    fn shape(shapes: &mut Shapes) -> Node {
        Node::new(Kind::Set(shapes.of::<T>()))
    }
}

impl<T: Shape, const N: usize> Shape for [T; N] {
    fn shape(shapes: &mut Shapes) -> Node {
        Node::new(Kind::Array(shapes.of::<T>(), N))
    }
}

impl<K: Shape, V: Shape> Shape for BTreeMap<K, V> {
    fn shape(shapes: &mut Shapes) -> Node {
        Node::new(Kind::Map(shapes.of::<K>(), shapes.of::<V>()))
    }
}

impl<K: Shape, V: Shape, S: 'static> Shape for HashMap<K, V, S> {
    fn shape(shapes: &mut Shapes) -> Node {
        Node::new(Kind::Map(shapes.of::<K>(), shapes.of::<V>()))
    }
}

macro_rules! tuples {
    ($($($name:ident)+;)+) => {$(
        impl<$($name: Shape),+> Shape for ($($name,)+) {
            fn shape(shapes: &mut Shapes) -> Node {
                Node::new(Kind::Tuple(vec![$(Link::new("", shapes.of::<$name>())),+]))
            }
        }
    )+};
}

tuples! {
    A;
    A B;
    A B C;
    A B C D;
    A B C D E;
    A B C D E F;
    A B C D E F G;
    A B C D E F G H;
}
