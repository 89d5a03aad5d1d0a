//! What a session sets for itself.
//!
//! A role or a database may bring any setting along, and so may the URL. What a
//! statement of ours depends on is set by every session right after it has
//! connected, the replicating one included. It is set by a statement, since a
//! pooler refuses settings at the start that it does not know.
//!
//! | | or else |
//! | --- | --- |
//! | `search_path` | an operator of somebody's is taken for PostgreSQL's |
//! | `row_security` | rows are missing, and nobody says so |
//! | `TimeZone` … `bytea_output` | the text of a value is another one |
//! | `…_timeout` | waiting for Kafka or for others' locks ends the session |
//! | `default_transaction_…` | nothing can be written, or not beside others |
//! | `client_min_messages` | notices come between the lines of what is printed |
//! | `standard_conforming_strings` | a backslash in a constant is not itself |
//!
//! The rest of the search path stays, as triggers and policies of the table may
//! need it. `lc_messages` takes a superuser: errors are known by their SQLSTATE.

/// Sets all of it that the server knows.
pub const PIN: &str = "
SELECT pg_catalog.set_config(name, value, false)
FROM (VALUES
    ('search_path',
     CASE WHEN pg_catalog.strpos(pg_catalog.current_setting('search_path'), 'pg_catalog')
               OPERATOR(pg_catalog.=) 0
          THEN pg_catalog.current_setting('search_path')
          ELSE pg_catalog.concat('pg_catalog, ', pg_catalog.current_setting('search_path')) END),
    ('row_security', 'off'),
    ('TimeZone', 'UTC'),
    ('DateStyle', 'ISO'),
    ('IntervalStyle', 'postgres'),
    ('extra_float_digits', '3'),
    ('bytea_output', 'hex'),
    ('statement_timeout', '0'),
    ('lock_timeout', '0'),
    ('idle_in_transaction_session_timeout', '0'),
    ('idle_session_timeout', '0'),
    ('transaction_timeout', '0'),
    ('default_transaction_read_only', 'off'),
    ('default_transaction_isolation', 'read committed'),
    ('default_transaction_deferrable', 'off'),
    ('client_min_messages', 'warning'),
    ('standard_conforming_strings', 'on')
) AS own (name, value)
WHERE pg_catalog.current_setting(name, true) IS NOT NULL";
