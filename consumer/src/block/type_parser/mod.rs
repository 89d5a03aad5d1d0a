//! Reads the text of a column type, as `system.columns.type` prints it.

mod token;

use jiff::tz::{TimeZone, TimeZoneDatabase};

use self::token::Parser;
use super::{
    enumeration::Enumeration,
    types::{ColumnType, DecimalType, IntegerType, ScalarType, TupleElement, TypeError, Zone},
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
mod tests;
