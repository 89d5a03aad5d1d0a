//! The column types that can be encoded, as values.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use jiff::tz::TimeZone;

use super::enumeration::Enumeration;
use super::type_parser;

/// The type of a column.
///
/// Parsed from the text that `system.columns.type` shows, and shown again in
/// ClickHouse's canonical spelling. Types that ClickHouse stores as another type
/// are read as that one, and the server converts back without loss:
/// `SimpleAggregateFunction(f, T)` as `T`, `Nested(..)` as `Array(Tuple(..))`,
/// `Point`, `Ring` and the other shapes as the tuples and arrays they are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ColumnType {
    /// A value without parts.
    Scalar(ScalarType),
    /// A value without parts, or NULL.
    Nullable(ScalarType),
    /// Values kept once each in a dictionary.
    LowCardinality {
        /// What the dictionary holds.
        of: ScalarType,
        /// Whether NULL is one of its values.
        nullable: bool,
    },
    /// Any number of elements of one type.
    Array(Box<ColumnType>),
    /// Any number of pairs, in their order; ClickHouse allows a key twice.
    Map(Box<ColumnType>, Box<ColumnType>),
    /// A fixed number of elements, each of its own type, all of them named or none.
    Tuple(Vec<TupleElement>),
}

/// One element of a tuple.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TupleElement {
    /// Its name, in a tuple that names its elements.
    pub name: Option<String>,
    /// Its type.
    pub kind: ColumnType,
}

/// A type whose values have no parts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ScalarType {
    /// `Int8` to `Int256`, `UInt8` to `UInt256`.
    Integer(IntegerType),
    /// `BFloat16`: the upper half of a `Float32`.
    BFloat16,
    /// `Float32`.
    Float32,
    /// `Float64`.
    Float64,
    /// `Bool`.
    Bool,
    /// `Decimal(P, S)`.
    Decimal(DecimalType),
    /// `String`.
    String,
    /// `FixedString(N)`: N bytes, shorter text padded with zeros.
    FixedString(usize),
    /// `UUID`.
    Uuid,
    /// `Date`: 1970-01-01 to 2149-06-06.
    Date,
    /// `Date32`: 1900-01-01 to 2299-12-31.
    Date32,
    /// `DateTime`: whole seconds, 1970-01-01 to 2106-02-07.
    DateTime(Zone),
    /// `DateTime64(p)`: 1900-01-01 to 2299-12-31, at p = 9 to 2262-04-11.
    DateTime64 {
        /// Digits below the second, 0 to 9.
        precision: u8,
        /// Where times without an offset are.
        zone: Zone,
    },
    /// `Time`: whole seconds, up to 999:59:59 either way.
    Time,
    /// `Time64(p)`: the same with fractions.
    Time64 {
        /// Digits below the second, 0 to 9.
        precision: u8,
    },
    /// `Enum8` and `Enum16`.
    Enum(Enumeration),
    /// `IPv4`.
    Ipv4,
    /// `IPv6`.
    Ipv6,
    /// `JSON`, with its parameters as they are written.
    Json(String),
}

/// An integer's width and sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IntegerType {
    /// 1, 2, 4, 8, 16 or 32.
    pub bytes: u8,
    /// Whether it has a sign.
    pub signed: bool,
}

/// A decimal's digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DecimalType {
    /// All digits, 1 to 76.
    pub precision: u8,
    /// The digits below the point, 0 to `precision`.
    pub scale: u8,
}

impl DecimalType {
    /// The bytes ClickHouse stores it in.
    pub(super) fn width(self) -> usize {
        match self.precision {
            0..=9 => 4,
            10..=18 => 8,
            19..=38 => 16,
            _ => 32,
        }
    }
}

/// The time zone of a `DateTime`, which places times written without an offset.
#[derive(Debug, Clone)]
pub struct Zone {
    /// The name in the type, where it has one. Without one, times are in UTC.
    pub(super) name: Option<String>,
    pub(super) rules: TimeZone,
}

impl Zone {
    /// No zone in the type.
    #[must_use]
    pub fn unnamed() -> Self {
        Self { name: None, rules: TimeZone::UTC }
    }

    pub(super) fn is_utc(&self) -> bool {
        self.rules == TimeZone::UTC
    }
}

