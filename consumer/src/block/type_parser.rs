//! Reads the text of a column type, as `system.columns.type` prints it.

use jiff::tz::{TimeZone, TimeZoneDatabase};

use super::enumeration::Enumeration;
use super::types::{
    ColumnType, DecimalType, IntegerType, ScalarType, TupleElement, TypeError, Zone,
};

/// How deep types may stand in each other. Real ones stay far below it; it
/// keeps a hostile text from exhausting the stack.
const MAX_DEPTH: usize = 32;

/// The longest `FixedString` that ClickHouse has.
const MAX_FIXED_STRING: usize = 0xFF_FFFF;

pub(super) fn parse(text: &str) -> Result<ColumnType, TypeError> {
    let mut parser = Parser { text, at: 0, depth: 0 };
    let kind = parser.column_type()?;
    parser.space();
    if parser.at < text.len() {
        return Err(parser.syntax("the end"));
    }
    Ok(kind)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn column_type(&mut self) -> Result<ColumnType, TypeError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(TypeError::Unsupported(self.text.to_owned()));
        }
        let kind = self.named_type()?;
        self.depth -= 1;
        Ok(kind)
    }

    fn named_type(&mut self) -> Result<ColumnType, TypeError> {
        self.space();
        let name = self.word();
        if name.is_empty() {
            return Err(self.syntax("a type"));
        }
        match name {
            "Nullable" => {
                let of = self.parenthesised(Self::scalar)?;
                Ok(ColumnType::Nullable(of))
            }
            "LowCardinality" => match self.parenthesised(Self::column_type)? {
                ColumnType::Scalar(of) if may_be_low_cardinality(&of) => {
                    Ok(ColumnType::LowCardinality { of, nullable: false })
                }
                ColumnType::Nullable(of) if may_be_low_cardinality(&of) => {
                    Ok(ColumnType::LowCardinality { of, nullable: true })
                }
                other => Err(TypeError::Unsupported(format!("LowCardinality({other})"))),
            },
            "Array" => {
                let item = self.parenthesised(Self::column_type)?;
                Ok(ColumnType::Array(Box::new(item)))
            }
            "Map" => self.parenthesised(|parser| {
                let key = parser.column_type()?;
                parser.expect(",", "`,`")?;
                let value = parser.column_type()?;
                Ok(ColumnType::Map(Box::new(key), Box::new(value)))
            }),
            "Tuple" => self.tuple().map(ColumnType::Tuple),
            "Nested" => {
                let elements = self.tuple()?;
                Ok(ColumnType::Array(Box::new(ColumnType::Tuple(elements))))
            }
            "SimpleAggregateFunction" => self.parenthesised(|parser| {
                parser.space();
                parser.word();
                parser.raw_arguments()?;
                parser.expect(",", "`,`")?;
                parser.column_type()
            }),
            "Point" => Ok(shape(0)),
            "Ring" | "LineString" | "MultiPoint" => Ok(shape(1)),
            "Polygon" | "MultiLineString" => Ok(shape(2)),
            "MultiPolygon" => Ok(shape(3)),
            name => self.scalar_named(name).map(ColumnType::Scalar),
        }
    }

    fn scalar(&mut self) -> Result<ScalarType, TypeError> {
        match self.column_type()? {
            ColumnType::Scalar(scalar) => Ok(scalar),
            other => Err(TypeError::Unsupported(format!("Nullable({other})"))),
        }
    }

    fn scalar_named(&mut self, name: &str) -> Result<ScalarType, TypeError> {
        if let Some(kind) = integer(name) {
            return Ok(ScalarType::Integer(kind));
        }
        Ok(match name {
            "BFloat16" => ScalarType::BFloat16,
            "Float32" => ScalarType::Float32,
            "Float64" => ScalarType::Float64,
            "Bool" => ScalarType::Bool,
            "String" => ScalarType::String,
            "UUID" => ScalarType::Uuid,
            "Date" => ScalarType::Date,
            "Date32" => ScalarType::Date32,
            "IPv4" => ScalarType::Ipv4,
            "IPv6" => ScalarType::Ipv6,
            "FixedString" => {
                let length = self.parenthesised(Self::number)?;
                match usize::try_from(length) {
                    Ok(length @ 1..=MAX_FIXED_STRING) => ScalarType::FixedString(length),
                    _ => return Err(self.syntax("a length")),
                }
            }
            "Decimal" => self.decimal(None)?,
            "Decimal32" => self.decimal(Some(9))?,
            "Decimal64" => self.decimal(Some(18))?,
            "Decimal128" => self.decimal(Some(38))?,
            "Decimal256" => self.decimal(Some(76))?,
            "DateTime" => ScalarType::DateTime(if self.peek("(") {
                self.parenthesised(Self::zone)?
            } else {
                Zone::unnamed()
            }),
            "DateTime64" => self.date_time64()?,
            "Time" => ScalarType::Time,
            "Time64" => self.time64()?,
            "Enum" | "Enum8" | "Enum16" => self.enumeration(name)?,
            "JSON" => ScalarType::Json(self.raw_arguments()?.to_owned()),
            _ => return Err(TypeError::Unsupported(name.to_owned())),
        })
    }

    fn decimal(&mut self, fixed: Option<u8>) -> Result<ScalarType, TypeError> {
        let (precision, scale) = match fixed {
            Some(precision) => (i64::from(precision), self.parenthesised(Self::number)?),
            None if self.peek("(") => self.parenthesised(|parser| {
                let precision = parser.number()?;
                let scale = if parser.peek(",") {
                    parser.expect(",", "`,`")?;
                    parser.number()?
                } else {
                    0
                };
                Ok((precision, scale))
            })?,
            None => (10, 0),
        };
        match (u8::try_from(precision), u8::try_from(scale)) {
            (Ok(precision @ 1..=76), Ok(scale)) if scale <= precision => {
                Ok(ScalarType::Decimal(DecimalType { precision, scale }))
            }
            _ => Err(self.syntax("a precision up to 76 and a scale up to it")),
        }
    }

    fn date_time64(&mut self) -> Result<ScalarType, TypeError> {
        if !self.peek("(") {
            return Ok(ScalarType::DateTime64 { precision: 3, zone: Zone::unnamed() });
        }
        self.parenthesised(|parser| {
            let precision = parser.ticks()?;
            let zone = if parser.peek(",") {
                parser.expect(",", "`,`")?;
                parser.zone()?
            } else {
                Zone::unnamed()
            };
            Ok(ScalarType::DateTime64 { precision, zone })
        })
    }

    fn time64(&mut self) -> Result<ScalarType, TypeError> {
        let precision = if self.peek("(") { self.parenthesised(Self::ticks)? } else { 3 };
        Ok(ScalarType::Time64 { precision })
    }

    /// Digits below the second.
    fn ticks(&mut self) -> Result<u8, TypeError> {
        match u8::try_from(self.number()?) {
            Ok(precision @ 0..=9) => Ok(precision),
            _ => Err(self.syntax("a precision up to 9")),
        }
    }

    /// A zone of the database that is built in, so that the same table reads
    /// the same on every machine.
    fn zone(&mut self) -> Result<Zone, TypeError> {
        let name = self.quoted('\'')?;
        let rules = if name == "UTC" {
            TimeZone::UTC
        } else {
            TimeZoneDatabase::bundled()
                .get(&name)
                .map_err(|_| TypeError::UnknownTimeZone(name.clone()))?
        };
        Ok(Zone { name: Some(name), rules })
    }

    fn enumeration(&mut self, name: &str) -> Result<ScalarType, TypeError> {
        let members = self.parenthesised(|parser| {
            let mut members: Vec<(String, i16)> = Vec::new();
            loop {
                let name = parser.quoted('\'')?;
                let value = if parser.peek("=") {
                    parser.expect("=", "`=`")?;
                    i16::try_from(parser.number()?).ok()
                } else {
                    members.last().map_or(Some(1), |(_, last)| last.checked_add(1))
                };
                let value = value.ok_or_else(|| parser.syntax("a value of 16 bits"))?;
                members.push((name, value));
                if !parser.peek(",") {
                    return Ok(members);
                }
                parser.expect(",", "`,`")?;
            }
        })?;
        let narrow = members.iter().all(|(_, value)| i8::try_from(*value).is_ok());
        let width = match name {
            "Enum8" => 1,
            "Enum16" => 2,
            _ if narrow => 1,
            _ => 2,
        };
        Enumeration::new(width, members)
            .map(ScalarType::Enum)
            .ok_or_else(|| self.syntax("distinct names and values that fit"))
    }

    fn tuple(&mut self) -> Result<Vec<TupleElement>, TypeError> {
        self.parenthesised(|parser| {
            let mut elements = Vec::new();
            while !parser.peek(")") {
                if !elements.is_empty() {
                    parser.expect(",", "`,`")?;
                }
                let name = parser.element_name()?;
                let kind = parser.column_type()?;
                elements.push(TupleElement { name, kind });
            }
            let named = elements.iter().filter(|e| e.name.is_some()).count();
            if named != 0 && named != elements.len() {
                return Err(parser.syntax("names for all elements or for none"));
            }
            Ok(elements)
        })
    }

    /// A name is a word that is followed by another: `a UInt8`, not `UInt8`.
    fn element_name(&mut self) -> Result<Option<String>, TypeError> {
        self.space();
        if self.peek("`") {
            return self.quoted('`').map(Some);
        }
        let start = self.at;
        let word = self.word();
        let after_word = self.at;
        self.space();
        let next = self.text[self.at..].chars().next();
        if !word.is_empty() && self.at > after_word && next.is_some_and(|c| c.is_ascii_alphabetic())
        {
            return Ok(Some(word.to_owned()));
        }
        self.at = start;
        Ok(None)
    }

    /// The text between balanced parentheses, as it is; empty without any.
    fn raw_arguments(&mut self) -> Result<&'a str, TypeError> {
        if !self.peek("(") {
            return Ok("");
        }
        self.expect("(", "`(`")?;
        let start = self.at;
        let mut depth = 1;
        while let Some(c) = self.text[self.at..].chars().next() {
            match c {
                '\'' | '`' => {
                    self.quoted(c)?;
                    continue;
                }
                '(' => depth += 1,
                ')' => depth -= 1,
                _ => {}
            }
            self.at += c.len_utf8();
            if depth == 0 {
                return Ok(self.text[start..self.at - 1].trim());
            }
        }
        Err(self.syntax("`)`"))
    }

    fn parenthesised<T>(
        &mut self,
        inner: impl FnOnce(&mut Self) -> Result<T, TypeError>,
    ) -> Result<T, TypeError> {
        self.expect("(", "`(`")?;
        let value = inner(self)?;
        self.expect(")", "`)`")?;
        Ok(value)
    }

    fn number(&mut self) -> Result<i64, TypeError> {
        self.space();
        let rest = &self.text[self.at..];
        let sign = usize::from(rest.starts_with('-'));
        let digits = rest[sign..].find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len() - sign);
        let text = &rest[..sign + digits];
        let value = text.parse().map_err(|_| self.syntax("a number"))?;
        self.at += text.len();
        Ok(value)
    }

    /// Quoted text, with ClickHouse's escapes and with doubled quotes.
    fn quoted(&mut self, quote: char) -> Result<String, TypeError> {
        self.space();
        let mut chars = self.text[self.at..].char_indices().peekable();
        if chars.next().map(|(_, c)| c) != Some(quote) {
            return Err(self.syntax("a quoted text"));
        }
        let mut text = String::new();
        while let Some((index, c)) = chars.next() {
            match c {
                '\\' => match chars.next().map(|(_, c)| c) {
                    Some('n') => text.push('\n'),
                    Some('t') => text.push('\t'),
                    Some('r') => text.push('\r'),
                    Some('0') => text.push('\0'),
                    Some('b') => text.push('\u{8}'),
                    Some('f') => text.push('\u{c}'),
                    Some('a') => text.push('\u{7}'),
                    Some('v') => text.push('\u{b}'),
                    Some(c) => text.push(c),
                    None => break,
                },
                c if c == quote => {
                    if chars.next_if(|(_, c)| *c == quote).is_some() {
                        text.push(quote);
                    } else {
                        self.at += index + quote.len_utf8();
                        return Ok(text);
                    }
                }
                c => text.push(c),
            }
        }
        Err(self.syntax("a quoted text"))
    }

    fn word(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let end =
            rest.find(|c: char| !(c == '_' || c.is_ascii_alphanumeric())).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn space(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
    }

    fn peek(&mut self, token: &str) -> bool {
        self.space();
        self.text[self.at..].starts_with(token)
    }

    fn expect(&mut self, token: &str, expected: &'static str) -> Result<(), TypeError> {
        if !self.peek(token) {
            return Err(self.syntax(expected));
        }
        self.at += token.len();
        Ok(())
    }

    fn syntax(&self, expected: &'static str) -> TypeError {
        TypeError::Syntax { text: self.text.to_owned(), at: self.at, expected }
    }
}

