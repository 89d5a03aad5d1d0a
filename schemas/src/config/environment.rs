//! `OUTPOUR_<SECTION>_<KEY>` as a layer over the file.

use std::collections::BTreeMap;

use figment::{
    Error, Metadata, Profile, Provider,
    value::{Dict, Map, Num, Value},
};

use super::Config;

const PREFIX: &str = "OUTPOUR_";

/// Variables with the prefix that are no configuration.
const NOT_CONFIGURATION: &[&str] = &[
    "OUTPOUR_STACK",
    "OUTPOUR_CONFIG",
    "OUTPOUR_LOG",
    // Other builds refuse it like any name that is none.
    #[cfg(feature = "mutants")]
    crate::mutants::VARIABLE,
];

/// One variable, so that an error can name it.
pub(super) struct Variable {
    name: String,
    section: String,
    key: String,
    value: Value,
}

/// A variable that sets nothing, or not a value of its key's type.
#[derive(Debug, thiserror::Error)]
pub(super) enum VariableError {
    #[error("{0} names no configuration key")]
    Unknown(String),
    #[error("{name}={text}: expected {expected}")]
    Type { name: String, text: String, expected: &'static str },
}

/// Reads the variables that configure. The type of a key's default decides how
/// its text is read, so a password of digits stays a string.
pub(super) fn variables(
    pairs: impl IntoIterator<Item = (String, String)>,
) -> Result<Vec<Variable>, VariableError> {
    let defaults = Value::serialize(typed()).ok();
    let defaults = defaults.as_ref().and_then(Value::as_dict).cloned().unwrap_or_default();
    // Sorted, so that the same environment gives the same error.
    let pairs: BTreeMap<_, _> = pairs.into_iter().collect();
    pairs
        .into_iter()
        .filter(|(name, _)| name.starts_with(PREFIX) && !NOT_CONFIGURATION.contains(&name.as_str()))
        .map(|(name, text)| read(&defaults, name, text))
        .collect()
}

/// The defaults, and a number for each key that is one and unset by default.
fn typed() -> Config {
    let mut config = Config::default();
    config.relay.topic_partitions.get_or_insert_default();
    config.relay.topic_replication_factor.get_or_insert_default();
    config.consumer.dead_letter_partitions.get_or_insert_default();
    config.consumer.dead_letter_replication_factor.get_or_insert_default();
    config
}

fn read(defaults: &Dict, name: String, text: String) -> Result<Variable, VariableError> {
    let path = name[PREFIX.len()..].to_ascii_lowercase();
    let Some((section, key)) = path.split_once('_') else {
        return Err(VariableError::Unknown(name));
    };
    let default = defaults.get(section).and_then(Value::as_dict).and_then(|dict| dict.get(key));
    let Some(default) = default else {
        return Err(VariableError::Unknown(name));
    };
    let wrong = |expected| VariableError::Type { name: name.clone(), text: text.clone(), expected };
    let value = match default {
        Value::Num(_, Num::F32(_) | Num::F64(_)) => {
            Value::from(text.parse::<f64>().map_err(|_| wrong("a number"))?)
        }
        Value::Num(..) => Value::from(text.parse::<u64>().map_err(|_| wrong("a whole number"))?),
        Value::Bool(..) => Value::from(text.parse::<bool>().map_err(|_| wrong("true or false"))?),
        Value::Array(..) => {
            let items: Vec<Value> =
                text.split(',').map(|item| Value::from(item.trim().to_owned())).collect();
            Value::from(items)
        }
        Value::Dict(..) => return Err(VariableError::Unknown(name)),
        _ => Value::from(text),
    };
    Ok(Variable { section: section.to_owned(), key: key.to_owned(), value, name })
}

impl Provider for Variable {
    fn metadata(&self) -> Metadata {
        Metadata::named(format!("environment variable {}", self.name))
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        let section = Dict::from([(self.key.clone(), self.value.clone())]);
        let root = Dict::from([(self.section.clone(), Value::from(section))]);
        Ok(Map::from([(Profile::Default, root)]))
    }
}
