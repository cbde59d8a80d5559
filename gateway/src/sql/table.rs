//! A table as DataFusion sees it: a provider that pushes down, and the scan that fetches, verifies and decrypts.
//!
//! Copies     of a table and its indexes, the copy is read whose sort key says most of the filters.
//! Own writes a table that the transaction has changed is read whole, and what was changed laid over it.
//! Memory     rows go through in the portions in which they are verified; a limit ends the scan after the portion that fills it.
//! Order      that of a key, from either end.
//! Never      statistics: DataFusion would answer COUNT from them, without a proof.
//! Source     DESIGN section 10

use super::catalog::{Catalog, TableDef};
use super::filter::{self, Pushed};
use super::proofs::Proofs;
use super::types;
use super::work::{Over, Work};
use crate::pins::Pin;
use crate::store::{self, Portion, Portions, Store};
use async_trait::async_trait;
use datafusion::arrow::array::{RecordBatch, RecordBatchOptions, new_null_array};
use datafusion::arrow::compute::{SortOptions, filter_record_batch};
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::cast::as_boolean_array;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Constraint, Constraints, DFSchema, DataFusionError, Result};
use datafusion::datasource::{TableProvider, TableType};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::sort_pushdown::SortOrderPushdownResult;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use fluence_client::{ColumnType, Direction, KeyRange};
use futures::stream::BoxStream;
use futures::{StreamExt, TryFutureExt, TryStreamExt};
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

/// A table of one transaction.
pub(crate) struct FluenceTable {
    pub(crate) def: Arc<TableDef>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) work: Arc<Work>,
    /// The sealed schemas by name.
    pub(crate) physical: Arc<Catalog>,
    pub(crate) proofs: Arc<Proofs>,
    /// Whether columns that SQL does not show are there too, as a statement that rewrites rows needs them.
    hidden: bool,
    /// Whether anything is pushed down; tests compare both.
    pushdown: bool,
    /// Whether groups are asked about one by one.
    grouping: bool,
    schema: SchemaRef,
    /// That its primary key is one: what is grouped by it may show all columns.
    constraints: Constraints,
}

impl fmt::Debug for FluenceTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FluenceTable({:?})", self.def.name)
    }
}

/// The copy of a table that a scan reads.
struct Copy<'a> {
    physical: &'a str,
    key: Vec<String>,
}

/// A copy that answers a proven request.
pub(crate) struct Candidate {
    /// Its sealed table.
    pub(crate) physical: String,
    /// The range that the filters say.
    pub(crate) range: KeyRange,
    /// The leading key columns that tell groups apart.
    pub(crate) prefix: Vec<String>,
}

impl FluenceTable {
    pub(crate) fn new(
        def: Arc<TableDef>,
        store: Arc<dyn Store>,
        work: Arc<Work>,
        physical: Arc<Catalog>,
        proofs: Arc<Proofs>,
        hidden: bool,
        pushdown: bool,
    ) -> Self {
        let schema = def.arrow(hidden);
        let column = |key: &String| def.columns.iter().filter(|c| hidden || !c.hidden).position(|c| c.physical == *key);
        let key: Option<Vec<usize>> = def.primary.then(|| def.key.iter().map(column).collect()).flatten();
        let constraints = Constraints::new_unverified(key.into_iter().map(Constraint::PrimaryKey).collect());
        Self { def, store, work, physical, proofs, hidden, pushdown, grouping: true, schema, constraints }
    }

    /// The same, of which groups are made from rows.
    pub(crate) fn ungrouped(&self) -> Self {
        Self {
            def: Arc::clone(&self.def),
            store: Arc::clone(&self.store),
            work: Arc::clone(&self.work),
            physical: Arc::clone(&self.physical),
            proofs: Arc::clone(&self.proofs),
            schema: Arc::clone(&self.schema),
            constraints: self.constraints.clone(),
            grouping: false,
            ..*self
        }
    }

