//! CREATE, ALTER, DROP: what changes the catalogue.
//!
//! How     a table's object is a row of `fluence_objects`, written in the transaction like any row, so that DDL is rolled back with the rest.
//!         Physical tables are made at once and cannot be removed; one that no object names is not shown. Their names end in `~n`, so that
//!         none is taken for a table that was imported.
//! Rows    a change that the sealed schema cannot follow (a new column, another type) copies the rows into a new physical table.
//! Said    at CREATE: what nodes will learn.
//! Rooms   `alter` ALTER TABLE
//! Source  DESIGN sections 3 and 10

mod alter;

use super::catalog::{self, Catalog, CheckDef, ColumnDef, IndexDef, OBJECTS, ROW_ID, TableDef};
use super::context::Current;
use super::types::{CHARS_MAX, SqlType, declared, sql_type_of};
use super::write::Cx;
use super::{fold, include, public, quote, relation};
use crate::error::{SqlError, SqlState};
use datafusion::arrow::array::{ArrayRef, RecordBatch, StringArray};
use datafusion::sql::sqlparser::ast::{
    self, ColumnOption, CreateTableOptions, Expr, GeneratedAs, IndexColumn, SqlOption, TableConstraint,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use fluence_client::schema::{NAME_BYTES_MAX, TableSchema};
use fluence_client::{Column, ColumnType, SumExpr};
use std::sync::Arc;

/// An expression from its text.
///
/// # Errors
/// [`SqlState::SyntaxError`].
pub(crate) fn parse_expr(text: &str) -> Result<Expr, SqlError> {
    Parser::new(&PostgreSqlDialect {})
        .try_with_sql(text)
        .and_then(|mut p| p.parse_expr())
        .map_err(|e| SqlError::new(SqlState::SyntaxError, e.to_string()))
}

/// What a DDL statement says beside its tag.
pub(crate) type Notices = Vec<String>;

/// A column as it is declared, with what its options make of the table.
struct Declaration {
    column: ColumnDef,
    primary: bool,
    unique: bool,
    check: Option<(Option<String>, String)>,
}

fn declaration(def: &ast::ColumnDef, notices: &mut Notices) -> Result<Declaration, SqlError> {
    let kind = declared(&def.data_type)?;
    let name = fold(&def.name);
    check_name(&name)?;
    notices.extend(kind.notice.map(|n| format!("column \"{name}\": {n}")));
    let mut column = ColumnDef {
        physical: name.clone(),
        name,
        ty: kind.ty,
        sql: kind.sql,
        nullable: !kind.serial,
        default: None,
        identity: kind.serial,
        chars_max: kind.chars_max,
        hidden: false,
        public: false,
        sequence: None,
    };
    let (mut primary, mut unique, mut check) = (false, false, None);
    for option in &def.options {
        match &option.option {
            ColumnOption::Collation(name) if public::is_public(name) => column.public = true,
            ColumnOption::Null | ColumnOption::Comment(_) | ColumnOption::Collation(_) => {}
            ColumnOption::NotNull => column.nullable = false,
            ColumnOption::Default(expr) => column.default = Some(expr.to_string()),
            ColumnOption::PrimaryKey(_) => (primary, column.nullable) = (true, false),
            ColumnOption::Unique(_) => unique = true,
            ColumnOption::Check(c) => check = Some((option.name.as_ref().map(fold), c.expr.to_string())),
            ColumnOption::Identity(_) => (column.identity, column.nullable) = (true, false),
            ColumnOption::Generated {
                generated_as: GeneratedAs::Always | GeneratedAs::ByDefault,
                generation_expr: None,
                ..
            } => {
                (column.identity, column.nullable) = (true, false);
            }
            ColumnOption::ForeignKey(_) => notices.push(NO_FOREIGN_KEYS.to_owned()),
            other => return Err(SqlError::unsupported(format!("column option {other}"))),
        }
    }
    if column.identity && column.ty != ColumnType::Int64 {
        return Err(SqlError::new(
            SqlState::InvalidParameter,
            "identity column type must be smallint, integer, or bigint",
        ));
    }
    Ok(Declaration { column, primary, unique, check })
}

const NO_FOREIGN_KEYS: &str = "foreign keys are not enforced";

fn check_name(name: &str) -> Result<(), SqlError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains('~') || name.starts_with("fluence_") {
        let shown: String = name.chars().take(40).collect();
        let why = format!(
            "\"{shown}\" cannot be a name: 1 to {NAME_BYTES_MAX} bytes, without ~, not beginning with fluence_"
        );
        return Err(SqlError::new(SqlState::InvalidName, why));
    }
    Ok(())
}

