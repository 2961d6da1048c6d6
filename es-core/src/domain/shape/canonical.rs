//! A value in canonical form: JSON close to RFC 8785 (JCS), without what equals its default. Values that are the same are
//! the same bytes, whatever the order in which a map gave its entries, and whichever release wrote them.
//!
//! - Members of an object stand in the order of their names' UTF-16 code units, without blanks.
//! - A member is left out that would be read from nothing as the same: one that equals the default that its
//!   `#[serde(default …)]` gives, or `None` where it has none. This holds inside of all types whose shape is known.
//! - What a set holds stands in the order of the bytes.
//! - Integers are written in full, also those that RFC 8785 can't have; floats as it says, but that a whole one has
//!   `.0`. What JSON has no number for, a NaN or an infinity, is refused.

use std::fmt::{self, Display, LowerExp, Write as _};
use std::io::Write as _;
use std::ops::Range;

use serde::ser::{self, Serialize, Serializer};

use super::{Content, Fields, Kind, Link, Shapes, Tag, Variant};

/// Writes one value.
#[doc(hidden)]
pub struct Canonical<'a> {
    out: &'a mut Vec<u8>,
    shapes: &'a Shapes,
    at: At<'a>,
}

/// What is known of the shape of a value.
#[derive(Clone, Copy)]
enum At<'a> {
    Kind(&'a Kind),
    /// The members of a variant.
    Fields(&'a Fields),
    /// The items of a variant.
    Items(&'a [Link]),
    Nothing,
}

/// What has no canonical form.
#[doc(hidden)]
#[derive(Debug)]
pub struct Unwritable(String);

impl Display for Unwritable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unwritable {}

impl ser::Error for Unwritable {
    fn custom<T: Display>(reason: T) -> Self {
        Self(reason.to_string())
    }
}

/// Writes `value`; for derived code, which may not know serde by its own name.
#[doc(hidden)]
pub fn serialize<T: Serialize + ?Sized>(value: &T, canonical: Canonical<'_>) -> Result<(), Unwritable> {
    value.serialize(canonical)
}

impl<'a> Canonical<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>, shapes: &'a Shapes, at: Option<&'a Kind>) -> Self {
        Self { out, shapes, at: at.map_or(At::Nothing, At::Kind) }
    }

    pub(super) fn of_content(out: &'a mut Vec<u8>, shapes: &'a Shapes, content: &'a Content) -> Self {
        Self { out, shapes, at: at_content(shapes, content) }
    }

    fn item(&self) -> At<'a> {
        match self.at {
            At::Kind(Kind::Option(id) | Kind::List(id) | Kind::Array(id, _) | Kind::Set(id)) => {
                At::Kind(self.shapes.resolve(*id))
            }
            _ => At::Nothing,
        }
    }

    /// The variant of this name, where names stand outside.
    fn variant(&self, name: &str) -> At<'a> {
        match self.at {
            At::Kind(Kind::Enum { tag: Tag::Outside, variants, .. }) => at_variant(self.shapes, variants, name),
            _ => At::Nothing,
        }
    }

    /// `{"name":`, the content, and the end of it by `write`.
    fn named<T>(
        self,
        name: &'static str,
        write: impl FnOnce(Canonical<'a>) -> Result<T, Unwritable>,
    ) -> Result<T, Unwritable> {
        let at = self.variant(name);
        self.out.push(b'{');
        text(self.out, name);
        self.out.push(b':');
        write(Canonical { at, ..self })
    }

    fn members(self, closing: &'static [u8]) -> Members<'a> {
        self.out.push(b'{');
        let start = self.out.len();
        let (fields, tag) = match self.at {
            At::Kind(Kind::Struct(fields)) | At::Fields(fields) => (Some(fields), None),
            At::Kind(Kind::Enum { tag: Tag::Inside(key), variants, .. }) => (None, Some((*key, variants.as_slice()))),
            _ => (None, None),
        };
        let values = match self.at {
            At::Kind(Kind::Map(_, value)) => At::Kind(self.shapes.resolve(*value)),
            _ => At::Nothing,
        };
        Members {
            out: self.out,
            shapes: self.shapes,
            fields,
            tag,
            values,
            next: 0,
            start,
            members: Vec::new(),
            key: None,
            closing,
        }
    }

    fn items(self, closing: &'static [u8]) -> Items<'a> {
        self.out.push(b'[');
        let start = self.out.len();
        let (links, set) = match self.at {
            At::Kind(Kind::Tuple(links)) => (links.as_slice(), None),
            At::Items(links) => (links, None),
            At::Kind(Kind::Set(_)) => (&[][..], Some(Vec::new())),
            _ => (&[][..], None),
        };
        let item = self.item();
        Items { out: self.out, shapes: self.shapes, links, item, next: 0, start, set, closing }
    }

    fn number(self, number: impl Display) -> Result<(), Unwritable> {
        let _ = write!(self.out, "{number}");
        Ok(())
    }

    /// As ECMAScript writes it, but that a whole number has `.0`: where a type tells integers from floats, as an untagged
    /// enum and `serde_json::Value` do, it must not be read as an integer.
    fn float(self, number: impl LowerExp + PartialEq, finite: bool) -> Result<(), Unwritable> {
        if !finite {
            return Err(Unwritable(format!("JSON has no number for {number:e}")));
        }
        let shown = format!("{number:e}");
        let (mantissa, exponent) = shown.split_once('e').unwrap_or((&shown, "0"));
        let exponent: i32 = exponent.parse().unwrap_or_default();
        let (sign, mantissa) = match mantissa.strip_prefix('-') {
            Some(mantissa) => ("-", mantissa),
            None => ("", mantissa),
        };
        let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
        if digits == "0" {
            return self.number("0.0"); // also for -0
        }
        let (point, count) = (exponent + 1, digits.len() as i32);
        let mut shown = sign.to_owned();
        let _ = match point {
            _ if count <= point && point <= 21 => write!(shown, "{digits}{}.0", "0".repeat((point - count) as usize)),
            1..=21 => write!(shown, "{}.{}", &digits[..point as usize], &digits[point as usize..]),
            -5..=0 => write!(shown, "0.{}{digits}", "0".repeat(-point as usize)),
            _ => {
                let (first, rest) = digits.split_at(1);
                let dot = if rest.is_empty() { "" } else { "." };
                write!(shown, "{first}{dot}{rest}e{exponent:+}")
            }
        };
        self.number(shown)
    }
}

fn at_content<'a>(shapes: &'a Shapes, content: &'a Content) -> At<'a> {
    match content {
        Content::Nothing => At::Nothing,
        Content::One(link) => shapes.content(*link).map_or(At::Nothing, At::Kind),
        Content::Several(links) => At::Items(links),
        Content::Fields(fields) => At::Fields(fields),
    }
}

fn at_variant<'a>(shapes: &'a Shapes, variants: &'a [Variant], name: &str) -> At<'a> {
    let variant = variants.iter().find(|variant| variant.name == name);
    variant.map_or(At::Nothing, |variant| at_content(shapes, &variant.content))
}

/// A string, with the escapes of RFC 8785 alone.
fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut plain = 0;
    for (place, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&text.as_bytes()[plain..place]);
        plain = place + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0x08 => out.extend_from_slice(b"\\b"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            0x0c => out.extend_from_slice(b"\\f"),
            b'\r' => out.extend_from_slice(b"\\r"),
            control => _ = write!(out, "\\u{control:04x}"),
        }
    }
    out.extend_from_slice(&text.as_bytes()[plain..]);
    out.push(b'"');
}

