//! Tables that are called like a column within: in `FROM a AS y WHERE EXISTS (SELECT 1 FROM b WHERE b.id = y.id)`, where b has a column y,
//! DataFusion reads `y.id` as a field of that column. The table gets another name then, in all that speaks of it.
//!
//! Rule    nothing is renamed but where a subquery mentions such a table, as far as the tables' columns are known

use super::fold;
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, ObjectName, Query, Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, Statement,
    TableAlias, TableFactor, Visit, VisitMut, Visitor, VisitorMut,
};
use std::collections::BTreeSet;
use std::ops::ControlFlow;

/// Gives the columns of a table, where they are known.
pub(crate) type ColumnsOf<'a> = &'a dyn Fn(&ObjectName) -> Option<Vec<String>>;

/// Renames such tables.
pub(crate) fn tell_apart(statement: &mut Statement, columns_of: ColumnsOf<'_>) {
    let mut look = Look { columns_of, scopes: Vec::new(), count: 0, found: BTreeSet::new() };
    let _ = Visit::visit(&*statement, &mut look);
    if !look.found.is_empty() {
        let _ = VisitMut::visit(statement, &mut Rename { found: look.found, count: 0 });
    }
}

fn tables(select: &Select) -> impl Iterator<Item = &TableFactor> {
    select.from.iter().flat_map(|f| std::iter::once(&f.relation).chain(f.joins.iter().map(|j| &j.relation)))
}

/// What a table is called in its SELECT.
fn called(table: &TableFactor) -> Option<String> {
    match table {
        TableFactor::Table { alias: Some(alias), .. } | TableFactor::Derived { alias: Some(alias), .. } => {
            Some(fold(&alias.name))
        }
        TableFactor::Table { name, .. } => name.0.last()?.as_ident().map(fold),
        _ => None,
    }
}

/// A SELECT by its number, what its tables are called, and their columns.
struct Scope {
    number: usize,
    names: Vec<String>,
    columns: BTreeSet<String>,
}

/// Finds them: the number of the SELECT and what the table is called there.
struct Look<'a> {
    columns_of: ColumnsOf<'a>,
    scopes: Vec<Scope>,
    count: usize,
    found: BTreeSet<(usize, String)>,
}

impl Visitor for Look<'_> {
    type Break = ();
    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        let columns = tables(select).filter_map(|table| match table {
            TableFactor::Table { name, .. } => (self.columns_of)(name),
            _ => None,
        });
        let (columns, names) = (columns.flatten().collect(), tables(select).filter_map(called).collect());
        self.scopes.push(Scope { number: self.count, names, columns });
        self.count += 1;
        ControlFlow::Continue(())
    }
    fn post_visit_select(&mut self, _: &Select) -> ControlFlow<()> {
        self.scopes.pop();
        ControlFlow::Continue(())
    }
    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Expr::CompoundIdentifier(parts) = expr
            && let [table, _] = parts.as_slice()
        {
            let table = fold(table);
            let of = self.scopes.iter().rposition(|scope| scope.names.contains(&table));
            if let Some(of) = of
                && self.scopes[of + 1..].iter().any(|scope| scope.columns.contains(&table))
            {
                self.found.insert((self.scopes[of].number, table));
            }
        }
        ControlFlow::Continue(())
    }
}

fn other_name(name: &str) -> Ident {
    Ident::with_quote('"', format!("{name} table"))
}

struct Rename {
    found: BTreeSet<(usize, String)>,
    count: usize,
}

impl Rename {
    fn of(&self, number: usize) -> Vec<String> {
        self.found.iter().filter(|(of, _)| *of == number).map(|(_, name)| name.clone()).collect()
    }
}

impl VisitorMut for Rename {
    type Break = ();
    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        // What orders a SELECT stands outside of it; the next that is counted is that SELECT.
        if let (None, SetExpr::Select(_), Some(order)) = (&query.with, &*query.body, &mut query.order_by) {
            for name in self.of(self.count) {
                let _ = VisitMut::visit(order, &mut Mentions { name, hidden: 0 });
            }
        }
        ControlFlow::Continue(())
    }
    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        for name in self.of(self.count) {
            for from in &mut select.from {
                let joined = from.joins.iter_mut().map(|join| &mut join.relation);
                for table in std::iter::once(&mut from.relation).chain(joined) {
                    if called(table).as_ref() != Some(&name) {
                        continue;
                    }
                    match table {
                        TableFactor::Table { alias: Some(alias), .. }
                        | TableFactor::Derived { alias: Some(alias), .. } => {
                            alias.name = other_name(&name);
                        }
                        TableFactor::Table { alias, .. } => {
                            let name = other_name(&name);
                            *alias = Some(TableAlias { explicit: true, name, columns: Vec::new(), at: None });
                        }
                        _ => {}
                    }
                }
            }
            for item in &mut select.projection {
                if let SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(of), _) = item
                    && of.0.len() == 1
                    && of.0[0].as_ident().map(fold).as_ref() == Some(&name)
                {
                    *of = ObjectName::from(vec![other_name(&name)]);
                }
            }
            let _ = VisitMut::visit(select, &mut Mentions { name, hidden: 0 });
        }
        self.count += 1;
        ControlFlow::Continue(())
    }
}

/// Renames what mentions a table, but where another has its name.
struct Mentions {
    name: String,
    hidden: usize,
}

impl Mentions {
    fn hides(&self, select: &Select) -> bool {
        tables(select).filter_map(called).any(|name| name == self.name)
    }
}

impl VisitorMut for Mentions {
    type Break = ();
    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        self.hidden += usize::from(self.hides(select));
        ControlFlow::Continue(())
    }
    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        self.hidden -= usize::from(self.hides(select));
        ControlFlow::Continue(())
    }
    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::CompoundIdentifier(parts) = expr
            && self.hidden == 0
            && parts.len() == 2
            && fold(&parts[0]) == self.name
        {
            parts[0] = other_name(&self.name);
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_renamed_where_a_column_within_has_its_name() {
        let columns = |name: &ObjectName| (name.to_string() == "b").then(|| vec!["id".to_owned(), "y".to_owned()]);
        for (asked, told) in [
            (
                "SELECT y.*, y.id FROM a AS y WHERE EXISTS (SELECT 1 FROM b AS q WHERE q.id = y.id) ORDER BY y.id",
                "SELECT \"y table\".*, \"y table\".id FROM a AS \"y table\" WHERE EXISTS (SELECT 1 FROM b AS q WHERE \
                 q.id = \"y table\".id) ORDER BY \"y table\".id",
            ),
            // Within, another has the name; nothing within has it as a column; nothing mentions it.
            ("SELECT 1 FROM a AS y WHERE EXISTS (SELECT 1 FROM b AS y WHERE y.id = 1)", ""),
            ("SELECT 1 FROM a AS x WHERE EXISTS (SELECT 1 FROM b WHERE b.id = x.id)", ""),
            ("SELECT 1 FROM a AS y WHERE EXISTS (SELECT 1 FROM b WHERE b.y = 1)", ""),
        ] {
            let mut statement = super::super::parse(asked).unwrap().pop().unwrap().0;
            tell_apart(&mut statement, &columns);
            assert_eq!(statement.to_string(), if told.is_empty() { asked } else { told });
        }
    }
}
