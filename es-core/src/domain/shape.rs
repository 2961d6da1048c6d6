//! Shapes: what values of a type look like where they are stored and sent, through all the types inside of it.
//!
//! [`Shape`] is derived, like serde's traits, which say how a value is written: a shape is the names that stand there,
//! serde's attributes, and the types, down to numbers and texts. A stored state is used by a program whose shape of the
//! aggregate is the same, and a command is told from another by its content in a canonical form, which
//! leaves out what equals its default; the shape says where that is.
//!
//! ```
//! use es_core::Shape;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize, Shape)]
//! struct Sums {
//!     paid: u64,
//!     #[serde(default)]
//!     taken: Vec<u64>,
//! }
//!
//! assert_eq!(es_core::shape::text::<Sums>(), r#"#0{paid: u64, #[serde(default)] taken: [u64] = []}"#);
//! ```
//!
//! A type of another crate that has no shape gets a name, which is changed by hand when what is stored of it changes:
//! `#[shape(opaque = "money-1")]` on the field. A type whose serde traits are written by hand may implement [`Shape`]
//! with [`Node::opaque`].

mod canonical;
#[cfg(test)]
mod tests;
mod types;

use std::any::TypeId;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{LazyLock, PoisonError, RwLock};

use sha2::{Digest, Sha256};

use crate::domain::aggregate::{Aggregate, Command, Event, MessageType};
use crate::domain::guard;

#[doc(hidden)]
pub use canonical::{Canonical, Unwritable, serialize};
#[doc(hidden)]
pub use serde::Serialize;

/// What values of a type look like where they are stored and sent. Derived.
#[diagnostic::on_unimplemented(
    message = "the shape of `{Self}` is not known",
    label = "no shape",
    note = "derive it where the type is defined: `#[derive(Shape)]`",
    note = "for a type of another crate give the field a name for its shape, changed by hand when what is stored of it changes: `#[shape(opaque = \"name-1\")]`"
)]
pub trait Shape: 'static {
    /// Describes the type; those inside of it are asked for with [`Shapes::of`].
    fn shape(shapes: &mut Shapes) -> Node;
}

/// Collects the shapes of a type and of all that are inside of it, each once.
#[derive(Debug, Default)]
pub struct Shapes {
    known: HashMap<TypeId, Id>,
    nodes: Vec<Node>,
}

/// A type among [`Shapes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Id(usize);

/// What one type looks like.
#[derive(Debug)]
pub struct Node {
    kind: Kind,
    /// The type as which it is read, where that is another than the one as which it is written.
    read_as: Option<Id>,
}

#[derive(Debug)]
enum Kind {
    /// Nothing is known of its inside.
    Opaque(String),
    /// Written as what is inside, by these attributes.
    Same(&'static str, Link),
    Option(Id),
    List(Id),
    Array(Id, usize),
    /// A list in any order.
    Set(Id),
    Map(Id, Id),
    Tuple(Vec<Link>),
    Struct(Fields),
    Enum {
        serde: &'static str,
        tag: Tag,
        variants: Vec<Variant>,
    },
}

/// How an enum's variant is named where it is written.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub enum Tag {
    /// The content stands under the name.
    Outside,
    /// The name is a member of the content, under this key.
    Inside(&'static str),
    /// Otherwise: nothing is known of what stands where.
    Unknown,
}

/// A type inside of another one.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub struct Link {
    id: Id,
    /// Whether it is written as its own shape says: functions of `#[serde(with = …)]` write otherwise.
    as_shape: bool,
    serde: &'static str,
}

/// The members of an object.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct Fields {
    serde: &'static str,
    fields: Vec<Field>,
}

#[doc(hidden)]
#[derive(Debug)]
pub struct Field {
    /// As it is written.
    name: &'static str,
    link: Link,
    /// Its members stand among those of the object.
    flat: bool,
    default: Option<WriteDefault>,
    /// The default in canonical form.
    written_default: Option<Vec<u8>>,
}