impl<'a> Serializer for Canonical<'a> {
    type Ok = ();
    type Error = Unwritable;
    type SerializeSeq = Items<'a>;
    type SerializeTuple = Items<'a>;
    type SerializeTupleStruct = Items<'a>;
    type SerializeTupleVariant = Items<'a>;
    type SerializeMap = Members<'a>;
    type SerializeStruct = Members<'a>;
    type SerializeStructVariant = Members<'a>;

    fn serialize_bool(self, value: bool) -> Result<(), Unwritable> {
        self.number(value)
    }
    fn serialize_i8(self, value: i8) -> Result<(), Unwritable> {
        self.number(value)
    }
    fn serialize_i16(self, value: i16) -> Result<(), Unwritable> {
        self.number(value)
    }
    fn serialize_i32(self, value: i32) -> Result<(), Unwritable> {
        self.number(value)
    }
    fn serialize_i64(self, value: i64) -> Result<(), Unwritable> {
        self.number(value)
    }
    fn serialize_i128(self, value: i128) -> Result<(), Unwritable> {
        self.number(value)
    }
    fn serialize_u8(self, value: u8) -> Result<(), Unwritable> {
        self.number(value)
    }
    fn serialize_u16(self, value: u16) -> Result<(), Unwritable> {
        self.number(value)
    }
    fn serialize_u32(self, value: u32) -> Result<(), Unwritable> {
        self.number(value)
    }
    fn serialize_u64(self, value: u64) -> Result<(), Unwritable> {
        self.number(value)
    }
    fn serialize_u128(self, value: u128) -> Result<(), Unwritable> {
        self.number(value)
    }
    fn serialize_f32(self, value: f32) -> Result<(), Unwritable> {
        self.float(value, value.is_finite())
    }
    fn serialize_f64(self, value: f64) -> Result<(), Unwritable> {
        self.float(value, value.is_finite())
    }
    fn serialize_char(self, value: char) -> Result<(), Unwritable> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }
    fn serialize_str(self, value: &str) -> Result<(), Unwritable> {
        text(self.out, value);
        Ok(())
    }
    fn serialize_bytes(self, value: &[u8]) -> Result<(), Unwritable> {
        self.collect_seq(value)
    }
    fn serialize_none(self) -> Result<(), Unwritable> {
        self.serialize_unit()
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Unwritable> {
        let at = self.item();
        value.serialize(Self { at, ..self })
    }
    fn serialize_unit(self) -> Result<(), Unwritable> {
        self.out.extend_from_slice(b"null");
        Ok(())
    }
    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Unwritable> {
        self.serialize_unit()
    }
    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), Unwritable> {
        self.serialize_str(variant)
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), Unwritable> {
        value.serialize(self)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Unwritable> {
        let Self { out, shapes, at } = self;
        Canonical { out: &mut *out, shapes, at }.named(variant, |canonical| value.serialize(canonical))?;
        out.push(b'}');
        Ok(())
    }
    fn serialize_seq(self, _: Option<usize>) -> Result<Items<'a>, Unwritable> {
        Ok(self.items(b"]"))
    }
    fn serialize_tuple(self, _: usize) -> Result<Items<'a>, Unwritable> {
        Ok(self.items(b"]"))
    }
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Items<'a>, Unwritable> {
        Ok(self.items(b"]"))
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Items<'a>, Unwritable> {
        self.named(variant, |canonical| Ok(canonical.items(b"]}")))
    }
    fn serialize_map(self, _: Option<usize>) -> Result<Members<'a>, Unwritable> {
        Ok(self.members(b"}"))
    }
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Members<'a>, Unwritable> {
        Ok(self.members(b"}"))
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Members<'a>, Unwritable> {
        self.named(variant, |canonical| Ok(canonical.members(b"}}")))
    }
}