fn exists(name: &str) -> SqlError {
    SqlError::new(SqlState::DuplicateTable, format!("relation \"{name}\" already exists"))
}

/// Names of index columns, which must be columns.
fn plain(columns: &[IndexColumn]) -> Result<Vec<String>, SqlError> {
    let one = |c: &IndexColumn| match &c.column.expr {
        Expr::Identifier(ident) => Ok(fold(ident)),
        other => Err(SqlError::unsupported(format!("an index on the expression {other}"))),
    };
    columns.iter().map(one).collect()
}

/// The sealed schema of a table's copy, sorted by `key`, with sums of what was asked for and of every number but those of the primary key,
/// whose sum says nothing. An index is open where all it is sorted by is public: else the order of what everyone reads would tell the ranks
/// of what is sealed.
fn sealed(def: &TableDef, physical: &str, key: &[String], sums: &[SumExpr]) -> Result<TableSchema, SqlError> {
    let is_public = |name: &String| def.columns.iter().any(|c| c.physical == *name && c.public);
    let open = physical == def.physical || key.iter().all(is_public);
    let column = |c: &ColumnDef| Column {
        name: c.physical.clone(),
        ty: c.ty,
        nullable: c.nullable,
        public: open && c.public,
        bits: c.sql.bits(),
    };
    let columns: Vec<Column> = def.columns.iter().map(column).collect();
    let numbers = def.columns.iter().filter(|c| matches!(c.ty, ColumnType::Int64 | ColumnType::Decimal { .. }));
    let mut all: Vec<SumExpr> =
        numbers.filter(|c| !def.key.contains(&c.physical)).map(|c| SumExpr::Column(c.physical.clone())).collect();
    all.extend(sums.iter().cloned());
    let key: Vec<&str> = key.iter().map(String::as_str).collect();
    TableSchema::new(physical, columns.clone(), &key, all)
        // A table of very many columns keeps what was asked for.
        .or_else(|_| TableSchema::new(physical, columns, &key, sums.to_vec()))
        .map_err(|e| SqlError::new(SqlState::InvalidTableDefinition, e.to_string()))
}

/// Sums asked for by `WITH (sums = 'a*b, c*c')`.
fn sums_of(options: &CreateTableOptions) -> Result<Vec<SumExpr>, SqlError> {
    let CreateTableOptions::With(options) = options else { return Ok(Vec::new()) };
    let mut sums = Vec::new();
    for option in options {
        match option {
            SqlOption::KeyValue { key, value: Expr::Value(v) } if fold(key) == "sums" => {
                let text = v.clone().into_string().unwrap_or_default();
                for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
                    sums.push(part.parse().map_err(|e: fluence_client::schema::SchemaError| {
                        SqlError::new(SqlState::InvalidParameter, e.to_string())
                    })?);
                }
            }
            other => return Err(SqlError::unsupported(format!("table option {other}"))),
        }
    }
    Ok(sums)
}