    /// The copy that serves `filters` best, and what it says of them. Of equals, the first.
    fn best(&self, filters: &[&Expr]) -> (Copy<'_>, Pushed) {
        let mut best: Option<(Copy<'_>, Pushed)> = None;
        for (physical, key) in self.def.copies() {
            let copy = Copy { physical, key };
            let filters: &[&Expr] = if self.pushdown { filters } else { &[] };
            let pushed = filter::push(&self.def, &copy.key, filters);
            if best.as_ref().is_none_or(|(_, b)| pushed.depth > b.depth) {
                best = Some((copy, pushed));
            }
        }
        best.expect("a table is its own first copy")
    }

    /// The copies and ranges that say all of `filters` exactly and hold each group of equal columns together, the one that narrows most
    /// first; none where something was changed that a node does not know. Groups are columns by their place.
    pub(crate) fn candidates(&self, filters: &[Expr], groups: &[usize]) -> Vec<Candidate> {
        if !self.pushdown || !self.work.delta(&self.def.physical).is_empty() || !groups.is_empty() && !self.grouping {
            return Vec::new();
        }
        let filters: Vec<&Expr> = filters.iter().collect();
        let mut found = Vec::new();
        for (physical, key) in self.def.copies() {
            let pushed = filter::push(&self.def, &key, &filters);
            let ([range], true) = (pushed.ranges.as_slice(), pushed.exact.iter().all(|e| *e)) else { continue };
            let Some(prefix) = self.prefix(&key, groups, pushed.depth) else { continue };
            found.push((pushed.depth, Candidate { physical: physical.to_owned(), range: range.clone(), prefix }));
        }
        found.sort_by_key(|(depth, _)| std::cmp::Reverse(*depth));
        found.into_iter().map(|(_, candidate)| candidate).collect()
    }

    /// The leading key columns that tell groups apart: each is grouped by, or one of the first that filters hold equal. All that the range
    /// speaks of are among them, so that a group lies in the range whole.
    fn prefix(&self, key: &[String], groups: &[usize], (held, bounded): (usize, bool)) -> Option<Vec<String>> {
        let column = |name: &String| self.def.place(name);
        let mut end = if groups.is_empty() { 0 } else { held + usize::from(bounded) };
        for group in groups {
            let at = key.iter().position(|k| column(k) == Some(*group))?;
            // The order of floats in a key tells -0 from 0, which are one group.
            if self.def.columns[*group].ty == ColumnType::Float64 {
                return None;
            }
            end = end.max(at + 1);
        }
        let told = |at: usize| at < held || column(&key[at]).is_some_and(|c| groups.contains(&c));
        (0..end).all(told).then(|| key[..end].to_vec())
    }

    /// Places in the sealed schema of the columns that are shown here.
    fn places(&self) -> Vec<usize> {
        (0..self.def.columns.len()).filter(|i| self.hidden || !self.def.columns[*i].hidden).collect()
    }
}

#[async_trait]
impl TableProvider for FluenceTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn constraints(&self) -> Option<&Constraints> {
        Some(&self.constraints)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// Every filter of rows is done here, exactly: by the range where that can say it, else on the rows read; so a limit is known to the scan.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let done = |f: &&Expr| self.pushdown && filter::is_of_rows(f);
        Ok(filters
            .iter()
            .map(
                |f| if done(f) { TableProviderFilterPushDown::Exact } else { TableProviderFilterPushDown::Unsupported },
            )
            .collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let places = self.places();
        let columns: Vec<usize> = match projection {
            Some(projection) => projection.iter().map(|i| places[*i]).collect(),
            None => places,
        };
        let changed = !self.work.delta(&self.def.physical).is_empty();
        let (copy, pushed) = self.best(&filters.iter().collect::<Vec<_>>());
        // What the range does not say is evaluated on the rows; so is everything where the transaction's own rows are laid over them.
        let rest: Vec<Expr> = filters
            .iter()
            .enumerate()
            .filter(|(i, _)| changed || pushed.exact.get(*i) != Some(&true))
            .map(|(_, f)| f.clone())
            .collect();
        let residual = self.residual(state, rest)?;
        let (physical, ranges, ordered) = match changed {
            true => (self.def.physical.as_str(), vec![KeyRange::ALL], Vec::new()),
            false => (copy.physical, pushed.ranges, copy.key),
        };
        Ok(Arc::new(VerifiedScan::new(self, physical, ranges, columns, ordered, residual, limit, changed)))
    }
}

/// Filters that are evaluated on the rows read.
#[derive(Clone, Debug)]
struct Residual {
    text: String,
    /// Over all columns of the sealed schema.
    predicate: Arc<dyn PhysicalExpr>,
    /// Places of the columns that it reads.
    reads: Vec<usize>,
}

impl FluenceTable {
    fn residual(&self, state: &dyn Session, filters: Vec<Expr>) -> Result<Option<Residual>> {
        let bare = |e: Expr| {
            e.transform(|e| {
                Ok(match e {
                    Expr::Column(c) => {
                        Transformed::yes(Expr::Column(datafusion::common::Column::new_unqualified(c.name)))
                    }
                    other => Transformed::no(other),
                })
            })
        };
        let filters = filters.into_iter().map(|f| bare(f).map(|t| t.data)).collect::<Result<Vec<_>>>()?;
        let Some(all) = conjunction(filters) else { return Ok(None) };
        let schema = DFSchema::try_from(self.def.arrow(true))?;
        let text = all.to_string();
        let names = all.column_refs();
        let named = |i: &usize| names.iter().any(|c| c.name == self.def.columns[*i].name);
        let reads = (0..self.def.columns.len()).filter(named).collect();
        Ok(Some(Residual { text, predicate: state.create_physical_expr(all, &schema)?, reads }))
    }
}

/// Fetches a range's rows, verifies and decrypts them.
#[derive(Clone)]
struct VerifiedScan {
    def: Arc<TableDef>,
    store: Arc<dyn Store>,
    work: Arc<Work>,
    physical: String,
    /// In key order, apart from each other.
    ranges: Vec<KeyRange>,
    /// Places in the sealed schema.
    columns: Vec<usize>,
    residual: Option<Residual>,
    /// Rows given at most: of those that the filters leave.
    limit: Option<usize>,
    direction: Direction,
    /// Whether the transaction's own changes are laid over it.
    changed: bool,
    /// Whether another copy may be read instead.
    pushdown: bool,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
}

/// How many leading key columns have one value in all rows of the ranges.
fn held(ranges: &[KeyRange]) -> usize {
    let [first, others @ ..] = ranges else { return 0 };
    // Of several ranges the lower ends are compared too: what a range holds, its lower end says.
    let values = |range: &KeyRange| match &range.lower {
        Bound::Included(v) | Bound::Excluded(v) => v.clone(),
        Bound::Unbounded => Vec::new(),
    };
    let start = values(first);
    others.iter().fold(first.held(), |held, range| {
        let same = start.iter().zip(values(range)).take_while(|(a, b)| *a == b).count();
        held.min(range.held()).min(same)
    })
}

/// What the planner knows of a scan: rows come in the order of the copy's key, or against it, as far as its columns are read. Columns that are
/// `held` equal say nothing of the order, and may be left out of it.
fn properties(
    def: &TableDef,
    columns: &[usize],
    schema: &SchemaRef,
    key: &[String],
    held: usize,
    direction: Direction,
) -> Arc<PlanProperties> {
    let backwards = direction == Direction::Backwards;
    let options = SortOptions { descending: backwards, nulls_first: !backwards };
    let ordering = |key: &[String]| {
        let at = |key: &String| columns.iter().position(|c| def.columns[*c].physical == *key);
        let places = key.iter().map(at).take_while(Option::is_some).flatten();
        let sort = |at: usize| {
            let expr: Arc<dyn PhysicalExpr> = Arc::new(Column::new(schema.field(at).name(), at));
            PhysicalSortExpr::new(expr, options)
        };
        places.map(sort).collect::<Vec<_>>()
    };
    let rest = (held > 0).then(|| ordering(key.get(held..).unwrap_or_default()));
    let orderings = [ordering(key)].into_iter().chain(rest).filter(|o| !o.is_empty());
    Arc::new(PlanProperties::new(
        EquivalenceProperties::new_with_orderings(Arc::clone(schema), orderings),
        Partitioning::UnknownPartitioning(1),
        EmissionType::Incremental,
        Boundedness::Bounded,
    ))
}

impl VerifiedScan {
    #[allow(clippy::too_many_arguments)]
    fn new(
        table: &FluenceTable,
        physical: &str,
        ranges: Vec<KeyRange>,
        columns: Vec<usize>,
        ordered: Vec<String>,
        residual: Option<Residual>,
        limit: Option<usize>,
        changed: bool,
    ) -> Self {
        let def = &table.def;
        let all = def.arrow(true);
        let schema = Arc::new(Schema::new(columns.iter().map(|c| all.field(*c).clone()).collect::<Vec<_>>()));
        let direction = Direction::Forwards;
        let properties = properties(def, &columns, &schema, &ordered, held(&ranges), direction);
        Self {
            def: Arc::clone(def),
            store: Arc::clone(&table.store),
            work: Arc::clone(&table.work),
            physical: physical.to_owned(),
            ranges,
            columns,
            residual,
            limit,
            direction,
            changed,
            pushdown: table.pushdown,
            schema,
            properties,
        }
    }

