//! Column types, as these tests know them.

use super::dice::Dice;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    Integer {
        bits: usize,
        signed: bool,
    },
    BFloat16,
    Float32,
    Float64,
    Bool,
    /// Precision and scale.
    Decimal(usize, usize),
    String,
    FixedString(usize),
    Uuid,
    Date,
    Date32,
    DateTime,
    DateTime64(u32),
    Time,
    Time64(u32),
    Enum8,
    Enum16,
    Ipv4,
    Ipv6,
    Json,
    Point,
    Nullable(Box<Kind>),
    LowCardinality(Box<Kind>),
    Array(Box<Kind>),
    Map(Box<Kind>, Box<Kind>),
    Tuple(Vec<Kind>),
    NamedTuple(Vec<Kind>),
    Nested(Vec<Kind>),
    SimpleAggregate(Box<Kind>),
}

use Kind::{
    Array, BFloat16, Bool, Date, Date32, DateTime, DateTime64, Decimal, Enum8, Enum16, FixedString,
    Float32, Float64, Integer, Ipv4, Ipv6, Json, LowCardinality, Map, NamedTuple, Nested, Nullable,
    Point, SimpleAggregate, String as Text, Time, Time64, Tuple, Uuid,
};

/// The members of the enumerations, by name and value.
pub(super) const ENUM8: &[(&str, i64)] = &[("low", -128), ("it's", 0), ("é", 5), ("high", 127)];
pub(super) const ENUM16: &[(&str, i64)] = &[("low", -32768), ("", 1), ("high", 32767)];

/// The names of tuple elements; some need quoting.
pub(super) const NAMES: [&str; 4] = ["a", "b c", "select", "é"];

impl Kind {
    /// Every type without parts, at the precisions where its width changes.
    pub(super) fn scalars() -> Vec<Kind> {
        let mut all = vec![
            BFloat16,
            Float32,
            Float64,
            Bool,
            Text,
            FixedString(1),
            FixedString(7),
            Uuid,
            Date,
            Date32,
            DateTime,
            Time,
            Enum8,
            Enum16,
            Ipv4,
            Ipv6,
            Json,
        ];
        for bits in [8, 16, 32, 64, 128, 256] {
            all.extend([true, false].map(|signed| Integer { bits, signed }));
        }
        for precision in [1, 9, 10, 18, 19, 38, 39, 76] {
            all.extend([0, precision / 2, precision].map(|scale| Decimal(precision, scale)));
        }
        for precision in [0, 3, 6, 9] {
            all.extend([DateTime64(precision), Time64(precision)]);
        }
        all
    }

    /// The ways in which a type stands in others.
    pub(super) fn around(self) -> Vec<Kind> {
        let mut all = vec![
            self.clone(),
            Array(Box::new(self.clone())),
            Map(Box::new(Text), Box::new(self.clone())),
            Tuple(vec![self.clone(), Text]),
        ];
        if self.can_be_null() {
            let nullable = Nullable(Box::new(self.clone()));
            all.extend([
                Array(Box::new(nullable.clone())),
                NamedTuple(vec![nullable.clone(), Bool]),
                nullable,
            ]);
        }
        if self.can_be_low_cardinality() {
            let null = LowCardinality(Box::new(Nullable(Box::new(self.clone()))));
            all.extend([LowCardinality(Box::new(self)), Array(Box::new(null.clone())), null]);
        }
        all
    }

    /// Some type, with so many levels at most.
    pub(super) fn any(dice: &mut Dice, levels: usize) -> Kind {
        if levels == 0 {
            return dice.pick(&Kind::scalars());
        }
        let mut below = || Box::new(Kind::any(dice, levels - 1));
        let (one, two, three) = (below(), below(), below());
        match dice.below(9) {
            0 if one.can_be_null() => Nullable(one),
            1 if one.can_be_low_cardinality() => LowCardinality(one),
            2 => Map(Box::new(dice.pick(&Kind::keys())), one),
            3 => Tuple(vec![*one, *two]),
            4 => NamedTuple(vec![*one, *two, *three]),
            5 => Nested(vec![*one, *two]),
            6 => SimpleAggregate(Box::new(Array(Box::new(dice.pick(&Kind::scalars()))))),
            7 => dice.pick(&[Point, Array(Box::new(Array(Box::new(Point))))]),
            _ => Array(one),
        }
    }

    fn keys() -> Vec<Kind> {
        vec![Text, LowCardinality(Box::new(Text)), Uuid, Integer { bits: 64, signed: false }]
    }

    fn is_scalar(&self) -> bool {
        Kind::scalars().contains(self)
    }

    fn can_be_null(&self) -> bool {
        self.is_scalar()
    }

    fn can_be_low_cardinality(&self) -> bool {
        let takes = |kind: &Kind| {
            let is_decimal = matches!(kind, Decimal(..) | DateTime64(_) | Time64(_));
            kind.is_scalar() && !is_decimal && !matches!(kind, Enum8 | Enum16 | Json)
        };
        match self {
            Nullable(inner) => takes(inner),
            other => takes(other),
        }
    }

    pub(super) fn takes_null(&self) -> bool {
        match self {
            Nullable(_) => true,
            LowCardinality(inner) | SimpleAggregate(inner) => inner.takes_null(),
            _ => false,
        }
    }

    /// As ClickHouse spells it.
    pub(super) fn sql(&self) -> String {
        let members = |all: &[(&str, i64)]| {
            let member =
                |(name, value): &(&str, i64)| format!("'{}' = {value}", name.replace('\'', "\\'"));
            all.iter().map(member).collect::<Vec<_>>().join(", ")
        };
        let named = |kinds: &[Kind]| {
            let element = |(kind, name): (&Kind, &str)| format!("`{name}` {}", kind.sql());
            kinds.iter().zip(NAMES).map(element).collect::<Vec<_>>().join(", ")
        };
        match self {
            Integer { bits, signed } => format!("{}Int{bits}", if *signed { "" } else { "U" }),
            Decimal(precision, scale) => format!("Decimal({precision}, {scale})"),
            Text => "String".into(),
            FixedString(length) => format!("FixedString({length})"),
            Uuid => "UUID".into(),
            DateTime => "DateTime('UTC')".into(),
            DateTime64(precision) => format!("DateTime64({precision}, 'UTC')"),
            Time64(precision) => format!("Time64({precision})"),
            Enum8 => format!("Enum8({})", members(ENUM8)),
            Enum16 => format!("Enum16({})", members(ENUM16)),
            Ipv4 => "IPv4".into(),
            Ipv6 => "IPv6".into(),
            Json => "JSON".into(),
            Nullable(inner) => format!("Nullable({})", inner.sql()),
            LowCardinality(inner) => format!("LowCardinality({})", inner.sql()),
            Array(inner) => format!("Array({})", inner.sql()),
            Map(key, value) => format!("Map({}, {})", key.sql(), value.sql()),
            Tuple(kinds) => {
                format!("Tuple({})", kinds.iter().map(Kind::sql).collect::<Vec<_>>().join(", "))
            }
            NamedTuple(kinds) => format!("Tuple({})", named(kinds)),
            Nested(kinds) => format!("Nested({})", named(kinds)),
            SimpleAggregate(inner) => format!("SimpleAggregateFunction(anyLast, {})", inner.sql()),
            BFloat16 | Float32 | Float64 | Bool | Date | Date32 | Time | Point => {
                format!("{self:?}")
            }
        }
    }
}