/// Writes what a missing field is taken for.
type WriteDefault = fn(Canonical<'_>) -> Result<(), Unwritable>;

/// A variant of an enum.
#[doc(hidden)]
#[derive(Debug)]
pub struct Variant {
    name: &'static str,
    serde: &'static str,
    content: Content,
}

/// What a variant holds.
#[doc(hidden)]
#[derive(Debug)]
pub enum Content {
    Nothing,
    One(Link),
    Several(Vec<Link>),
    Fields(Fields),
}

impl Shapes {
    /// The shape of a type.
    pub fn of<T: Shape + ?Sized>(&mut self) -> Id {
        if let Some(id) = self.known.get(&TypeId::of::<T>()) {
            return *id;
        }
        // Its place is taken before it is described: a type may be inside of itself.
        let id = self.push(Node::opaque(""));
        self.known.insert(TypeId::of::<T>(), id);
        self.nodes[id.0] = T::shape(self);
        id
    }

    /// What is no type of its own.
    #[doc(hidden)]
    pub fn add(&mut self, node: Node) -> Id {
        self.push(node)
    }

    /// A type of which only a name is known.
    #[doc(hidden)]
    pub fn opaque(&mut self, name: &str) -> Id {
        self.push(Node::opaque(name))
    }

    fn push(&mut self, node: Node) -> Id {
        self.nodes.push(node);
        Id(self.nodes.len() - 1)
    }

    /// What is written for a type.
    fn resolve(&self, id: Id) -> &Kind {
        let mut kind = &self.nodes[id.0].kind;
        // A type that consists of nothing but itself has no values, and yet a shape: so this ends.
        for _ in &self.nodes {
            let Kind::Same(_, Link { id, as_shape: true, .. }) = kind else { break };
            kind = &self.nodes[id.0].kind;
        }
        kind
    }

    fn content(&self, link: Link) -> Option<&Kind> {
        link.as_shape.then(|| self.resolve(link.id))
    }
}

impl Node {
    fn new(kind: Kind) -> Self {
        Self { kind, read_as: None }
    }

    /// A type of which only a name is known, for example `money-1`: give it another name when what is stored of it changes.
    pub fn opaque(name: impl Into<String>) -> Self {
        Self::new(Kind::Opaque(name.into()))
    }

    /// A type that is written as another one.
    pub fn same(id: Id) -> Self {
        Self::new(Kind::Same("", Link::new("", id)))
    }

    /// What is written as another type is, by these attributes.
    #[doc(hidden)]
    pub fn through(serde: &'static str, link: Link) -> Self {
        Self::new(Kind::Same(serde, link))
    }

    /// What is read as another type is.
    #[doc(hidden)]
    #[must_use]
    pub fn read_as(self, id: Id) -> Self {
        Self { read_as: Some(id), ..self }
    }

    #[doc(hidden)]
    pub fn tuple(links: Vec<Link>) -> Self {
        Self::new(Kind::Tuple(links))
    }

    #[doc(hidden)]
    pub fn fields(fields: Fields) -> Self {
        Self::new(Kind::Struct(fields))
    }

    #[doc(hidden)]
    pub fn variants(serde: &'static str, tag: Tag, variants: Vec<Variant>) -> Self {
        Self::new(Kind::Enum { serde, tag, variants })
    }
}

#[doc(hidden)]
impl Link {
    pub fn new(serde: &'static str, id: Id) -> Self {
        Self { id, as_shape: true, serde }
    }

    /// Functions write it, so that nobody knows as what.
    #[must_use]
    pub fn written_by_hand(self) -> Self {
        Self { as_shape: false, ..self }
    }
}

#[doc(hidden)]
impl Fields {
    pub fn new(serde: &'static str, fields: Vec<Field>) -> Self {
        Self { serde, fields }
    }
}

#[doc(hidden)]
impl Field {
    pub fn new(name: &'static str, link: Link) -> Self {
        Self { name, link, flat: false, default: None, written_default: None }
    }

    #[must_use]
    pub fn default(self, write: WriteDefault) -> Self {
        Self { default: Some(write), ..self }
    }

    #[must_use]
    pub fn flat(self) -> Self {
        Self { flat: true, ..self }
    }
}

#[doc(hidden)]
impl Variant {
    pub fn new(name: &'static str, serde: &'static str, content: Content) -> Self {
        Self { name, serde, content }
    }
}

/// The shape of a type as text.
pub fn text<T: Shape>() -> &'static str {
    let known = known::<T>(Role::Value, |shapes| vec![Content::One(Link::new("", shapes.of::<T>()))]);
    &known.texts[0]
}

/// What tells one shape from another: 16 hexadecimal digits.
pub(crate) fn fingerprint(text: &str) -> String {
    Sha256::digest(text)[..8].iter().fold(String::new(), |mut digits, byte| {
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}

/// The shapes of an enum's variants, which are known by other names than serde's.
#[derive(Debug)]
pub(crate) struct Known {
    shapes: Shapes,
    contents: Vec<Content>,
    texts: Vec<String>,
    fingerprints: Vec<String>,
}

impl Known {
    pub(crate) fn texts(&self) -> &[String] {
        &self.texts
    }

    /// Of the variant with this index.
    pub(crate) fn fingerprint(&self, index: usize) -> &str {
        &self.fingerprints[index]
    }

    /// The content of a variant in canonical form; `value` writes it.
    pub(crate) fn canonical(&self, index: usize, value: impl serde::Serialize) -> Result<Vec<u8>, String> {
        let mut out = Vec::with_capacity(128);
        let canonical = Canonical::of_content(&mut out, &self.shapes, &self.contents[index]);
        value.serialize(canonical).map_err(|error| error.to_string())?;
        Ok(out)
    }
}

/// The shapes of an event enum's variants.
pub(crate) fn of_events<E: Event>() -> &'static Known {
    known::<E>(Role::Event, E::shapes)
}

/// The shapes of a command enum's variants.
pub(crate) fn of_commands<C: Command>() -> &'static Known {
    known::<C>(Role::Command, C::shapes)
}