    /// Places of the columns to read: those asked for, and those that filters look at.
    fn reads(&self) -> Vec<usize> {
        if self.changed {
            return (0..self.def.columns.len()).collect();
        }
        let mut read = self.columns.clone();
        for place in self.residual.iter().flat_map(|r| &r.reads) {
            if !read.contains(place) {
                read.push(*place);
            }
        }
        if read.is_empty() {
            // A scan of no column, as COUNT(*) asks for, reads the key: some column must say how many rows there are.
            read.extend(self.def.place(&self.def.key[0]));
        }
        read
    }

    /// The rows as they come: of each portion what the filters leave, and no portion after the last row that is wanted.
    fn rows(self) -> BoxStream<'static, Result<RecordBatch>> {
        let read = self.reads();
        // A limit counts rows that filters leave, which the store does not know.
        let limit = self.limit.filter(|_| !self.changed && self.residual.is_none());
        let asked = store::Scan {
            ranges: self.ranges.clone(),
            columns: read.iter().map(|c| self.def.columns[*c].physical.clone()).collect(),
            limit: limit.map(|l| l as u64),
            direction: self.direction,
        };
        let over = self.changed.then(|| self.work.delta(&self.physical).laid_over());
        let (store, physical) = (Arc::clone(&self.store), self.physical.clone());
        let portions = async move { store.scan(&physical, &asked).await }.try_flatten_stream().fuse().boxed();
        let left = self.limit.unwrap_or(usize::MAX);
        let state =
            Rows { scan: self, read, portions, over, written: Vec::new().into_iter(), begun: None, left, pin: None };
        futures::stream::try_unfold(state, |mut state| async move {
            Ok::<_, DataFusionError>(state.next().await?.map(|batch| (batch, state)))
        })
        .boxed()
    }
}

