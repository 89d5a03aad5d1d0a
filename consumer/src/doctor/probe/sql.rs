//! Just enough of ClickHouse's SQL, as the server itself writes it down, to find
//! names in it. Pure.

use std::borrow::Cow;

use crate::table::{TableName, quoted};

/// A piece of SQL; all of them together are the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Token<'a> {
    kind: Kind,
    text: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A keyword, or a name that needs no quotes.
    Word,
    /// A name in backticks or double quotes, with them.
    Quoted,
    /// A constant in quotes, with them.
    Text,
    Space,
    /// Any other character.
    Other,
}

impl<'a> Token<'a> {
    /// As what it is a name, if it can be one.
    fn name(self) -> Option<Cow<'a, str>> {
        match self.kind {
            Kind::Word => Some(Cow::Borrowed(self.text)),
            Kind::Quoted => {
                let inner = self.text.get(1..self.text.len() - 1).unwrap_or_default();
                let mut name = String::with_capacity(inner.len());
                let mut characters = inner.chars();
                while let Some(c) = characters.next() {
                    // A backslash before a quote or another, or a doubled quote.
                    let taken = match c {
                        '\\' | '`' | '"' => characters.next().unwrap_or(c),
                        c => c,
                    };
                    name.push(taken);
                }
                Some(Cow::Owned(name))
            }
            _ => None,
        }
    }

    fn is_other(self, character: &str) -> bool {
        self.kind == Kind::Other && self.text == character
    }

    fn is_word(self, word: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(word)
    }
}

fn tokens(sql: &str) -> Vec<Token<'_>> {
    let mut all = Vec::new();
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let run = |is_in: fn(char) -> bool| rest.find(|c: char| !is_in(c)).unwrap_or(rest.len());
        let (length, kind) = match first {
            '`' | '"' => (quote_length(rest, first), Kind::Quoted),
            '\'' => (quote_length(rest, first), Kind::Text),
            c if c.is_whitespace() => (run(char::is_whitespace), Kind::Space),
            c if c.is_alphanumeric() || c == '_' => {
                (run(|c| c.is_alphanumeric() || c == '_'), Kind::Word)
            }
            c => (c.len_utf8(), Kind::Other),
        };
        let (text, after) = rest.split_at(length);
        all.push(Token { kind, text });
        rest = after;
    }
    all
}

/// How long what is quoted at the beginning of `text` is, quotes included.
fn quote_length(text: &str, quote: char) -> usize {
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = characters.next() {
        if c == '\\' {
            characters.next();
        } else if c == quote {
            match characters.peek() {
                Some((_, next)) if *next == quote => {
                    characters.next();
                }
                _ => return at + 1,
            }
        }
    }
    text.len()
}

/// The table that a materialised view writes to, by the statement that creates
/// it and the view's id: the one after TO, or one of its own.
pub(in super::super) fn view_target(create: &str, view: &TableName, uuid: &str) -> TableName {
    const NO_UUID: &str = "00000000-0000-0000-0000-000000000000";
    let all: Vec<_> =
        tokens(create).into_iter().filter(|token| token.kind != Kind::Space).collect();
    // Columns, the engine and the query come later, and may hold anything.
    let head = all
        .iter()
        .position(|t| t.is_other("(") || t.is_word("AS") || t.is_word("ENGINE"))
        .unwrap_or(all.len());
    let named = all[..head].iter().position(|token| token.is_word("TO")).and_then(|at| {
        let database = all.get(at + 1)?.name()?;
        match (all.get(at + 2), all.get(at + 3)) {
            (Some(dot), Some(table)) if dot.is_other(".") => Some(TableName {
                database: database.into_owned(),
                table: table.name()?.into_owned(),
            }),
            _ => Some(TableName { database: view.database.clone(), table: database.into_owned() }),
        }
    });
    named.unwrap_or_else(|| TableName {
        database: view.database.clone(),
        table: if uuid.is_empty() || uuid == NO_UUID {
            format!(".inner.{}", view.table)
        } else {
            format!(".inner_id.{uuid}")
        },
    })
}