/// Writes a list.
#[doc(hidden)]
pub struct Items<'a> {
    out: &'a mut Vec<u8>,
    shapes: &'a Shapes,
    links: &'a [Link],
    /// Of each item, where there are no links.
    item: At<'a>,
    next: usize,
    start: usize,
    /// Where each item of a set stands.
    set: Option<Vec<Range<usize>>>,
    closing: &'static [u8],
}

impl Items<'_> {
    fn write<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unwritable> {
        if self.next > 0 {
            self.out.push(b',');
        }
        let at = match self.links.get(self.next) {
            Some(link) => self.shapes.content(*link).map_or(At::Nothing, At::Kind),
            None => self.item,
        };
        self.next += 1;
        let start = self.out.len();
        value.serialize(Canonical { out: &mut *self.out, shapes: self.shapes, at })?;
        if let Some(set) = &mut self.set {
            set.push(start..self.out.len());
        }
        Ok(())
    }

    fn finish(self) -> Result<(), Unwritable> {
        if let Some(set) = self.set {
            reorder(self.out, self.start, set, |out, a, b| out[a.clone()].cmp(&out[b.clone()]));
        }
        self.out.extend_from_slice(self.closing);
        Ok(())
    }
}

/// Puts parts, which have commas between them and reach to the end, into an order.
fn reorder(
    out: &mut Vec<u8>,
    start: usize,
    mut parts: Vec<Range<usize>>,
    compare: impl Fn(&[u8], &Range<usize>, &Range<usize>) -> std::cmp::Ordering,
) {
    parts.sort_by(|a, b| compare(out, a, b));
    let before = out.split_off(start);
    for (place, part) in parts.into_iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&before[part.start - start..part.end - start]);
    }
}