/// A scan under way.
struct Rows {
    scan: VerifiedScan,
    read: Vec<usize>,
    portions: Portions,
    /// What the transaction has changed, until all that was there has passed.
    over: Option<Over>,
    written: std::vec::IntoIter<RecordBatch>,
    /// The range that the last portion was of.
    begun: Option<usize>,
    /// Rows that are still wanted.
    left: usize,
    /// From the second portion on.
    pin: Option<Pin>,
}

impl Rows {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        while self.left > 0 {
            if self.begun.is_some() && self.pin.is_none() {
                self.pin = Some(self.scan.work.pin(&self.scan.physical));
            }
            let batch = match self.portions.try_next().await? {
                Some(portion) => self.saw(portion)?,
                None => {
                    // What was written in the transaction comes after what was there.
                    if let Some(mut over) = self.over.take() {
                        self.written = over.rest().into_iter();
                    }
                    let Some(batch) = self.written.next() else { return Ok(None) };
                    Some(batch)
                }
            };
            let Some(batch) = batch.map(|batch| self.scan.shown(&self.read, batch)).transpose()? else { continue };
            let batch = batch.slice(0, self.left.min(batch.num_rows()));
            self.left -= batch.num_rows();
            if batch.num_rows() > 0 {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }

    /// Notes what a portion rests on, and gives its rows with what the transaction has changed of them.
    fn saw(&mut self, portion: Portion) -> Result<Option<RecordBatch>> {
        let Portion { range, rows, evidence } = portion;
        let VerifiedScan { work, physical, ranges, .. } = &self.scan;
        match ranges.get(range).filter(|_| self.begun != Some(range)) {
            Some(range) => work.saw(physical, range, &evidence, false)?,
            None => work.saw_more(physical, &evidence)?,
        }
        self.begun = Some(range);
        Ok(match &mut self.over {
            Some(over) => rows.and_then(|rows| over.pass(&rows)),
            None => rows,
        })
    }
}

impl VerifiedScan {
    /// Of rows that were read, those that the filters leave, in the columns asked for.
    fn shown(&self, read: &[usize], batch: RecordBatch) -> Result<RecordBatch> {
        let batch = self.recast(read, batch)?;
        let batch = match &self.residual {
            Some(residual) => self.kept(residual, read, batch)?,
            None => batch,
        };
        let at = |c: &usize| read.iter().position(|r| r == c).expect("it was read");
        let columns = self.columns.iter().map(|c| Arc::clone(batch.column(at(c)))).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }

    /// Sealed columns as what they are declared as. What changed hands under another declaration is refused, never cut.
    fn recast(&self, read: &[usize], batch: RecordBatch) -> Result<RecordBatch> {
        let as_sealed = |place: &usize| self.def.columns[*place].data_type() == self.def.columns[*place].ty.data_type();
        if read.iter().all(as_sealed) {
            return Ok(batch);
        }
        let columns = read
            .iter()
            .zip(batch.columns())
            .map(|(place, array)| Ok(types::recast(array, &self.def.columns[*place].data_type())?));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let fields = read.iter().map(|place| types::field_of(&self.def.columns[*place]).with_nullable(true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
    }

    /// The rows for which what is left of the filters is true.
    fn kept(&self, residual: &Residual, read: &[usize], batch: RecordBatch) -> Result<RecordBatch> {
        // The predicate names places among all columns; those that it does not read are NULL.
        let all = self.def.arrow(true);
        let fields: Vec<_> = all.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
        let schema = Arc::new(Schema::new(fields));
        let column = |place: usize| match read.iter().position(|r| *r == place) {
            Some(at) => Arc::clone(batch.column(at)),
            None => new_null_array(schema.field(place).data_type(), batch.num_rows()),
        };
        let whole = RecordBatch::try_new(Arc::clone(&schema), (0..schema.fields().len()).map(column).collect())?;
        let mask = residual.predicate.evaluate(&whole)?.into_array(batch.num_rows())?;
        Ok(filter_record_batch(&batch, as_boolean_array(&mask)?)?)
    }
}

impl fmt::Debug for VerifiedScan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifiedScan({:?})", self.physical)
    }
}

/// A range in words.
pub(crate) fn range_text(key: &[String], range: &KeyRange) -> String {
    let side = |values: &[fluence_client::Value]| values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let keys = |n: usize| key.iter().take(n).cloned().collect::<Vec<_>>().join(", ");
    let mut parts = Vec::new();
    match (&range.lower, &range.upper) {
        (Bound::Included(a), Bound::Included(b)) if a == b => {
            parts.push(format!("({}) = ({})", keys(a.len()), side(a)))
        }
        (lower, upper) => {
            match lower {
                Bound::Unbounded => {}
                Bound::Included(v) => parts.push(format!("({}) >= ({})", keys(v.len()), side(v))),
                Bound::Excluded(v) => parts.push(format!("({}) > ({})", keys(v.len()), side(v))),
            }
            match upper {
                Bound::Unbounded => {}
                Bound::Included(v) => parts.push(format!("({}) <= ({})", keys(v.len()), side(v))),
                Bound::Excluded(v) => parts.push(format!("({}) < ({})", keys(v.len()), side(v))),
            }
        }
    }
    if parts.is_empty() { "all".to_owned() } else { parts.join(" and ") }
}

impl DisplayAs for VerifiedScan {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.schema.fields().iter().map(|f| f.name().as_str()).collect();
        let key = self.def.indexes.iter().find(|i| i.physical == self.physical);
        let key = key.map_or(&self.def.key, |i| &i.columns);
        write!(f, "VerifiedScan: {}, columns=[{}]", self.physical, names.join(", "))?;
        match self.ranges.as_slice() {
            [range] => write!(f, ", range={}", range_text(key, range))?,
            [first, ..] => write!(f, ", {} ranges from {}", self.ranges.len(), range_text(key, first))?,
            [] => f.write_str(", range=none")?,
        }
        if let Some(residual) = &self.residual {
            write!(f, ", filter={}", residual.text)?;
        }
        if self.direction == Direction::Backwards {
            f.write_str(", backwards")?;
        }
        if let Some(limit) = self.limit {
            write!(f, ", limit={limit}")?;
        }
        if self.changed { f.write_str(", with the transaction's own changes") } else { Ok(()) }
    }
}