fn integer(name: &str) -> Option<IntegerType> {
    let (signed, bits) = match name.strip_prefix("UInt") {
        Some(bits) => (false, bits),
        None => (true, name.strip_prefix("Int")?),
    };
    let bytes = match bits {
        "8" => 1,
        "16" => 2,
        "32" => 4,
        "64" => 8,
        "128" => 16,
        "256" => 32,
        _ => return None,
    };
    Some(IntegerType { bytes, signed })
}

/// What ClickHouse keeps dictionaries of.
fn may_be_low_cardinality(of: &ScalarType) -> bool {
    !matches!(of, ScalarType::Decimal(_) | ScalarType::Enum(_) | ScalarType::Json(_))
}

/// A point, or arrays of arrays of points.
fn shape(arrays: usize) -> ColumnType {
    let coordinate = TupleElement { name: None, kind: ColumnType::Scalar(ScalarType::Float64) };
    let point = ColumnType::Tuple(vec![coordinate.clone(), coordinate]);
    (0..arrays).fold(point, |item, _| ColumnType::Array(Box::new(item)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        parse(text).unwrap_or_else(|e| panic!("{text}: {e}")).to_string()
    }

    #[test]
    fn canonical_spellings_come_back() {
        for text in [
            "Int8",
            "UInt256",
            "BFloat16",
            "Time",
            "Time64(6)",
            "Float32",
            "Float64",
            "Bool",
            "String",
            "FixedString(3)",
            "UUID",
            "Date",
            "Date32",
            "IPv4",
            "IPv6",
            "DateTime",
            "DateTime('Europe/Paris')",
            "DateTime64(3)",
            "DateTime64(9, 'UTC')",
            "Decimal(5, 2)",
            "Decimal(76, 76)",
            r#"Enum8('it\'s\\n\t"q`' = -3, 'x' = 1)"#,
            "Enum16('z' = 1000)",
            "Nullable(Decimal(9, 3))",
            "LowCardinality(String)",
            "LowCardinality(Nullable(FixedString(2)))",
            "Array(Array(Nullable(Int8)))",
            "Map(LowCardinality(String), Array(UInt8))",
            "Tuple(UInt8, String)",
            "Tuple(a UInt8, `b c` Tuple(DateTime('UTC'), String))",
            "Tuple()",
            "JSON",
            "JSON(max_dynamic_paths=10, a UInt8, SKIP REGEXP '(x')",
            "Nullable(JSON)",
        ] {
            assert_eq!(shown(text), text);
        }
    }

    #[test]
    fn other_spellings_become_canonical() {
        for (text, canonical) in [
            ("Decimal32(3)", "Decimal(9, 3)"),
            ("Decimal64(3)", "Decimal(18, 3)"),
            ("Decimal128(3)", "Decimal(38, 3)"),
            ("Decimal256(7)", "Decimal(76, 7)"),
            ("Decimal(7)", "Decimal(7, 0)"),
            ("Decimal", "Decimal(10, 0)"),
            ("DateTime64", "DateTime64(3)"),
            ("Time64", "Time64(3)"),
            ("SimpleAggregateFunction(groupUniqArrayArray(10), Array(UInt8))", "Array(UInt8)"),
            (" Array( UInt8 ) ", "Array(UInt8)"),
            ("Enum('b' = 2, 'a' = 1)", "Enum8('a' = 1, 'b' = 2)"),
            ("Enum('a', 'b')", "Enum8('a' = 1, 'b' = 2)"),
            ("Enum('it''s' = 300)", r"Enum16('it\'s' = 300)"),
            ("Nested(a UInt8, b String)", "Array(Tuple(a UInt8, b String))"),
            ("SimpleAggregateFunction(sum, UInt64)", "UInt64"),
            ("Ring", "Array(Tuple(Float64, Float64))"),
        ] {
            assert_eq!(shown(text), canonical);
        }
    }

    #[test]
    fn what_is_not_supported_names_itself() {
        let error = parse("Array(Variant(String, UInt8))").unwrap_err();
        assert_eq!(error, TypeError::Unsupported("Variant".to_owned()));
        let expected = "column type `Variant` is not supported; a MATERIALIZED column can \
                        compute it from one of another type";
        assert_eq!(error.to_string(), expected);
        for text in [
            "Dynamic",
            "AggregateFunction(sum, UInt64)",
            "IntervalDay",
            "Geometry",
            "QBit(Float32, 8)",
            "Nothing",
            "Nullable(Tuple(UInt8))",
            "Int24",
            "LowCardinality(Decimal(5, 2))",
            "Nullable(Array(UInt8))",
        ] {
            assert!(matches!(parse(text), Err(TypeError::Unsupported(_))), "{text}");
        }
        assert_eq!(
            parse("DateTime('Mars/Base')"),
            Err(TypeError::UnknownTimeZone("Mars/Base".to_owned()))
        );
    }

    #[test]
    fn broken_text_is_refused() {
        for text in [
            "",
            "Array",
            "Array(",
            "Array(UInt8",
            "UInt8)",
            "FixedString()",
            "FixedString(0)",
            "FixedString(16777216)",
            "FixedString(-1)",
            "Decimal(77, 1)",
            "Decimal(5, 6)",
            "DateTime64(10)",
            "Time64(10)",
            "Enum8('a' = 300)",
            "Enum8('a = 1)",
            "Enum8()",
            "Tuple(a UInt8, String)",
            "Map(String)",
            "JSON(",
            "DateTime('UTC'",
            "é",
        ] {
            assert!(matches!(parse(text), Err(TypeError::Syntax { .. })), "{text}");
        }
        let deep = "Array(".repeat(100_000);
        assert!(parse(&deep).is_err());
    }
}