/// The query of a view with `twin` in the place of `source`. `None` if it does
/// not name it with its database, as the server does.
///
/// No mention of `source` is left: a view of the result sees nothing of what is
/// inserted into it.
pub(super) fn read_from(select: &str, source: &TableName, twin: &TableName) -> Option<String> {
    let all = tokens(select);
    let mut sql = String::with_capacity(select.len() + 32);
    let mut is_replaced = false;
    let mut at = 0;
    while at < all.len() {
        let is_source = all[at].name().is_some_and(|name| name == source.database)
            && all.get(at + 1).is_some_and(|t| t.is_other("."))
            && all.get(at + 2).and_then(|t| t.name()).is_some_and(|name| name == source.table)
            // Of `a.b.c` the table is `a.b`, not `b.c`.
            && (at == 0 || !all[at - 1].is_other("."));
        if !is_source {
            sql.push_str(all[at].text);
            at += 1;
            continue;
        }
        at += 3;
        is_replaced = true;
        let next = all[at..].iter().find(|token| token.kind != Kind::Space);
        match next {
            // A column by its table's full name: by the alias instead.
            Some(token) if token.is_other(".") => sql.push_str(&quoted(&source.table)),
            Some(token) if token.is_word("AS") => sql.push_str(&twin.quoted()),
            _ => {
                sql.push_str(&format!("{} AS {}", twin.quoted(), quoted(&source.table)));
            }
        }
    }
    is_replaced.then_some(sql)
}

/// The first constant in quotes of `sql`, without them, and where it is.
pub(super) fn first_text(sql: &str) -> Option<(std::ops::Range<usize>, &str)> {
    let mut start = 0;
    for token in tokens(sql) {
        let end = start + token.text.len();
        if token.kind == Kind::Text {
            return Some((start..end, token.text.trim_matches('\'')));
        }
        start = end;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(database: &str, table: &str) -> TableName {
        TableName { database: database.into(), table: table.into() }
    }

    fn target(create: &str) -> TableName {
        view_target(create, &name("d", "v"), "6fb4b7f4-ac71-4d84-b2cb-b96bf84a13e1")
    }

    #[test]
    fn the_target_of_a_view_is_named_or_its_own() {
        let to =
            "CREATE MATERIALIZED VIEW d.v TO other.`my ``t\\`` (`n` UInt8) AS SELECT n FROM d.s";
        assert_eq!(target(to), name("other", "my `t`"));
        assert_eq!(target("CREATE MATERIALIZED VIEW v TO t AS SELECT 1"), name("d", "t"));
        let own = "CREATE MATERIALIZED VIEW d.v (`to` UInt8) ENGINE = MergeTree ORDER BY to \
                   AS SELECT n AS to FROM d.s";
        let inner = ".inner_id.6fb4b7f4-ac71-4d84-b2cb-b96bf84a13e1";
        assert_eq!(target(own), name("d", inner));
        assert_eq!(view_target(own, &name("d", "v"), ""), name("d", ".inner.v"));
    }

    fn rewritten(select: &str) -> Option<String> {
        read_from(select, &name("d", "src"), &name("d", "twin"))
    }

    #[test]
    fn a_query_reads_from_the_twin_under_the_old_name() {
        assert_eq!(
            rewritten("SELECT n, count() AS c FROM d.src GROUP BY n").unwrap(),
            "SELECT n, count() AS c FROM `d`.`twin` AS `src` GROUP BY n"
        );
        assert_eq!(
            rewritten("SELECT s.n, d.src.m FROM d.`src` AS s FINAL").unwrap(),
            "SELECT s.n, `src`.m FROM `d`.`twin` AS s FINAL"
        );
    }

    #[test]
    fn nothing_but_the_table_is_replaced() {
        let select = "SELECT 'd.src' AS x, o.d.src, d.src2 FROM d.src";
        assert_eq!(
            rewritten(select).unwrap(),
            "SELECT 'd.src' AS x, o.d.src, d.src2 FROM `d`.`twin` AS `src`"
        );
        assert_eq!(rewritten("SELECT n FROM src"), None);
        assert_eq!(rewritten("SELECT 'it\\'s d.src', 'd''.src' FROM e.src"), None);
    }

    #[test]
    fn the_first_constant_is_found_where_it_is() {
        let sql = "ReplicatedMergeTree('/a/{uuid}', '{replica}') ORDER BY a";
        let (range, text) = first_text(sql).unwrap();
        assert_eq!((&sql[range], text), ("'/a/{uuid}'", "/a/{uuid}"));
        assert_eq!(first_text("MergeTree ORDER BY a"), None);
    }

    proptest! {
        #[test]
        fn tokens_are_the_text_whatever_it_is(sql in "[a-z0-9_.'`\"\\\\ ()=ä\n]{0,60}") {
            let joined: String = tokens(&sql).into_iter().map(|token| token.text).collect();
            prop_assert_eq!(&joined, &sql);
            view_target(&sql, &name("d", "v"), "");
            for token in tokens(&sql) {
                token.name();
            }
        }
    }
}