impl ExecutionPlan for VerifiedScan {
    fn name(&self) -> &'static str {
        "VerifiedScan"
    }
    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }
    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }
    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }
    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }
    fn fetch(&self) -> Option<usize> {
        self.limit
    }
    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn ExecutionPlan>> {
        Some(Arc::new(Self { limit, ..self.clone() }))
    }
    /// Rows are read in the order asked for where a key has it, from either end. A table that is read whole is read from the copy that has it.
    fn try_pushdown_sort(&self, order: &[PhysicalSortExpr]) -> Result<SortOrderPushdownResult<Arc<dyn ExecutionPlan>>> {
        if !self.pushdown || self.changed {
            return Ok(SortOrderPushdownResult::Unsupported);
        }
        let mut copies = self.def.copies();
        // Of equals the one that is read already.
        copies.sort_by_key(|(physical, _)| *physical != self.physical);
        copies.truncate(if self.ranges == [KeyRange::ALL] { copies.len() } else { 1 });
        for (physical, key) in copies {
            let held = held(&self.ranges);
            let Some(direction) = self.order_of(&key, held, order) else { continue };
            let properties = properties(&self.def, &self.columns, &self.schema, &key, held, direction);
            let inner = Self { physical: physical.to_owned(), properties, direction, ..self.clone() };
            return Ok(SortOrderPushdownResult::Exact { inner: Arc::new(inner) });
        }
        Ok(SortOrderPushdownResult::Unsupported)
    }
    fn execute(&self, _: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), self.clone().rows())))
    }
}

impl VerifiedScan {
    /// The direction in which a key has the order asked for.
    fn order_of(&self, key: &[String], held: usize, order: &[PhysicalSortExpr]) -> Option<Direction> {
        let (equal, mut key) = (key.get(..held)?, key.get(held..)?.iter());
        let mut direction = None;
        for sort in order {
            let at = sort.expr.downcast_ref::<Column>()?.index();
            let column = &self.def.columns[*self.columns.get(at)?];
            if equal.contains(&column.physical) {
                continue;
            }
            let own = if sort.options.descending { Direction::Backwards } else { Direction::Forwards };
            // NULL sorts first in a key, so last against it; the order of floats there tells -0 from 0.
            let nulls = !column.nullable || sort.options.nulls_first != sort.options.descending;
            let same = key.next() == Some(&column.physical) && nulls && column.ty != ColumnType::Float64;
            if !same || direction.is_some_and(|d| d != own) {
                return None;
            }
            direction = Some(own);
        }
        Some(direction.unwrap_or(self.direction))
    }
}