impl Cx<'_> {
    pub(super) fn catalog(&self) -> Arc<Catalog> {
        self.shared.get().catalog
    }

    /// Makes the table of objects where there is none yet, and what goes with it.
    pub(super) async fn own_tables(&self) -> Result<(), SqlError> {
        let store = &self.shared.store;
        for schema in [catalog::objects_schema(), catalog::sequences_schema()] {
            if self.catalog().physical.contains_key(schema.name()) {
                continue;
            }
            let name = schema.name().to_owned();
            match store.create_table(schema.clone()).await {
                // Another gateway was faster.
                Err(error) if error.state == SqlState::DuplicateTable => {}
                other => other?,
            }
            self.edit(|catalog| drop(catalog.physical.insert(name, Arc::new(schema))));
        }
        if self.catalog().version.is_none() {
            let (_, evidence) =
                store.read(OBJECTS, &fluence_client::Select::range(fluence_client::KeyRange::ALL)).await?;
            self.edit(|catalog| catalog.version = Some(evidence.version));
        }
        Ok(())
    }

    /// Changes the catalogue that this transaction sees.
    fn edit(&self, change: impl FnOnce(&mut Catalog)) {
        let Current { catalog, work } = self.shared.get();
        let mut catalog = (*catalog).clone();
        change(&mut catalog);
        self.shared.set(Current { catalog: Arc::new(catalog), work });
    }

    /// Writes an object in place of another.
    pub(super) async fn put_object(
        &self,
        old: Option<(&str, &str, String)>,
        new: Option<(&str, &str, String)>,
    ) -> Result<(), SqlError> {
        self.own_tables().await?;
        let row = |(kind, name, body): (&str, &str, String)| {
            let text = |t: &str| Arc::new(StringArray::from(vec![t])) as ArrayRef;
            RecordBatch::try_new(catalog::objects_schema().arrow(), vec![text(kind), text(name), text(&body)])
                .expect("one row of the schema")
        };
        let Current { catalog, work } = self.shared.get();
        if let Some(version) = catalog.version {
            work.observe(OBJECTS, version, None)?;
        }
        work.write(OBJECTS, new.map(row), old.map(row));
        Ok(())
    }

    fn body(def: &TableDef) -> Result<String, SqlError> {
        serde_json::to_string(def).map_err(|e| SqlError::new(SqlState::InternalError, e.to_string()))
    }

    /// Writes a table's object in place of the one it had, and shows it.
    pub(super) async fn put_table(&self, old: Option<&TableDef>, new: TableDef) -> Result<(), SqlError> {
        let (old_body, new_body) = (old.map(Self::body).transpose()?, Self::body(&new)?);
        let had = match (old, &old_body) {
            // A table that was imported has no object yet.
            (Some(old), Some(body)) if old.physical.contains('~') || self.has_object(old).await? => {
                Some(("table", old.name.as_str(), body.clone()))
            }
            _ => None,
        };
        self.put_object(had, Some(("table", new.name.as_str(), new_body))).await?;
        let old_name = old.map(|o| o.name.clone());
        self.edit(|catalog| {
            old_name.map(|n| catalog.tables.remove(&n));
            catalog.tables.insert(new.name.clone(), Arc::new(new));
        });
        Ok(())
    }

    /// Whether an object speaks of a table.
    async fn has_object(&self, def: &TableDef) -> Result<bool, SqlError> {
        let schema = self.catalog().physical.get(&def.physical).cloned();
        Ok(schema.is_none_or(|s| TableDef::of_schema(&s) != *def))
    }

    pub(super) async fn make_physical(&self, schema: TableSchema) -> Result<(), SqlError> {
        self.shared.store.create_table(schema.clone()).await?;
        self.edit(|catalog| drop(catalog.physical.insert(schema.name().to_owned(), Arc::new(schema))));
        Ok(())
    }

    /// A name for a new physical table. What was made and rolled back is there still, and not in the catalogue.
    pub(super) async fn free_physical(&self, name: &str) -> Result<String, SqlError> {
        let there = self.shared.store.tables().await?;
        self.edit(|catalog| catalog.physical.extend(there.into_iter().map(|s| (s.name().to_owned(), s))));
        Ok(self.catalog().free_physical(name))
    }

    /// Does a CREATE TABLE. Gives how many rows an AS brought.
    pub(crate) async fn create_table(&self, create: &ast::CreateTable, notices: &mut Notices) -> Result<u64, SqlError> {
        let name = relation(&create.name)?;
        check_name(&name)?;
        if create.temporary || create.external || create.like.is_some() || create.inherits.is_some() {
            return Err(SqlError::unsupported("a table that is TEMPORARY, EXTERNAL, LIKE or INHERITS"));
        }
        if self.catalog().has(&name) {
            if create.if_not_exists {
                notices.push(format!("relation \"{name}\" already exists, skipping"));
                return Ok(0);
            }
            return Err(exists(&name));
        }
        let mut def = TableDef {
            physical: self.free_physical(&name).await?,
            name,
            columns: Vec::new(),
            key: Vec::new(),
            primary: false,
            checks: Vec::new(),
            indexes: Vec::new(),
        };
        let mut source = None;
        if let Some(query) = &create.query {
            let rows = self.plan_collect(ast::Statement::Query(query.clone())).await?;
            for field in rows.schema().fields() {
                def.columns.push(column_of(field)?);
            }
            source = Some(rows);
        }
        let mut uniques: Vec<(Option<String>, Vec<String>)> = Vec::new();
        let mut key: Vec<String> = Vec::new();
        for column in &create.columns {
            let Declaration { column, primary, unique, check } = declaration(column, notices)?;
            if primary {
                key.push(column.name.clone());
            }
            if unique {
                uniques.push((None, vec![column.name.clone()]));
            }
            if let Some((check_name, expr)) = check {
                let name = check_name.unwrap_or_else(|| format!("{}_{}_check", def.name, column.name));
                def.checks.push(CheckDef { name, expr });
            }
            if def.columns.iter().any(|c| c.name == column.name) {
                let why = format!("column \"{}\" specified more than once", column.name);
                return Err(SqlError::new(SqlState::DuplicateColumn, why));
            }
            def.columns.push(column);
        }
        for constraint in &create.constraints {
            match constraint {
                TableConstraint::PrimaryKey(pk) if key.is_empty() => key = plain(&pk.columns)?,
                TableConstraint::PrimaryKey(_) => {
                    let why = format!("multiple primary keys for table \"{}\" are not allowed", def.name);
                    return Err(SqlError::new(SqlState::InvalidTableDefinition, why));
                }
                TableConstraint::Unique(u) => uniques.push((u.name.as_ref().map(fold), plain(&u.columns)?)),
                TableConstraint::Check(c) => {
                    let name = c.name.as_ref().map_or_else(|| format!("{}_check{}", def.name, def.checks.len()), fold);
                    def.checks.push(CheckDef { name, expr: c.expr.to_string() });
                }
                TableConstraint::ForeignKey(_) => notices.push(NO_FOREIGN_KEYS.to_owned()),
                other => return Err(SqlError::unsupported(format!("constraint {other}"))),
            }
        }
        def.primary = !key.is_empty();
        if def.primary {
            for name in &key {
                let at = def.columns.iter().position(|c| c.name == *name);
                let at = at.ok_or_else(|| no_key_column(name))?;
                def.columns[at].nullable = false;
                def.key.push(def.columns[at].physical.clone());
            }
        } else {
            def.columns.push(row_id(def.columns.iter().any(|c| c.public)));
            def.key = vec![ROW_ID.to_owned()];
        }
        self.check_exprs(&def)?;
        let schema = sealed(&def, &def.physical, &def.key, &sums_of(&create.table_options)?)?;
        notices.push(learns(&schema));
        self.own_tables().await?;
        self.make_physical(schema).await?;
        for (name, columns) in uniques {
            let name = name.unwrap_or_else(|| format!("{}_{}_key", def.name, columns.join("_")));
            let index = self.make_index(&def, name, &columns, true, &[]).await?;
            def.indexes.push(index);
        }
        self.put_table(None, def.clone()).await?;
        match source {
            None => Ok(0),
            Some(rows) => {
                let rows = self.whole_rows(&def, &rows).await?;
                self.apply(&def, Some(&rows), None).await?;
                Ok(rows.num_rows() as u64)
            }
        }
    }

    /// Whether defaults and checks are expressions that can be evaluated.
    pub(super) fn check_exprs(&self, def: &TableDef) -> Result<(), SqlError> {
        use datafusion::common::{DFSchema, TableReference};
        let state = self.context.state();
        let schema = def.arrow(true);
        let schema = DFSchema::try_from_qualified_schema(TableReference::bare(def.name.as_str()), &schema)?;
        for check in &def.checks {
            state.create_logical_expr(&check.expr, &schema)?;
        }
        for default in def.columns.iter().filter_map(|c| c.default.as_ref()) {
            state.create_logical_expr(default, &DFSchema::empty())?;
        }
        Ok(())
    }

    async fn make_index(
        &self,
        def: &TableDef,
        name: String,
        columns: &[String],
        unique: bool,
        sums: &[SumExpr],
    ) -> Result<IndexDef, SqlError> {
        let catalog = self.catalog();
        let taken = catalog.has(&name)
            || catalog.tables.values().flat_map(|t| &t.indexes).chain(&def.indexes).any(|i| i.name == name);
        if taken {
            return Err(exists(&name));
        }
        let mut own = Vec::with_capacity(columns.len());
        for column in columns {
            own.push(def.column(column)?.physical.clone());
        }
        let mut key = own.clone();
        key.extend(def.key.iter().filter(|k| !own.contains(k)).cloned());
        let physical = self.free_physical(&format!("{}~{name}", def.name)).await?;
        self.make_physical(sealed(def, &physical, &key, sums)?).await?;
        Ok(IndexDef { name, physical, columns: own, unique })
    }

    /// Does a CREATE INDEX.
    pub(crate) async fn create_index(&self, create: &ast::CreateIndex, notices: &mut Notices) -> Result<(), SqlError> {
        let table = relation(&create.table_name)?;
        let old = Arc::clone(self.catalog().table(&table)?);
        if create.predicate.is_some() {
            return Err(SqlError::unsupported("a partial index"));
        }
        let columns = plain(&create.columns)?;
        let name = match &create.name {
            Some(name) => relation(name)?,
            None => format!("{table}_{}_idx", columns.join("_")),
        };
        if create.if_not_exists && old.indexes.iter().any(|i| i.name == name) {
            notices.push(format!("relation \"{name}\" already exists, skipping"));
            return Ok(());
        }
        let sums = include::sums(&old, &create.include)?;
        if sums.len() < create.include.len() {
            notices
                .push("an index holds every column of the table: INCLUDE adds nothing but sums of products".to_owned());
        }
        check_name(&name)?;
        self.own_tables().await?;
        let index = self.make_index(&old, name, &columns, create.unique, &sums).await?;
        let rows = self.all_rows(&old).await?;
        if create.unique {
            let rule =
                super::unique::Rule { name: index.name.clone(), columns: index.columns.clone(), copy: String::new() };
            let mut seen = std::collections::HashSet::new();
            for (row, key) in super::unique::keys_of(&old, &rule, &rows).into_iter().enumerate() {
                if key.is_some_and(|k| !seen.insert(k)) {
                    return Err(super::unique::violation(&old, &rule, &rows, row));
                }
            }
        }
        let Current { work, .. } = self.shared.get();
        work.write(&index.physical, Some(rows), None);
        let mut new = (*old).clone();
        new.indexes.push(index);
        self.put_table(Some(&old), new).await
    }

    /// Does a CREATE VIEW.
    pub(crate) async fn create_view(&self, create: &ast::CreateView) -> Result<(), SqlError> {
        let name = relation(&create.name)?;
        check_name(&name)?;
        if create.materialized || create.temporary {
            return Err(SqlError::unsupported("a view that is MATERIALIZED or TEMPORARY"));
        }
        let catalog = self.catalog();
        let old = catalog.views.get(&name).cloned();
        if catalog.tables.contains_key(&name) || old.is_some() && !create.or_replace {
            return Err(exists(&name));
        }
        let mut query = create.query.to_string();
        let plan = self.plan_query(&create.query).await?;
        if !create.columns.is_empty() {
            let fields = plan.schema().fields();
            if create.columns.len() > fields.len() {
                return Err(SqlError::new(
                    SqlState::SyntaxError,
                    "CREATE VIEW specifies more column names than columns",
                ));
            }
            let names: Vec<String> = create
                .columns
                .iter()
                .map(|c| quote(&fold(&c.name)))
                .chain(fields.iter().skip(create.columns.len()).map(|f| quote(f.name())))
                .collect();
            query = format!("SELECT * FROM ({query}) AS v({})", names.join(", "));
        }
        self.put_object(old.map(|body| ("view", name.as_str(), body)), Some(("view", &name, query.clone()))).await?;
        self.edit(|catalog| drop(catalog.views.insert(name, query)));
        Ok(())
    }

    /// Does a DROP. Gives the physical tables that hold nothing any more once it is committed.
    pub(crate) async fn drop_objects(
        &self,
        kind: ast::ObjectType,
        names: &[ast::ObjectName],
        if_exists: bool,
        notices: &mut Notices,
    ) -> Result<Vec<String>, SqlError> {
        let mut cleared = Vec::new();
        for name in names {
            let name = relation(name)?;
            let catalog = self.catalog();
            let missing = |notices: &mut Notices, what: &str| {
                let why = format!("{what} \"{name}\" does not exist");
                if if_exists {
                    notices.push(format!("{why}, skipping"));
                    Ok(())
                } else {
                    Err(SqlError::new(SqlState::UndefinedTable, why))
                }
            };
            match kind {
                ast::ObjectType::Table => match catalog.tables.get(&name) {
                    None => missing(notices, "table")?,
                    Some(def) => {
                        let had = self.has_object(def).await?;
                        let old = if had { Some(("table", name.as_str(), Self::body(def)?)) } else { None };
                        let new =
                            (!def.physical.contains('~')).then(|| ("dropped", def.physical.as_str(), String::new()));
                        self.put_object(old, new).await?;
                        cleared.push(def.physical.clone());
                        cleared.extend(def.indexes.iter().map(|i| i.physical.clone()));
                        self.edit(|catalog| drop(catalog.tables.remove(&name)));
                    }
                },
                ast::ObjectType::View => match catalog.views.get(&name) {
                    None => missing(notices, "view")?,
                    Some(body) => {
                        self.put_object(Some(("view", &name, body.clone())), None).await?;
                        self.edit(|catalog| drop(catalog.views.remove(&name)));
                    }
                },
                ast::ObjectType::Index => {
                    let owner = catalog.tables.values().find(|t| t.indexes.iter().any(|i| i.name == name)).cloned();
                    match owner {
                        None => missing(notices, "index")?,
                        Some(old) => {
                            let mut new = (*old).clone();
                            cleared.extend(old.indexes.iter().filter(|i| i.name == name).map(|i| i.physical.clone()));
                            new.indexes.retain(|i| i.name != name);
                            self.put_table(Some(&old), new).await?;
                        }
                    }
                }
                other => return Err(SqlError::unsupported(format!("DROP {other}"))),
            }
        }
        Ok(cleared)
    }
}

