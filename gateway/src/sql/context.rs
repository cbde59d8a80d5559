//! A session's planner: DataFusion, set up as PostgreSQL is, with the session's catalogue and transaction behind its tables.

use super::aggregate::AggregatePushdown;
use super::catalog::Catalog;
use super::proofs::{self, Proofs};
use super::settings::Settings;
use super::system::{Objects, System, constants, functions, oids};
use super::table::FluenceTable;
use super::work::Work;
use crate::error::SqlError;
use crate::store::Store;
use async_trait::async_trait;
use datafusion::arrow::datatypes::DataType;
use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, SchemaProvider};
use datafusion::common::{DataFusionError, Result};
use datafusion::datasource::{TableProvider, TableType, ViewTable};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::scalar::ScalarValue;
use datafusion_pg_catalog::pg_catalog::context::EmptyContextProvider;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

/// The schema that tables are in.
pub(crate) const SCHEMA: &str = "public";
/// The schema of PostgreSQL's own tables, and that of the standard's.
const SYSTEM: &str = "pg_catalog";
const INFORMATION: &str = "information_schema";
/// A schema in which they are shown with all columns, for statements that rewrite rows.
pub(crate) const WHOLE: &str = "fluence_whole";

/// What the planner's tables are made from; replaced as transactions begin and end.
#[derive(Clone)]
pub(crate) struct Current {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) work: Arc<Work>,
}

/// Shared by a session and its planner.
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) pushdown: bool,
    /// The succinct proofs of its answers.
    pub(crate) proofs: Arc<Proofs>,
    /// What the client calls the database.
    pub(crate) database: String,
    current: Mutex<Current>,
    /// What the session has chosen, as it last planned.
    settings: Mutex<Settings>,
    /// What a statement has set by `set_config`: name, value, and whether it ends with the transaction.
    wishes: Mutex<Vec<(String, String, bool)>>,
    /// What a statement has set by `setval`: sequences, and what each gives next.
    numbers: Mutex<Vec<(String, i64)>>,
    /// What has an OID, of the catalogue that was asked for last.
    objects: Mutex<Option<(Arc<Catalog>, Arc<Objects>)>>,
    state: OnceLock<Weak<parking::State>>,
}

/// How DataFusion holds a context's state.
mod parking {
    pub(super) type State = parking_lot::RwLock<super::SessionState>;
}

impl Shared {
    pub(crate) fn get(&self) -> Current {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    pub(crate) fn set(&self, current: Current) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = current;
    }
    /// What the session has chosen.
    pub(crate) fn settings(&self) -> Settings {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    /// Notes what the session has chosen.
    pub(crate) fn choose(&self, settings: &Settings) {
        let mut known = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        if *known != *settings {
            *known = settings.clone();
        }
    }
    /// Sets one for the session, once the statement has run.
    ///
    /// # Errors
    /// [`SqlError`] for what cannot be had.
    pub(crate) fn wish(&self, name: &str, value: &str, local: bool) -> Result<(), SqlError> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).put(name.to_owned(), value.to_owned())?;
        let mut wishes = self.wishes.lock().unwrap_or_else(PoisonError::into_inner);
        wishes.push((name.to_owned(), value.to_owned(), local));
        Ok(())
    }
    /// What was set so since it was last asked.
    pub(crate) fn take_wishes(&self) -> Vec<(String, String, bool)> {
        std::mem::take(&mut *self.wishes.lock().unwrap_or_else(PoisonError::into_inner))
    }
    /// Has a sequence go on with a number, once the statement has run.
    pub(crate) fn wish_number(&self, sequence: String, next: i64) {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner).push((sequence, next));
    }
    /// What was set so since it was last asked.
    pub(crate) fn take_numbers(&self) -> Vec<(String, i64)> {
        std::mem::take(&mut *self.numbers.lock().unwrap_or_else(PoisonError::into_inner))
    }
    /// Everything of a catalogue that has an OID.
    pub(crate) fn objects(&self, catalog: &Arc<Catalog>) -> Arc<Objects> {
        let mut known = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        match &*known {
            Some((of, objects)) if Arc::ptr_eq(of, catalog) => Arc::clone(objects),
            _ => {
                let objects = Arc::new(Objects::of(catalog));
                *known = Some((Arc::clone(catalog), Arc::clone(&objects)));
                objects
            }
        }
    }
    /// The planner's state, as it is now.
    ///
    /// # Errors
    /// The session has ended.
    pub(crate) fn state(&self) -> Result<SessionState> {
        let state = self.state.get().and_then(Weak::upgrade);
        let state = state.ok_or_else(|| DataFusionError::Internal("the session has ended".to_owned()))?;
        Ok(state.read().clone())
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared")
    }
}

/// The tables of a schema.
#[derive(Debug)]
struct Tables {
    shared: Arc<Shared>,
    /// With the columns that SQL does not show.
    whole: bool,
}