/// What tells all events and commands of an aggregate type from those of another release.
pub(crate) fn of_messages<A: Aggregate>() -> String {
    let name =
        |kinds: &'static [MessageType]| kinds.iter().map(|kind| format!("{} {}", kind.name, kind.schema_version));
    let events = name(A::Event::TYPES).zip(of_events::<A::Event>().texts());
    let commands = name(A::Command::TYPES).zip(of_commands::<A::Command>().texts());
    let all: String = events.chain(commands).map(|(name, text)| format!("{name} {text}\n")).collect();
    fingerprint(&all)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Role {
    Value,
    Event,
    Command,
}

/// Described once, and kept as long as the program: there are as many as there are types. Each thread keeps those that it
/// has used, since every command asks for two.
fn known<T: 'static>(role: Role, describe: fn(&mut Shapes) -> Vec<Content>) -> &'static Known {
    thread_local! {
        static USED: RefCell<Vec<(TypeId, Role, &'static Known)>> = const { RefCell::new(Vec::new()) };
    }
    let of = TypeId::of::<T>();
    let used = USED.with_borrow(|used| used.iter().find(|used| (used.0, used.1) == (of, role)).map(|used| used.2));
    used.unwrap_or_else(|| {
        let known = described((of, role), describe);
        USED.with_borrow_mut(|used| used.push((of, role, known)));
        known
    })
}

fn described(key: (TypeId, Role), describe: fn(&mut Shapes) -> Vec<Content>) -> &'static Known {
    static KNOWN: LazyLock<RwLock<HashMap<(TypeId, Role), &'static Known>>> = LazyLock::new(RwLock::default);
    if let Some(known) = KNOWN.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
        return known;
    }
    let mut shapes = Shapes::default();
    let mut contents = describe(&mut shapes);
    write_defaults(&mut shapes, &mut contents);
    let texts: Vec<String> = contents.iter().map(|content| Text::of(&shapes, content)).collect();
    let fingerprints = texts.iter().map(|text| fingerprint(text)).collect();
    let described = Known { shapes, contents, texts, fingerprints };
    let mut all = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
    all.entry(key).or_insert_with(|| Box::leak(Box::new(described)))
}

/// Writes all defaults, in which there may be others: until none changes any more, or a few times. One that is never
/// written the same, as the time of now, is none: it leaves nothing out, and is no part of the text, which is the same in
/// all processes.
fn write_defaults(shapes: &mut Shapes, contents: &mut [Content]) {
    const ROUNDS: usize = 8;
    for round in 1..=ROUNDS {
        let mut written = Vec::new();
        for field in all_fields(shapes, contents) {
            let write = |default: WriteDefault| {
                let mut out = Vec::new();
                let canonical = Canonical::new(&mut out, shapes, shapes.content(field.link));
                guard::fallible("a default", || default(canonical)).is_ok().then_some(out)
            };
            written.push(field.default.and_then(write));
        }
        let mut changed = false;
        for (field, written) in all_fields_mut(shapes, contents).zip(written) {
            let differs = field.written_default != written;
            changed |= differs;
            field.written_default = written.filter(|_| !differs || round < ROUNDS);
        }
        if !changed {
            return;
        }
    }
}

fn all_fields<'a>(shapes: &'a Shapes, contents: &'a [Content]) -> impl Iterator<Item = &'a Field> {
    let of_content = |content: &'a Content| match content {
        Content::Fields(fields) => fields.fields.as_slice(),
        _ => &[],
    };
    let nodes = shapes.nodes.iter().flat_map(move |node| -> Vec<&'a Field> {
        match &node.kind {
            Kind::Struct(fields) => fields.fields.iter().collect(),
            Kind::Enum { variants, .. } => variants.iter().flat_map(|variant| of_content(&variant.content)).collect(),
            _ => Vec::new(),
        }
    });
    nodes.chain(contents.iter().flat_map(of_content))
}

fn all_fields_mut<'a>(shapes: &'a mut Shapes, contents: &'a mut [Content]) -> impl Iterator<Item = &'a mut Field> {
    fn of_content(content: &mut Content) -> &mut [Field] {
        match content {
            Content::Fields(fields) => fields.fields.as_mut_slice(),
            _ => &mut [],
        }
    }
    let nodes = shapes.nodes.iter_mut().flat_map(|node| -> Vec<&'a mut Field> {
        match &mut node.kind {
            Kind::Struct(fields) => fields.fields.iter_mut().collect(),
            Kind::Enum { variants, .. } => {
                variants.iter_mut().flat_map(|variant| of_content(&mut variant.content)).collect()
            }
            _ => Vec::new(),
        }
    });
    nodes.chain(contents.iter_mut().flat_map(of_content))
}

