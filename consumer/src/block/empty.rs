//! What ClickHouse has for a type where nothing is given, as JSON.

use super::types::{ColumnType, ScalarType};

impl ColumnType {
    /// The JSON of an empty `Array`, `Map` or `JSON`, or of a `Tuple` of what its elements
    /// have by default; `None` for types whose emptiness would pass for a value.
    pub(crate) fn empty(&self) -> Option<String> {
        match self {
            Self::Scalar(ScalarType::Json(_)) | Self::Array(_) | Self::Map(..) | Self::Tuple(_) => {
                Some(self.by_default())
            }
            _ => None,
        }
    }

    fn by_default(&self) -> String {
        match self {
            Self::Array(_) => "[]".to_owned(),
            Self::Map(..) => "{}".to_owned(),
            Self::Tuple(elements) => {
                let elements = elements.iter().map(|element| element.kind.by_default());
                format!("[{}]", elements.collect::<Vec<_>>().join(","))
            }
            Self::Nullable(_) | Self::LowCardinality { nullable: true, .. } => "null".to_owned(),
            Self::Scalar(of) | Self::LowCardinality { of, .. } => of.by_default(),
        }
    }
}

impl ScalarType {
    fn by_default(&self) -> String {
        let text = match self {
            Self::Enum(names) => {
                return names.members().first().map_or(0, |(_, value)| *value).to_string();
            }
            Self::Date => "\"1970-01-01\"",
            Self::Date32 => "\"1900-01-01\"",
            Self::Uuid => "\"00000000-0000-0000-0000-000000000000\"",
            Self::Ipv4 => "\"0.0.0.0\"",
            Self::Ipv6 => "\"::\"",
            Self::String | Self::FixedString(_) => "\"\"",
            Self::Bool => "false",
            Self::Json(_) => "{}",
            _ => "0",
        };
        text.to_owned()
    }
}