impl PartialEq for Zone {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Zone {}

impl Hash for Zone {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

/// Why a type's text cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TypeError {
    /// A type that ClickHouse has and this encoder has not.
    #[error(
        "column type `{0}` is not supported; a MATERIALIZED column can compute it from one of another type"
    )]
    Unsupported(String),
    /// Not the text of a type.
    #[error("column type `{text}` cannot be read at byte {at}: {expected} expected")]
    Syntax {
        /// The whole text.
        text: String,
        /// Where reading stopped.
        at: usize,
        /// What would have been read there.
        expected: &'static str,
    },
    /// A time zone that the built-in database does not know.
    #[error("time zone `{0}` is unknown")]
    UnknownTimeZone(String),
}

impl FromStr for ColumnType {
    type Err = TypeError;

    fn from_str(text: &str) -> Result<Self, TypeError> {
        type_parser::parse(text)
    }
}

impl ColumnType {
    /// Whether NULL is one of its values.
    #[must_use]
    pub fn is_nullable(&self) -> bool {
        matches!(self, Self::Nullable(_) | Self::LowCardinality { nullable: true, .. })
    }

    /// Whether it, or a part of it, is a time whose zone is that of the server.
    pub(crate) fn has_time_without_zone(&self) -> bool {
        match self {
            Self::Scalar(of) | Self::Nullable(of) | Self::LowCardinality { of, .. } => matches!(
                of,
                ScalarType::DateTime(zone) | ScalarType::DateTime64 { zone, .. }
                    if zone.name.is_none()
            ),
            Self::Array(item) => item.has_time_without_zone(),
            Self::Map(key, value) => key.has_time_without_zone() || value.has_time_without_zone(),
            Self::Tuple(elements) => {
                elements.iter().any(|element| element.kind.has_time_without_zone())
            }
        }
    }

    /// The type that the block's header names, where ClickHouse converts:
    /// JSON travels as its text, because Native's own form of it is neither
    /// stable nor public.
    pub(super) fn on_the_wire(&self) -> Self {
        match self {
            Self::Scalar(scalar) => Self::Scalar(scalar.on_the_wire()),
            Self::Nullable(scalar) => Self::Nullable(scalar.on_the_wire()),
            Self::LowCardinality { .. } => self.clone(),
            Self::Array(item) => Self::Array(Box::new(item.on_the_wire())),
            Self::Map(key, value) => {
                Self::Map(Box::new(key.on_the_wire()), Box::new(value.on_the_wire()))
            }
            Self::Tuple(elements) => Self::Tuple(
                elements
                    .iter()
                    .map(|element| TupleElement {
                        name: element.name.clone(),
                        kind: element.kind.on_the_wire(),
                    })
                    .collect(),
            ),
        }
    }
}

impl ScalarType {
    fn on_the_wire(&self) -> Self {
        match self {
            Self::Json(_) => Self::String,
            other => other.clone(),
        }
    }

    /// The bytes of one value, for types whose values all have as many.
    pub(super) fn width(&self) -> Option<usize> {
        Some(match self {
            Self::Integer(kind) => usize::from(kind.bytes),
            Self::Float32 | Self::Date32 | Self::DateTime(_) | Self::Time | Self::Ipv4 => 4,
            Self::Float64 | Self::DateTime64 { .. } | Self::Time64 { .. } => 8,
            Self::Bool => 1,
            Self::Decimal(kind) => kind.width(),
            Self::String | Self::Json(_) => return None,
            Self::FixedString(length) => *length,
            Self::Uuid | Self::Ipv6 => 16,
            Self::Date | Self::BFloat16 => 2,
            Self::Enum(names) => names.width(),
        })
    }