/// Writes shapes as text. Structs and enums are written once, with a number, by which they are named from then on:
/// they may be inside of themselves. Others are written wherever they are, save inside of themselves: there stands how
/// many brackets further out they are, as `^1`. Names of Rust types are no part of it.
struct Text<'a> {
    shapes: &'a Shapes,
    numbers: HashMap<usize, usize>,
    /// Those that are being written, and in how many brackets each stands.
    open: Vec<(usize, usize)>,
    depth: usize,
    text: String,
}

impl<'a> Text<'a> {
    fn of(shapes: &'a Shapes, content: &'a Content) -> String {
        let mut text = Self { shapes, numbers: HashMap::new(), open: Vec::new(), depth: 0, text: String::new() };
        text.content(content);
        text.text
    }

    fn content(&mut self, content: &'a Content) {
        match content {
            Content::Nothing => {}
            Content::One(link) => self.link(*link),
            Content::Several(links) => self.links(links),
            Content::Fields(fields) => self.fields(fields),
        }
    }

    fn link(&mut self, link: Link) {
        self.word(link.serde);
        self.id(link.id);
    }

    fn links(&mut self, links: &'a [Link]) {
        self.between("(", links, ")", |text, link| text.link(*link));
    }

    fn fields(&mut self, fields: &'a Fields) {
        self.word(fields.serde);
        self.between("{", &fields.fields, "}", |text, field| {
            text.word(field.link.serde);
            text.push(field.name);
            text.push(": ");
            text.id(field.link.id);
            // What is stored without the field has another meaning with another default.
            if let Some(default) = &field.written_default {
                text.push(" = ");
                text.push(&String::from_utf8_lossy(default));
            }
        });
    }

    fn id(&mut self, id: Id) {
        let Node { kind, read_as } = &self.shapes.nodes[id.0];
        if let Kind::Struct(_) | Kind::Enum { .. } = kind {
            if !self.is_first(id) {
                return;
            }
        } else if let Some((_, depth)) = self.open.iter().find(|(open, _)| *open == id.0) {
            let _ = write!(self.text, "^{}", self.depth - depth);
            return;
        }
        self.open.push((id.0, self.depth));
        self.kind(kind);
        if let Some(other) = read_as {
            self.push(" read as ");
            self.id(*other);
        }
        self.open.pop();
    }

    fn kind(&mut self, kind: &'a Kind) {
        match kind {
            Kind::Opaque(name) => self.push(name),
            Kind::Same(serde, link) => {
                self.word(serde);
                self.link(*link);
            }
            Kind::Option(inner) => self.around("option<", *inner, ">"),
            Kind::List(inner) => self.around("[", *inner, "]"),
            Kind::Array(inner, count) => {
                self.around("[", *inner, "; ");
                let _ = write!(self.text, "{count}]");
            }
            Kind::Set(inner) => self.around("set<", *inner, ">"),
            Kind::Map(key, value) => {
                self.around("map<", *key, ", ");
                self.around("", *value, ">");
            }
            Kind::Tuple(links) => self.links(links),
            Kind::Struct(fields) => self.fields(fields),
            Kind::Enum { serde, variants, .. } => {
                self.word(serde);
                self.between("<", variants, ">", |text, variant| {
                    text.word(variant.serde);
                    text.push(variant.name);
                    if !matches!(variant.content, Content::Nothing) {
                        text.push(" ");
                        text.content(&variant.content);
                    }
                });
            }
        }
    }

    fn is_first(&mut self, id: Id) -> bool {
        let next = self.numbers.len();
        let mut first = false;
        let number = *self.numbers.entry(id.0).or_insert_with(|| {
            first = true;
            next
        });
        let _ = write!(self.text, "#{number}");
        first
    }

    fn around(&mut self, before: &str, id: Id, after: &str) {
        self.push(before);
        self.depth += 1;
        self.id(id);
        self.depth -= 1;
        self.push(after);
    }

    fn between<T>(&mut self, open: &str, all: &'a [T], close: &str, one: impl Fn(&mut Self, &'a T)) {
        self.push(open);
        self.depth += 1;
        for (place, item) in all.iter().enumerate() {
            if place > 0 {
                self.push(", ");
            }
            one(self, item);
        }
        self.depth -= 1;
        self.push(close);
    }

    /// Text and a blank, if there is any.
    fn word(&mut self, text: &str) {
        if !text.is_empty() {
            self.push(text);
            self.push(" ");
        }
    }

    fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }
}