fn no_key_column(name: &str) -> SqlError {
    SqlError::new(SqlState::UndefinedColumn, format!("column \"{name}\" named in key does not exist"))
}

/// The column that keeps rows apart where no key does.
fn row_id(public: bool) -> ColumnDef {
    ColumnDef {
        name: ROW_ID.to_owned(),
        physical: ROW_ID.to_owned(),
        ty: ColumnType::Int64,
        sql: SqlType::Sealed,
        nullable: false,
        default: None,
        identity: false,
        chars_max: None,
        hidden: true,
        public,
        sequence: None,
    }
}

/// A column for what a query gives.
fn column_of(field: &datafusion::arrow::datatypes::Field) -> Result<ColumnDef, SqlError> {
    use datafusion::arrow::datatypes::DataType as T;
    let ty = match field.data_type() {
        T::Int8 | T::Int16 | T::Int32 | T::Int64 | T::UInt8 | T::UInt16 | T::UInt32 | T::UInt64 => ColumnType::Int64,
        T::Float16 | T::Float32 | T::Float64 => ColumnType::Float64,
        T::Utf8 | T::LargeUtf8 | T::Utf8View | T::Null => ColumnType::Text,
        T::Boolean => ColumnType::Bool,
        T::Date32 | T::Date64 => ColumnType::Date,
        T::Timestamp(..) => ColumnType::Timestamp,
        T::Binary | T::LargeBinary | T::BinaryView => ColumnType::Bytes,
        T::Decimal128(p, s) if *s >= 0 => {
            let max = fluence_client::value::DECIMAL_PRECISION_MAX;
            ColumnType::Decimal { precision: (*p).min(max), scale: (*s as u8).min(max) }
        }
        other => return Err(SqlError::unsupported(format!("a column of type {other}"))),
    };
    let name = field.name().clone();
    check_name(&name)?;
    Ok(ColumnDef {
        physical: name.clone(),
        name,
        ty,
        sql: sql_type_of(field),
        nullable: true,
        default: None,
        identity: false,
        chars_max: field.metadata().get(CHARS_MAX).and_then(|n| n.parse().ok()),
        hidden: false,
        public: false,
        sequence: None,
    })
}

/// What nodes learn of a table.
fn learns(schema: &TableSchema) -> String {
    let sums = schema.sum_lanes();
    let is_shown = |c: &&Column| c.public && c.name != ROW_ID;
    let public: Vec<&str> = schema.columns().iter().filter(is_shown).map(|c| c.name.as_str()).collect();
    let sealed = if public.is_empty() { "" } else { "of what is not public " };
    let mut said = format!(
        "nodes will learn that a table has {} columns and {sums} lanes of sums, its sizes and when it changes, and which positions are read; {sealed}no names, values or queries",
        schema.columns().len(),
    );
    if !public.is_empty() {
        let names = public.join(", ");
        said.push_str(&format!(
            ". PUBLIC: everyone who reaches a node reads {names}, and the table's name, key and row counts"
        ));
    }
    said
}

impl std::fmt::Debug for Cx<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cx")
    }
}