/// Writes an object.
#[doc(hidden)]
pub struct Members<'a> {
    out: &'a mut Vec<u8>,
    shapes: &'a Shapes,
    fields: Option<&'a Fields>,
    /// Where the variant is named inside: by which member, and the variants.
    tag: Option<(&'static str, &'a [Variant])>,
    /// Of each value of a map.
    values: At<'a>,
    /// Fields come in the order of their declaration, save those that are left out: where to look first.
    next: usize,
    start: usize,
    members: Vec<Member>,
    key: Option<String>,
    closing: &'static [u8],
}

struct Member {
    name: Name,
    /// Where name and value stand.
    at: Range<usize>,
}

enum Name {
    Static(&'static str),
    Owned(String),
}

impl Name {
    fn as_str(&self) -> &str {
        match self {
            Self::Static(name) => name,
            Self::Owned(name) => name,
        }
    }
}

/// What is known of a member.
struct Place<'a> {
    at: At<'a>,
    /// What a missing one is read as.
    default: Option<&'a [u8]>,
}

impl<'a> Members<'a> {
    fn write<T: Serialize + ?Sized>(&mut self, name: Name, value: &T) -> Result<(), Unwritable> {
        let place = self.place(name.as_str());
        let start = self.out.len();
        if !self.members.is_empty() {
            self.out.push(b',');
        }
        let member = self.out.len();
        text(self.out, name.as_str());
        self.out.push(b':');
        let written = self.out.len();
        value.serialize(Canonical { out: &mut *self.out, shapes: self.shapes, at: place.at })?;
        if place.default.is_some_and(|default| default == &self.out[written..]) {
            self.out.truncate(start);
            return Ok(());
        }
        if let Some((key, variants)) = self.tag.take_if(|(key, _)| *key == name.as_str()) {
            debug_assert_eq!(key, name.as_str());
            let name = String::from_utf8_lossy(&self.out[written..]);
            if let At::Fields(fields) | At::Kind(Kind::Struct(fields)) =
                at_variant(self.shapes, variants, name.trim_matches('"'))
            {
                self.fields = Some(fields);
            }
        }
        self.members.push(Member { name, at: member..self.out.len() });
        Ok(())
    }

    fn place(&mut self, name: &str) -> Place<'a> {
        let Some(fields) = self.fields else { return Place { at: self.values, default: None } };
        let listed = &fields.fields;
        let found = listed[self.next.min(listed.len())..].iter().position(|field| !field.flat && field.name == name);
        match found {
            Some(ahead) => {
                let field = &listed[self.next + ahead];
                self.next += ahead + 1;
                place_of(self.shapes, field)
            }
            None => find(self.shapes, fields, name, 0),
        }
    }

    fn finish(self) -> Result<(), Unwritable> {
        let Self { out, start, members, closing, .. } = self;
        let sorted = members.is_sorted_by(|a, b| utf16(a.name.as_str(), b.name.as_str()).is_le());
        if !sorted {
            let mut members = members;
            members.sort_by(|a, b| utf16(a.name.as_str(), b.name.as_str()));
            let before = out.split_off(start);
            for (place, Member { at, .. }) in members.into_iter().enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                out.extend_from_slice(&before[at.start - start..at.end - start]);
            }
        }
        out.extend_from_slice(closing);
        Ok(())
    }
}

/// The order of RFC 8785, in which a character above U+FFFF comes before one from U+E000 on.
fn utf16(a: &str, b: &str) -> std::cmp::Ordering {
    if a.is_ascii() && b.is_ascii() { a.cmp(b) } else { a.encode_utf16().cmp(b.encode_utf16()) }
}