#[async_trait]
impl SchemaProvider for Tables {
    fn table_names(&self) -> Vec<String> {
        let Current { catalog, .. } = self.shared.get();
        catalog.tables.keys().chain(catalog.views.keys()).cloned().collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let Current { catalog, work } = self.shared.get();
        if let Some(def) = catalog.tables.get(name) {
            let (store, pushdown) = (Arc::clone(&self.shared.store), self.shared.pushdown);
            let def = Arc::clone(def);
            let proofs = Arc::clone(&self.shared.proofs);
            return Ok(Some(Arc::new(FluenceTable::new(def, store, work, catalog, proofs, self.whole, pushdown))));
        }
        let Some(query) = catalog.views.get(name) else { return Ok(None) };
        let state = self.shared.state()?;
        let plan = super::arithmetic::settled(state.create_logical_plan(query).await?)?;
        Ok(Some(Arc::new(ViewTable::new(plan, Some(query.clone())))))
    }

    async fn table_type(&self, name: &str) -> Result<Option<TableType>> {
        let Current { catalog, .. } = self.shared.get();
        let view = catalog.views.contains_key(name).then_some(TableType::View);
        Ok(catalog.tables.contains_key(name).then_some(TableType::Base).or(view))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.shared.get().catalog.has(name)
    }
}

/// The one catalogue: `public`, and what describes it.
#[derive(Debug)]
struct OneCatalog {
    rest: MemoryCatalogProvider,
    shared: Arc<Shared>,
    public: Arc<Tables>,
    whole: Arc<Tables>,
}

impl OneCatalog {
    fn system(&self, rest: Option<Arc<dyn SchemaProvider>>) -> System {
        System { shared: Arc::clone(&self.shared), public: Arc::clone(&self.public) as _, rest }
    }
}

impl CatalogProvider for OneCatalog {
    fn schema_names(&self) -> Vec<String> {
        let mut names = self.rest.schema_names();
        names.extend([SCHEMA.to_owned(), INFORMATION.to_owned()]);
        names
    }
    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        match name {
            SCHEMA => Some(Arc::clone(&self.public) as _),
            WHOLE => Some(Arc::clone(&self.whole) as _),
            INFORMATION => Some(Arc::new(self.system(None))),
            SYSTEM => self.rest.schema(SYSTEM).map(|rest| Arc::new(self.system(Some(rest))) as _),
            other => self.rest.schema(other),
        }
    }
    fn register_schema(&self, name: &str, schema: Arc<dyn SchemaProvider>) -> Result<Option<Arc<dyn SchemaProvider>>> {
        self.rest.register_schema(name, schema)
    }
}

/// A planner for a session of `database`, which may take so many bytes.
///
/// # Errors
/// What setting it up says.
pub(crate) fn planner(
    database: &str,
    store: Arc<dyn Store>,
    current: Current,
    proofs: Arc<Proofs>,
    pushdown: bool,
    memory_bytes_max: usize,
) -> Result<(SessionContext, Arc<Shared>), SqlError> {
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema(database, SCHEMA)
        .with_create_default_catalog_and_schema(false)
        .with_target_partitions(2)
        .with_batch_size(8192);
    let options = config.options_mut();
    options.sql_parser.dialect = datafusion::config::Dialect::PostgreSQL;
    options.sql_parser.parse_float_as_decimal = true;
    options.sql_parser.map_string_types_to_utf8view = false;
    options.execution.time_zone = Some(fluence_client::value::TIMEZONE.to_owned());
    options.explain.show_schema = false;
    let pool = Arc::new(GreedyMemoryPool::new(memory_bytes_max));
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(pool).build_arc()?;
    let state = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_default_features()
        .with_optimizer_rule(Arc::new(AggregatePushdown))
        .build();
    let context = SessionContext::new_with_state(state);
    let database = database.to_owned();
    context.register_udf(proofs::last_proof(&proofs));
    let shared = Arc::new(Shared {
        store,
        pushdown,
        proofs,
        database: database.clone(),
        current: Mutex::new(current),
        settings: Mutex::default(),
        wishes: Mutex::default(),
        numbers: Mutex::default(),
        objects: Mutex::default(),
        state: OnceLock::new(),
    });
    let _ = shared.state.set(context.state_weak_ref());
    let tables = |whole| Arc::new(Tables { shared: Arc::clone(&shared), whole });
    let catalog = OneCatalog {
        rest: MemoryCatalogProvider::new(),
        shared: Arc::clone(&shared),
        public: tables(false),
        whole: tables(true),
    };
    context.register_catalog(&database, Arc::new(catalog));
    datafusion_pg_catalog::setup_pg_catalog(&context, &database, EmptyContextProvider)
        .map_err(|e| SqlError::from(*e))?;
    constants::register(&context);
    functions::register(&context, &shared);
    oids::register(&context, &shared);
    context.register_udf(version());
    context.register_udf(super::json::build_object());
    super::text::readers().for_each(|reader| context.register_udf(reader.as_ref().clone()));
    if let Some(variance) = context.state().aggregate_functions().get("var_samp") {
        context.register_udaf(variance.as_ref().clone().with_aliases(["variance"]));
    }
    Ok((context, shared))
}

/// `version()`, in the form that drivers read.
fn version() -> ScalarUDF {
    let run = |_: &[ColumnarValue]| {
        let text = concat!("PostgreSQL 15.0 (Fluence ", env!("CARGO_PKG_VERSION"), ")").to_owned();
        Ok(ColumnarValue::Scalar(ScalarValue::Utf8(Some(text))))
    };
    create_udf("version", Vec::new(), DataType::Utf8, Volatility::Stable, Arc::new(run))
}
