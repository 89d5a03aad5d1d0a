//! The SQL function that writes an event without a table: as a logical message,
//! of which nothing stays but the log.

use outpour_schemas::config::Config;

use crate::sql::{literal, quoted};

/// Its name, beside the outbox table.
const NAME: &str = "outpour_emit";

/// Whether the function is there just as it would be created: a query for one
/// boolean.
pub(crate) fn exists(config: &Config) -> String {
    let (schema, _) = config.outbox.qualified();
    format!(
        "SELECT EXISTS (SELECT FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace \
         WHERE n.nspname = {} AND p.proname = '{NAME}' AND p.prosrc = {})",
        literal(schema),
        literal(&body(config))
    )
}

/// How a person finds it.
pub(crate) fn name(config: &Config) -> String {
    let (schema, _) = config.outbox.qualified();
    format!("{schema}.{NAME}")
}

/// Creates it, or brings it up to date.
///
/// The settings make the text of a timestamp what the log has for a row of the
/// table, whatever the session's are.
pub(crate) fn create(config: &Config) -> String {
    let (schema, _) = config.outbox.qualified();
    format!(
        "CREATE OR REPLACE FUNCTION {schema}.{NAME}(
    aggregatetype text,
    aggregateid text,
    type text,
    payload jsonb,
    id uuid DEFAULT gen_random_uuid(),
    occurred_at timestamptz DEFAULT clock_timestamp(),
    schema_version integer DEFAULT 1,
    traceparent text DEFAULT NULL,
    extra jsonb DEFAULT NULL
) RETURNS uuid
LANGUAGE plpgsql VOLATILE SET timezone = 'UTC' SET datestyle = 'ISO'
AS {}",
        literal(&body(config)),
        schema = quoted(schema),
    )
}

/// What a NULL would do to an insert into the table, it does here. Every name
/// that could mean another thing on a caller's search path is qualified. The
/// content is UTF-8, since nobody converts a message on its way.
fn body(config: &Config) -> String {
    format!(
        "
BEGIN
    IF id IS NULL OR aggregatetype IS NULL OR aggregateid IS NULL OR type IS NULL
        OR occurred_at IS NULL OR schema_version IS NULL
    THEN
        RAISE not_null_violation USING MESSAGE =
            'null value in an argument of {NAME}; only payload, traceparent and extra may be null';
    END IF;
    IF pg_catalog.jsonb_typeof(extra) OPERATOR(pg_catalog.<>) 'object' THEN
        RAISE invalid_parameter_value USING MESSAGE =
            '{NAME}: extra must be a JSON object, a field for each additional column';
    END IF;
    PERFORM pg_catalog.pg_logical_emit_message(true, {prefix}, pg_catalog.convert_to(pg_catalog.json_build_object(
        'id', id,
        'aggregatetype', aggregatetype,
        'aggregateid', aggregateid,
        'type', type,
        'payload', payload::pg_catalog.text,
        'occurred_at', occurred_at::pg_catalog.text,
        'schema_version', schema_version,
        'traceparent', traceparent,
        'extra', extra
    )::pg_catalog.text, 'UTF8'));
    RETURN id;
END
",
        prefix = literal(&config.relay.message_prefix),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_and_schema_are_quoted_whatever_they_hold() {
        let mut config = Config::default();
        config.outbox.table = "app\"s.outbox".to_owned();
        config.relay.message_prefix = "it's".to_owned();
        let sql = create(&config);
        assert!(sql.contains("FUNCTION \"app\"\"s\".outpour_emit("), "{sql}");
        // A constant within the constant that the body is.
        assert!(sql.contains("(true, ''it''''s'', "), "{sql}");
    }
}