    /// Appends what stands where there is no value: beneath a NULL, and as the
    /// first key of a dictionary.
    pub(super) fn put_filler(&self, out: &mut Vec<u8>) {
        // An empty string is its length alone: one zero byte.
        let width = self.width().unwrap_or(1);
        out.resize(out.len() + width, 0);
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scalar(scalar) => write!(f, "{scalar}"),
            Self::Nullable(scalar) => write!(f, "Nullable({scalar})"),
            Self::LowCardinality { of, nullable: false } => write!(f, "LowCardinality({of})"),
            Self::LowCardinality { of, nullable: true } => {
                write!(f, "LowCardinality(Nullable({of}))")
            }
            Self::Array(item) => write!(f, "Array({item})"),
            Self::Map(key, value) => write!(f, "Map({key}, {value})"),
            Self::Tuple(elements) => {
                f.write_str("Tuple(")?;
                for (index, element) in elements.iter().enumerate() {
                    if index > 0 {
                        f.write_str(", ")?;
                    }
                    if let Some(name) = &element.name {
                        write_identifier(f, name)?;
                        f.write_str(" ")?;
                    }
                    write!(f, "{}", element.kind)?;
                }
                f.write_str(")")
            }
        }
    }
}

impl fmt::Display for ScalarType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(kind) => {
                let sign = if kind.signed { "" } else { "U" };
                write!(f, "{sign}Int{}", u32::from(kind.bytes) * 8)
            }
            Self::BFloat16 => f.write_str("BFloat16"),
            Self::Float32 => f.write_str("Float32"),
            Self::Float64 => f.write_str("Float64"),
            Self::Bool => f.write_str("Bool"),
            Self::Decimal(kind) => write!(f, "Decimal({}, {})", kind.precision, kind.scale),
            Self::String => f.write_str("String"),
            Self::FixedString(length) => write!(f, "FixedString({length})"),
            Self::Uuid => f.write_str("UUID"),
            Self::Date => f.write_str("Date"),
            Self::Date32 => f.write_str("Date32"),
            Self::DateTime(zone) => {
                f.write_str("DateTime")?;
                if let Some(name) = &zone.name {
                    f.write_str("(")?;
                    write_quoted(f, name, '\'')?;
                    f.write_str(")")?;
                }
                Ok(())
            }
            Self::DateTime64 { precision, zone } => {
                write!(f, "DateTime64({precision}")?;
                if let Some(name) = &zone.name {
                    f.write_str(", ")?;
                    write_quoted(f, name, '\'')?;
                }
                f.write_str(")")
            }
            Self::Time => f.write_str("Time"),
            Self::Time64 { precision } => write!(f, "Time64({precision})"),
            Self::Enum(names) => {
                write!(f, "Enum{}(", names.width() * 8)?;
                for (index, (name, value)) in names.members().iter().enumerate() {
                    if index > 0 {
                        f.write_str(", ")?;
                    }
                    write_quoted(f, name, '\'')?;
                    write!(f, " = {value}")?;
                }
                f.write_str(")")
            }
            Self::Ipv4 => f.write_str("IPv4"),
            Self::Ipv6 => f.write_str("IPv6"),
            Self::Json(parameters) if parameters.is_empty() => f.write_str("JSON"),
            Self::Json(parameters) => write!(f, "JSON({parameters})"),
        }
    }
}

/// The words that ClickHouse quotes although they look like names.
const RESERVED: [&str; 10] =
    ["all", "distinct", "false", "from", "inf", "nan", "null", "select", "table", "true"];

/// A name as ClickHouse writes it: bare where it can be.
fn write_identifier(f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
    let mut chars = name.chars();
    let bare = chars.next().is_some_and(|c| c == '_' || c.is_ascii_alphabetic())
        && chars.all(|c| c == '_' || c.is_ascii_alphanumeric())
        && !RESERVED.iter().any(|word| name.eq_ignore_ascii_case(word));
    if bare { f.write_str(name) } else { write_quoted(f, name, '`') }
}

fn write_quoted(f: &mut fmt::Formatter<'_>, text: &str, quote: char) -> fmt::Result {
    use fmt::Write as _;
    f.write_char(quote)?;
    for c in text.chars() {
        match c {
            '\n' => f.write_str("\\n")?,
            '\t' => f.write_str("\\t")?,
            '\r' => f.write_str("\\r")?,
            '\0' => f.write_str("\\0")?,
            '\u{8}' => f.write_str("\\b")?,
            '\u{c}' => f.write_str("\\f")?,
            c if c == quote || c == '\\' => {
                f.write_char('\\')?;
                f.write_char(c)?;
            }
            c => f.write_char(c)?,
        }
    }
    f.write_char(quote)
}