fn place_of<'a>(shapes: &'a Shapes, field: &'a super::Field) -> Place<'a> {
    let kind = shapes.content(field.link);
    let at = kind.map_or(At::Nothing, At::Kind);
    // Only an `Option` itself: a newtype around one is not read from nothing.
    let is_option = matches!(shapes.nodes[field.link.id.0].kind, Kind::Option(_)) && field.link.as_shape;
    let default = match field.default {
        // A function of the field's own may read a null that is written as another value than one that is missing.
        Some(_) => field.written_default.as_deref().filter(|written| field.link.as_shape || *written != b"null"),
        None => is_option.then_some(b"null".as_slice()),
    };
    Place { at, default }
}

/// A member of this name, also among those that are flattened into the object.
fn find<'a>(shapes: &'a Shapes, fields: &'a Fields, name: &str, depth: usize) -> Place<'a> {
    if let Some(field) = fields.fields.iter().find(|field| !field.flat && field.name == name) {
        return place_of(shapes, field);
    }
    // A type that is flattened into itself is never written to its end.
    for field in fields.fields.iter().filter(|field| field.flat && depth < 8) {
        match shapes.content(field.link) {
            Some(Kind::Struct(inner)) => {
                let place = find(shapes, inner, name, depth + 1);
                if !matches!(place, Place { at: At::Nothing, default: None }) {
                    return place;
                }
            }
            Some(Kind::Map(_, value)) => return Place { at: At::Kind(shapes.resolve(*value)), default: None },
            _ => {}
        }
    }
    Place { at: At::Nothing, default: None }
}

impl ser::SerializeSeq for Items<'_> {
    type Ok = ();
    type Error = Unwritable;
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unwritable> {
        self.write(value)
    }
    fn end(self) -> Result<(), Unwritable> {
        self.finish()
    }
}

impl ser::SerializeTuple for Items<'_> {
    type Ok = ();
    type Error = Unwritable;
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unwritable> {
        self.write(value)
    }
    fn end(self) -> Result<(), Unwritable> {
        self.finish()
    }
}

impl ser::SerializeTupleStruct for Items<'_> {
    type Ok = ();
    type Error = Unwritable;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unwritable> {
        self.write(value)
    }
    fn end(self) -> Result<(), Unwritable> {
        self.finish()
    }
}

impl ser::SerializeTupleVariant for Items<'_> {
    type Ok = ();
    type Error = Unwritable;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unwritable> {
        self.write(value)
    }
    fn end(self) -> Result<(), Unwritable> {
        self.finish()
    }
}

impl ser::SerializeStruct for Members<'_> {
    type Ok = ();
    type Error = Unwritable;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), Unwritable> {
        self.write(Name::Static(key), value)
    }
    fn end(self) -> Result<(), Unwritable> {
        self.finish()
    }
}

impl ser::SerializeStructVariant for Members<'_> {
    type Ok = ();
    type Error = Unwritable;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), Unwritable> {
        self.write(Name::Static(key), value)
    }
    fn end(self) -> Result<(), Unwritable> {
        self.finish()
    }
}

impl ser::SerializeMap for Members<'_> {
    type Ok = ();
    type Error = Unwritable;
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Unwritable> {
        // A key is what JSON would write as a value; what is no text there is the text of it.
        let mut written = Vec::new();
        key.serialize(Canonical { out: &mut written, shapes: self.shapes, at: At::Nothing })?;
        let name = match written.first() {
            Some(b'"') => serde_json::from_slice(&written).map_err(ser::Error::custom)?,
            Some(b'{' | b'[' | b'n') | None => {
                return Err(Unwritable("a key of a map must be a text or a number".into()));
            }
            Some(_) => String::from_utf8_lossy(&written).into_owned(),
        };
        self.key = Some(name);
        Ok(())
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unwritable> {
        let name = self.key.take().ok_or_else(|| Unwritable("a map gave a value without its key".into()))?;
        self.write(Name::Owned(name), value)
    }
    fn end(self) -> Result<(), Unwritable> {
        self.finish()
    }
}
