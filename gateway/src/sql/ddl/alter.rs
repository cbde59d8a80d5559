//! ALTER TABLE: what the object alone can say, and what copies the rows.

use super::super::catalog::{CheckDef, ColumnDef, IndexDef, ROW_ID, TableDef};
use super::super::types::declared;
use super::super::write::Cx;
use super::super::{context, fold, parse, quote, relation};
use super::{Declaration, NO_FOREIGN_KEYS, Notices, check_name, declaration, exists, plain, sealed};
use crate::error::{SqlError, SqlState};
use datafusion::sql::sqlparser::ast::{self, AlterColumnOperation, AlterTableOperation, Expr, TableConstraint};
use fluence_client::SumExpr;
use std::sync::Arc;

impl Cx<'_> {
    /// Does an ALTER TABLE. Gives the physical tables that hold nothing any more once it is committed.
    pub(crate) async fn alter_table(
        &self,
        alter: &ast::AlterTable,
        notices: &mut Notices,
    ) -> Result<Vec<String>, SqlError> {
        let name = relation(&alter.name)?;
        let mut cleared = Vec::new();
        for operation in &alter.operations {
            let old = match self.catalog().tables.get(&name) {
                Some(def) => Arc::clone(def),
                None if alter.if_exists => {
                    notices.push(format!("relation \"{name}\" does not exist, skipping"));
                    return Ok(cleared);
                }
                None => Arc::clone(self.catalog().table(&name)?),
            };
            let mut new = (*old).clone();
            match operation {
                AlterTableOperation::RenameTable { table_name } => {
                    let (ast::RenameTableNameKind::As(to) | ast::RenameTableNameKind::To(to)) = table_name;
                    new.name = relation(to)?;
                    check_name(&new.name)?;
                    if self.catalog().has(&new.name) {
                        return Err(exists(&new.name));
                    }
                    self.put_table(Some(&old), new).await?;
                }
                AlterTableOperation::RenameColumn { old_column_name, new_column_name } => {
                    let to = fold(new_column_name);
                    check_name(&to)?;
                    if new.visible().any(|c| c.name == to) {
                        return Err(SqlError::new(
                            SqlState::DuplicateColumn,
                            format!("column \"{to}\" already exists"),
                        ));
                    }
                    let from = fold(old_column_name);
                    column_mut(&mut new, &from)?.name = to;
                    not_in_checks(&new, &from)?;
                    self.put_table(Some(&old), new).await?;
                }
                AlterTableOperation::DropColumn { column_names, if_exists, .. } => {
                    for ident in column_names {
                        let column = fold(ident);
                        if *if_exists && new.column(&column).is_err() {
                            continue;
                        }
                        let physical = new.column(&column)?.physical.clone();
                        if new.key.contains(&physical) || new.indexes.iter().any(|i| i.columns.contains(&physical)) {
                            let why = format!("column \"{column}\" is part of a key or an index");
                            return Err(SqlError::unsupported(why).hint("drop the index first"));
                        }
                        not_in_checks(&new, &column)?;
                        let dropped = column_mut(&mut new, &column)?;
                        (dropped.hidden, dropped.default, dropped.identity) = (true, None, false);
                        dropped.name = format!("fluence_dropped_{physical}");
                    }
                    self.put_table(Some(&old), new).await?;
                }
                AlterTableOperation::AddColumn { column_def, if_not_exists, .. } => {
                    let Declaration { mut column, primary, unique, check } = declaration(column_def, notices)?;
                    if new.visible().any(|c| c.name == column.name) {
                        if *if_not_exists {
                            continue;
                        }
                        let why = format!("column \"{}\" of relation \"{name}\" already exists", column.name);
                        return Err(SqlError::new(SqlState::DuplicateColumn, why));
                    }
                    if primary || unique {
                        return Err(
                            SqlError::unsupported("a new column that is a key").hint("add the column, then the index")
                        );
                    }
                    while new.columns.iter().any(|c| c.physical == column.physical) {
                        column.physical.push('\'');
                    }
                    if let Some((check_name, expr)) = check {
                        let name = check_name.unwrap_or_else(|| format!("{name}_{}_check", column.name));
                        new.checks.push(CheckDef { name, expr });
                    }
                    if column.public
                        && let Some(row) = new.columns.iter_mut().find(|c| c.physical == ROW_ID)
                    {
                        row.public = true;
                    }
                    new.columns.push(column);
                    cleared.extend(self.rebuild(&old, new, None).await?);
                }
                AlterTableOperation::AlterColumn { column_name, op } => {
                    let column_name = fold(column_name);
                    let column = column_mut(&mut new, &column_name)?;
                    match op {
                        AlterColumnOperation::SetDefault { value } => column.default = Some(value.to_string()),
                        AlterColumnOperation::DropDefault => column.default = None,
                        AlterColumnOperation::SetNotNull => column.nullable = false,
                        AlterColumnOperation::DropNotNull => column.nullable = true,
                        AlterColumnOperation::SetDataType { data_type, using, .. } => {
                            let kind = declared(data_type)?;
                            (column.ty, column.sql, column.chars_max) = (kind.ty, kind.sql, kind.chars_max);
                            cleared.extend(self.rebuild(&old, new, using.as_ref().map(|u| (column_name, u))).await?);
                            continue;
                        }
                        AlterColumnOperation::AddGenerated { .. } => column.identity = true,
                    }
                    self.check_exprs(&new)?;
                    if matches!(op, AlterColumnOperation::SetNotNull | AlterColumnOperation::DropNotNull) {
                        cleared.extend(self.rebuild(&old, new, None).await?);
                    } else {
                        self.put_table(Some(&old), new).await?;
                    }
                }
                AlterTableOperation::AddConstraint { constraint, .. } => match constraint {
                    TableConstraint::Check(c) => {
                        let name = c.name.as_ref().map_or_else(|| format!("{name}_check{}", new.checks.len()), fold);
                        new.checks.push(CheckDef { name, expr: c.expr.to_string() });
                        self.check_exprs(&new)?;
                        self.check_rows(&new, &self.all_rows(&old).await?)?;
                        self.put_table(Some(&old), new).await?;
                    }
                    TableConstraint::ForeignKey(_) => notices.push(NO_FOREIGN_KEYS.to_owned()),
                    TableConstraint::Unique(u) => {
                        let columns = plain(&u.columns)?;
                        let index = u.name.as_ref().map_or_else(|| format!("{name}_{}_key", columns.join("_")), fold);
                        let text = format!(
                            "CREATE UNIQUE INDEX {} ON {} ({})",
                            quote(&index),
                            quote(&name),
                            columns.iter().map(|c| quote(c)).collect::<Vec<_>>().join(", ")
                        );
                        let Some(crate::sql::Statement(ast::Statement::CreateIndex(create))) = parse(&text)?.pop()
                        else {
                            return Err(SqlError::new(SqlState::InternalError, "an index"));
                        };
                        self.create_index(&create, notices).await?;
                    }
                    other => return Err(SqlError::unsupported(format!("ADD {other}"))),
                },
                AlterTableOperation::DropConstraint { name: constraint, if_exists, .. } => {
                    let constraint = fold(constraint);
                    let before = (new.checks.len(), new.indexes.len());
                    new.checks.retain(|c| c.name != constraint);
                    cleared.extend(new.indexes.iter().filter(|i| i.name == constraint).map(|i| i.physical.clone()));
                    new.indexes.retain(|i| i.name != constraint);
                    if before == (new.checks.len(), new.indexes.len()) {
                        if *if_exists {
                            continue;
                        }
                        let why = format!("constraint \"{constraint}\" of relation \"{name}\" does not exist");
                        return Err(SqlError::new(SqlState::UndefinedObject, why));
                    }
                    self.put_table(Some(&old), new).await?;
                }
                // Who owns a table is who has the keys.
                AlterTableOperation::OwnerTo { .. } => {}
                other => return Err(SqlError::unsupported(format!("ALTER TABLE .. {other}"))),
            }
        }
        Ok(cleared)
    }

    /// Copies a table's rows into a new physical table that has `new`'s columns.
    async fn rebuild(
        &self,
        old: &TableDef,
        mut new: TableDef,
        using: Option<(String, &Expr)>,
    ) -> Result<Vec<String>, SqlError> {
        self.check_exprs(&new)?;
        self.own_tables().await?;
        let mut items = Vec::new();
        for column in &new.columns {
            let name = quote(&column.name);
            let value = match old.columns.iter().find(|c| c.physical == column.physical) {
                Some(_) => match &using {
                    Some((changed, expr)) if *changed == column.name => format!("({expr})"),
                    _ => name.clone(),
                },
                None => column.default.clone().map_or_else(|| "NULL".to_owned(), |d| format!("({d})")),
            };
            let ty = crate::sql::types::cast_name(&column.data_type()).expect("every column's type has a name");
            items.push(format!("CAST({value} AS {ty}) AS {name}"));
        }
        let text = format!("SELECT {} FROM {}.{}", items.join(", "), context::WHOLE, quote(&old.name));
        let rows = self.collect_text(&text).await?;
        for column in &mut new.columns {
            let before = old.columns.iter().find(|c| c.physical == column.physical && c.identity);
            column.sequence = before.filter(|_| column.identity).map(|c| old.sequence(c));
        }
        new.physical = self.free_physical(&new.name).await?;
        let mut cleared = vec![old.physical.clone()];
        self.make_physical(sealed(&new, &new.physical, &new.key, &self.sums_left(&old.physical, &new))?).await?;
        for index in std::mem::take(&mut new.indexes) {
            let sums = self.sums_left(&index.physical, &new);
            cleared.push(index.physical);
            let physical = self.free_physical(&format!("{}~{}", new.name, index.name)).await?;
            let mut key = index.columns.clone();
            key.extend(new.key.iter().filter(|k| !index.columns.contains(k)).cloned());
            self.make_physical(sealed(&new, &physical, &key, &sums)?).await?;
            new.indexes.push(IndexDef { physical, ..index });
        }
        if !old.physical.contains('~') {
            self.put_object(None, Some(("dropped", &old.physical, String::new()))).await?;
        }
        self.put_table(Some(old), new.clone()).await?;
        let shown = self.numbered(&new, rows).await?;
        self.apply(&new, Some(&shown), None).await?;
        Ok(cleared)
    }

    /// The sums that a sealed table declares, as far as the columns are still there and numbers.
    fn sums_left(&self, physical: &str, new: &TableDef) -> Vec<SumExpr> {
        let summable = |name: &str| new.place(name).is_some_and(|at| new.columns[at].ty.summable());
        let schema = self.catalog().physical.get(physical).cloned();
        let sums = schema.iter().flat_map(|s| s.sums()).filter(|sum| sum.columns().into_iter().all(summable));
        sums.cloned().collect()
    }
}

fn column_mut<'a>(def: &'a mut TableDef, name: &str) -> Result<&'a mut ColumnDef, SqlError> {
    def.column(name)?;
    Ok(def.columns.iter_mut().find(|c| !c.hidden && c.name == name).expect("found just above"))
}

/// Refuses to take a column's name from under a CHECK.
fn not_in_checks(def: &TableDef, column: &str) -> Result<(), SqlError> {
    let names = |expr: &str| expr.split(|c: char| !c.is_alphanumeric() && c != '_').any(|w| w == column);
    match def.checks.iter().find(|c| names(&c.expr)) {
        None => Ok(()),
        Some(check) => {
            let why = format!("constraint \"{}\" names column \"{column}\", so this change", check.name);
            Err(SqlError::unsupported(why).hint("drop the constraint first"))
        }
    }
}
